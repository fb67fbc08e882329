//! One conversion by its id, with what it owes to a click and what was learned about it since.

use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;

use super::source;
use crate::{
    clickhouse::{
        Database, Failure,
        keys::{currency, money},
    },
    core::{
        AccountId, Adjustment, AdjustmentId, AdjustmentKind, Attribution, Campaign, ClickId, Conversion,
        ConversionId, ConversionLookup, DedupScope, Earned, GoalId, LinkId, Matching, Method, OrderId,
        OrderKey, RunId, StoredConversion, Unattributed, UnixMillis,
    },
};

/// Adjustments of one conversion that are read; the API takes no more than this.
const ADJUSTMENTS_MAX: &str = "10000";

#[derive(clickhouse::Row, serde::Deserialize)]
struct ConversionRow {
    account_id: u32,
    goal_id: u32,
    order_id: String,
    order_key: u128,
    key_scope: String,
    value: i64,
    currency: String,
    received_at: i64,
    converted_at: i64,
    window_seconds: u32,
    source: String,
    click_id: u64,
    ip: Ipv6Addr,
    user_agent: String,
    visitor_key: u64,
    visitor_keys: Vec<u64>,
    private_address: bool,
    attribution_reason: String,
    candidates: u16,
    attribution_run: u32,
}

/// What a row of `attributions` says of its click.
#[derive(Clone, Debug, clickhouse::Row, serde::Deserialize)]
pub(in crate::clickhouse) struct EarnedRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub(in crate::clickhouse) conversion_id: Uuid,
    candidates: u16,
    method: String,
    click_id: u64,
    link_id: u32,
    clicked_at: i64,
    seconds_to_convert: u32,
    utm_source: String,
    utm_medium: String,
    utm_campaign: String,
    utm_term: String,
    utm_content: String,
    variant: String,
    labelled: bool,
}

/// The columns of [`EarnedRow`].
pub(in crate::clickhouse) const EARNED_COLUMNS: &str = "conversion_id, candidates, toString(method) AS method, \
     click_id, link_id, clicked_at, seconds_to_convert, toString(utm_source) AS utm_source, \
     toString(utm_medium) AS utm_medium, toString(utm_campaign) AS utm_campaign, toString(utm_term) AS utm_term, \
     toString(utm_content) AS utm_content, toString(variant) AS variant, labelled";

#[derive(clickhouse::Row, serde::Deserialize)]
pub(in crate::clickhouse) struct AdjustmentRow {
    #[serde(with = "clickhouse::serde::uuid")]
    adjustment_id: Uuid,
    account_id: u32,
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
    adjustment_key: u128,
    kind: String,
    value: Option<i64>,
    reason: String,
    received_at: i64,
}

/// The columns of [`AdjustmentRow`].
pub(in crate::clickhouse) const ADJUSTMENT_COLUMNS: &str = "adjustment_id, account_id, conversion_id, \
    adjustment_key, toString(kind) AS kind, value, reason, received_at";

#[derive(clickhouse::Row, serde::Deserialize)]
struct RunRow {
    run_id: u32,
    since: i64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct LateRow {
    goal_id: u32,
    received_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    original_id: Uuid,
}

impl Database {
    /// What became of a conversion. The time inside the id is that of its reception and says where to look.
    pub async fn conversion(
        &self,
        account: AccountId,
        id: ConversionId,
    ) -> Result<ConversionLookup, Failure> {
        if id.0.get_version_num() != 7 {
            return Ok(ConversionLookup::Unknown);
        }
        let near = "account_id = {account: UInt32} AND conversion_id = {id: UUID} \
                    AND received_at = fromUnixTimestamp64Milli({at: Int64}, 'UTC') LIMIT 1";
        let bound = |sql: &str| {
            self.report_query(sql)
                .param("account", account.0)
                .param("id", id.to_string())
                .param("at", id.made_at().0)
        };
        let counted = format!(
            "SELECT account_id, goal_id, order_id, order_key, toString(key_scope) AS key_scope, value, \
                 toString(currency) AS currency, received_at, converted_at, window_seconds, \
                 toString(source) AS source, click_id, ip, user_agent, visitor_key, visitor_keys, private_address, \
                 toString(attribution_reason) AS attribution_reason, candidates, attribution_run \
             FROM conversions WHERE {near}"
        );
        let row: Option<ConversionRow> = self.read(bound(&counted).fetch_optional()).await?;
        if let Some(row) = row {
            let stored = self.stored(id, row).await?;
            return Ok(stored
                .map_or(ConversionLookup::Unknown, |stored| ConversionLookup::Counted(Box::new(stored))));
        }
        let late = format!("SELECT goal_id, received_at, original_id FROM rejections WHERE {near}");
        let row: Option<LateRow> = self.read(bound(&late).fetch_optional()).await?;
        Ok(row.map_or(ConversionLookup::Unknown, |row| ConversionLookup::Duplicate {
            goal_id: GoalId(row.goal_id),
            received_at: UnixMillis(row.received_at),
            original: ConversionId(row.original_id),
        }))
    }

