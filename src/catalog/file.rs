//! The catalog's file: versioned JSON, with DTOs of its own so that neither the domain nor the API can change it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::core::{
    Account, AccountId, ApiKey, Campaign, CatalogRows, Currency, Destination, Goal, GoalId, GoalType, Link,
    LinkId, Money, Plan, PostbackToken, Row, UnixMillis, Variant,
    webhook::{PostbackMethod, PostbackSettings, SigningSecret},
};

const FORMAT: u32 = 1;

/// The bytes are not a catalog.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not JSON of this shape.
    #[error("is not a catalog: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer version.
    #[error("has format {0}, which this version of tally does not know")]
    Format(u32),
    /// A value that no version writes.
    #[error("holds a {0} that can't be read")]
    Value(&'static str),
}

/// The rows as bytes.
pub(super) fn write(rows: &CatalogRows) -> Vec<u8> {
    let file = FileV1 {
        format: FORMAT,
        version: rows.version,
        accounts: rows.accounts.iter().map(AccountV1::from).collect(),
        api_keys: rows.api_keys.iter().map(KeyV1::from).collect(),
        goals: rows.goals.iter().map(GoalV1::from).collect(),
        links: rows.links.iter().map(LinkV1::from).collect(),
    };
    // Structs of numbers and text can't fail to serialise.
    serde_json::to_vec_pretty(&file).unwrap_or_default()
}

