//! The copy of the catalog that ClickHouse holds: for analysts, and for a daemon whose catalog file is lost.

use super::{
    Database, Failure,
    keys::{currency, money},
};
use crate::core::{
    Account, AccountId, ApiKey, Campaign, CatalogRows, Destination, Goal, GoalId, GoalType, Link, LinkId,
    Plan, PostbackToken, Row, UnixMillis, Variant,
    webhook::{PostbackMethod, PostbackSettings},
};

#[derive(clickhouse::Row, serde::Serialize, serde::Deserialize)]
struct AccountRow {
    id: u32,
    name: String,
    plan: String,
    rate_limit_per_minute: Option<u32>,
    deleted: bool,
    version: u64,
}

#[derive(clickhouse::Row, serde::Serialize, serde::Deserialize)]
struct ApiKeyRow {
    id: u32,
    account_id: u32,
    name: String,
    sha256: [u8; 32],
    created_at: i64,
    revoked: bool,
    deleted: bool,
    version: u64,
}

#[derive(clickhouse::Row, serde::Serialize, serde::Deserialize)]
struct GoalRow {
    id: u32,
    account_id: u32,
    name: String,
    goal_type: String,
    value: Option<i64>,
    currency: String,
    attribution_window_days: u16,
    postback_url: String,
    postback_method: String,
    trust_client_fields: bool,
    postback_token: String,
    created_at: i64,
    deleted: bool,
    version: u64,
}

#[derive(clickhouse::Row, serde::Serialize, serde::Deserialize)]
struct LinkRow {
    id: u32,
    account_id: u32,
    name: String,
    slug: String,
    destination_url: String,
    variants: Vec<(String, u16, String)>,
    append_click_id: bool,
    utm_source: String,
    utm_medium: String,
    utm_campaign: String,
    utm_term: String,
    utm_content: String,
    created_at: i64,
    deleted: bool,
    version: u64,
}

impl Database {
    /// Stores entries of the catalog. Idempotent: of one entry, the greatest version counts, however often it comes.
    pub async fn save_catalog(&self, rows: &CatalogRows) -> Result<(), Failure> {
        self.save("accounts", rows.accounts.iter().map(account_row)).await?;
        self.save("api_keys", rows.api_keys.iter().map(api_key_row)).await?;
        self.save("goals", rows.goals.iter().map(goal_row)).await?;
        self.save("links", rows.links.iter().map(link_row)).await
    }

    /// Every entry of the catalog, deleted ones included; empty where none was ever saved.
    pub async fn load_catalog(&self) -> Result<CatalogRows, Failure> {
        let accounts: Vec<AccountRow> = self.load("accounts").await?;
        let api_keys: Vec<ApiKeyRow> = self.load("api_keys").await?;
        let goals: Vec<GoalRow> = self.load("goals").await?;
        let links: Vec<LinkRow> = self.load("links").await?;
        let rows = CatalogRows {
            version: 0,
            accounts: accounts.into_iter().map(account).collect::<Result<_, _>>()?,
            api_keys: api_keys.into_iter().map(api_key).collect(),
            goals: goals.into_iter().map(goal).collect::<Result<_, _>>()?,
            links: links.into_iter().map(link).collect::<Result<_, _>>()?,
        };
        let versions = rows.accounts.iter().map(|row| row.version);
        let versions = versions.chain(rows.api_keys.iter().map(|row| row.version));
        let versions = versions.chain(rows.goals.iter().map(|row| row.version));
        let version = versions.chain(rows.links.iter().map(|row| row.version)).max().unwrap_or(0);
        Ok(CatalogRows { version, ..rows })
    }

    async fn save<T>(&self, table: &str, rows: impl Iterator<Item = T>) -> Result<(), Failure>
    where
        T: clickhouse::RowOwned + clickhouse::RowWrite,
    {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let client = self.client().clone().with_setting("async_insert", "0");
        let insert = client.insert::<T>(table).await?;
        let limit = Some(self.timeouts().insert);
        let mut insert = insert.with_timeouts(limit, limit);
        for row in rows {
            insert.write(&row).await?;
        }
        insert.end().await?;
        Ok(())
    }

    async fn load<T>(&self, table: &str) -> Result<Vec<T>, Failure>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let columns = T::COLUMN_NAMES.join(", ");
        let sql = format!("SELECT {columns} FROM {table} FINAL ORDER BY id");
        self.read(self.query(&sql).fetch_all()).await
    }
}

fn account_row(row: &Row<Account>) -> AccountRow {
    AccountRow {
        id: row.entry.id.0,
        name: row.entry.name.clone(),
        plan: row.entry.plan.as_str().to_owned(),
        rate_limit_per_minute: row.entry.rate_limit_per_minute,
        deleted: row.deleted,
        version: row.version,
    }
}

