//! Fields that several calls take, from their text.

use std::net::IpAddr;

use jiff::Timestamp;

use super::{
    error::{ApiError, ErrorCode},
    placeholder::{is_nothing, is_unexpanded},
};
use crate::core::{ClickId, INTEGER_MAX, UnixMillis};

/// Longest user agent that is kept, in bytes.
const USER_AGENT_BYTES_MAX: usize = 512;
/// How far ahead of ours a caller's clock may be.
const AHEAD_MILLIS_MAX: i64 = 60_000;
const DAY_MILLIS: i64 = 86_400_000;

/// Blank text is an absent field.
pub(super) fn filled(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// What stands in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given<'a> {
    /// Nothing, or blanks.
    Absent,
    /// What scripts write for 'nothing': `undefined`, `null`, `NaN`.
    Nothing(&'a str),
    /// A value.
    Text(&'a str),
}

/// What stands in the field; an error where the sender forgot to put something in a macro's place.
pub(super) fn given<'a>(name: &'static str, text: Option<&'a str>) -> Result<Given<'a>, ApiError> {
    match filled(text) {
        None => Ok(Given::Absent),
        Some(text) if is_nothing(text) => Ok(Given::Nothing(text)),
        Some(text) if is_unexpanded(text) => Err(ApiError::new(ErrorCode::UnexpandedMacro)
            .because(format!("`{name}` holds a macro that the sender did not replace."))
            .at(name)),
        Some(text) => Ok(Given::Text(text)),
    }
}

/// The text, if there is any.
pub(super) fn expanded<'a>(name: &'static str, text: Option<&'a str>) -> Result<Option<&'a str>, ApiError> {
    given(name, text).map(|given| match given {
        Given::Text(text) => Some(text),
        Given::Nothing(_) | Given::Absent => None,
    })
}

/// A click's number; none: it can't be one.
pub(super) fn click_id(text: &str) -> Option<ClickId> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id <= INTEGER_MAX).map(ClickId)
}

/// A visitor's address.
pub(super) fn address(name: &'static str, text: &str) -> Result<IpAddr, ApiError> {
    text.parse().map(|ip: IpAddr| ip.to_canonical()).map_err(|_| {
        ApiError::new(ErrorCode::InvalidField)
            .because(format!("`{name}` is not an IPv4 or IPv6 address."))
            .at(name)
    })
}

/// The user agent, cut to what is kept.
pub(super) fn user_agent(text: &str) -> String {
    text[..text.floor_char_boundary(USER_AGENT_BYTES_MAX)].to_owned()
}

/// When something happened that is reported now: as far back as clicks are kept, and no more than a minute ahead.
pub(super) fn time(
    name: &'static str,
    text: &str,
    now: UnixMillis,
    days_back_max: u32,
) -> Result<UnixMillis, ApiError> {
    let wrong = |message: String| ApiError::new(ErrorCode::InvalidTime).because(message).at(name);
    let at = text.parse::<Timestamp>().map_err(|_| {
        wrong(format!("`{name}` is not a time as RFC 3339 writes it, such as 2026-11-01T12:00:00Z."))
    })?;
    // Down to the millisecond, also before 1970.
    let millis = i64::try_from(at.as_nanosecond().div_euclid(1_000_000)).unwrap_or(i64::MIN);
    let earliest = now.plus(-i64::from(days_back_max) * DAY_MILLIS);
    if !(earliest.0..=now.plus(AHEAD_MILLIS_MAX).0).contains(&millis) {
        return Err(wrong(format!("`{name}` lies more than {days_back_max} days back or a minute ahead.")));
    }
    Ok(UnixMillis(millis))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-21T12:00:00Z.
    const NOW: UnixMillis = UnixMillis(1_768_996_800_000);

    #[test]
    fn times_end_at_their_bounds_to_the_millisecond() {
        let read = |text| time("clicked_at", text, NOW, 400).map(|at| at.0 - NOW.0);
        assert_eq!(read("2026-01-21T12:00:00Z"), Ok(0));
        assert_eq!(read("2026-01-21T13:00:00.5+01:00"), Ok(500));
        assert_eq!(read("2026-01-21 11:59:59.9999Z"), Ok(-1), "rounded down");
        assert_eq!(read("2026-01-21T12:01:00Z"), Ok(60_000));
        assert_eq!(read("2024-12-17T12:00:00Z"), Ok(-400 * DAY_MILLIS));
        for wrong in [
            "2026-01-21T12:01:00.001Z",
            "2024-12-17T11:59:59.999Z",
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
            "2026-01-21T12:00:00",
            "2026-01-21",
            "1768996800",
            "yesterday",
            "",
        ] {
            let error = read(wrong).expect_err("refused");
            assert_eq!((error.code, error.field.as_ref()), (ErrorCode::InvalidTime, "clicked_at"), "{wrong}");
        }
    }

    #[test]
    fn user_agents_are_cut_between_characters() {
        let long = "ü".repeat(400);
        assert_eq!(user_agent(&long).len(), 512);
        assert_eq!(user_agent(&format!("x{long}")).len(), 511);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,60}") {
            let _ = (time("t", &text, NOW, 400), address("ip", &text), click_id(&text), user_agent(&text));
            let _ = expanded("x", Some(&text));
        }

        #[test]
        fn any_digits_are_answered(text in "[-+]?[0-9]{4,6}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[-+][0-9]{2}:[0-9]{2})?") {
            let _ = time("t", &text, NOW, 3650);
        }
    }
}
