//! Instants as the API writes them: RFC 3339.

use jiff::{Timestamp, tz::TimeZone};

use crate::core::UnixMillis;

/// In UTC: `2026-01-21T12:00:00Z`, with milliseconds where there are any.
pub(super) fn utc(at: UnixMillis) -> String {
    timestamp(at).to_string()
}

/// In a time zone, with its offset; UTC is written `Z`.
pub(super) fn local(at: UnixMillis, tz: &TimeZone) -> String {
    if *tz == TimeZone::UTC {
        return utc(at);
    }
    let offset = tz.to_offset(timestamp(at));
    timestamp(at).display_with_offset(offset).to_string()
}

/// The instant; past what a calendar has, the calendar's end.
pub(super) fn timestamp(at: UnixMillis) -> Timestamp {
    Timestamp::from_millisecond(at.0).unwrap_or(if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_as_rfc_3339() {
        assert_eq!(utc(UnixMillis(1_768_996_800_000)), "2026-01-21T12:00:00Z");
        assert_eq!(utc(UnixMillis(1_768_996_800_120)), "2026-01-21T12:00:00.12Z");
        let berlin = TimeZone::get("Europe/Berlin").expect("known");
        assert_eq!(local(UnixMillis(1_768_996_800_000), &berlin), "2026-01-21T13:00:00+01:00");
        assert!(!utc(UnixMillis(i64::MAX)).is_empty() && !utc(UnixMillis(i64::MIN)).is_empty());
    }
}
