//! The catalog's rows as they stand on disk: one JSON object each, with DTOs of their own so that neither the domain nor
//! the API can change them.
//!
//! A row may hold fields that only a newer version knows. They are read past, and survive when the row is written again
//! ([`write`]).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::core::{
    Account, AccountId, ApiKey, Campaign, Currency, Destination, Goal, GoalId, GoalType, Link, LinkId, Money,
    Plan, PostbackToken, Row, UnixMillis, Variant,
    webhook::{PostbackMethod, PostbackSettings, SigningSecret},
};

/// The bytes are not a catalog.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not JSON of this shape.
    #[error("is not a catalog: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer version.
    #[error("has format {0}, which this version of tally does not know")]
    Format(u64),
    /// A value that no version writes.
    #[error("holds a {0} that can't be read")]
    Value(&'static str),
}

/// What is kept on disk as a row.
pub(super) trait Stored: Sized {
    /// The row's fields.
    type Dto: Serialize + DeserializeOwned;

    fn to_dto(row: &Row<Self>) -> Self::Dto;
    fn from_dto(dto: Self::Dto) -> Result<Row<Self>, FileError>;
}

/// A row's bytes. Fields of `old`, the bytes that are replaced, which this version does not know stay as they are.
pub(super) fn write<T: Stored>(row: &Row<T>, old: Option<&[u8]>) -> Result<Vec<u8>, serde_json::Error> {
    let mut new = serde_json::to_value(T::to_dto(row))?;
    if let Some(old) = old {
        keep_unknown(&mut new, serde_json::from_slice(old)?);
    }
    serde_json::to_vec(&new)
}

/// Reads what [`write`] wrote.
pub(super) fn read<T: Stored>(bytes: &[u8]) -> Result<Row<T>, FileError> {
    T::from_dto(serde_json::from_slice(bytes)?)
}

/// Adds what `old` has and `new` does not. Every version writes all the fields that it knows, so these are of a newer one.
/// Entries of a list are the same if their `name` is.
fn keep_unknown(new: &mut Value, old: Value) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (name, old) in old {
                match new.get_mut(&name) {
                    Some(new) => keep_unknown(new, old),
                    None => _ = new.insert(name, old),
                }
            }
        }
        (Value::Array(new), Value::Array(old)) => {
            for old in old {
                let same = |new: &&mut Value| name_of(new).is_some_and(|name| name_of(&old) == Some(name));
                if let Some(new) = new.iter_mut().find(same) {
                    keep_unknown(new, old);
                }
            }
        }
        _ => {}
    }
}

fn name_of(value: &Value) -> Option<&str> {
    value.as_object().and_then(|fields: &Map<String, Value>| fields.get("name")?.as_str())
}

