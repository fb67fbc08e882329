//! What an export is asked for by.

use jiff::{Timestamp, civil, tz::TimeZone};
use uuid::Uuid;

use super::cursor::{self, Cursor};
use crate::{
    core::{ConversionId, ExportFormat, ExportKind, ExportQuery, ExportRow, UnixMillis},
    http::{
        error::ApiError,
        fields,
        page::{Parameters, invalid},
        times,
    },
};

const PARAMETERS: [&str; 6] = ["format", "from", "to", "limit", "cursor", "after"];
/// Most rows of one page. A whole export has no bound.
const LIMIT_MAX: u64 = 1_000_000;

/// The parameters.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) format: ExportFormat,
    /// Most rows.
    pub(super) limit: Option<u64>,
    /// An earlier export, whose rows are meant.
    pub(super) resumed: Option<Cursor>,
    /// The last row that came of it.
    pub(super) after: Option<ExportRow>,
    /// The period's start, inclusive.
    pub(super) from: Option<UnixMillis>,
    /// Its end, exclusive.
    pub(super) to: Option<UnixMillis>,
}

impl Request {
    pub(super) fn read(kind: ExportKind, query: Option<&str>) -> Result<Self, ApiError> {
        let parameters = Parameters::read(query, &PARAMETERS)?;
        let format = parameters.text("format").map_or(Ok(ExportFormat::Csv), format)?;
        let limit = parameters.number("limit", 1..=LIMIT_MAX)?;
        let (from, to) = (instant(&parameters, "from")?, instant(&parameters, "to")?);
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(invalid("to", "`to` lies after `from`.".into()));
        }
        let resumed = parameters.text("cursor").map(|text| known(kind, text)).transpose()?;
        for (name, asked, had) in
            [("from", from, resumed.map(|cursor| cursor.from)), ("to", to, resumed.map(|cursor| cursor.to))]
        {
            if asked.is_some() && had.is_some() && asked != had {
                return Err(invalid(name, format!("`cursor` stands for another `{name}`; leave it out.")));
            }
        }
        let after = parameters.text("after").map(|text| row(kind, text)).transpose()?;
        if after.is_some() && resumed.is_none() {
            let message =
                "`after` goes with the `cursor` of the export that broke off, from its X-Export-Cursor.";
            return Err(invalid("cursor", message.into()));
        }
        Ok(Self { format, limit, resumed, after, from, to })
    }
}

/// A format's name, which is also the end of a file's.
pub(super) fn name(format: ExportFormat) -> &'static str {
    match format {
        ExportFormat::Csv => "csv",
        ExportFormat::Ndjson => "ndjson",
        ExportFormat::Parquet => "parquet",
    }
}

/// `conversions_2026-11-01_2026-11-30.csv`: first and last day, in UTC. Without a start, the last day alone.
pub(super) fn file_name(query: &ExportQuery, format: ExportFormat) -> String {
    let day = |at| times::timestamp(at).to_zoned_datetime(TimeZone::UTC).strftime("%Y-%m-%d").to_string();
    let (kind, last, end) = (query.kind.as_str(), day(query.to.plus(-1)), name(format));
    if query.from.0 <= 0 {
        return format!("{kind}_{last}.{end}");
    }
    format!("{kind}_{}_{last}.{end}", day(query.from))
}

fn format(text: &str) -> Result<ExportFormat, ApiError> {
    let known = [ExportFormat::Csv, ExportFormat::Ndjson, ExportFormat::Parquet];
    known
        .into_iter()
        .find(|format| name(*format) == text)
        .ok_or_else(|| invalid("format", "`format` is csv, ndjson or parquet.".into()))
}

