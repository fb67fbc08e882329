//! What is kept of a hit that did not count, for those who ask why nothing arrived.
//!
//! An allow-list: fields that tally knows, as they were parsed, and only where the value looks like one of its field. Of
//! everything else the names alone are kept, if they look like names. No byte of a body that can't be parsed is kept,
//! so that an address, a token or a person's name can't slip through a format that nobody thought of.

use std::borrow::Cow;

use serde::Serialize;

use super::{
    form,
    payload::{BYTE_ORDER_MARK, Format, Payload, is_form},
    raw_hit::Field,
};
use crate::http::{json, placeholder::is_unexpanded};

/// Names of other fields that are kept.
const NAMES_MAX: usize = 12;
/// Longest name of another field, or content type, in bytes.
const NAME_BYTES_MAX: usize = 32;
/// Digits that a name may hold, as in `sub1` or `utm2024`: more would be a number of something.
const NAME_DIGITS_MAX: usize = 4;
/// Longest value that is kept, in bytes.
const VALUE_BYTES_MAX: usize = 40;

/// The summary as it is stored. `body_bytes` comes first: by it a summary is recognised
/// ([`REQUEST_SUMMARY_START`](crate::core::REQUEST_SUMMARY_START)).
#[derive(Default, Serialize)]
struct Summary<'a> {
    body_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    /// Where the body stops being what it seems to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed_at_byte: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    converted_at: Option<Cow<'a, str>>,
    /// Known fields that came and whose values are not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    withheld: Vec<&'static str>,
    /// Names of fields that tally does not know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_fields: Vec<String>,
    /// How many more there were, whose names are too long, too many, or no names.
    #[serde(skip_serializing_if = "is_zero")]
    unnamed_fields: usize,
}

/// The summary of what came, as JSON; empty where nothing came.
pub(super) fn of(payload: &Payload<'_>) -> String {
    let body = payload.body.trim_ascii();
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii_start();
    if body.is_empty() && payload.query.is_none_or(str::is_empty) {
        return String::new();
    }
    let mut summary = Summary {
        body_bytes: payload.body.len(),
        content_type: payload.content_type.and_then(essence),
        ..Summary::default()
    };
    if let Some(query) = payload.query {
        summary.add_pairs(query.as_bytes());
    }
    if !body.is_empty() {
        match payload.format(body) {
            Format::Json => summary.add_json(payload.body),
            Format::Form if is_form(body) => summary.add_pairs(body),
            Format::Form | Format::Other => {}
        }
    }
    // Text, numbers and lists of them can't fail to serialise.
    serde_json::to_string(&summary).unwrap_or_default()
}

impl<'a> Summary<'a> {
    fn add_pairs(&mut self, pairs: &'a [u8]) {
        for (name, field, value) in form::pairs(pairs) {
            match field {
                Some(field) => self.add(field, form::text(field, value).ok()),
                // A pair without a name and a value is no field: it may be anything.
                None if name.is_empty() && value.is_empty() => {}
                None => self.add_other(std::str::from_utf8(&name).unwrap_or_default()),
            }
        }
    }

