//! Clicks that may have earned conversions: by their numbers, and by their visitors; many in one query. And all of them,
//! some at a time, for whoever keeps a copy.

use std::{borrow::Cow, sync::Arc};

use clickhouse::query::Query;

use super::{Database, Failure};
use crate::core::{
    AccountId, BatchId, CANDIDATES_MAX, Campaign, Candidate, ClickId, ClickLabels, LinkId, Traffic,
    UnixMillis,
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

/// Clicks of some batches that are read one page after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClickPage {
    /// Of batches after this one
    pub after: BatchId,
    /// up to this one.
    pub through: BatchId,
    /// The month in which they were accepted, as in 202611.
    pub month: u32,
    /// Those that follow this one, by account and number; numbers begin with 0, accounts with 1.
    pub beyond: (AccountId, ClickId),
    /// At most so many.
    pub limit: u32,
}

/// What is selected of the raw table.
const COLUMNS: &str = "account_id, click_id, link_id, clicked_at, received_at, traffic, visitor_key, private_address, \
                       utm_source, utm_medium, utm_campaign, utm_term, utm_content, variant, labelled";

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
                "SELECT {COLUMNS} FROM clicks WHERE click_id IN {} AND account_id IN {}",
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

    /// Which table the clicks are in: another one after it was dropped, or where the address leads elsewhere.
    pub async fn clicks_origin(&self) -> Result<String, Failure> {
        let sql =
            "SELECT toString(uuid) FROM system.tables WHERE database = currentDatabase() AND name = 'clicks'";
        self.read(self.query(sql).fetch_one()).await
    }

    /// The months in which the clicks of batches after `after` up to `through` were accepted, oldest first.
    pub async fn click_months(&self, after: BatchId, through: BatchId) -> Result<Vec<u32>, Failure> {
        let sql = "SELECT DISTINCT toYYYYMM(received_at) AS month FROM clicks \
                   WHERE batch_id > {after: UInt64} AND batch_id <= {through: UInt64} ORDER BY month";
        let query = self.long_query(sql).param("after", after.0).param("through", through.0);
        self.long(query.fetch_all()).await
    }

    /// Some clicks, in the order of account and number, each once.
    pub async fn clicks_page(&self, page: &ClickPage) -> Result<Vec<Candidate>, Failure> {
        let sql = format!(
            "SELECT {COLUMNS} FROM clicks WHERE toYYYYMM(received_at) = {{month: UInt32}} \
             AND batch_id > {{after: UInt64}} AND batch_id <= {{through: UInt64}} \
             AND (account_id > {{account: UInt32}} OR account_id = {{account: UInt32}} AND click_id > {{click: UInt64}}) \
             ORDER BY account_id, click_id LIMIT {{limit: UInt32}}"
        );
        let query = self.long_query(&sql).param("month", page.month).param("after", page.after.0);
        let query = query.param("through", page.through.0).param("account", page.beyond.0.0);
        let query = query.param("click", page.beyond.1.0).param("limit", page.limit);
        let rows: Vec<NamedRow> = self.long(query.fetch_all()).await?;
        rows.into_iter().map(NamedRow::candidate).collect()
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
