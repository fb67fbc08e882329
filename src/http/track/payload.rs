//! What came with a hit: its query and its body, in whatever format they are.

use super::{form, json as hit_json, raw_hit::RawHit};
use crate::http::{
    error::{ApiError, ErrorCode},
    json,
};

/// Most bytes of a refused request that are kept.
const EXCERPT_BYTES_MAX: usize = 1024;
/// Fields whose values are not kept: a name to report conversions with, and the visitor's address.
const MASKED: [&str; 2] = ["postback_token", "ip"];

/// What some editors and languages put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A hit's query and body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Payload<'a> {
    pub(super) query: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// How a body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Form,
    /// A type that is neither.
    Other,
}

impl<'a> Payload<'a> {
    /// The fields: the query's, and over them the body's.
    ///
    /// The body's own look decides before its Content-Type: what starts with a brace is JSON (`sendBeacon` says
    /// `text/plain`, `curl -d` says form), an empty body means all defaults. A type that is neither is refused.
    pub(super) fn decode(&self) -> Result<RawHit<'a>, ApiError> {
        let mut hit = RawHit::default();
        if let Some(query) = self.query {
            form::decode(query.as_bytes(), &mut hit)?;
        }
        let body = self.body.trim_ascii();
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii_start();
        if body.is_empty() {
            return Ok(hit);
        }
        match self.format(body) {
            // The whole body, so that an error's byte is counted from its start.
            Format::Json => hit_json::decode(json::text(self.body)?, &mut hit)?,
            Format::Form if is_form(body) => form::decode(body, &mut hit)?,
            Format::Form => {
                return Err(ApiError::new(ErrorCode::InvalidBody)
                    .because("The body is not a form: it has no `name=value` at its start."));
            }
            Format::Other => return Err(ErrorCode::UnsupportedMediaType.into()),
        }
        Ok(hit)
    }

    fn format(&self, body: &[u8]) -> Format {
        let essence = self.content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let is = |kind: &str| essence.eq_ignore_ascii_case(kind);
        let starts = |prefix: &str| {
            essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if body.starts_with(b"{") || body.starts_with(b"[") {
            Format::Json
        } else if body.starts_with(b"<") {
            Format::Other
        } else if is("application/x-www-form-urlencoded") {
            Format::Form
        } else if starts("multipart/")
            || starts("image/")
            || starts("video/")
            || starts("audio/")
            || is("text/xml")
            || is("application/xml")
        {
            Format::Other
        } else if (essence.is_empty() || starts("text/")) && looks_like_form(body) {
            Format::Form
        } else {
            Format::Json
        }
    }

    /// What is kept of a refused hit: its start, without addresses and tokens.
    pub(super) fn excerpt(&self) -> String {
        let mut text = self.query.map(|query| mask_pairs(cut(query.as_bytes()))).unwrap_or_default();
        if !self.body.is_empty() {
            if !text.is_empty() {
                text.push('\n');
            }
            let body = cut(self.body);
            text.push_str(&if body.trim_ascii().starts_with(b"{") {
                mask_json(body)
            } else {
                mask_pairs(body)
            });
        }
        text.truncate(text.floor_char_boundary(EXCERPT_BYTES_MAX));
        text
    }
}

fn looks_like_form(body: &[u8]) -> bool {
    is_form(body) && !body.contains(&b'"')
}

/// Whether the body starts with `name=`, and has no bytes in it that a form encodes. `curl -d` calls everything a form.
fn is_form(body: &[u8]) -> bool {
    let name = body.split(|byte| *byte == b'=').next().unwrap_or_default();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.%+&;[]~*".contains(byte);
    name.len() < body.len() && name.iter().all(is_name) && !body.iter().any(u8::is_ascii_control)
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(EXCERPT_BYTES_MAX)]
}

/// `ip=…&value=1` with the masked values gone.
fn mask_pairs(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let masked = |pair: &str| match pair.split_once('=') {
        // An escaped name is left out whole: it is no one's habit, and it may be one of the masked.
        Some((name, _)) if MASKED.contains(&name) || name.contains('%') => format!("{name}=[removed]"),
        _ => pair.to_owned(),
    };
    text.split('&').map(masked).collect::<Vec<_>>().join("&")
}

/// JSON, perhaps malformed or cut, with the masked values gone: from the name's colon to what ends the value.
fn mask_json(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    for name in MASKED {
        let quoted = format!("\"{name}\"");
        let mut from = 0;
        while let Some(found) = text[from..].find(&quoted) {
            let after = from + found + quoted.len();
            let rest = &text[after..];
            let Some(value) = rest.trim_start().strip_prefix(':').map(str::trim_start) else {
                from = after;
                continue;
            };
            let start = text.len() - value.len();
            let end = start + value_length(value);
            text.replace_range(start..end, "\"[removed]\"");
            from = start;
        }
    }
    text
}