#[derive(Serialize, Deserialize)]
pub(super) struct AccountV1 {
    version: u64,
    deleted: bool,
    id: u32,
    name: String,
    plan: String,
    rate_limit_per_minute: Option<u32>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct KeyV1 {
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
pub(super) struct GoalV1 {
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
pub(super) struct LinkV1 {
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

impl Stored for Account {
    type Dto = AccountV1;

    fn to_dto(row: &Row<Self>) -> AccountV1 {
        let account = &row.entry;
        AccountV1 {
            version: row.version,
            deleted: row.deleted,
            id: account.id.0,
            name: account.name.clone(),
            plan: account.plan.as_str().to_owned(),
            rate_limit_per_minute: account.rate_limit_per_minute,
        }
    }

    fn from_dto(dto: AccountV1) -> Result<Row<Self>, FileError> {
        let entry = Account {
            id: AccountId(dto.id),
            name: dto.name,
            plan: Plan::parse(&dto.plan).ok_or(FileError::Value("plan"))?,
            rate_limit_per_minute: dto.rate_limit_per_minute,
        };
        Ok(Row { version: dto.version, deleted: dto.deleted, entry })
    }
}

impl Stored for ApiKey {
    type Dto = KeyV1;

    fn to_dto(row: &Row<Self>) -> KeyV1 {
        let key = &row.entry;
        KeyV1 {
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

    fn from_dto(dto: KeyV1) -> Result<Row<Self>, FileError> {
        let sha256 = STANDARD.decode(&dto.sha256).ok().and_then(|bytes| bytes.try_into().ok());
        let entry = ApiKey {
            id: dto.id,
            account_id: AccountId(dto.account_id),
            name: dto.name,
            sha256: sha256.ok_or(FileError::Value("sha256"))?,
            created_at: UnixMillis(dto.created_at_ms),
            revoked: dto.revoked,
        };
        Ok(Row { version: dto.version, deleted: dto.deleted, entry })
    }
}

impl Stored for Goal {
    type Dto = GoalV1;

    fn to_dto(row: &Row<Self>) -> GoalV1 {
        let goal = &row.entry;
        GoalV1 {
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

    fn from_dto(dto: GoalV1) -> Result<Row<Self>, FileError> {
        let value = dto.value.as_deref().map(Money::parse).transpose();
        let currency = dto.currency.as_deref().map(Currency::from_stored).transpose();
        let entry = Goal {
            id: GoalId(dto.id),
            account_id: AccountId(dto.account_id),
            name: dto.name,
            goal_type: GoalType::parse(&dto.goal_type).ok_or(FileError::Value("goal_type"))?,
            value: value.map_err(|_| FileError::Value("value"))?,
            currency: currency.map_err(|_| FileError::Value("currency"))?,
            attribution_window_days: dto.attribution_window_days,
            postback_url: dto.postback_url,
            postback: dto.postback.read()?,
            trust_client_fields: dto.trust_client_fields,
            postback_token: PostbackToken(dto.postback_token),
            created_at: UnixMillis(dto.created_at_ms),
        };
        Ok(Row { version: dto.version, deleted: dto.deleted, entry })
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

impl Stored for Link {
    type Dto = LinkV1;

    fn to_dto(row: &Row<Self>) -> LinkV1 {
        let link = row.entry.clone();
        let variant = |variant: Variant| VariantV1 {
            name: variant.name,
            weight: variant.weight,
            destination_url: variant.destination.map(|to| to.as_str().to_owned()),
        };
        LinkV1 {
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

    fn from_dto(dto: LinkV1) -> Result<Row<Self>, FileError> {
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
            id: LinkId(dto.id),
            account_id: AccountId(dto.account_id),
            name: dto.name,
            slug: dto.slug,
            destination: destination(&dto.destination_url)?,
            variants: dto.variants.into_iter().map(variant).collect::<Result<_, _>>()?,
            append_click_id: dto.append_click_id,
            campaign: Campaign {
                source: dto.utm_source,
                medium: dto.utm_medium,
                campaign: dto.utm_campaign,
                term: dto.utm_term,
                content: dto.utm_content,
            },
            created_at: UnixMillis(dto.created_at_ms),
        };
        Ok(Row { version: dto.version, deleted: dto.deleted, entry })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows as first released: what this reads must stay readable, and what a newer version adds must stay.
    #[test]
    fn rows_stay_readable_and_keep_what_a_newer_version_wrote() {
        let goal = br#"{"version":3,"deleted":true,"id":1,"account_id":1,"name":"n","goal_type":"purchase","value":"99.00","currency":"USD","attribution_window_days":30,"postback_url":null,"postback_token":"t","created_at_ms":6,"budget":{"a":1},"postback":{"get":true,"secret":null,"previous":null,"disabled":false,"headers":["x"]}}"#;
        let mut row = read::<Goal>(goal).expect("reads");
        assert!(row.deleted && row.version == 3);
        row.entry.name = "renamed".into();
        let written: Value =
            serde_json::from_slice(&write(&row, Some(goal)).expect("written")).expect("JSON");
        assert_eq!((&written["name"], &written["budget"]["a"]), (&"renamed".into(), &1.into()));
        assert_eq!(written["postback"]["headers"][0], "x");

        let link = br#"{"version":1,"deleted":false,"id":1,"account_id":1,"name":"n","slug":"s","destination_url":"https://a.example/","variants":[{"name":"A","weight":1,"destination_url":null,"colour":"red"},{"name":"B","weight":1,"destination_url":null,"colour":"blue"}],"append_click_id":false,"utm_source":"","utm_medium":"","utm_campaign":"","utm_term":"","utm_content":"","created_at_ms":1}"#;
        let mut row = read::<Link>(link).expect("reads");
        row.entry.variants.remove(0);
        let written: Value =
            serde_json::from_slice(&write(&row, Some(link)).expect("written")).expect("JSON");
        assert_eq!(
            written["variants"],
            serde_json::json!([{"name": "B", "weight": 1, "destination_url": null, "colour": "blue"}])
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read::<Account>(&bytes), read::<ApiKey>(&bytes), read::<Goal>(&bytes), read::<Link>(&bytes));
        }
    }
}
