//! A hit in JSON. Values are borrowed from the body; numbers keep the text they were written in, so that none of them
//! passes through a float. Of a repeated key the last counts, as in every common JSON reader.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    decimal::shortest_decimal,
    raw_hit::{Field, RawHit},
    unknown::UnknownNames,
};
use crate::http::{error::ApiError, json};

/// Reads a JSON object into the hit; what it does not name stays as it is.
pub(super) fn decode<'a>(text: &'a str, hit: &mut RawHit<'a>) -> Result<(), ApiError> {
    let mut fields = Fields { raw: [None; Field::ALL.len()], unknown: &mut hit.unknown };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer
        .deserialize_map(&mut fields)
        .and_then(|()| deserializer.end())
        .map_err(|error| json::malformed(text.as_bytes(), &error))?;
    for (field, raw) in Field::ALL.into_iter().zip(fields.raw) {
        if let Some(raw) = raw {
            *hit.slot(field) = scalar(field, raw)?;
        }
    }
    Ok(())
}

/// A string's or a number's text; `null` is an absent field.
fn scalar(field: Field, raw: &RawValue) -> Result<Option<Cow<'_, str>>, ApiError> {
    let is_number = raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    match (json::scalar(raw), field) {
        (Ok(Some(text)), Field::OrderId | Field::ClickId) if is_number => {
            Ok(Some(shortest_decimal(&text).map_or(text, Cow::Owned)))
        }
        (Ok(text), _) => Ok(text),
        // Whatever a click id is, it never costs the sale.
        (Err(_), Field::ClickId) => Ok(Some(Cow::Borrowed(raw.get()))),
        (Err(_), _) => Err(field.wrong(format!("`{}` is a string or a number.", field.name()))),
    }
}

struct Fields<'f, 'a> {
    /// In the order of [`Field::ALL`].
    raw: [Option<&'a RawValue>; Field::ALL.len()],
    unknown: &'f mut UnknownNames<'a>,
}

/// A known field, or another name.
enum Key<'a> {
    Field(Field),
    Other(Cow<'a, str>),
}

impl<'a> Visitor<'a> for &mut Fields<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key()? {
            match key {
                Key::Field(field) => self.raw[field as usize] = Some(map.next_value()?),
                Key::Other(name) => {
                    map.next_value::<IgnoredAny>()?;
                    match name {
                        Cow::Borrowed(name) => self.unknown.note(name.as_bytes()),
                        Cow::Owned(name) => self.unknown.note_owned(name.as_bytes()),
                    }
                }
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key<'de>, E> {
        Ok(Field::of(name.as_bytes()).map_or(Key::Other(Cow::Borrowed(name)), Key::Field))
    }

    fn visit_str<E>(self, name: &str) -> Result<Key<'de>, E> {
        Ok(Field::of(name.as_bytes()).map_or_else(|| Key::Other(Cow::Owned(name.to_owned())), Key::Field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::error::ErrorCode;

    fn read(text: &str) -> Result<RawHit<'_>, ApiError> {
        let mut hit = RawHit::default();
        decode(text, &mut hit).map(|()| hit)
    }

    #[test]
    fn numbers_and_strings_keep_their_text() {
        let hit = read(
            r#"{"value": 0.1000000000000000055, "order_id": 12345678901234567890123, "click_id":"789", "currency":"\u0045UR", "x":{"y":[1]}}"#,
        )
        .expect("good");
        assert_eq!(hit.value.as_deref(), Some("0.1000000000000000055"));
        assert_eq!(hit.order_id.as_deref(), Some("12345678901234567890123"));
        assert_eq!(hit.click_id.as_deref(), Some("789"));
        assert_eq!(hit.currency.as_deref(), Some("EUR"));
        assert!(matches!(hit.value, Some(Cow::Borrowed(_))));
    }

    #[test]
    fn the_last_of_a_repeated_key_counts_and_null_is_absent() {
        let hit = read(r#"{"value":1,"value":2,"order_id":"a","order_id":null}"#).expect("good");
        assert_eq!((hit.value.as_deref(), hit.order_id), (Some("2"), None));
    }

    #[test]
    fn other_types_are_errors_of_their_field() {
        for (text, field, code) in [
            (r#"{"value":true}"#, "value", ErrorCode::InvalidValue),
            (r#"{"order_id":{"a":1}}"#, "order_id", ErrorCode::InvalidOrderId),
            (r#"{"currency":false}"#, "currency", ErrorCode::InvalidCurrency),
            (r#"{"ip":[]}"#, "ip", ErrorCode::InvalidField),
        ] {
            let error = read(text).expect_err("wrong type");
            assert_eq!((error.code, error.field.as_ref()), (code, field), "{text}");
        }
    }

    #[test]
    fn a_click_id_of_another_type_never_costs_the_sale() {
        for text in [r#"{"click_id":[1]}"#, r#"{"click_id":{"id":1}}"#, r#"{"click_id":true}"#] {
            let fields = read(text).expect("read").read().expect("counts");
            assert_eq!(fields.click_id, Some(crate::core::ClickId::UNUSABLE), "{text}");
        }
    }

    #[test]
    fn numbers_are_one_id_however_they_are_written() {
        for text in ["12345", "12345.0", "1.2345e4", "123450E-1"] {
            let body = format!(r#"{{"order_id":{text},"click_id":{text}}}"#);
            let hit = read(&body).expect("good");
            assert_eq!(
                (hit.order_id.as_deref(), hit.click_id.as_deref()),
                (Some("12345"), Some("12345")),
                "{text}"
            );
        }
        assert_eq!(read(r#"{"order_id":"12345.0"}"#).expect("good").order_id.as_deref(), Some("12345.0"));
    }

    #[test]
    fn other_names_are_noted() {
        let hit =
            read(r#"{"payout":5,"t\u0078id":"T1","VALUE":3,"cb":1,"customer":{"value":9}}"#).expect("good");
        assert_eq!(hit.value.as_deref(), Some("3"));
        assert_eq!(hit.unknown.told().collect::<Vec<_>>(), ["payout", "txid", "customer"]);
    }

    #[test]
    fn malformed_json_names_the_byte() {
        for (text, offset) in [
            ("{\"value\":}", 9),
            ("{\n  \"value\": 1,\n  x", 18),
            ("{\"a\":1} x", 8),
            ("{\"a\":1", 6),
            ("[1]", 0),
        ] {
            let error = read(text).expect_err("malformed");
            assert_eq!(error.code, ErrorCode::InvalidJson);
            assert!(error.message.contains(&format!("byte {offset}")), "{text:?}: {}", error.message);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = read(&text);
        }

        #[test]
        fn any_mutation_is_answered(at in 0usize..60, byte in 0u8..128) {
            let mut bytes = br#"{"value":"99.90","order_id":"O\n1","click_id":789,"ip":null}"#.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let text = String::from_utf8(bytes).expect("ASCII");
            if let Ok(hit) = read(&text) {
                let _ = hit.read();
            }
        }

        #[test]
        fn strings_come_through_exactly(order_id in ".{0,60}") {
            let text = serde_json::json!({ "order_id": order_id }).to_string();
            let hit = read(&text).expect("good");
            prop_assert_eq!(hit.order_id.as_deref(), Some(order_id.as_str()));
        }
    }
}
