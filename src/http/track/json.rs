//! A hit in JSON. Values are borrowed from the body; numbers keep the text they were written in, so that none of them
//! passes through a float. Of a repeated key the last counts, as in every common JSON reader.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::raw_hit::{Field, RawHit};
use crate::http::{error::ApiError, json};

/// Reads a JSON object into the hit; what it does not name stays as it is.
pub(super) fn decode<'a>(text: &'a str, hit: &mut RawHit<'a>) -> Result<(), ApiError> {
    let mut fields = Fields([None; 8]);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer
        .deserialize_map(&mut fields)
        .and_then(|()| deserializer.end())
        .map_err(|error| json::malformed(text.as_bytes(), &error))?;
    for (field, raw) in FIELDS.into_iter().zip(fields.0) {
        if let Some(raw) = raw {
            *hit.slot(field) = scalar(field, raw)?;
        }
    }
    Ok(())
}

/// Every field, in the order of its place in [`Fields`].
const FIELDS: [Field; 8] = [
    Field::Value,
    Field::Currency,
    Field::OrderId,
    Field::ClickId,
    Field::PostbackToken,
    Field::Ip,
    Field::UserAgent,
    Field::ConvertedAt,
];

/// A string's or a number's text; `null` is an absent field.
fn scalar(field: Field, raw: &RawValue) -> Result<Option<Cow<'_, str>>, ApiError> {
    json::scalar(raw).map_err(|_| field.wrong(format!("`{}` is a string or a number.", field.name())))
}

struct Fields<'a>([Option<&'a RawValue>; 8]);

struct Key(Option<Field>);

impl<'a> Visitor<'a> for &mut Fields<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match key {
                Some(field) => self.0[field as usize] = Some(map.next_value()?),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(Key(Field::of(name.as_bytes())))
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
            (r#"{"click_id":[1]}"#, "click_id", ErrorCode::InvalidClickId),
            (r#"{"currency":false}"#, "currency", ErrorCode::InvalidCurrency),
            (r#"{"ip":[]}"#, "ip", ErrorCode::InvalidField),
        ] {
            let error = read(text).expect_err("wrong type");
            assert_eq!((error.code, error.field.as_ref()), (code, field), "{text}");
        }
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