/// Reads what [`write`] wrote.
pub(super) fn read(bytes: &[u8]) -> Result<CatalogRows, FileError> {
    let Format { format } = serde_json::from_slice(bytes)?;
    if format != FORMAT {
        return Err(FileError::Format(format));
    }
    let file: FileV1 = serde_json::from_slice(bytes)?;
    Ok(CatalogRows {
        version: file.version,
        accounts: file.accounts.into_iter().map(AccountV1::read).collect::<Result<_, _>>()?,
        api_keys: file.api_keys.into_iter().map(KeyV1::read).collect::<Result<_, _>>()?,
        goals: file.goals.into_iter().map(GoalV1::read).collect::<Result<_, _>>()?,
        links: file.links.into_iter().map(LinkV1::read).collect::<Result<_, _>>()?,
    })
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct FileV1 {
    format: u32,
    version: u64,
    accounts: Vec<AccountV1>,
    api_keys: Vec<KeyV1>,
    goals: Vec<GoalV1>,
    #[serde(default)]
    links: Vec<LinkV1>,
}

#[derive(Serialize, Deserialize)]
struct AccountV1 {
    version: u64,
    deleted: bool,
    id: u32,
    name: String,
    plan: String,
    rate_limit_per_minute: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct KeyV1 {
    version: u64,
    deleted: bool,
    id: u32,
    account_id: u32,
    name: String,
    sha256: String,
    created_at_ms: i64,
    revoked: bool,
}

#[derive(Serialize, Deserialize)]
struct GoalV1 {
    version: u64,
    deleted: bool,
    id: u32,
    account_id: u32,
    name: String,
    goal_type: String,
    value: Option<String>,
    currency: Option<String>,
    attribution_window_days: u16,
    postback_url: Option<String>,
    #[serde(default)]
    postback: PostbackV1,
    #[serde(default)]
    trust_client_fields: bool,
    postback_token: String,
    created_at_ms: i64,
}

/// The secrets stand here in full, since they must sign: the file is readable by the owner alone.
#[derive(Default, Serialize, Deserialize)]
struct PostbackV1 {
    get: bool,
    secret: Option<String>,
    previous: Option<(String, i64)>,
    disabled: bool,
}

#[derive(Serialize, Deserialize)]
struct LinkV1 {
    version: u64,
    deleted: bool,
    id: u32,
    account_id: u32,
    name: String,
    slug: String,
    destination_url: String,
    variants: Vec<VariantV1>,
    append_click_id: bool,
    utm_source: String,
    utm_medium: String,
    utm_campaign: String,
    utm_term: String,
    utm_content: String,
    created_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct VariantV1 {
    name: String,
    weight: u16,
    destination_url: Option<String>,
}

impl From<&Row<Account>> for AccountV1 {
    fn from(row: &Row<Account>) -> Self {
        let account = &row.entry;
        Self {
            version: row.version,
            deleted: row.deleted,
            id: account.id.0,
            name: account.name.clone(),
            plan: account.plan.as_str().to_owned(),
            rate_limit_per_minute: account.rate_limit_per_minute,
        }
    }
}

impl AccountV1 {
    fn read(self) -> Result<Row<Account>, FileError> {
        let entry = Account {
            id: AccountId(self.id),
            name: self.name,
            plan: Plan::parse(&self.plan).ok_or(FileError::Value("plan"))?,
            rate_limit_per_minute: self.rate_limit_per_minute,
        };
        Ok(Row { version: self.version, deleted: self.deleted, entry })
    }
}

impl From<&Row<ApiKey>> for KeyV1 {
    fn from(row: &Row<ApiKey>) -> Self {
        let key = &row.entry;
        Self {
            version: row.version,
            deleted: row.deleted,
            id: key.id,
            account_id: key.account_id.0,
            name: key.name.clone(),
            sha256: STANDARD.encode(key.sha256),
            created_at_ms: key.created_at.0,
            revoked: key.revoked,
        }
    }
}

impl KeyV1 {
    fn read(self) -> Result<Row<ApiKey>, FileError> {
        let sha256 = STANDARD.decode(&self.sha256).ok().and_then(|bytes| bytes.try_into().ok());
        let entry = ApiKey {
            id: self.id,
            account_id: AccountId(self.account_id),
            name: self.name,
            sha256: sha256.ok_or(FileError::Value("sha256"))?,
            created_at: UnixMillis(self.created_at_ms),
            revoked: self.revoked,
        };
        Ok(Row { version: self.version, deleted: self.deleted, entry })
    }
}

impl From<&Row<Goal>> for GoalV1 {
    fn from(row: &Row<Goal>) -> Self {
        let goal = &row.entry;
        Self {
            version: row.version,
            deleted: row.deleted,
            id: goal.id.0,
            account_id: goal.account_id.0,
            name: goal.name.clone(),
            goal_type: goal.goal_type.as_str().to_owned(),
            value: goal.value.map(|value| value.to_string()),
            currency: goal.currency.map(|currency| currency.to_string()),
            attribution_window_days: goal.attribution_window_days,
            postback_url: goal.postback_url.clone(),
            postback: PostbackV1::from(&goal.postback),
            trust_client_fields: goal.trust_client_fields,
            postback_token: goal.postback_token.0.clone(),
            created_at_ms: goal.created_at.0,
        }
    }
}

impl GoalV1 {
    fn read(self) -> Result<Row<Goal>, FileError> {
        let value = self.value.as_deref().map(Money::parse).transpose();
        let currency = self.currency.as_deref().map(Currency::from_stored).transpose();
        let entry = Goal {
            id: GoalId(self.id),
            account_id: AccountId(self.account_id),
            name: self.name,
            goal_type: GoalType::parse(&self.goal_type).ok_or(FileError::Value("goal_type"))?,
            value: value.map_err(|_| FileError::Value("value"))?,
            currency: currency.map_err(|_| FileError::Value("currency"))?,
            attribution_window_days: self.attribution_window_days,
            postback_url: self.postback_url,
            postback: self.postback.read()?,
            trust_client_fields: self.trust_client_fields,
            postback_token: PostbackToken(self.postback_token),
            created_at: UnixMillis(self.created_at_ms),
        };
        Ok(Row { version: self.version, deleted: self.deleted, entry })
    }
}

impl From<&PostbackSettings> for PostbackV1 {
    fn from(settings: &PostbackSettings) -> Self {
        Self {
            get: settings.method == PostbackMethod::Get,
            secret: settings.secret.map(|secret| secret.expose()),
            previous: settings.previous.map(|(secret, until)| (secret.expose(), until.0)),
            disabled: settings.disabled,
        }
    }
}

impl PostbackV1 {
    fn read(self) -> Result<PostbackSettings, FileError> {
        let secret = |text: String| SigningSecret::parse(&text).ok_or(FileError::Value("postback secret"));
        Ok(PostbackSettings {
            method: if self.get { PostbackMethod::Get } else { PostbackMethod::Post },
            secret: self.secret.map(secret).transpose()?,
            previous: match self.previous {
                Some((text, until)) => Some((secret(text)?, UnixMillis(until))),
                None => None,
            },
            disabled: self.disabled,
        })
    }
}

impl From<&Row<Link>> for LinkV1 {
    fn from(row: &Row<Link>) -> Self {
        let link = row.entry.clone();
        let variant = |variant: Variant| VariantV1 {
            name: variant.name,
            weight: variant.weight,
            destination_url: variant.destination.map(|to| to.as_str().to_owned()),
        };
        Self {
            version: row.version,
            deleted: row.deleted,
            id: link.id.0,
            account_id: link.account_id.0,
            name: link.name,
            slug: link.slug,
            destination_url: link.destination.as_str().to_owned(),
            variants: link.variants.into_iter().map(variant).collect(),
            append_click_id: link.append_click_id,
            utm_source: link.campaign.source,
            utm_medium: link.campaign.medium,
            utm_campaign: link.campaign.campaign,
            utm_term: link.campaign.term,
            utm_content: link.campaign.content,
            created_at_ms: link.created_at.0,
        }
    }
}

impl LinkV1 {
    fn read(self) -> Result<Row<Link>, FileError> {
        let destination =
            |url: &str| Destination::parse(url).map_err(|_| FileError::Value("destination_url"));
        let variant = |variant: VariantV1| {
            Ok::<_, FileError>(Variant {
                name: variant.name,
                weight: variant.weight,
                destination: variant.destination_url.as_deref().map(destination).transpose()?,
            })
        };
        let entry = Link {
            id: LinkId(self.id),
            account_id: AccountId(self.account_id),
            name: self.name,
            slug: self.slug,
            destination: destination(&self.destination_url)?,
            variants: self.variants.into_iter().map(variant).collect::<Result<_, _>>()?,
            append_click_id: self.append_click_id,
            campaign: Campaign {
                source: self.utm_source,
                medium: self.utm_medium,
                campaign: self.utm_campaign,
                term: self.utm_term,
                content: self.utm_content,
            },
            created_at: UnixMillis(self.created_at_ms),
        };
        Ok(Row { version: self.version, deleted: self.deleted, entry })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_newer_format_is_named() {
        let error = read(br#"{"format":2,"anything":[]}"#).expect_err("newer");
        assert!(matches!(error, FileError::Format(2)));
    }

    /// Format 1 as first released: what this reads must stay readable.
    #[test]
    fn format_1_stays_readable() {
        let rows = read(
            br#"{"format":1,"version":3,
            "accounts":[{"version":1,"deleted":false,"id":1,"name":"default","plan":"enterprise","rate_limit_per_minute":null}],
            "api_keys":[{"version":1,"deleted":false,"id":1,"account_id":1,"name":"first","sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","created_at_ms":5,"revoked":false}],
            "goals":[{"version":3,"deleted":true,"id":1,"account_id":1,"name":"n","goal_type":"purchase","value":"99.00","currency":"USD","attribution_window_days":30,"postback_url":null,"postback_token":"t","created_at_ms":6}]}"#,
        )
        .expect("reads");
        assert_eq!((rows.version, rows.goals[0].deleted), (3, true));
        assert_eq!(read(&write(&rows)).expect("reads"), rows);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
