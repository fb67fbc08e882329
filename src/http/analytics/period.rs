//! The period that a report is about: `days`, or `from` and `to`, in `tz`.
//!
//! - `days=30`: the 30 calendar days that end with today; that is what is meant where nothing is said.
//! - `from` and `to`: each an instant as RFC 3339 writes it, or a date, which is a calendar day in `tz`. A period of dates
//!   ends with the whole of its last day; one of instants ends before its last instant.
//! - `tz`: an IANA time zone; UTC where none is given.
//!
//! Days start at local midnight, or where clocks go forward over midnight with the first moment that there is. The future
//! is left out: a period ends now at the latest.

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use serde::Serialize;

use crate::{
    core::UnixMillis,
    http::{
        error::{ApiError, ErrorCode},
        page::{Parameters, invalid},
        times,
    },
};

/// Days where nothing is said.
const DAYS_DEFAULT: u16 = 30;
/// Most days of a period.
pub(super) const DAYS_MAX: u16 = 400;
const DAY_MILLIS: i64 = 86_400_000;

/// A span of time that is not empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Period {
    /// Its first instant.
    pub(super) from: UnixMillis,
    /// The first instant after it: at most the one after now, since what was accepted in this very millisecond belongs to
    /// a period that ends now.
    pub(super) to: UnixMillis,
    /// Whose days are meant.
    pub(super) tz: TimeZone,
    now: UnixMillis,
}

/// A period as answers echo it.
#[derive(Serialize)]
pub(super) struct PeriodJson {
    from: String,
    to: String,
    days: u32,
    tz: String,
}

impl Period {
    /// The parameters that say which; an address that reads a period knows them.
    pub(super) const PARAMETERS: [&str; 4] = ["days", "from", "to", "tz"];

    /// The period that is asked for.
    pub(super) fn read(parameters: &Parameters, now: UnixMillis) -> Result<Self, ApiError> {
        let tz = time_zone(parameters.text("tz").unwrap_or("UTC"))?;
        let days = parameters.number("days", 1..=DAYS_MAX)?;
        match (parameters.text("from"), parameters.text("to")) {
            (None, None) => Self::rolling(days.unwrap_or(DAYS_DEFAULT), tz, now),
            (Some(_), None) => Err(invalid("to", "`from` needs `to` beside it.".into())),
            (None, Some(_)) => Err(invalid("from", "`to` needs `from` beside it.".into())),
            (Some(_), Some(_)) if days.is_some() => Err(invalid(
                "days",
                "A period is given by `days`, or by `from` and `to`, not by both.".into(),
            )),
            (Some(from), Some(to)) => Self::between(from, to, tz, now),
        }
    }

    /// How many calendar days it touches, from 1.
    pub(super) fn days(&self) -> u32 {
        let last = self.date_of(self.to.plus(-1));
        let days = self.date_of(self.from).until(last).map_or(0, |span| span.get_days());
        u32::try_from(days).unwrap_or(0).saturating_add(1)
    }

    /// The calendar day of an instant.
    pub(super) fn date_of(&self, at: UnixMillis) -> Date {
        times::timestamp(at).to_zoned_datetime(self.tz.clone()).date()
    }

    /// As answers show an instant of it.
    pub(super) fn shown(&self, at: UnixMillis) -> String {
        times::local(at, &self.tz)
    }

    /// A period around this one. One that ends now still ends now.
    pub(super) fn widened(&self, from: UnixMillis, to: UnixMillis) -> Self {
        let to = if self.to > self.now { self.to } else { to };
        Self { from, to, ..self.clone() }
    }

    /// As answers echo it.
    pub(super) fn json(&self) -> PeriodJson {
        PeriodJson {
            from: self.shown(self.from),
            to: self.shown(self.to.min(self.now)),
            days: self.days(),
            tz: self.tz.iana_name().unwrap_or("UTC").to_owned(),
        }
    }

    fn rolling(days: u16, tz: TimeZone, now: UnixMillis) -> Result<Self, ApiError> {
        let today = times::timestamp(now).to_zoned_datetime(tz.clone()).date();
        let first = today.checked_sub((i32::from(days) - 1).days()).ok();
        // Only a clock at the end of the calendar fails here.
        let from = first.and_then(|first| day_start(first, &tz)).ok_or(ErrorCode::Internal)?;
        Ok(Self { from, to: now.plus(1), tz, now })
    }

    fn between(from: &str, to: &str, tz: TimeZone, now: UnixMillis) -> Result<Self, ApiError> {
        let start = match Bound::read("from", from)? {
            Bound::Instant(at) => Some(at),
            Bound::Day(day) => day_start(day, &tz),
        };
        let end = match Bound::read("to", to)? {
            Bound::Instant(at) => at,
            // The last day of the calendar has no next one, and lies in the future.
            Bound::Day(day) => {
                day.tomorrow().ok().and_then(|next| day_start(next, &tz)).unwrap_or(now.plus(1))
            }
        };
        let start = start.filter(|at| at.0 >= 0).ok_or_else(|| {
            invalid("from", "`from` lies before 1970 or after the end of the calendar.".into())
        })?;
        if end <= start {
            return Err(invalid("to", "`to` lies before `from`, or there is nothing between them.".into()));
        }
        if start > now {
            return Err(invalid("from", "`from` lies in the future.".into()));
        }
        let period = Self { from: start, to: end.min(now.plus(1)), tz, now };
        if period.days() > u32::from(DAYS_MAX)
            && period.to.0 - period.from.0 > i64::from(DAYS_MAX) * DAY_MILLIS
        {
            return Err(invalid("from", format!("From `from` to `to` are at most {DAYS_MAX} days.")));
        }
        Ok(period)
    }
}

