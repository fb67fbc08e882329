//! Values as a person reads and mends them.

use crate::core::{OrderKey, Source};

/// Hexadecimal; empty: none.
pub(super) fn hex(key: Option<OrderKey>) -> String {
    key.map(|key| format!("{:032x}", key.0)).unwrap_or_default()
}

/// Reads it back.
pub(super) fn key_of(field: &str, text: &str) -> Result<Option<OrderKey>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let key = u128::from_str_radix(text, 16).map_err(|_| format!("{field}: not a hexadecimal number"))?;
    Ok(Some(OrderKey(key)))
}

/// The one of that name.
pub(super) fn one_of<T: Copy>(
    field: &str,
    name: &str,
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    all.iter().copied().find(|one| name_of(*one) == name).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|one| name_of(*one)).collect();
        format!("{field}: must be one of {}", names.join(", "))
    })
}

pub(super) fn source(name: &str) -> Result<Source, String> {
    one_of("source", name, &[Source::Postback, Source::Pixel, Source::Api], Source::as_str)
}