fn account(row: AccountRow) -> Result<Row<Account>, Failure> {
    let entry = Account {
        id: AccountId(row.id),
        name: row.name,
        plan: Plan::parse(&row.plan).ok_or_else(|| Failure::unreadable("plan"))?,
        rate_limit_per_minute: row.rate_limit_per_minute,
    };
    Ok(Row { version: row.version, deleted: row.deleted, entry })
}

fn api_key_row(row: &Row<ApiKey>) -> ApiKeyRow {
    ApiKeyRow {
        id: row.entry.id,
        account_id: row.entry.account_id.0,
        name: row.entry.name.clone(),
        sha256: row.entry.sha256,
        created_at: row.entry.created_at.0,
        revoked: row.entry.revoked,
        deleted: row.deleted,
        version: row.version,
    }
}

fn api_key(row: ApiKeyRow) -> Row<ApiKey> {
    let entry = ApiKey {
        id: row.id,
        account_id: AccountId(row.account_id),
        name: row.name,
        sha256: row.sha256,
        created_at: UnixMillis(row.created_at),
        revoked: row.revoked,
    };
    Row { version: row.version, deleted: row.deleted, entry }
}

fn goal_row(row: &Row<Goal>) -> GoalRow {
    let goal = &row.entry;
    GoalRow {
        id: goal.id.0,
        account_id: goal.account_id.0,
        name: goal.name.clone(),
        goal_type: goal.goal_type.as_str().to_owned(),
        value: goal.value.and_then(|value| i64::try_from(value.micros()).ok()),
        currency: goal.currency.map(|currency| currency.to_string()).unwrap_or_default(),
        attribution_window_days: goal.attribution_window_days,
        postback_url: goal.postback_url.clone().unwrap_or_default(),
        postback_method: goal.postback.method.as_str().to_owned(),
        trust_client_fields: goal.trust_client_fields,
        postback_token: goal.postback_token.0.clone(),
        created_at: goal.created_at.0,
        deleted: row.deleted,
        version: row.version,
    }
}

fn goal(row: GoalRow) -> Result<Row<Goal>, Failure> {
    let entry = Goal {
        id: GoalId(row.id),
        account_id: AccountId(row.account_id),
        name: row.name,
        goal_type: GoalType::parse(&row.goal_type).ok_or_else(|| Failure::unreadable("goal_type"))?,
        value: row.value.map(money).transpose()?,
        currency: if row.currency.is_empty() { None } else { Some(currency(&row.currency)?) },
        attribution_window_days: row.attribution_window_days,
        postback_url: (!row.postback_url.is_empty()).then_some(row.postback_url),
        // Secrets are not copied: what is restored sends unsigned until its owner takes a new one.
        postback: PostbackSettings {
            // One that is not known is of a newer tally: to send by another method would tell owners wrongly.
            method: PostbackMethod::parse(&row.postback_method)
                .ok_or_else(|| Failure::unreadable("postback_method"))?,
            ..PostbackSettings::default()
        },
        trust_client_fields: row.trust_client_fields,
        postback_token: PostbackToken(row.postback_token),
        created_at: UnixMillis(row.created_at),
    };
    Ok(Row { version: row.version, deleted: row.deleted, entry })
}

fn link_row(row: &Row<Link>) -> LinkRow {
    let link = row.entry.clone();
    let variant = |variant: Variant| {
        let own = variant.destination.map(|to| to.as_str().to_owned());
        (variant.name, variant.weight, own.unwrap_or_default())
    };
    LinkRow {
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
        created_at: link.created_at.0,
        deleted: row.deleted,
        version: row.version,
    }
}

fn link(row: LinkRow) -> Result<Row<Link>, Failure> {
    let destination = |url: &str| Destination::parse(url).map_err(|_| Failure::unreadable("destination_url"));
    let variant = |(name, weight, url): (String, u16, String)| {
        let own = (!url.is_empty()).then(|| destination(&url)).transpose()?;
        Ok::<_, Failure>(Variant { name, weight, destination: own })
    };
    let entry = Link {
        id: LinkId(row.id),
        account_id: AccountId(row.account_id),
        name: row.name,
        slug: row.slug,
        destination: destination(&row.destination_url)?,
        variants: row.variants.into_iter().map(variant).collect::<Result<_, _>>()?,
        append_click_id: row.append_click_id,
        campaign: Campaign {
            source: row.utm_source,
            medium: row.utm_medium,
            campaign: row.utm_campaign,
            term: row.utm_term,
            content: row.utm_content,
        },
        created_at: UnixMillis(row.created_at),
    };
    Ok(Row { version: row.version, deleted: row.deleted, entry })
}