/// What `from` and `to` may be.
enum Bound {
    Instant(UnixMillis),
    Day(Date),
}

impl Bound {
    fn read(name: &'static str, text: &str) -> Result<Self, ApiError> {
        let wrong = || {
            let message = format!(
                "`{name}` is a date such as 2026-11-01, or an instant as RFC 3339 writes it, such as \
                 2026-11-01T12:00:00Z."
            );
            invalid(name, message)
        };
        if text.len() == "2026-11-01".len() {
            return text.parse().map(Self::Day).map_err(|_| wrong());
        }
        let at = text.parse::<Timestamp>().or_else(|_| with_plus(text).parse()).map_err(|_| wrong())?;
        // Down to the millisecond, also before 1970.
        let millis = at.as_nanosecond().div_euclid(1_000_000);
        i64::try_from(millis).map(|millis| Self::Instant(UnixMillis(millis))).map_err(|_| wrong())
    }
}

/// `2026-11-01T12:00:00+01:00` in a query that was not encoded: the plus arrives as a space.
fn with_plus(text: &str) -> String {
    match text.rsplit_once(' ') {
        Some((time, offset)) => format!("{time}+{offset}"),
        None => text.to_owned(),
    }
}

/// The first moment of a day.
pub(super) fn day_start(day: Date, tz: &TimeZone) -> Option<UnixMillis> {
    let start = day.to_zoned_datetime(tz.clone()).ok()?;
    Some(UnixMillis(start.timestamp().as_millisecond()))
}