/// How long the value is that the text starts with.
fn value_length(text: &str) -> usize {
    if text.starts_with('"') {
        let mut escaped = false;
        for (at, byte) in text.bytes().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return at + 1,
                _ => {}
            }
        }
        text.len()
    } else {
        text.find([',', '}', '\n']).unwrap_or(text.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload<'a>(content_type: Option<&'a str>, body: &'a str) -> Payload<'a> {
        Payload { query: None, content_type, body: body.as_bytes() }
    }

    #[test]
    fn the_body_is_read_as_what_it_is() {
        let value = |content_type, body| {
            payload(content_type, body).decode().map(|hit| hit.value.map(std::borrow::Cow::into_owned))
        };
        let one = Ok(Some("1".to_owned()));
        assert_eq!(value(Some("application/json"), "{\"value\":1}"), one);
        assert_eq!(value(Some("application/json; charset=utf-8"), " {\"value\":1}\n"), one);
        assert_eq!(value(Some("text/plain;charset=UTF-8"), "{\"value\":1}"), one);
        assert_eq!(value(None, "{\"value\":1}"), one);
        assert_eq!(value(Some("application/octet-stream"), "{\"value\":1}"), one);
        assert_eq!(value(Some("application/x-www-form-urlencoded"), "{\"value\":1}"), one, "curl -d");
        assert_eq!(value(Some("Application/X-WWW-Form-Urlencoded"), "value=1&x=2"), one);
        assert_eq!(value(None, "value=1"), one);
        assert_eq!(value(Some("text/plain"), "order_id=2&value=1"), one);
        assert_eq!(value(Some("application/json"), " \n"), Ok(None), "empty: all defaults");
        let code = |content_type, body| value(content_type, body).map_err(|error| error.code);
        assert_eq!(
            code(Some("multipart/form-data; boundary=x"), "--x"),
            Err(ErrorCode::UnsupportedMediaType)
        );
        assert_eq!(code(Some("application/json"), "value=1"), Err(ErrorCode::InvalidJson));
        assert_eq!(code(None, "nonsense"), Err(ErrorCode::InvalidJson));
    }

    #[test]
    fn what_curl_calls_a_form_is_not_always_one() {
        let form = "application/x-www-form-urlencoded";
        let code = |body: &[u8]| {
            let payload = Payload { query: None, content_type: Some(form), body };
            payload.decode().map(|_| ()).map_err(|error| error.code)
        };
        for good in
            ["value=1", "\u{feff}value=1", "a%5Bb%5D=1&value=2", "&amp;value=1", "value=1\n", "utm_source=x"]
        {
            assert_eq!(code(good.as_bytes()), Ok(()), "{good:?}");
        }
        assert_eq!(code(br#"[{"value":1}]"#), Err(ErrorCode::InvalidJson));
        assert_eq!(code(b"<order id=\"1\"/>"), Err(ErrorCode::UnsupportedMediaType));
        for bad in [
            &b"\x1f\x8b\x08\x00=\x00"[..],
            b"nonsense",
            b"\"value=1\"",
            b"'value=1'",
            b"two words=1",
            b"value=1\x00",
        ] {
            assert_eq!(code(bad), Err(ErrorCode::InvalidBody), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn the_body_wins_over_the_query() {
        let both = Payload { query: Some("value=1&order_id=q"), content_type: None, body: b"{\"value\":2}" };
        let hit = both.decode().expect("good");
        assert_eq!((hit.value.as_deref(), hit.order_id.as_deref()), (Some("2"), Some("q")));
    }

    #[test]
    fn an_excerpt_has_no_addresses_and_no_tokens() {
        let excerpt = |body: &str| payload(None, body).excerpt();
        assert_eq!(
            excerpt(r#"{"ip" : "203.0.113.9","value":-1,"postback_token":"se\"cret"}"#),
            r#"{"ip" : "[removed]","value":-1,"postback_token":"[removed]"}"#
        );
        assert_eq!(excerpt(r#"{"ip":"203.0.113"#), r#"{"ip":"[removed]""#);
        assert_eq!(excerpt("ip=203.0.113.9&value=x"), "ip=[removed]&value=x");
        let query = Payload { query: Some("value=x&i%70=203.0.113.9"), ..Payload::default() };
        assert!(!query.excerpt().contains("203"));
        assert_eq!(payload(None, &"ü".repeat(2000)).excerpt().len(), 1024);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(query in proptest::option::of(".{0,80}"), body in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let payload = Payload { query: query.as_deref(), content_type: None, body: &body };
            let _ = payload.decode();
            prop_assert!(payload.excerpt().len() <= 1024);
        }

        #[test]
        fn masked_json_ends(body in "\\{(\"ip\"|:|\"|,|[a-z0-9 }\\\\]){0,40}") {
            let _ = payload(None, &body).excerpt();
        }
    }
}