    fn add_json(&mut self, body: &'a [u8]) {
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            Err(error) => {
                self.malformed_at_byte = Some(error.valid_up_to());
                return;
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match json::entries(text) {
            Ok(entries) => {
                for (name, raw) in entries {
                    match Field::of(name.as_bytes()) {
                        Some(field) => self.add(field, json::scalar(raw).ok().map(Option::unwrap_or_default)),
                        None => self.add_other(&name),
                    }
                }
            }
            Err(error) => self.malformed_at_byte = Some(json::offset(text.as_bytes(), &error)),
        }
    }

    /// A field's value, where it is one that may be kept; `None`: it was no text.
    fn add(&mut self, field: Field, value: Option<Cow<'a, str>>) {
        if value.as_deref().is_some_and(|value| value.trim().is_empty()) {
            return;
        }
        let kept = value.filter(|value| may_be_kept(field, value.trim()));
        let slot = match field {
            Field::Value => &mut self.value,
            Field::Currency => &mut self.currency,
            Field::ClickId => &mut self.click_id,
            Field::ConvertedAt => &mut self.converted_at,
            // A column of its own.
            Field::OrderId => return,
            Field::PostbackToken | Field::Ip | Field::UserAgent => &mut None,
        };
        if kept.is_none() && !self.withheld.contains(&field.name()) {
            self.withheld.push(field.name());
        }
        *slot = kept;
    }

    fn add_other(&mut self, name: &str) {
        if self.other_fields.iter().any(|known| known == name) {
            return;
        }
        if self.other_fields.len() < NAMES_MAX && is_name(name) {
            self.other_fields.push(name.to_owned());
        } else {
            self.unnamed_fields += 1;
        }
    }
}

/// Whether the text looks like a value of that field, or like a macro in its place. Values that are wrong in another way
/// say nothing that the error's code does not say, and may say who somebody is.
fn may_be_kept(field: Field, text: &str) -> bool {
    let all = |is_one: fn(u8) -> bool| text.bytes().all(is_one);
    if text.len() > VALUE_BYTES_MAX {
        return false;
    }
    let looks_right = match field {
        Field::Value => {
            // At most one point and one comma: no address and no list of numbers.
            let of = |sign| text.bytes().filter(|byte| *byte == sign).count();
            all(|byte| byte.is_ascii_digit() || b"+-.,eE".contains(&byte)) && of(b'.') <= 1 && of(b',') <= 1
        }
        Field::Currency => text.len() <= 8 && all(|byte| byte.is_ascii_alphabetic()),
        Field::ClickId => text.len() <= 24 && all(|byte| byte.is_ascii_digit() || byte == b'-'),
        Field::ConvertedAt => {
            all(|byte| byte.is_ascii_digit() || b"TZtz:+-. ".contains(&byte))
                && text.bytes().filter(|byte| *byte == b'.').count() <= 1
        }
        Field::OrderId | Field::PostbackToken | Field::Ip | Field::UserAgent => return false,
    };
    let is_macro = || is_unexpanded(text) && is_name(text.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
    looks_right || is_macro()
}

/// Whether it is short, and made of what names of fields are made of.
fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && text.bytes().filter(u8::is_ascii_digit).count() <= NAME_DIGITS_MAX
}

/// The type of the body, without parameters.
fn essence(content_type: &str) -> Option<&str> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let (kind, subtype) = essence.split_once('/')?;
    let known = ["application", "text", "multipart", "image", "audio", "video", "font", "message", "model"];
    let fits = known.iter().any(|known| known.eq_ignore_ascii_case(kind))
        && subtype.split(['.', '+']).all(is_name)
        && subtype.len() <= 2 * NAME_BYTES_MAX
        && subtype.bytes().filter(u8::is_ascii_digit).count() <= NAME_DIGITS_MAX;
    fits.then_some(essence)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::REQUEST_SUMMARY_START;

    fn summary(content_type: Option<&str>, body: &[u8]) -> String {
        of(&Payload { query: None, content_type, body })
    }

