//! A hit in a query or a form. Of a repeated name the last counts.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::raw_hit::{Field, RawHit};
use crate::http::error::ApiError;

/// Reads the pairs into the hit; what they don't name stays as it is.
pub(super) fn decode<'a>(pairs: &'a [u8], hit: &mut RawHit<'a>) -> Result<(), ApiError> {
    for (name, field, value) in self::pairs(pairs) {
        match (field, name) {
            (Some(field), _) => *hit.slot(field) = Some(text(field, value)?),
            (None, Cow::Borrowed(name)) => hit.unknown.note(name),
            (None, Cow::Owned(name)) => hit.unknown.note_owned(&name),
        }
    }
    Ok(())
}

/// The pairs: the name with its escapes undone, the field of that name, the value as it was written.
pub(super) fn pairs(pairs: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Option<Field>, &[u8])> {
    pairs.split(|byte| *byte == b'&').map(|pair| {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        let name = if is_plain(name) { Cow::Borrowed(name) } else { unescape(name) };
        let field = Field::of(&name);
        (name, field, value)
    })
}

/// The value as text. `%AFFID%` is a macro, not an escape that went wrong: a value that starts and ends with a
/// percent sign is taken as written, unless it is made of nothing but escapes.
pub(super) fn text(field: Field, value: &[u8]) -> Result<Cow<'_, str>, ApiError> {
    let decoded =
        if is_plain(value) || is_percent_macro(value) { Cow::Borrowed(value) } else { unescape(value) };
    let wrong = || field.wrong(format!("`{}` is not UTF-8.", field.name()));
    // Whatever a click id holds, it never costs the sale.
    if field == Field::ClickId {
        return Ok(match decoded {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        });
    }
    match decoded {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| wrong()),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| wrong()),
    }
}

fn is_plain(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| matches!(byte, b'%' | b'+'))
}

fn is_percent_macro(value: &[u8]) -> bool {
    // An escape has two digits after its sign, so no escaped text ends with one.
    value.len() > 2 && value.first() == Some(&b'%') && value.last() == Some(&b'%')
}

fn unescape(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.contains(&b'+') {
        let spaced: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        Cow::Owned(percent_decode(&spaced).collect())
    } else {
        Cow::from(percent_decode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::error::ErrorCode;

    fn read(pairs: &[u8]) -> Result<RawHit<'_>, ApiError> {
        let mut hit = RawHit::default();
        decode(pairs, &mut hit).map(|()| hit)
    }

    #[test]
    fn pairs_are_read_whatever_else_is_there() {
        let hit = read(b"utm_source=x&value=99.90&order_id=A%20B+C&&=&click_id=7&currency").expect("good");
        assert_eq!(hit.value.as_deref(), Some("99.90"));
        assert!(matches!(hit.value, Some(Cow::Borrowed(_))));
        assert_eq!(hit.order_id.as_deref(), Some("A B C"));
        assert_eq!(hit.click_id.as_deref(), Some("7"));
        assert_eq!(hit.currency.as_deref(), Some(""));
    }

    #[test]
    fn the_last_of_a_repeated_key_counts() {
        assert_eq!(read(b"value=1&v%61lue=2").expect("good").value.as_deref(), Some("2"));
    }

    #[test]
    fn macros_survive_the_decoding() {
        for value in ["%CLICKID%", "%AFFID%", "%DEAL_ID%"] {
            let pairs = format!("click_id={value}");
            let hit = read(pairs.as_bytes()).expect("good");
            assert_eq!(hit.click_id.as_deref(), Some(value));
            assert_eq!(hit.read().map_err(|error| error.code), Err(ErrorCode::UnexpandedMacro));
        }
    }

    #[test]
    fn what_is_not_text_is_an_error_of_its_field_alone() {
        let error = read(b"order_id=%ff%fe1").expect_err("not UTF-8");
        assert_eq!((error.code, error.field.as_ref()), (ErrorCode::InvalidOrderId, "order_id"));
        assert!(read(b"junk=%ff&value=1").is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(hit) = read(&bytes) {
                let _ = hit.read();
            }
        }

        #[test]
        fn values_come_through_exactly(order_id in "[^%].{0,60}", value in ".{0,20}") {
            let pairs = form_urlencoded::Serializer::new(String::new())
                .append_pair("order_id", &order_id)
                .append_pair("value", &value)
                .finish();
            let hit = read(pairs.as_bytes()).expect("good");
            prop_assert_eq!(hit.order_id.as_deref(), Some(order_id.as_str()));
            prop_assert_eq!(hit.value.as_deref(), Some(value.as_str()));
        }
    }
}
