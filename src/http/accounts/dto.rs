//! Accounts and keys as the API writes them: exactly these keys.

use serde::Serialize;

use crate::{
    core::{Account, ApiKey},
    http::times,
};

/// An account in an answer.
#[derive(Serialize)]
pub(super) struct AccountJson<'a> {
    id: u32,
    name: &'a str,
    plan: &'static str,
    /// Null: the daemon's setting; 0: no limit.
    rate_limit_per_minute: Option<u32>,
    /// Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<KeyJson<'a>>>,
    /// When it was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
}

/// A key in an answer.
#[derive(Serialize)]
pub(super) struct KeyJson<'a> {
    id: u32,
    name: &'a str,
    created_at: String,
    revoked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
}

impl<'a> From<&'a Account> for AccountJson<'a> {
    fn from(account: &'a Account) -> Self {
        Self {
            id: account.id.0,
            name: &account.name,
            plan: account.plan.as_str(),
            rate_limit_per_minute: account.rate_limit_per_minute,
            keys: None,
            api_key: None,
        }
    }
}

impl<'a> AccountJson<'a> {
    /// With the account's keys.
    pub(super) fn with_keys(self, keys: impl Iterator<Item = &'a ApiKey>) -> Self {
        Self { keys: Some(keys.map(|key| KeyJson::new(key, None)).collect()), ..self }
    }

    /// With the key that was made with the account.
    pub(super) fn with_secret(self, secret: &'a str) -> Self {
        Self { api_key: Some(secret), ..self }
    }
}

impl<'a> KeyJson<'a> {
    /// The key, with its secret if it was made just now.
    pub(super) fn new(key: &'a ApiKey, secret: Option<&'a str>) -> Self {
        Self {
            id: key.id,
            name: &key.name,
            created_at: times::utc(key.created_at),
            revoked: key.revoked,
            api_key: secret,
        }
    }
}
