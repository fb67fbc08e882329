//! What an answer means, and when the next attempt is due.

use crate::core::UnixMillis;

/// How often a postback is tried before it is given up.
pub const ATTEMPTS_MAX: u8 = 10;
/// The longest that `Retry-After` is obeyed: a day.
pub const RETRY_AFTER_MAX: u64 = 24 * 3600;

/// Pauses before the attempts, in milliseconds, counted from the attempt before.
const PAUSES: [i64; ATTEMPTS_MAX as usize] = [
    0,
    5_000,
    5 * 60_000,
    30 * 60_000,
    2 * 3_600_000,
    5 * 3_600_000,
    10 * 3_600_000,
    14 * 3_600_000,
    20 * 3_600_000,
    24 * 3_600_000,
];

/// `Retry-After` in seconds from now: a number of them, or a date.
#[must_use]
pub fn retry_after(text: &str, now: UnixMillis) -> Option<u64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second();
        u64::try_from(at - now.seconds()).ok()
    })
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 2xx: the owner was told.
    Delivered,
    /// Anything else: redirects are not followed, so 3xx is a failure too.
    Failed,
    /// 410: the endpoint wants no more.
    Gone,
}

/// What an answer means; none came: a failure.
#[must_use]
pub fn verdict(status: Option<u16>) -> Verdict {
    match status {
        Some(200..300) => Verdict::Delivered,
        Some(410) => Verdict::Gone,
        _ => Verdict::Failed,
    }
}

/// What comes after an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, in so many milliseconds.
    After(i64),
    /// None: it was the last one.
    GiveUp,
}

/// When to try again after that many attempts. `jitter`, from 0 to 1, makes it up to a tenth later, so that what failed
/// together does not come back together. `retry_after`, in seconds, is what the endpoint asked for: never earlier.
#[must_use]
pub fn next(attempts: u8, jitter: f64, retry_after: Option<u64>) -> Next {
    let Some(&pause) = PAUSES.get(usize::from(attempts)) else { return Next::GiveUp };
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a tenth of a day at most"
    )]
    let jitter = (pause as f64 * 0.1 * jitter.clamp(0.0, 1.0)) as i64;
    let asked = retry_after.unwrap_or(0).min(RETRY_AFTER_MAX).cast_signed() * 1000;
    Next::After((pause + jitter).max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_the_documented_one() {
        let seconds: Vec<_> = (0..=ATTEMPTS_MAX)
            .map(|attempts| match next(attempts, 0.0, None) {
                Next::After(millis) => millis / 1000,
                Next::GiveUp => -1,
            })
            .collect();
        let hours = |hours: i64| hours * 3600;
        assert_eq!(
            seconds,
            [0, 5, 300, 1800, hours(2), hours(5), hours(10), hours(14), hours(20), hours(24), -1]
        );
    }

    #[test]
    fn jitter_only_delays_and_an_endpoint_may_ask_for_more() {
        assert_eq!(next(2, 1.0, None), Next::After(330_000));
        assert_eq!(next(1, 0.0, Some(60)), Next::After(60_000));
        assert_eq!(next(2, 0.0, Some(60)), Next::After(300_000), "never earlier than the schedule");
        assert_eq!(next(1, 0.0, Some(u64::MAX)), Next::After(86_400_000));
        assert_eq!(next(ATTEMPTS_MAX, 0.0, Some(1)), Next::GiveUp);
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_date() {
        let now = UnixMillis(1_445_412_420_500);
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(60)),
            ("Wed, 21 Oct 2015 07:26:00 GMT", None),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), seconds, "{text}");
        }
    }

    #[test]
    fn only_a_2xx_is_success() {
        for (status, expected) in [
            (Some(200), Verdict::Delivered),
            (Some(299), Verdict::Delivered),
            (Some(302), Verdict::Failed),
            (Some(308), Verdict::Failed),
            (Some(404), Verdict::Failed),
            (Some(410), Verdict::Gone),
            (Some(500), Verdict::Failed),
            (Some(101), Verdict::Failed),
            (None, Verdict::Failed),
        ] {
            assert_eq!(verdict(status), expected, "{status:?}");
        }
    }
}
