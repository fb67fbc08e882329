//! The spans of a series: hours, days, weeks or months of a period, in the caller's time zone.
//!
//! Statistics are kept by the hour (UTC), and an hour counts as a whole. A period that begins or ends within one is widened
//! to it, and echoed so. Where midnight falls into an hour, in zones with half hours, that hour belongs to the day that
//! begins in it, wherever it is counted: two periods that meet there count it once.

use jiff::{
    ToSpan as _,
    civil::{Date, Weekday},
};

use super::period::{Period, day_start};
use crate::{
    core::UnixMillis,
    http::{
        error::ApiError,
        page::{Parameters, invalid},
    },
};

/// Most spans of a series.
const SPANS_MAX: usize = 1000;
const HOUR_MILLIS: i64 = 3_600_000;
/// A period of `from` and `to` that lasts no longer is shown by the hour.
const HOURLY_MILLIS_MAX: i64 = 48 * HOUR_MILLIS;

/// How long the spans of a series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interval {
    Hour,
    Day,
    Week,
    Month,
}

/// A period as it is counted: in whole hours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hours {
    /// The period, widened to whole hours.
    pub(super) period: Period,
    /// The start of its first hour.
    pub(super) from: UnixMillis,
    /// The end of its last one.
    pub(super) to: UnixMillis,
}

/// A span of a series: it ends where the next one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// When it starts.
    pub(super) start: UnixMillis,
    /// The start of the first hour that belongs to it.
    pub(super) hour: UnixMillis,
}

impl Interval {
    const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The interval that is asked for, or what suits the period.
    pub(super) fn read(parameters: &Parameters, period: &Period) -> Result<Self, ApiError> {
        match parameters.one_of("interval", &Self::ALL.map(|interval| (interval.as_str(), interval)))? {
            Some(interval) => Ok(interval),
            None if parameters.text("from").is_some() && period.to.0 - period.from.0 <= HOURLY_MILLIS_MAX => {
                Ok(Self::Hour)
            }
            None => Ok(Self::Day),
        }
    }

    /// The spans of a period: the first starts with it, every other one with an hour, a day, a Monday or a month.
    pub(super) fn spans(self, hours: &Hours) -> Result<Vec<Span>, ApiError> {
        let mut spans = vec![Span { start: hours.period.from, hour: hours.from }];
        let mut next = Some(hours.from);
        let mut day = hours.period.date_of(hours.period.from);
        loop {
            let start = match self {
                Self::Hour => {
                    next = next.map(|hour| hour.plus(HOUR_MILLIS));
                    next
                }
                _ => self.after(day).and_then(|following| {
                    day = following;
                    day_start(day, &hours.period.tz)
                }),
            };
            let Some(start) = start else { break };
            let span = Span { start, hour: hour_of(start) };
            if span.hour >= hours.to {
                break;
            }
            // A day that a zone left out altogether starts with the next one.
            if spans.last().is_some_and(|last| last.hour < span.hour) {
                spans.push(span);
            }
            if spans.len() > SPANS_MAX {
                let message = format!(
                    "`interval={}` makes more than {SPANS_MAX} points of this period: choose a longer interval or a \
                     shorter period.",
                    self.as_str()
                );
                return Err(invalid("interval", message));
            }
        }
        Ok(spans)
    }

    /// The first day after `day` with which a span starts.
    fn after(self, day: Date) -> Option<Date> {
        match self {
            Self::Hour | Self::Day => day.tomorrow().ok(),
            Self::Week => day.nth_weekday(1, Weekday::Monday).ok(),
            Self::Month => day.first_of_month().checked_add(1.month()).ok(),
        }
    }
}

impl Hours {
    /// Widens a period.
    pub(super) fn of(period: &Period) -> Self {
        let starts_a_day = |at| day_start(period.date_of(at), &period.tz) == Some(at);
        let hour_end = |at: UnixMillis| hour_of(at.plus(HOUR_MILLIS - 1));
        let from = hour_of(period.from);
        let to = if starts_a_day(period.to) { hour_of(period.to) } else { hour_end(period.to) };
        let whole = |at: UnixMillis, hour| if starts_a_day(at) { at } else { hour };
        Self { period: period.widened(whole(period.from, from), whole(period.to, to)), from, to }
    }

    /// The start of the period before: as many hours, up to this one.
    pub(super) fn before(&self) -> UnixMillis {
        UnixMillis((self.from.0 - (self.to.0 - self.from.0)).max(0))
    }
}

