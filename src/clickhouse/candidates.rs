//! Clicks that may have earned conversions: by their numbers, and by their visitors; many in one query.

use std::{borrow::Cow, sync::Arc};

use clickhouse::query::Query;

use super::{Database, Failure};
use crate::core::{
    AccountId, CANDIDATES_MAX, Campaign, Candidate, ClickId, ClickLabels, LinkId, Traffic, UnixMillis,
};

/// Whose clicks are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitors<'a> {
    /// Accounts and the keys of their visitors.
    pub keys: Cow<'a, [(AccountId, u64)]>,
    /// Clicks from then on,
    pub from: UnixMillis,
    /// to then.
    pub to: UnixMillis,
}

/// Numbers in one bound parameter: ClickHouse takes 128 KiB in one, and a number is at most 20 digits and a comma.
const PER_PARAM_MAX: usize = 6000;
/// Numbers in one query: two keys for each conversion of the largest batch.
const PER_QUERY_MAX: usize = 20 * PER_PARAM_MAX;
/// A click may be dated that much ahead of its arrival.
const AHEAD_MILLIS: i64 = 60_000;

#[derive(clickhouse::Row, serde::Deserialize)]
struct NamedRow {
    account_id: u32,
    click_id: u64,
    link_id: u32,
    clicked_at: i64,
    received_at: i64,
    traffic: i8,
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

#[derive(clickhouse::Row, serde::Deserialize)]
struct VisitorRow {
    account_id: u32,
    visitor_key: u64,
    clicked_at: i64,
    received_at: i64,
    click_id: u64,
    link_id: u32,
    labels: String,
}

impl Database {
    /// The clicks of these numbers, each in its account. Of others with the same numbers some may come too.
    pub async fn clicks_named(&self, named: &[(AccountId, ClickId)]) -> Result<Vec<Candidate>, Failure> {
        let mut found = Vec::with_capacity(named.len());
        for some in named.chunks(PER_QUERY_MAX) {
            let accounts = accounts(some.iter().map(|(account, _)| *account));
            let ids: Vec<u64> = some.iter().map(|(_, click)| click.0).collect();
            let sql = format!(
                "SELECT account_id, click_id, link_id, clicked_at, received_at, traffic, visitor_key, private_address, \
                 utm_source, utm_medium, utm_campaign, utm_term, utm_content, variant, labelled FROM clicks \
                 WHERE click_id IN {} AND account_id IN {}",
                list("id", "UInt64", ids.len()),
                list("account", "UInt32", accounts.len()),
            );
            let query = bind(bind(self.long_query(&sql), "id", &ids), "account", &accounts);
            let rows: Vec<NamedRow> = self.long(query.fetch_all()).await?;
            for row in rows {
                found.push(row.candidate()?);
            }
        }
        Ok(found)
    }

    /// The clicks of these visitors that may be matched to conversions, of each the newest [`CANDIDATES_MAX`].
    pub async fn clicks_of(&self, visitors: &Visitors<'_>) -> Result<Vec<Candidate>, Failure> {
        let mut found = Vec::with_capacity(visitors.keys.len());
        for some in visitors.keys.chunks(PER_QUERY_MAX) {
            let accounts = accounts(some.iter().map(|(account, _)| *account));
            let keys: Vec<u64> = some.iter().map(|(_, key)| *key).collect();
            let sql = format!(
                "SELECT account_id, visitor_key, clicked_at, received_at, click_id, link_id, labels FROM clicks_by_visitor \
                 WHERE visitor_key IN {} AND account_id IN {} \
                 AND clicked_at BETWEEN fromUnixTimestamp64Milli({{from: Int64}}) AND fromUnixTimestamp64Milli({{to: Int64}}) \
                 AND received_at >= fromUnixTimestamp64Milli({{received: Int64}}) \
                 ORDER BY visitor_key, account_id, clicked_at DESC, click_id DESC \
                 LIMIT {CANDIDATES_MAX} BY visitor_key, account_id",
                list("key", "UInt64", keys.len()),
                list("account", "UInt32", accounts.len()),
            );
            let query = bind(bind(self.long_query(&sql), "key", &keys), "account", &accounts)
                .param("from", visitors.from.0)
                .param("to", visitors.to.0)
                .param("received", visitors.from.plus(-AHEAD_MILLIS).0);
            let rows: Vec<VisitorRow> = self.long(query.fetch_all()).await?;
            found.extend(rows.into_iter().map(VisitorRow::candidate));
        }
        Ok(found)
    }
}

fn accounts(of: impl Iterator<Item = AccountId>) -> Vec<u32> {
    let mut accounts: Vec<u32> = of.map(|account| account.0).collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts
}

/// The expression of a list that is bound in pieces. It is a constant to ClickHouse, so the primary key prunes by it.
fn list(name: &str, of: &str, count: usize) -> String {
    let pieces: Vec<_> =
        (0..count.div_ceil(PER_PARAM_MAX).max(1)).map(|n| format!("{{{name}{n}: Array({of})}}")).collect();
    format!("arrayConcat({})", pieces.join(", "))
}

fn bind<T: serde::Serialize>(query: Query, name: &str, values: &[T]) -> Query {
    if values.is_empty() {
        return query.param(&format!("{name}0"), values);
    }
    let pieces = values.chunks(PER_PARAM_MAX).enumerate();
    pieces.fold(query, |query, (n, piece)| query.param(&format!("{name}{n}"), piece))
}

impl NamedRow {
    fn candidate(self) -> Result<Candidate, Failure> {
        Ok(Candidate {
            account_id: AccountId(self.account_id),
            click_id: ClickId(self.click_id),
            link_id: Some(LinkId(self.link_id)).filter(|link| link.0 != 0),
            clicked_at: UnixMillis(self.clicked_at),
            received_at: UnixMillis(self.received_at),
            traffic: match self.traffic {
                1 => Traffic::Human,
                2 => Traffic::Bot,
                3 => Traffic::Prefetch,
                _ => return Err(Failure::unreadable("traffic")),
            },
            visitor_key: self.visitor_key,
            private_address: self.private_address,
            labels: Arc::new(ClickLabels {
                campaign: Campaign {
                    source: self.utm_source,
                    medium: self.utm_medium,
                    campaign: self.utm_campaign,
                    term: self.utm_term,
                    content: self.utm_content,
                },
                variant: self.variant,
                labelled: self.labelled,
            }),
        })
    }
}

impl VisitorRow {
    /// The table holds nothing but clicks of people whose address says who they are.
    fn candidate(self) -> Candidate {
        Candidate {
            account_id: AccountId(self.account_id),
            click_id: ClickId(self.click_id),
            link_id: Some(LinkId(self.link_id)).filter(|link| link.0 != 0),
            clicked_at: UnixMillis(self.clicked_at),
            received_at: UnixMillis(self.received_at),
            traffic: Traffic::Human,
            visitor_key: self.visitor_key,
            private_address: false,
            labels: Arc::new(labels(&self.labels)),
        }
    }
}

/// The lines of the column.
fn labels(text: &str) -> ClickLabels {
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default().to_owned();
    ClickLabels {
        campaign: Campaign {
            source: next(),
            medium: next(),
            campaign: next(),
            term: next(),
            content: next(),
        },
        variant: next(),
        labelled: next() == "1",
    }
}
