//! A goal as callers write it: `{"goal":{…}}`. Money never passes through a float.

use hyper::Uri;
use serde_json::value::RawValue;

use crate::{
    catalog::{GoalDraft, GoalPatch},
    core::{ATTRIBUTION_WINDOW_DAYS_DEFAULT, Currency, GoalType, Money, webhook::PostbackMethod},
    http::{
        error::{ApiError, ErrorCode},
        input, json,
    },
};

const FIELDS: [&str; 8] = [
    "name",
    "goal_type",
    "value",
    "currency",
    "attribution_window_days",
    "postback_url",
    "postback_method",
    "trust_client_fields",
];
const URL_BYTES_MAX: usize = 2048;
const WINDOW_DAYS_MAX: u16 = 365;

/// A goal to be made: a name is needed, all else has a default.
pub(super) fn draft(text: &str) -> Result<GoalDraft, ApiError> {
    let fields = patch(text)?;
    Ok(GoalDraft {
        name: input::required("name", fields.name)?,
        goal_type: fields.goal_type.unwrap_or(GoalType::Custom),
        value: fields.value.flatten(),
        currency: fields.currency.flatten(),
        attribution_window_days: fields.attribution_window_days.unwrap_or(ATTRIBUTION_WINDOW_DAYS_DEFAULT),
        postback_url: fields.postback_url.flatten(),
        postback_method: fields.postback_method.unwrap_or_default(),
        trust_client_fields: fields.trust_client_fields.unwrap_or_default(),
    })
}

/// What to change of a goal.
pub(super) fn patch(text: &str) -> Result<GoalPatch, ApiError> {
    let mut patch = GoalPatch::default();
    for (field, raw) in input::fields(text, "goal")? {
        match field.as_ref() {
            "name" => patch.name = Some(input::name(raw)?),
            "goal_type" => patch.goal_type = Some(goal_type(raw)?),
            "value" => patch.value = Some(value(raw)?),
            "currency" => patch.currency = Some(currency(raw)?),
            "attribution_window_days" => patch.attribution_window_days = Some(window(raw)?),
            "postback_url" => patch.postback_url = Some(url(raw)?),
            "postback_method" => patch.postback_method = Some(method(raw)?),
            "trust_client_fields" => {
                patch.trust_client_fields = Some(input::flag("trust_client_fields", raw)?);
            }
            _ => return Err(input::unknown(&field, &FIELDS)),
        }
    }
    Ok(patch)
}

