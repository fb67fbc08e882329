//! Accounts and keys as callers write them: `{"account":{…}}`, `{"key":{…}}`.

use serde_json::value::RawValue;

use crate::{
    catalog::{AccountDraft, AccountPatch},
    core::Plan,
    http::{error::ApiError, input},
};

const FIELDS: [&str; 3] = ["name", "plan", "rate_limit_per_minute"];

/// An account to be made: a name is needed.
pub(super) fn draft(text: &str) -> Result<AccountDraft, ApiError> {
    let fields = patch(text)?;
    Ok(AccountDraft {
        name: input::required("name", fields.name)?,
        plan: fields.plan.unwrap_or(Plan::Enterprise),
        rate_limit_per_minute: fields.rate_limit_per_minute.flatten(),
    })
}

/// What to change of an account.
pub(super) fn patch(text: &str) -> Result<AccountPatch, ApiError> {
    let mut patch = AccountPatch::default();
    for (field, raw) in input::fields(text, "account")? {
        match field.as_ref() {
            "name" => patch.name = Some(input::name(raw)?),
            "plan" => patch.plan = Some(plan(raw)?),
            "rate_limit_per_minute" => patch.rate_limit_per_minute = Some(limit(raw)?),
            _ => return Err(input::unknown(&field, &FIELDS)),
        }
    }
    Ok(patch)
}

/// A key's name.
pub(super) fn key(text: &str) -> Result<String, ApiError> {
    let mut name = None;
    for (field, raw) in input::fields(text, "key")? {
        match field.as_ref() {
            "name" => name = Some(input::name(raw)?),
            _ => return Err(input::unknown(&field, &["name"])),
        }
    }
    input::required("name", name)
}

fn plan(raw: &RawValue) -> Result<Plan, ApiError> {
    let plan = input::read::<String>(raw).and_then(|text| Plan::parse(&text));
    plan.ok_or_else(|| input::wrong("plan", "`plan` is one of starter, pro, enterprise."))
}

fn limit(raw: &RawValue) -> Result<Option<u32>, ApiError> {
    input::read(raw).ok_or_else(|| {
        let message = "`rate_limit_per_minute` is a whole number, 0 for no limit, or null for the daemon's.";
        input::wrong("rate_limit_per_minute", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::ErrorCode;

    #[test]
    fn the_documented_bodies_are_read() {
        let draft = draft(r#"{"account":{"name":"Shop","plan":"pro","rate_limit_per_minute":500}}"#);
        let expected =
            AccountDraft { name: "Shop".into(), plan: Plan::Pro, rate_limit_per_minute: Some(500) };
        assert_eq!(draft.as_ref(), Ok(&expected));
        let patch = patch(r#"{"account":{"rate_limit_per_minute":null}}"#);
        let expected = AccountPatch { rate_limit_per_minute: Some(None), ..AccountPatch::default() };
        assert_eq!(patch.as_ref(), Ok(&expected));
        assert_eq!(key(r#"{"key":{"name":"ci"}}"#).as_deref(), Ok("ci"));
    }

    #[test]
    fn every_mistake_names_its_field() {
        for (body, field, code) in [
            ("{}", "account", ErrorCode::MissingField),
            (r#"{"account":{}}"#, "name", ErrorCode::MissingField),
            (r#"{"account":{"name":""}}"#, "name", ErrorCode::InvalidField),
            (r#"{"account":{"name":"n","plan":"gold"}}"#, "plan", ErrorCode::InvalidField),
            (r#"{"account":{"name":"n","plan":null}}"#, "plan", ErrorCode::InvalidField),
            (
                r#"{"account":{"name":"n","rate_limit_per_minute":-1}}"#,
                "rate_limit_per_minute",
                ErrorCode::InvalidField,
            ),
            (
                r#"{"account":{"name":"n","rate_limit_per_minute":4294967296}}"#,
                "rate_limit_per_minute",
                ErrorCode::InvalidField,
            ),
            (r#"{"account":{"name":"n","id":3}}"#, "id", ErrorCode::UnknownField),
        ] {
            let error = draft(body).expect_err(body);
            assert_eq!((error.code, error.field.as_ref()), (code, field), "{body}");
        }
        let error = key(r#"{"key":{}}"#).expect_err("no name");
        assert_eq!((error.code, error.field.as_ref()), (ErrorCode::MissingField, "name"));
    }
}
