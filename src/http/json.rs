//! JSON, where a number's text matters and an error names its byte.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer as _,
    de::{MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use super::error::{ApiError, ErrorCode};

/// The value is neither text nor a number nor null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotScalar;

/// A string's content or a number as it was written; `None`: null.
pub(super) fn scalar(raw: &RawValue) -> Result<Option<Cow<'_, str>>, NotScalar> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let inner = text.get(1..text.len() - 1).ok_or(NotScalar)?;
            if inner.contains('\\') {
                serde_json::from_str(text).map(|text: String| Some(Cow::Owned(text))).map_err(|_| NotScalar)
            } else {
                Ok(Some(Cow::Borrowed(inner)))
            }
        }
        Some(b'0'..=b'9' | b'-') => Ok(Some(Cow::Borrowed(text))),
        Some(b'n') => Ok(None),
        _ => Err(NotScalar),
    }
}

/// The entries of an object, in their order.
pub(super) fn object(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, ApiError> {
    entries(text).map_err(|error| malformed(text.as_bytes(), &error))
}

/// The same, with the parser's own error.
pub(super) fn entries(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, serde_json::Error> {
    let mut entries = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Entries(&mut entries)).and_then(|()| deserializer.end())?;
    Ok(entries)
}

/// The text of a body, or the byte at which it stops being text. A byte order mark is not part of it.
pub(super) fn text(body: &[u8]) -> Result<&str, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let message = format!("The body is not UTF-8 at byte {}.", error.valid_up_to());
        ApiError::new(ErrorCode::InvalidJson).because(message)
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The error of malformed JSON, with the byte at which it was noticed. It is kept with the refused hit, so it quotes
/// nothing of the body.
pub(super) fn malformed(body: &[u8], error: &serde_json::Error) -> ApiError {
    let offset = offset(body, error);
    let text = error.to_string();
    let what = match error.classify() {
        // The parser would quote the value that is of the wrong type.
        Category::Data => "it is not an object",
        // Its own place is a line and a column, which says little of a body in one line.
        _ => text.split(" at line ").next().unwrap_or_default(),
    };
    ApiError::new(ErrorCode::InvalidJson)
        .because(format!("The body is not valid JSON at byte {offset}: {what}."))
}

/// The byte at which the error was noticed.
pub(super) fn offset(body: &[u8], error: &serde_json::Error) -> usize {
    if error.is_eof() {
        return body.len();
    }
    let before: usize = body
        .split_inclusive(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (before + error.column().saturating_sub(1)).min(body.len())
}

struct Entries<'e, 'a>(&'e mut Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Visitor<'a> for Entries<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(entry) = map.next_entry::<Cow<'a, str>, &'a RawValue>()? {
            self.0.push(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_not_text_are_named() {
        let error = text(b"{\"a\":\"\xff\"}").expect_err("not text");
        assert!(error.message.contains("byte 6"), "{}", error.message);
        assert_eq!(text(b"\xef\xbb\xbf{}"), Ok("{}"));
    }

    #[test]
    fn objects_keep_what_was_written() {
        let entries = object(r#"{"a":1.50,"b":{"c":[ ]}}"#).expect("good");
        let entries: Vec<_> = entries.iter().map(|(name, raw)| (name.as_ref(), raw.get())).collect();
        assert_eq!(entries, [("a", "1.50"), ("b", r#"{"c":[ ]}"#)]);
    }

    #[test]
    fn an_error_quotes_nothing_of_the_body() {
        for body in
            [r#""203.0.113.9""#, "20301139", r#"["203.0.113.9"]"#, "{\"a\":203.0.113.9}", "203.0.113.9"]
        {
            let error = object(body).expect_err("no object");
            assert!(!error.message.contains("203"), "{body}: {}", error.message);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = text(&bytes) {
                let _ = object(text);
            }
        }
    }
}
