//! Fields that callers write, as every kind of entry has them. A field that is not known is refused by name, so that a
//! misspelt one can't pass for one that was set.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    error::{ApiError, ErrorCode},
    json,
};

/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 200;

/// The fields of `{"<entry>":{…}}`.
pub(super) fn fields<'a>(
    text: &'a str,
    entry: &'static str,
) -> Result<Vec<(Cow<'a, str>, &'a RawValue)>, ApiError> {
    let mut found = None;
    for (name, raw) in json::object(text)? {
        if name == entry {
            found = Some(raw);
        } else {
            return Err(unknown(&name, &[entry]));
        }
    }
    let object = found.filter(|raw| raw.get().starts_with('{')).ok_or_else(|| {
        ApiError::new(ErrorCode::MissingField)
            .because(format!("The body is an object with an object `{entry}`."))
            .at(entry)
    })?;
    json::object(object.get())
}

/// There is no such field.
pub(super) fn unknown(field: &str, known: &[&str]) -> ApiError {
    ApiError::new(ErrorCode::UnknownField)
        .because(format!("There is no field `{field}` here; there are: `{}`.", known.join("`, `")))
        .at(field.to_owned())
}

/// The field has a value that it can't have.
pub(super) fn wrong(field: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError::new(ErrorCode::InvalidField).because(message).at(field)
}

/// A field that can't be left out.
pub(super) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ApiError> {
    value.ok_or_else(|| {
        ApiError::new(ErrorCode::MissingField).because(format!("`{field}` is missing.")).at(field)
    })
}

/// `name`: shown to people.
pub(super) fn name(raw: &RawValue) -> Result<String, ApiError> {
    let name = read::<String>(raw).map(|text| text.trim().to_owned()).filter(|text| {
        (1..=NAME_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    });
    name.ok_or_else(|| {
        wrong(
            "name",
            format!("`name` is text of 1 to {NAME_CHARS_MAX} characters without control characters."),
        )
    })
}

/// Yes or no.
pub(super) fn flag(field: &'static str, raw: &RawValue) -> Result<bool, ApiError> {
    read(raw).ok_or_else(|| wrong(field, format!("`{field}` is true or false.")))
}

/// The value, if it has that type.
pub(super) fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}