fn hour_of(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.hour_start_seconds().saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::period::tests::ZONES, *};

    /// 2026-03-30T10:00:00Z; clocks in Berlin went forward on the 29th.
    const NOW: UnixMillis = UnixMillis(1_774_864_800_000);
    const KNOWN: [&str; 5] = ["days", "from", "to", "tz", "interval"];

    fn read(query: &str, now: UnixMillis) -> Result<(Interval, Hours, Vec<Span>), ApiError> {
        let parameters = Parameters::read(Some(query), &KNOWN)?;
        let period = Period::read(&parameters, now)?;
        let interval = Interval::read(&parameters, &period)?;
        let hours = Hours::of(&period);
        let spans = interval.spans(&hours)?;
        Ok((interval, hours, spans))
    }

    fn starts(query: &str) -> Vec<String> {
        let (_, hours, spans) = read(query, NOW).expect("a period");
        spans.iter().map(|span| hours.period.shown(span.start)).collect()
    }

    #[test]
    fn days_weeks_and_months_start_at_local_midnight() {
        assert_eq!(
            starts("days=3&tz=Europe/Berlin"),
            ["2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"]
        );
        assert_eq!(
            starts("from=2026-03-20&to=2026-03-31&interval=week"),
            ["2026-03-20T00:00:00Z", "2026-03-23T00:00:00Z", "2026-03-30T00:00:00Z"]
        );
        assert_eq!(
            starts("from=2026-01-31&to=2026-03-30&interval=month&tz=Europe/Berlin"),
            ["2026-01-31T00:00:00+01:00", "2026-02-01T00:00:00+01:00", "2026-03-01T00:00:00+01:00"]
        );
        assert_eq!(starts("days=1&interval=hour").len(), 11, "the hour under way is one");
        assert_eq!(starts("from=2026-03-29&to=2026-03-29&interval=hour&tz=Europe/Berlin").len(), 23);
    }

    #[test]
    fn short_periods_are_shown_by_the_hour() {
        let interval = |query| read(query, NOW).expect("a period").0;
        assert_eq!(interval("days=1"), Interval::Day);
        assert_eq!(interval("from=2026-03-01&to=2026-03-02"), Interval::Hour);
        assert_eq!(interval("from=2026-03-01&to=2026-03-03"), Interval::Day);
        assert_eq!(interval("days=400"), Interval::Day);
    }

    #[test]
    fn a_series_is_bounded() {
        assert!(read("days=40&interval=hour", NOW).is_ok());
        for query in ["days=400&interval=hour", "days=43&interval=hour"] {
            let error = read(query, NOW).expect_err("too many");
            assert_eq!(error.field, "interval", "{query}");
            assert!(error.message.contains("1000 points"), "{}", error.message);
        }
        for interval in ["minute", "HOUR", "1", "day'", "day;DROP TABLE clicks"] {
            let error = read(&format!("interval={interval}"), NOW).expect_err(interval);
            assert_eq!(error.field, "interval", "{interval}");
        }
    }

    #[test]
    fn a_period_within_hours_is_widened_and_echoed_so() {
        let echo = |query| {
            let (_, hours, _) = read(query, NOW).expect("a period");
            (hours.period.shown(hours.period.from), hours.period.shown(hours.period.to))
        };
        assert_eq!(
            echo("from=2026-03-29T10:37:00Z&to=2026-03-29T11:00:00.001Z"),
            ("2026-03-29T10:00:00Z".into(), "2026-03-29T12:00:00Z".into())
        );
        // Half past six in the evening is midnight there: the hour that holds it belongs to the new day.
        let (_, hours, _) = read("from=2026-03-29&to=2026-03-29&tz=Asia/Kolkata", NOW).expect("a period");
        assert_eq!(hours.period.shown(hours.period.from), "2026-03-29T00:00:00+05:30");
        assert_eq!(hours.period.shown(hours.period.to), "2026-03-30T00:00:00+05:30");
        assert_eq!((hours.to.0 - hours.from.0) / HOUR_MILLIS, 24);
    }

    #[test]
    fn the_period_before_has_as_many_hours() {
        let (_, hours, _) = read("days=7", NOW).expect("a period");
        assert_eq!((hours.to.0 - hours.from.0) / HOUR_MILLIS, 6 * 24 + 11);
        assert_eq!(hours.from.0 - hours.before().0, hours.to.0 - hours.from.0);
        let (_, hours, _) = read("from=1970-01-01&to=1970-03-01", NOW).expect("a period");
        assert_eq!(hours.before().0, 0);
    }

    proptest! {
        /// Spans divide the period's hours: each belongs to exactly one; every span but the first starts where one of its
        /// kind does.
        #[test]
        fn spans_divide_the_period(
            days in 1i64..400, from in 1_400_000_000_000i64..1_700_000_000_000, zone in 0..ZONES.len(), which in 0usize..4,
            whole in any::<bool>(),
        ) {
            let (tz, interval) = (ZONES[zone], Interval::ALL[which]);
            let days = if interval == Interval::Hour { 1 + days % 40 } else { days };
            let shown = |at: i64| {
                let text = crate::http::times::utc(UnixMillis(at));
                if whole { text[..10].to_owned() } else { text }
            };
            let to = from + days * 86_400_000 - 86_400_000 / 2;
            let query = format!("from={}&to={}&tz={tz}&interval={}", shown(from), shown(to), interval.as_str());
            let (_, hours, spans) = read(&query, UnixMillis(1_900_000_000_000)).expect("a period");
            prop_assert_eq!(spans[0], Span { start: hours.period.from, hour: hours.from });
            prop_assert!(spans.is_sorted_by(|a, b| a.hour < b.hour && a.start < b.start));
            prop_assert!(spans.iter().all(|span| span.hour.0 % HOUR_MILLIS == 0 && span.hour < hours.to));
            prop_assert!(spans.iter().all(|span| (0..HOUR_MILLIS).contains(&(span.start.0 - span.hour.0))));
            for span in &spans[1..] {
                let at = crate::http::times::timestamp(span.start).to_zoned_datetime(hours.period.tz.clone());
                let date = at.date();
                prop_assert!(interval == Interval::Hour || day_start(date, &hours.period.tz) == Some(span.start));
                prop_assert!(interval != Interval::Week || date.weekday() == Weekday::Monday);
                prop_assert!(interval != Interval::Month || date.day() == 1);
            }
        }

        /// Periods that meet count every hour once.
        #[test]
        fn days_that_meet_share_no_hour(day in 0i64..4000, zone in 0..ZONES.len()) {
            let shown = |day: i64| crate::http::times::utc(UnixMillis(1_400_000_000_000 + day * 86_400_000))[..10].to_owned();
            let of = |day| {
                let query = format!("from={0}&to={0}&tz={1}", shown(day), ZONES[zone]);
                read(&query, UnixMillis(1_900_000_000_000)).map(|(_, hours, _)| hours)
            };
            prop_assert_eq!(of(day).expect("a period").to, of(day + 1).expect("a period").from);
        }
    }
}