fn goal_type(raw: &RawValue) -> Result<GoalType, ApiError> {
    let text = input::read::<String>(raw);
    text.as_deref().and_then(GoalType::parse).ok_or_else(|| {
        let known: Vec<_> = GoalType::ALL.iter().map(|kind| kind.as_str()).collect();
        input::wrong("goal_type", format!("`goal_type` is one of {}.", known.join(", ")))
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

fn currency(raw: &RawValue) -> Result<Option<Currency>, ApiError> {
    if raw.get() == "null" {
        return Ok(None);
    }
    let text = input::read::<String>(raw);
    text.as_deref()
        .and_then(|text| Currency::parse(text).ok())
        .map(Some)
        .ok_or_else(|| ApiError::new(ErrorCode::InvalidCurrency).at("currency"))
}

fn window(raw: &RawValue) -> Result<u16, ApiError> {
    match json::scalar(raw) {
        Ok(None) => Ok(ATTRIBUTION_WINDOW_DAYS_DEFAULT),
        Ok(Some(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok().filter(|days| (1..=WINDOW_DAYS_MAX).contains(days)).ok_or(())
        }
        _ => Err(()),
    }
    .map_err(|()| {
        input::wrong(
            "attribution_window_days",
            format!("`attribution_window_days` is a whole number from 1 to {WINDOW_DAYS_MAX}."),
        )
    })
}

/// An address to call later: `http` or `https` with a host, and no credentials in it.
fn url(raw: &RawValue) -> Result<Option<String>, ApiError> {
    let text = match json::scalar(raw) {
        Ok(None) => return Ok(None),
        Ok(Some(text)) => text,
        Err(_) => "".into(),
    };
    let fits = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("https" | "http"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    let uri = text.parse::<Uri>().ok().filter(fits);
    if uri.is_some() && text.len() <= URL_BYTES_MAX {
        return Ok(Some(text.into_owned()));
    }
    let message = format!(
        "`postback_url` is an https:// or http:// URL without credentials, of at most {URL_BYTES_MAX} bytes."
    );
    Err(input::wrong("postback_url", message))
}

fn method(raw: &RawValue) -> Result<PostbackMethod, ApiError> {
    let text: Option<String> = serde_json::from_str(raw.get()).ok();
    text.as_deref()
        .and_then(PostbackMethod::parse)
        .ok_or_else(|| input::wrong("postback_method", "`postback_method` is POST or GET."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_body_is_read() {
        let draft = draft(
            r#"{"goal":{"name":" Q1 Sales ","goal_type":"purchase","value":99.00,"currency":"usd",
            "postback_url":"https://example.com/hook?x=1","attribution_window_days":30}}"#,
        )
        .expect("good");
        assert_eq!((draft.name.as_str(), draft.goal_type), ("Q1 Sales", GoalType::Purchase));
        assert_eq!(draft.value.map(Money::micros), Some(99_000_000));
        assert_eq!((draft.currency, draft.attribution_window_days), (Some(Currency::USD), 30));
        assert_eq!(draft.postback_url.as_deref(), Some("https://example.com/hook?x=1"));
    }

    #[test]
    fn a_name_is_enough() {
        let draft = draft(r#"{"goal":{"name":"n","value":null}}"#).expect("good");
        assert_eq!((draft.goal_type, draft.attribution_window_days), (GoalType::Custom, 30));
        assert_eq!((draft.value, draft.currency, draft.postback_url), (None, None, None));
    }

    #[test]
    fn a_patch_names_what_it_changes() {
        let patch = patch(r#"{"goal":{"value":"0.10","postback_url":null}}"#).expect("good");
        let expected = GoalPatch {
            value: Some(Money::from_micros(100_000)),
            postback_url: Some(None),
            ..GoalPatch::default()
        };
        assert_eq!(patch, expected);
    }

    #[test]
    fn every_mistake_names_its_field() {
        let long = format!(r#"{{"goal":{{"name":"{}"}}}}"#, "x".repeat(201));
        for (body, field, code) in [
            ("{}", "goal", ErrorCode::MissingField),
            (r#"{"goal":1}"#, "goal", ErrorCode::MissingField),
            (r#"{"goal":{}}"#, "name", ErrorCode::MissingField),
            (r#"{"goals":{}}"#, "goals", ErrorCode::UnknownField),
            (r#"{"goal":{"name":"n","colour":"red"}}"#, "colour", ErrorCode::UnknownField),
            (r#"{"goal":{"name":" "}}"#, "name", ErrorCode::InvalidField),
            (r#"{"goal":{"name":7}}"#, "name", ErrorCode::InvalidField),
            (r#"{"goal":{"name":"a\u0000"}}"#, "name", ErrorCode::InvalidField),
            (long.as_str(), "name", ErrorCode::InvalidField),
            (r#"{"goal":{"name":"n","goal_type":"sale"}}"#, "goal_type", ErrorCode::InvalidField),
            (r#"{"goal":{"name":"n","value":-1}}"#, "value", ErrorCode::InvalidValue),
            (r#"{"goal":{"name":"n","value":[]}}"#, "value", ErrorCode::InvalidValue),
            (r#"{"goal":{"name":"n","currency":"XYZ"}}"#, "currency", ErrorCode::InvalidCurrency),
            (
                r#"{"goal":{"name":"n","attribution_window_days":0}}"#,
                "attribution_window_days",
                ErrorCode::InvalidField,
            ),
            (
                r#"{"goal":{"name":"n","attribution_window_days":366}}"#,
                "attribution_window_days",
                ErrorCode::InvalidField,
            ),
            (
                r#"{"goal":{"name":"n","attribution_window_days":1.5}}"#,
                "attribution_window_days",
                ErrorCode::InvalidField,
            ),
            (r#"{"goal":{"name":"n","postback_url":"ftp://x/"}}"#, "postback_url", ErrorCode::InvalidField),
            (
                r#"{"goal":{"name":"n","trust_client_fields":1}}"#,
                "trust_client_fields",
                ErrorCode::InvalidField,
            ),
            (r#"{"goal":{"name":"n","postback_url":"/hook"}}"#, "postback_url", ErrorCode::InvalidField),
            (
                r#"{"goal":{"name":"n","postback_url":"https://u:p@x/"}}"#,
                "postback_url",
                ErrorCode::InvalidField,
            ),
        ] {
            let error = draft(body).expect_err(body);
            assert_eq!((error.code, error.field.as_ref()), (code, field), "{body}");
        }
        assert_eq!(draft("{").map_err(|error| error.code), Err(ErrorCode::InvalidJson));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,120}") {
            let _ = draft(&text);
            let _ = draft(&format!("{{\"goal\":{{\"name\":\"n\",\"postback_url\":{}}}}}", serde_json::json!(text)));
        }
    }
}
