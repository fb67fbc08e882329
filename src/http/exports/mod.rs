//! `GET /api/v1/exports/conversions|clicks`: rows as a file, as long as it takes.
//!
//! `docs/exports.md` describes it for those who call it. A file that breaks off is never ended: its client sees a broken
//! connection, and goes on after the last row that it got.

mod cursor;
mod input;

use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::{
    Method, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};

use self::input::Request;
use super::{
    client,
    error::{ApiError, ErrorCode},
    page::invalid,
    pipe::PipeReader,
    report::{self, report_error},
    response::{self, Answer},
    services::Services,
};
use crate::{
    core::{AccountId, BatchId, ExportFormat, ExportKey, ExportKind, ExportQuery, ExportRow, ReportError},
    report_slots::ReportPermit,
};

const X_EXPORT_CURSOR: HeaderName = HeaderName::from_static("x-export-cursor");
/// When to come back where others export: most exports take seconds.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(10);

/// An export that has begun.
pub struct Export {
    /// Its bytes.
    pub body: PipeReader,
    /// The last row of it, where it ends early since no more rows were asked for.
    pub next_after: Option<ExportKey>,
}

/// Why an export does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportError {
    /// The account has as many under way as it may have.
    AccountBusy,
    /// All accounts together have.
    Busy,
    /// The database fails.
    Report(ReportError),
}

/// Makes files of rows.
pub trait Exports: Send + Sync {
    /// The last batch of which, and of all before it, every row is in the database.
    fn settled(&self) -> BatchId;

    /// Where an account's row stands in the order of its export; none: there is no such row.
    fn position(
        &self,
        permit: ReportPermit,
        account: AccountId,
        row: ExportRow,
    ) -> BoxFuture<'_, Result<Option<ExportKey>, ReportError>>;

    /// Begins an export of at most so many rows. It has begun when its first bytes are there; the permit is theirs.
    fn start(
        &self,
        permit: ReportPermit,
        query: ExportQuery,
        format: ExportFormat,
        rows_max: Option<u64>,
    ) -> BoxFuture<'_, Result<Export, ExportError>>;
}

/// Answers with a file.
pub(super) async fn read<I, R>(
    services: &Services<I, R>,
    kind: ExportKind,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    // Only 1.1 has chunks, whose last one says that the file is whole.
    if head.version < Version::HTTP_11 {
        return Err(ErrorCode::HttpVersion.into());
    }
    let Request { format, limit, resumed, after, from, to } = Request::read(kind, head.uri.query())?;
    let mut query = resumed.map_or_else(
        || ExportQuery {
            account_id: account,
            kind,
            from: from.unwrap_or_default(),
            // What was accepted in this very millisecond belongs to it.
            to: to.unwrap_or_else(|| services.clock.now().plus(1)),
            batch: services.exports.settled(),
            after: None,
            until: None,
        },
        |cursor| cursor.query(account, kind),
    );
    if let Some(row) = after {
        let permit = report::permit(services, account).await?;
        let found = services.exports.position(permit, account, row).await.map_err(report_error)?;
        let unknown = || invalid("after", "`after` is the first column of a row of this export.".into());
        query.after = Some(found.ok_or_else(unknown)?);
    }
    let cursor = cursor::write(&query);
    if head.method == Method::HEAD {
        let mut answer = response::empty(StatusCode::OK);
        describe(&mut answer, &query, format, &cursor);
        return Ok(answer);
    }
    let permit = report::permit(services, account).await?;
    let export = services.exports.start(permit, query, format, limit).await.map_err(refusal)?;
    let mut answer = response::piped(content_type(format), export.body);
    describe(&mut answer, &query, format, &cursor);
    if let (Some(limit), Some(after)) = (limit, export.next_after) {
        let next = cursor::write(&ExportQuery { after: Some(after), ..query });
        let (kind, format) = (kind.as_str(), input::name(format));
        let link =
            format!("</api/v1/exports/{kind}?format={format}&limit={limit}&cursor={next}>; rel=\"next\"");
        answer.headers_mut().insert(header::LINK, ascii(&link));
    }
    Ok(answer)
}

/// The headers that every answer has, also one without a body.
fn describe(answer: &mut Answer, query: &ExportQuery, format: ExportFormat, cursor: &str) {
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type(format));
    let name = input::file_name(query, format);
    headers.insert(header::CONTENT_DISPOSITION, ascii(&format!("attachment; filename=\"{name}\"")));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_EXPORT_CURSOR, ascii(cursor));
}

fn content_type(format: ExportFormat) -> HeaderValue {
    HeaderValue::from_static(match format {
        ExportFormat::Csv => "text/csv; charset=utf-8; header=present",
        ExportFormat::Ndjson => "application/x-ndjson",
        ExportFormat::Parquet => "application/vnd.apache.parquet",
    })
}

fn refusal(error: ExportError) -> ApiError {
    match error {
        ExportError::AccountBusy => ApiError::new(ErrorCode::TooManyExports).after(BUSY_RETRY_AFTER),
        ExportError::Busy => ApiError::new(ErrorCode::Overloaded)
            .because("As many exports are under way as there may be; see Retry-After.")
            .after(BUSY_RETRY_AFTER),
        ExportError::Report(error) => report_error(error),
    }
}

/// Of names, numbers and base64 alone.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
