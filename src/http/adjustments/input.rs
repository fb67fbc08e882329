//! An adjustment as callers write it: `{"adjustment":{"type":"refund","value":"20.00","reason":"…"}}`.

use serde_json::value::RawValue;

use crate::{
    core::{AdjustmentKind, Money},
    http::{
        error::{ApiError, ErrorCode},
        json,
    },
};

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// What the caller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kind: AdjustmentKind,
    pub(super) value: Option<Money>,
    pub(super) reason: String,
}

/// Reads the body.
pub(super) fn wanted(text: &str) -> Result<Wanted, ApiError> {
    let mut adjustment = None;
    for (name, raw) in json::object(text)? {
        match name.as_ref() {
            "adjustment" => adjustment = Some(raw),
            _ => return Err(unknown(&name, "`adjustment`")),
        }
    }
    let adjustment = adjustment.filter(|raw| raw.get().starts_with('{')).ok_or_else(|| {
        ApiError::new(ErrorCode::MissingField)
            .because("The body is an object with an object `adjustment`.")
            .at("adjustment")
    })?;
    let (mut named, mut amount, mut why) = (None, None, String::new());
    for (field, raw) in json::object(adjustment.get())? {
        match field.as_ref() {
            "type" => named = Some(kind(raw)?),
            "value" => amount = value(raw)?,
            "reason" => why = reason(raw)?,
            _ => return Err(unknown(&field, "`type`, `value`, `reason`")),
        }
    }
    let kind = named
        .ok_or_else(|| ApiError::new(ErrorCode::MissingField).because("`type` is missing.").at("type"))?;
    match (kind, amount) {
        (AdjustmentKind::Correction, None) => Err(ApiError::new(ErrorCode::MissingField)
            .because("A correction says what the value was: `value` is missing.")
            .at("value")),
        (AdjustmentKind::Approve | AdjustmentKind::Reject, Some(_)) => {
            Err(ApiError::new(ErrorCode::InvalidValue)
                .because("Only refunds and corrections have a `value`.")
                .at("value"))
        }
        (kind, value) => Ok(Wanted { kind, value, reason: why }),
    }
}

fn kind(raw: &RawValue) -> Result<AdjustmentKind, ApiError> {
    let name = json::scalar(raw).ok().flatten();
    name.and_then(|name| AdjustmentKind::parse(&name)).ok_or_else(|| {
        let known: Vec<_> = AdjustmentKind::ALL.iter().map(|kind| kind.as_str()).collect();
        wrong("type", format!("`type` is one of {}.", known.join(", ")))
    })
}

fn value(raw: &RawValue) -> Result<Option<Money>, ApiError> {
    let refused = |message: String| ApiError::new(ErrorCode::InvalidValue).because(message).at("value");
    match json::scalar(raw) {
        Err(_) => Err(refused("`value` is a number or a decimal string.".into())),
        Ok(None) => Ok(None),
        Ok(Some(text)) => {
            Money::parse(&text).map(Some).map_err(|error| refused(format!("`value`: {error}.")))
        }
    }
}

fn reason(raw: &RawValue) -> Result<String, ApiError> {
    let text: Option<String> =
        serde_json::from_str(raw.get()).map_err(|_| wrong("reason", "`reason` is text.".into()))?;
    let text = text.unwrap_or_default();
    let text = text.trim();
    if text.len() > REASON_BYTES_MAX || text.chars().any(char::is_control) {
        let message =
            format!("`reason` is text of at most {REASON_BYTES_MAX} bytes without control characters.");
        return Err(wrong("reason", message));
    }
    Ok(text.to_owned())
}

fn unknown(field: &str, known: &str) -> ApiError {
    ApiError::new(ErrorCode::UnknownField)
        .because(format!("There is no field `{field}` here; there are: {known}."))
        .at(field.to_owned())
}

fn wrong(field: &'static str, message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidField).because(message).at(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_understood() {
        let read = |json: &str| {
            wanted(&format!(r#"{{"adjustment":{json}}}"#))
                .map(|wanted| (wanted.kind, wanted.value.map(|value| value.to_string()), wanted.reason))
        };
        assert_eq!(
            read(r#"{"type":"refund","value":"20.00","reason":" damaged "}"#),
            Ok((AdjustmentKind::Refund, Some("20.00".into()), "damaged".into()))
        );
        assert_eq!(
            read(r#"{"type":"refund","value":null}"#),
            Ok((AdjustmentKind::Refund, None, String::new()))
        );
        assert_eq!(
            read(r#"{"type":"correction","value":0}"#),
            Ok((AdjustmentKind::Correction, Some("0.00".into()), String::new()))
        );
        assert_eq!(read(r#"{"type":"reject"}"#), Ok((AdjustmentKind::Reject, None, String::new())));
        let code = |json: &str| read(json).map_err(|error| (error.code, error.field.into_owned()));
        let refused = |code, field: &str| Err((code, field.to_owned()));
        assert_eq!(code(r#"{"value":1}"#), refused(ErrorCode::MissingField, "type"));
        assert_eq!(code(r#"{"type":"correction"}"#), refused(ErrorCode::MissingField, "value"));
        assert_eq!(code(r#"{"type":"chargeback"}"#), refused(ErrorCode::InvalidField, "type"));
        assert_eq!(code(r#"{"type":"reject","value":1}"#), refused(ErrorCode::InvalidValue, "value"));
        assert_eq!(code(r#"{"type":"refund","value":-1}"#), refused(ErrorCode::InvalidValue, "value"));
        assert_eq!(code(r#"{"type":"refund","amount":1}"#), refused(ErrorCode::UnknownField, "amount"));
        assert_eq!(code(r#"{"type":"refund","reason":7}"#), refused(ErrorCode::InvalidField, "reason"));
        assert_eq!(wanted("{}").map_err(|error| error.code), Err(ErrorCode::MissingField));
    }
}
