//! The clicks that could have earned a conversion, for people who ask why one did or none did.

use std::sync::Arc;

use crate::{
    clickhouse::{Database, Failure},
    core::{
        AccountId, Campaign, Candidate, Candidates, ClickId, ClickLabels, LinkId, Matching, Model, RunId,
        StoredConversion, Traffic, UnixMillis,
    },
};

/// Clicks that are listed.
const CANDIDATES_MAX: usize = 1000;
/// A visitor's key is in use for that long, so no click under a key of the window is older than the window and this.
const EPOCH_MILLIS: i64 = 30 * 86_400_000;

#[derive(clickhouse::Row, serde::Deserialize)]
struct ClickRow {
    click_id: u64,
    link_id: u32,
    clicked_at: i64,
    received_at: i64,
    traffic: String,
    visitor_key: u64,
    private_address: bool,
    utm_source: String,
    utm_medium: String,
    utm_campaign: String,
    utm_term: String,
    utm_content: String,
    variant: String,
    labelled: bool,
}

const COLUMNS: &str = "click_id, link_id, clicked_at, received_at, toString(traffic) AS traffic, visitor_key, \
    private_address, toString(utm_source) AS utm_source, toString(utm_medium) AS utm_medium, \
    toString(utm_campaign) AS utm_campaign, utm_term, utm_content, toString(variant) AS variant, labelled";

impl Database {
    /// The clicks of the account that a conversion names or that have one of its visitor's keys, newest first, and the
    /// rules by which the decision in force was made. Robots' clicks are not sorted by visitor, so this reads the keys
    /// of all the account's clicks of the time: for people, not for programs.
    pub async fn candidates(&self, of: &StoredConversion) -> Result<Candidates, Failure> {
        let (window_seconds, model) = self.rules_of(of).await?;
        let conversion = &of.conversion;
        let keys: &[u64] = if let Matching::Keys(keys) = &conversion.matching { keys } else { &[] };
        let earliest =
            conversion.converted_at.plus(-i64::from(conversion.window_seconds) * 1000 - EPOCH_MILLIS);
        let sql = format!(
            "SELECT {COLUMNS} FROM clicks WHERE account_id = {{account: UInt32}} \
                 AND (click_id = {{click: UInt64}} OR (visitor_key IN {{keys: Array(UInt64)}} \
                     AND received_at >= fromUnixTimestamp64Milli({{earliest: Int64}}, 'UTC'))) \
             ORDER BY clicks.clicked_at DESC, clicks.click_id DESC LIMIT {{limit: UInt64}}"
        );
        let named = "SELECT {columns} FROM clicks WHERE account_id = {account: UInt32} AND click_id = {click: UInt64} \
                     LIMIT {limit: UInt64}"
            .replace("{columns}", COLUMNS);
        // Without keys to look for, the click's number alone is: the table is sorted by it.
        let query = self
            .report_query(if keys.is_empty() { &named } else { &sql })
            .param("account", conversion.account_id.0)
            .param("click", conversion.click_id.map_or(0, |click| click.0))
            .param("keys", keys)
            .param("earliest", earliest.0)
            .param("limit", CANDIDATES_MAX + 1);
        let mut rows: Vec<ClickRow> = match (conversion.click_id, keys) {
            (None, []) => Vec::new(),
            _ => self.read(query.fetch_all()).await?,
        };
        let is_truncated = rows.len() > CANDIDATES_MAX;
        rows.truncate(CANDIDATES_MAX);
        let clicks = rows.into_iter().map(|row| candidate(conversion.account_id, row));
        Ok(Candidates { clicks: clicks.collect::<Result<_, _>>()?, is_truncated, window_seconds, model })
    }

    /// The window and the model of the run that decided.
    async fn rules_of(&self, of: &StoredConversion) -> Result<(u32, Model), Failure> {
        if of.run == RunId(0) {
            return Ok((of.conversion.window_seconds, Model::default()));
        }
        let runs = self.attribution_runs().await?;
        let run = runs.iter().find(|run| run.id == of.run).ok_or_else(|| Failure::unreadable("run"))?;
        Ok((run.window_seconds, run.model))
    }
}

fn candidate(account_id: AccountId, row: ClickRow) -> Result<Candidate, Failure> {
    let campaign = Campaign {
        source: row.utm_source,
        medium: row.utm_medium,
        campaign: row.utm_campaign,
        term: row.utm_term,
        content: row.utm_content,
    };
    Ok(Candidate {
        account_id,
        click_id: ClickId(row.click_id),
        link_id: (row.link_id != 0).then_some(LinkId(row.link_id)),
        clicked_at: UnixMillis(row.clicked_at),
        received_at: UnixMillis(row.received_at),
        traffic: [Traffic::Human, Traffic::Bot, Traffic::Prefetch]
            .into_iter()
            .find(|traffic| traffic.as_str() == row.traffic)
            .ok_or_else(|| Failure::unreadable("traffic"))?,
        visitor_key: row.visitor_key,
        private_address: row.private_address,
        labels: Arc::new(ClickLabels { campaign, variant: row.variant, labelled: row.labelled }),
    })
}
