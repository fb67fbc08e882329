//! A goal as the API writes it: exactly these keys.

use serde::Serialize;

use crate::{core::Goal, http::times};

/// A goal in an answer.
#[derive(Serialize)]
pub(super) struct GoalJson<'a> {
    id: u32,
    name: &'a str,
    goal_type: &'static str,
    value: Option<String>,
    currency: Option<String>,
    attribution_window_days: u16,
    postback_url: Option<&'a str>,
    postback_method: &'static str,
    /// The endpoint answered 410 and is not called until its URL is set again.
    postback_disabled: bool,
    /// Shown once: where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    postback_secret: Option<String>,
    trust_client_fields: bool,
    postback_token: &'a str,
    created_at: String,
}

impl<'a> From<&'a Goal> for GoalJson<'a> {
    fn from(goal: &'a Goal) -> Self {
        Self {
            id: goal.id.0,
            name: &goal.name,
            goal_type: goal.goal_type.as_str(),
            value: goal.value.map(|value| value.to_string()),
            currency: goal.currency.map(|currency| currency.to_string()),
            attribution_window_days: goal.attribution_window_days,
            postback_url: goal.postback_url.as_deref(),
            postback_method: goal.postback.method.as_str(),
            postback_disabled: goal.postback.disabled,
            postback_secret: None,
            trust_client_fields: goal.trust_client_fields,
            postback_token: &goal.postback_token.0,
            created_at: times::utc(goal.created_at),
        }
    }
}

impl<'a> GoalJson<'a> {
    /// With the secret that was just made.
    pub(super) fn with_secret(goal: &'a Goal) -> Self {
        let postback_secret = goal.postback.secret.map(|secret| secret.expose());
        Self { postback_secret, ..Self::from(goal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        AccountId, Currency, GoalId, GoalType, Money, PostbackToken, UnixMillis, webhook::PostbackSettings,
    };

    #[test]
    fn a_goal_reads_as_documented() {
        let goal = Goal {
            id: GoalId(1),
            account_id: AccountId(1),
            name: "Q1 Sales".into(),
            goal_type: GoalType::Purchase,
            value: Money::parse("99").ok(),
            currency: Some(Currency::USD),
            attribution_window_days: 30,
            postback_url: None,
            postback: PostbackSettings::default(),
            trust_client_fields: false,
            postback_token: PostbackToken("tok".into()),
            created_at: UnixMillis(1_768_996_800_000),
        };
        assert_eq!(
            serde_json::to_string(&GoalJson::from(&goal)).expect("JSON"),
            r#"{"id":1,"name":"Q1 Sales","goal_type":"purchase","value":"99.00","currency":"USD","attribution_window_days":30,"postback_url":null,"postback_method":"POST","postback_disabled":false,"trust_client_fields":false,"postback_token":"tok","created_at":"2026-01-21T12:00:00Z"}"#
        );
    }
}