    #[test]
    fn known_fields_are_kept_as_they_were_parsed() {
        let body = r#"{"value":-5,"curr\u0065ncy":"eur","click_id":"789","converted_at":"2026-11-01T12:00:00Z","order_id":"A-1","ip":"198.51.100.7","utm_source":"x"}"#;
        assert_eq!(
            summary(Some("application/json; charset=utf-8"), body.as_bytes()),
            format!(
                r#"{{"body_bytes":{},"content_type":"application/json","value":"-5","currency":"eur","click_id":"789","converted_at":"2026-11-01T12:00:00Z","withheld":["ip"],"other_fields":["utm_source"]}}"#,
                body.len()
            )
        );
        let query = Payload { query: Some("value=%7Bpayout%7D&sub1=a&value=1,5"), ..Payload::default() };
        assert_eq!(of(&query), r#"{"body_bytes":0,"value":"1,5","other_fields":["sub1"]}"#);
        assert_eq!(
            summary(None, br#"{"click_id":"{clickid}"}"#),
            r#"{"body_bytes":24,"click_id":"{clickid}"}"#
        );
        assert_eq!(summary(None, b" "), "", "nothing came");
    }

    #[test]
    fn of_a_body_that_can_not_be_parsed_no_byte_is_kept() {
        let kept = summary(Some("application/json"), b"{\"value\":1,'ip':'203.0.113.9'}");
        assert_eq!(kept, r#"{"body_bytes":30,"content_type":"application/json","malformed_at_byte":11}"#);
        assert_eq!(summary(None, b"\"203.0.113.9\""), r#"{"body_bytes":13,"malformed_at_byte":12}"#);
    }

    /// Each way in which an address or a token came through before, and their siblings.
    #[test]
    fn no_address_and_no_secret_is_kept_in_whatever_it_comes() {
        const SECRETS: [&str; 5] = ["203.0.113.9", "s3cr3tT0k3n", "jane@example.com", "Jane", "2001:db8::9"];
        let json = "application/json";
        let xml = "<hit><ip>203.0.113.9</ip><token>s3cr3tT0k3n</token></hit>";
        let multipart = "--b\r\nContent-Disposition: form-data; name=\"ip\"\r\n\r\n203.0.113.9\r\n--b--";
        let cases: &[(&str, &str)] = &[
            (json, "\u{feff}{\"value\":-1,\"ip\":\"203.0.113.9\",\"postback_token\":\"s3cr3tT0k3n\"}"),
            (json, r#"{"value":-1,"\u0069p":"203.0.113.9","postback\u005ftoken":"s3cr3tT0k3n"}"#),
            (json, r#"{"value":-1,"IP":"203.0.113.9","Postback_Token":"s3cr3tT0k3n"}"#),
            ("multipart/form-data; boundary=203.0.113.9", multipart),
            (json, multipart),
            ("application/x-www-form-urlencoded", multipart),
            ("application/xml", xml),
            ("text/xml; jane@example.com", xml),
            (json, xml),
            ("text/plain", xml),
            (json, r#"[{"ip":"203.0.113.9","postback_token":"s3cr3tT0k3n"}]"#),
            (json, r#""203.0.113.9""#),
            (json, "{'ip':'203.0.113.9','postback_token':'s3cr3tT0k3n'}"),
            (json, "{ip:'203.0.113.9',postback_token:\"s3cr3tT0k3n\"}"),
            (json, r#"{"value":-1,"ip":["203.0.113.9"]}"#),
            (json, r#"{"value":-1,"ip":{"v4":"203.0.113.9"}}"#),
            (json, r#"{"value":-1," ip":"203.0.113.9","ip ":"203.0.113.9"}"#),
            (json, r#"{"value":-1,"note":"{\"ip\":\"203.0.113.9\"}","user_agent":"Jane"}"#),
            (json, r#"{"order_id":{"ip":"203.0.113.9"},"value":"203.0.113.9"}"#),
            (json, r#"{"value":"jane@example.com","currency":"Jane","click_id":"s3cr3tT0k3n"}"#),
            (json, r#"{"value":"{203.0.113.9}","click_id":"{{jane@example.com}}"}"#),
            (json, r#"{"203.0.113.9":1,"jane@example.com":2,"2001:db8::9":3,"s3cr3tT0k3n s3cr3tT0k3n":4}"#),
            (json, r#"{"converted_at":"203.0.113.9","click_id":"2001:db8::9"}"#),
            ("", " ip=203.0.113.9&value=-1"),
            ("text/plain", "value=-1& ip=203.0.113.9&+ip=203.0.113.9&ip+=203.0.113.9"),
            ("application/x-www-form-urlencoded", "value=-1&i%70=203.0.113.9&%69p=2001:db8::9"),
            ("application/x-www-form-urlencoded", "203.0.113.9&jane@example.com&ip[]=203.0.113.9"),
            ("203.0.113.9/x", "{"),
            ("text/203.0.113.9", "{"),
            (json, "{\"ip\":\"203.0.113.9"),
        ];
        for (content_type, body) in cases {
            let kept = summary(Some(content_type).filter(|it| !it.is_empty()).copied(), body.as_bytes());
            for secret in SECRETS {
                // A currency of letters is one, as far as its look goes; so it is asked of all others.
                let allowed = secret == "Jane" && kept.contains(r#""currency":"Jane""#);
                assert!(allowed || !kept.contains(secret), "{content_type}: {body}: {kept}");
            }
            let query = Payload { query: Some(body), ..Payload::default() };
            assert!(!of(&query).contains("203.0.113.9") && !of(&query).contains("s3cr3tT0k3n"), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(
            query in proptest::option::of(".{0,80}"), content_type in proptest::option::of(".{0,80}"),
            body in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let payload =
                Payload { query: query.as_deref(), content_type: content_type.as_deref(), body: &body };
            let kept = of(&payload);
            prop_assert!(kept.is_empty() || kept.starts_with(REQUEST_SUMMARY_START));
            prop_assert!(kept.len() <= 1024);
        }

        #[test]
        fn many_fields_are_bounded(names in proptest::collection::vec("[a-z_]{1,40}", 0..200)) {
            let body = names.iter().map(|name| format!("{name}=1")).collect::<Vec<_>>().join("&");
            let kept = of(&Payload { query: Some(&body), ..Payload::default() });
            prop_assert!(kept.len() <= 1024);
        }
    }
}