/// An instant, or the start of a day in UTC.
fn instant(parameters: &Parameters, name: &'static str) -> Result<Option<UnixMillis>, ApiError> {
    let Some(text) = parameters.text(name) else { return Ok(None) };
    let day = |text: &str| text.parse::<civil::Date>().ok()?.to_zoned_datetime(TimeZone::UTC).ok();
    let at = match text.parse::<Timestamp>() {
        Ok(at) => Some(at),
        Err(_) => day(text).map(|day| day.timestamp()),
    };
    // The years that the database can hold: 1900 to 2299.
    let at =
        at.map(|at| UnixMillis(at.as_millisecond())).filter(|at| (0..10_413_792_000_000).contains(&at.0));
    let message = || {
        format!("`{name}` is a time such as 2026-11-01T12:00:00Z, or a day such as 2026-11-01, from 1970 on.")
    };
    at.map(Some).ok_or_else(|| invalid(name, message()))
}

fn known(kind: ExportKind, text: &str) -> Result<Cursor, ApiError> {
    let message = || "`cursor` is one that an export of this kind gave.".into();
    cursor::read(text).filter(|cursor| cursor.is_of(kind)).ok_or_else(|| invalid("cursor", message()))
}

fn row(kind: ExportKind, text: &str) -> Result<ExportRow, ApiError> {
    let row = match kind {
        ExportKind::Conversions => {
            Uuid::try_parse(text).ok().map(|id| ExportRow::Conversion(ConversionId(id)))
        }
        ExportKind::Clicks => fields::click_id(text).map(ExportRow::Click),
    };
    row.ok_or_else(|| invalid("after", "`after` is the first column of a row of this export.".into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::{AccountId, BatchId};

    fn read(query: &str) -> Result<Request, String> {
        Request::read(ExportKind::Clicks, Some(query)).map_err(|error| error.field.into_owned())
    }

    #[test]
    fn days_and_instants_bound_the_period() {
        let of =
            |query: &str| read(query).map(|request| (request.from.map(|at| at.0), request.to.map(|at| at.0)));
        assert_eq!(of(""), Ok((None, None)));
        let (day, later) = (1_793_491_200_000, 1_793_491_200_500);
        assert_eq!(of("from=2026-11-01&to=2026-11-01T01:00:00.5%2B01:00"), Ok((Some(day), Some(later))));
        for wrong in ["2026-11-31", "yesterday", "1969-12-31", "2300-01-01", "1793491200", "2026-11"] {
            assert_eq!(of(&format!("from={wrong}")), Err("from".into()), "{wrong}");
        }
        assert_eq!(of("from=2026-11-01&to=2026-11-01"), Err("to".into()));
    }

    #[test]
    fn a_cursor_brings_its_period() {
        let query = ExportQuery {
            account_id: AccountId(1),
            kind: ExportKind::Clicks,
            from: UnixMillis(1_793_491_200_000),
            to: UnixMillis(1_793_577_600_001),
            batch: BatchId(7),
            after: None,
            until: None,
        };
        let cursor = cursor::write(&query);
        let resumed = read(&format!("cursor={cursor}&from=2026-11-01&after=12&limit=5")).expect("fits");
        assert_eq!(resumed.resumed.map(|cursor| cursor.query(AccountId(1), ExportKind::Clicks)), Some(query));
        assert_eq!(read(&format!("cursor={cursor}&to=2026-11-02")).expect_err("another"), "to");
        assert_eq!(read("after=12").expect_err("alone"), "cursor");
        assert_eq!(read("cursor=x").expect_err("not one"), "cursor");
        assert_eq!(read(&format!("cursor={cursor}&after=x")).expect_err("not one"), "after");
        assert_eq!(file_name(&query, ExportFormat::Csv), "clicks_2026-11-01_2026-11-02.csv");
        assert_eq!(
            file_name(&ExportQuery { from: UnixMillis(0), ..query }, ExportFormat::Parquet),
            "clicks_2026-11-02.parquet"
        );
        let other = Request::read(ExportKind::Conversions, Some(&format!("cursor={cursor}")));
        assert_eq!(other.expect_err("of clicks").field, "cursor");
    }

    proptest! {
        #[test]
        fn any_query_is_answered(value in ".{0,40}", name in prop::sample::select(PARAMETERS.to_vec())) {
            let query = form_urlencoded::Serializer::new(String::new()).append_pair(name, &value).finish();
            let _ = (read(&query), Request::read(ExportKind::Conversions, Some(&query)));
        }
    }
}