fn time_zone(name: &str) -> Result<TimeZone, ApiError> {
    match name {
        "UTC" => Ok(TimeZone::UTC),
        name => TimeZone::get(name)
            .map_err(|_| invalid("tz", "`tz` is an IANA time zone such as UTC or Europe/Berlin.".into())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-03-30T10:00:00Z; clocks in Berlin went forward on the 29th.
    const NOW: UnixMillis = UnixMillis(1_774_864_800_000);
    const HOUR: i64 = 3_600_000;

    fn read_at(query: &str, now: UnixMillis) -> Result<Period, ApiError> {
        Period::read(&Parameters::read(Some(query), &Period::PARAMETERS)?, now)
    }

    fn echo(query: &str) -> (String, String, u32) {
        let json = read_at(query, NOW).unwrap_or_else(|error| panic!("{query}: {error:?}")).json();
        (json.from, json.to, json.days)
    }

    fn is(from: &str, to: &str, days: u32) -> (String, String, u32) {
        (from.into(), to.into(), days)
    }

    #[test]
    fn rolling_days_end_with_today_and_start_at_local_midnight() {
        assert_eq!(echo(""), is("2026-03-01T00:00:00Z", "2026-03-30T10:00:00Z", 30));
        assert_eq!(echo("days=1"), is("2026-03-30T00:00:00Z", "2026-03-30T10:00:00Z", 1));
        assert_eq!(
            echo("days=3&tz=Europe/Berlin"),
            is("2026-03-28T00:00:00+01:00", "2026-03-30T12:00:00+02:00", 3)
        );
        assert_eq!(
            echo("days=1&tz=asia/kolkata"),
            is("2026-03-30T00:00:00+05:30", "2026-03-30T15:30:00+05:30", 1)
        );
        assert_eq!(read_at("tz=asia/kolkata", NOW).expect("a period").json().tz, "Asia/Kolkata");
        assert_eq!(read_at("days=1", NOW).expect("a period").to, NOW.plus(1), "with this very millisecond");
    }

    #[test]
    fn dates_are_whole_days_and_instants_are_exact() {
        assert_eq!(
            echo("from=2026-02-01&to=2026-02-28"),
            is("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", 28)
        );
        assert_eq!(
            echo("from=2026-03-29&to=2026-03-29&tz=Europe/Berlin"),
            is("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", 1),
            "a day of 23 hours"
        );
        assert_eq!(
            echo("from=2026-03-29T22:30:00Z&to=2026-03-29T23:00:00Z"),
            is("2026-03-29T22:30:00Z", "2026-03-29T23:00:00Z", 1)
        );
        assert_eq!(
            echo("from=2026-03-29T23:30:00%2B01:00&to=2026-03-30 00:30:00+01:00"),
            is("2026-03-29T22:30:00Z", "2026-03-29T23:30:00Z", 1),
            "an offset whose plus became a space"
        );
        assert_eq!(
            echo("from=2026-03-29&to=2026-03-30T00:00:00.001Z"),
            is("2026-03-29T00:00:00Z", "2026-03-30T00:00:00.001Z", 2)
        );
    }

    #[test]
    fn the_future_is_left_out() {
        assert_eq!(
            echo("from=2026-03-30&to=2030-01-01"),
            is("2026-03-30T00:00:00Z", "2026-03-30T10:00:00Z", 1)
        );
        assert_eq!(echo("from=2026-03-30&to=9999-12-31").2, 1);
    }

    #[test]
    fn midnights_that_do_not_exist_start_with_the_next_moment() {
        let (from, to, _) = echo("from=2024-04-26&to=2024-04-26&tz=Africa/Cairo");
        assert_eq!((from.as_str(), to.as_str()), ("2024-04-26T01:00:00+03:00", "2024-04-27T00:00:00+03:00"));
        // Samoa had no 30th of December 2011.
        assert_eq!(echo("from=2011-12-29&to=2011-12-31&tz=Pacific/Apia").2, 3);
        assert!(read_at("from=2011-12-30&to=2011-12-30&tz=Pacific/Apia", NOW).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, field) in [
            ("days=0", "days"),
            ("days=401", "days"),
            ("days=1e3", "days"),
            ("days=99999999999999999999", "days"),
            ("tz=Mars/Olympus", "tz"),
            ("tz=UTC'", "tz"),
            ("tz=../../etc/passwd", "tz"),
            ("tz=%00", "tz"),
            ("from=2026-03-01", "to"),
            ("to=2026-03-01", "from"),
            ("days=3&from=2026-03-01&to=2026-03-02", "days"),
            ("from=2026-03-02&to=2026-03-01", "to"),
            ("from=2026-03-02T00:00:00Z&to=2026-03-02T00:00:00Z", "to"),
            ("from=2026-03-31&to=2026-04-01", "from"),
            ("from=2024-01-01&to=2026-03-01", "from"),
            ("from=1969-12-31&to=1970-01-02", "from"),
            ("from=-009999-01-01&to=1970-01-02", "from"),
            ("from=2026-13-01&to=2026-03-01", "from"),
            ("from=yesterday&to=2026-03-01", "from"),
            ("from=2026-03-01T00:00:00&to=2026-03-02", "from"),
            ("from=2026-03-01&to=1774864800", "to"),
            ("from=9999-12-31&to=9999-12-31", "from"),
        ] {
            let error = read_at(query, NOW).expect_err(query);
            assert_eq!((error.code, error.field.as_ref()), (ErrorCode::InvalidParameter, field), "{query}");
        }
    }

    #[test]
    fn four_hundred_days_are_the_most() {
        assert_eq!(echo("from=2025-01-01&to=2026-02-04").2, 400);
        assert!(read_at("from=2025-01-01&to=2026-02-05", NOW).is_err());
        assert_eq!(echo("from=2025-01-01T12:00:00Z&to=2026-02-05T12:00:00Z").2, 401, "touched, not lasted");
        assert!(read_at("from=2025-01-01T12:00:00Z&to=2026-02-05T12:00:00.001Z", NOW).is_err());
    }

    /// Whole hours, half hours, quarters; summer time at two and at midnight; on both sides of the date line.
    pub(in crate::http::analytics) const ZONES: [&str; 9] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Africa/Cairo",
        "America/Havana",
        "Pacific/Apia",
    ];

    proptest! {
        #[test]
        fn rolling_days_are_that_many_and_start_a_day(
            days in 1..=DAYS_MAX, zone in 0..ZONES.len(), now in 1_400_000_000_000i64..1_900_000_000_000,
        ) {
            let period = read_at(&format!("days={days}&tz={}", ZONES[zone]), UnixMillis(now)).expect("a period");
            prop_assert_eq!(period.days(), u32::from(days));
            prop_assert!(period.date_of(period.from.plus(-1)) < period.date_of(period.from));
            let lasted = now - period.from.0;
            prop_assert!(lasted >= (i64::from(days) - 1) * DAY_MILLIS - 2 * HOUR);
            prop_assert!(lasted <= i64::from(days) * DAY_MILLIS + 2 * HOUR);
        }

        /// What is echoed asks for the same period again.
        #[test]
        fn echoes_are_parameters(
            from in 1_400_000_000_000i64..1_700_000_000_000, lasts in 1i64..400 * DAY_MILLIS, zone in 0..ZONES.len(),
        ) {
            let tz = ZONES[zone];
            let of = |from: &str, to: &str| {
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("from", from).append_pair("to", to).append_pair("tz", tz);
                read_at(&query.finish(), UnixMillis(1_900_000_000_000))
            };
            let asked = of(&times::utc(UnixMillis(from)), &times::utc(UnixMillis(from + lasts))).expect("a period");
            prop_assert_eq!((asked.from.0, asked.to.0), (from, from + lasts));
            let json = asked.json();
            prop_assert_eq!(of(&json.from, &json.to), Ok(asked));
        }

        #[test]
        fn any_text_is_answered(from in ".{0,40}", to in ".{0,40}", tz in ".{0,40}") {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("from", &from).append_pair("to", &to).append_pair("tz", &tz);
            let _ = read_at(&query.finish(), NOW);
        }
    }
}
