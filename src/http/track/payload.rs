//! What came with a hit: its query and its body, in whatever format they are.

use super::{form, json as hit_json, raw_hit::RawHit};
use crate::http::{
    error::{ApiError, ErrorCode},
    json,
};

/// What some editors and languages put before UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A hit's query and body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Payload<'a> {
    pub(super) query: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// How a body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
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

    /// How the trimmed body is to be read.
    pub(super) fn format(&self, body: &[u8]) -> Format {
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
}

fn looks_like_form(body: &[u8]) -> bool {
    is_form(body) && !body.contains(&b'"')
}

/// Whether the body starts with `name=`, and has no bytes in it that a form encodes. `curl -d` calls everything a form.
pub(super) fn is_form(body: &[u8]) -> bool {
    let name = body.split(|byte| *byte == b'=').next().unwrap_or_default();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.%+&;[]~*".contains(byte);
    name.len() < body.len() && name.iter().all(is_name) && !body.iter().any(u8::is_ascii_control)
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

    proptest! {
        #[test]
        fn any_bytes_are_answered(query in proptest::option::of(".{0,80}"), body in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let payload = Payload { query: query.as_deref(), content_type: None, body: &body };
            let _ = payload.decode();
        }
    }
}
