//! A body cut into lines.

use serde::de::IgnoredAny;

use crate::http::error::{ApiError, ErrorCode};

/// Most lines of one request.
const LINES_MAX: usize = 10_000;
/// What senders call one JSON object a line.
const TYPES: [&str; 6] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
];

/// One line that is not blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct Line<'a> {
    /// Where it stands, from 1, blank lines counted.
    pub(in crate::http) number: usize,
    /// What it says, without its end.
    pub(in crate::http) bytes: &'a [u8],
}

/// Whether the body is lines rather than one object: the sender says so, or its first line is an object and more follows.
/// One object over several lines is one object.
pub(in crate::http) fn is_bulk(content_type: Option<&str>, body: &[u8]) -> bool {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if TYPES.iter().any(|kind| essence.eq_ignore_ascii_case(kind)) {
        return true;
    }
    let mut filled = all(body);
    match (filled.next(), filled.next()) {
        (Some(first), Some(_)) => {
            first.bytes.trim_ascii_start().starts_with(b"{")
                && serde_json::from_slice::<IgnoredAny>(first.bytes).is_ok()
        }
        _ => false,
    }
}

/// The lines that are not blank, or that there are none or too many.
pub(in crate::http) fn lines(body: &[u8]) -> Result<Vec<Line<'_>>, ApiError> {
    // One past the limit is enough to know.
    let lines: Vec<_> = all(body).take(LINES_MAX + 1).collect();
    match lines.len() {
        0 => Err(ApiError::new(ErrorCode::InvalidBody).because("There is no line in the body.")),
        1..=LINES_MAX => Ok(lines),
        _ => Err(ErrorCode::TooManyLines.into()),
    }
}

fn all(body: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.split(|byte| *byte == b'\n')
        .zip(1..)
        .map(|(bytes, number)| Line { number, bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes) })
        .filter(|line| !line.bytes.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bulk_is_told_from_one_object() {
        for (content_type, body, bulk) in [
            (Some("application/x-ndjson"), "{}", true),
            (Some("application/jsonl; charset=utf-8"), "", true),
            (Some("Application/JSONL"), "x", true),
            (Some("application/json"), "{}", false),
            (Some("application/json"), "{}\n", false),
            (Some("application/json"), "{}\n{}", true),
            (None, "{\"a\":1}\r\n{\"a\":2}\r\n", true),
            (None, "\n{}\n\nx", true),
            (None, "{\n\"click_id\": 1\n}\n", false),
            (None, "{\"sub\": [\n1]}", false),
            (None, "[1,\n2]", false),
            (None, "7\n8", false),
            (None, "", false),
        ] {
            assert_eq!(is_bulk(content_type, body.as_bytes()), bulk, "{content_type:?} {body:?}");
        }
    }

    #[test]
    fn lines_keep_their_numbers() {
        let body = b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"a\":2}";
        let read: Vec<_> = lines(body).expect("two").iter().map(|line| (line.number, line.bytes)).collect();
        assert_eq!(read, [(1, &b"{\"a\":1}"[..]), (4, &b"{\"a\":2}"[..])]);
    }

    #[test]
    fn none_and_too_many_are_refused() {
        assert_eq!(lines(b" \n\r\n").expect_err("none").code, ErrorCode::InvalidBody);
        assert_eq!(lines(&b"{}\n".repeat(LINES_MAX)).map(|lines| lines.len()), Ok(LINES_MAX));
        let error = lines(&b"{}\n".repeat(LINES_MAX + 1)).expect_err("too many");
        assert_eq!(error.code, ErrorCode::TooManyLines);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = is_bulk(None, &body);
            if let Ok(lines) = lines(&body) {
                prop_assert!(lines.iter().all(|line| !line.bytes.contains(&b'\n')));
            }
        }
    }
}