    /// Adds to a conversion what stands elsewhere. None: it is there, and what it owes to its click is not there yet,
    /// since a batch comes table by table.
    async fn stored(
        &self,
        id: ConversionId,
        row: ConversionRow,
    ) -> Result<Option<StoredConversion>, Failure> {
        let bound = |sql: &str| {
            self.report_query(sql)
                .param("account", row.account_id)
                .param("id", id.to_string())
                .param("at", row.converted_at)
        };
        let earned = format!(
            "SELECT {EARNED_COLUMNS} FROM attributions_current WHERE account_id = {{account: UInt32}} \
             AND converted_at = fromUnixTimestamp64Milli({{at: Int64}}, 'UTC') AND conversion_id = {{id: UUID}} LIMIT 1"
        );
        let adjustments = format!(
            "SELECT {ADJUSTMENT_COLUMNS} FROM adjustments \
             WHERE account_id = {{account: UInt32}} AND conversion_id = {{id: UUID}} \
             ORDER BY received_at, adjustment_id LIMIT {ADJUSTMENTS_MAX}"
        );
        let in_force = "SELECT run_id, since FROM attribution_in_force";
        let earned: Option<EarnedRow> = self.read(bound(&earned).fetch_optional()).await?;
        let adjustments: Vec<AdjustmentRow> = self.read(bound(&adjustments).fetch_all()).await?;
        let in_force: RunRow = self.read(self.report_query(in_force).fetch_one()).await?;
        let covered = row.attribution_run < in_force.run_id && row.converted_at >= in_force.since;
        let run = RunId(if covered { in_force.run_id } else { 0 });
        if earned.is_none() && !covered && row.attribution_reason.is_empty() {
            return Ok(None);
        }
        let attribution = match earned {
            Some(earned) => Attribution { candidates: earned.candidates, outcome: Ok(earned.read()?) },
            None => Attribution {
                candidates: if covered { 0 } else { row.candidates },
                outcome: Err(unattributed(&row.attribution_reason)),
            },
        };
        Ok(Some(StoredConversion {
            conversion: conversion(id, row)?,
            attribution,
            run,
            adjustments: adjustments.into_iter().map(AdjustmentRow::read).collect::<Result<_, _>>()?,
        }))
    }
}

impl EarnedRow {
    /// What is owed.
    pub(in crate::clickhouse) fn read(self) -> Result<Earned, Failure> {
        Ok(Earned {
            method: [Method::ClickId, Method::IpUserAgent]
                .into_iter()
                .find(|method| method.as_str() == self.method)
                .ok_or_else(|| Failure::unreadable("method"))?,
            click_id: ClickId(self.click_id),
            link_id: (self.link_id != 0).then_some(LinkId(self.link_id)),
            clicked_at: UnixMillis(self.clicked_at),
            seconds_to_convert: self.seconds_to_convert,
            campaign: Campaign {
                source: self.utm_source,
                medium: self.utm_medium,
                campaign: self.utm_campaign,
                term: self.utm_term,
                content: self.utm_content,
            },
            variant: self.variant,
            labelled: self.labelled,
        })
    }
}

impl AdjustmentRow {
    /// The adjustment.
    pub(in crate::clickhouse) fn read(self) -> Result<Adjustment, Failure> {
        Ok(Adjustment {
            id: AdjustmentId(self.adjustment_id),
            account_id: AccountId(self.account_id),
            conversion_id: ConversionId(self.conversion_id),
            kind: AdjustmentKind::parse(&self.kind).ok_or_else(|| Failure::unreadable("kind"))?,
            value: self.value.map(money).transpose()?,
            key: (self.adjustment_key != 0).then_some(OrderKey(self.adjustment_key)),
            reason: self.reason,
            received_at: UnixMillis(self.received_at),
            unverified: false,
        })
    }
}

/// Why no click earned it. None stands where a click earned it when it came, and a later run, whose window is shorter,
/// found none: the model alone never takes a click away.
fn unattributed(name: &str) -> Unattributed {
    let known = Unattributed::ALL.into_iter().find(|reason| reason.as_str() == name);
    known.unwrap_or(Unattributed::OutsideWindow)
}

fn conversion(id: ConversionId, row: ConversionRow) -> Result<Conversion, Failure> {
    let key = OrderKey(row.order_key);
    Ok(Conversion {
        id,
        account_id: AccountId(row.account_id),
        goal_id: GoalId(row.goal_id),
        order_id: OrderId::parse(&row.order_id).map_err(|_| Failure::unreadable("order_id"))?,
        key: match &*row.key_scope {
            "forever" => Some((key, DedupScope::Forever)),
            "day" => Some((key, DedupScope::Day)),
            _ => None,
        },
        value: money(row.value)?,
        currency: currency(&row.currency)?,
        received_at: UnixMillis(row.received_at),
        converted_at: UnixMillis(row.converted_at),
        window_seconds: row.window_seconds,
        matching: match (row.private_address, row.visitor_keys) {
            (true, _) => Matching::PrivateAddress,
            (false, keys) if keys.is_empty() => Matching::Unknown,
            (false, keys) => Matching::Keys(keys),
        },
        source: source(&row.source)?,
        click_id: (row.click_id != 0).then_some(ClickId(row.click_id)),
        ip: (!row.ip.is_unspecified()).then(|| IpAddr::V6(row.ip).to_canonical()),
        user_agent: row.user_agent,
        visitor_key: row.visitor_key,
        unverified: false,
    })
}
