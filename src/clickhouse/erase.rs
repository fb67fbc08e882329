//! A person's rows, found and blanked. Counts, values and the keys of deduplication stay as they are.

use std::collections::BTreeSet;

use clickhouse::query::Query;
use uuid::Uuid;

use super::{Database, Failure};
use crate::core::{AccountId, ClickId, ConversionId, GoalId};

/// Who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Person {
    /// Whoever placed an order.
    Order {
        /// The order id as it was reported.
        id: String,
        /// Of this goal; none: of any.
        goal_id: Option<GoalId>,
    },
    /// Whoever made a click.
    Click(ClickId),
    /// Whoever has one of these keys.
    Visitor(Vec<u64>),
}

/// Rows of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Conversions, sorted.
    pub conversions: Vec<(AccountId, ConversionId)>,
    /// Clicks, sorted.
    pub clicks: Vec<(AccountId, ClickId)>,
    /// Order ids by goal, sorted: of the conversions, and the one that was asked for.
    pub orders: Vec<(Option<GoalId>, String)>,
}

/// How many rows were blanked, or removed, in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// The table.
    pub table: &'static str,
    /// What was done to the rows.
    pub how: &'static str,
    /// How many.
    pub rows: u64,
}

/// Rows of one kind that a person may have; more is refused by the server: no person has as many.
const ROWS_MAX: &str = "200000";
/// Ids in one statement: as many as fit into one bound parameter (ClickHouse takes 128 KiB in one).
const IDS_PER_QUERY_MAX: usize = 2500;

#[derive(clickhouse::Row, serde::Deserialize)]
#[expect(clippy::struct_field_names, reason = "they are the table's columns")]
struct ConversionRow {
    account_id: u32,
    goal_id: u32,
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
    order_id: String,
    click_id: u64,
}

/// The account and the number of a click.
type ClickRow = (u32, u64);

/// A table, the change of it, and which rows of it are a person's and still say something.
struct Change {
    table: &'static str,
    how: &'static str,
    statement: &'static str,
    rows: &'static str,
}

const BY_CONVERSION: [Change; 4] = [
    Change {
        table: "deliveries",
        how: "endpoints' answers blanked",
        statement: "UPDATE answer = ''",
        rows: "conversion_id IN {ids: Array(UUID)} AND answer != ''",
    },
    Change {
        table: "attributions",
        how: "visitor's key blanked",
        statement: "UPDATE visitor_key = 0",
        rows: "conversion_id IN {ids: Array(UUID)} AND visitor_key != 0",
    },
    Change {
        table: "adjustments",
        how: "reason blanked",
        statement: "UPDATE reason = ''",
        rows: "conversion_id IN {ids: Array(UUID)} AND reason != ''",
    },
    Change {
        table: "rejections",
        how: "order id and request blanked",
        statement: "UPDATE order_id = '', request = ''",
        rows: "original_id IN {ids: Array(UUID)} AND (order_id != '' OR request != '')",
    },
];

/// The last of all: by these rows the others are found again, should it break off before.
const CONVERSIONS: Change = Change {
    table: "conversions",
    how: "order id, address, user agent and visitor's keys blanked",
    statement: "UPDATE order_id = '', ip = toIPv6('::'), user_agent = '', visitor_key = 0, visitor_keys = []",
    rows: "conversion_id IN {ids: Array(UUID)} AND (order_id != '' OR ip != toIPv6('::') OR user_agent != '' \
           OR visitor_key != 0 OR notEmpty(visitor_keys))",
};

const BY_CLICK: [Change; 3] = [
    Change {
        table: "clicks",
        how: "address, user agent, visitor's key and free values blanked",
        statement: "UPDATE ip = toIPv6('::'), user_agent = '', visitor_key = 0, sub1 = '', sub2 = '', sub3 = '', \
                    sub4 = '', sub5 = ''",
        rows: "account_id = {account: UInt32} AND click_id IN {ids: Array(UInt64)} AND (ip != toIPv6('::') \
               OR user_agent != '' OR visitor_key != 0 OR sub1 != '' OR sub2 != '' OR sub3 != '' OR sub4 != '' \
               OR sub5 != '')",
    },
    Change {
        table: "clicks_by_visitor",
        how: "removed",
        statement: "DELETE",
        rows: "account_id = {account: UInt32} AND click_id IN {ids: Array(UInt64)}",
    },
    Change {
        table: "rejections",
        how: "order id and request blanked",
        statement: "UPDATE order_id = '', request = ''",
        rows: "account_id = {account: UInt32} AND request != '' \
               AND has({ids: Array(UInt64)}, toUInt64OrZero(JSONExtractString(request, 'click_id')))",
    },
];

/// Refused hits of an order. A request never holds an order id.
const OF_ORDER: &str = "({account: UInt32} = 0 OR account_id = {account: UInt32}) AND ({goal: UInt32} = 0 OR goal_id = {goal: UInt32}) \
     AND order_id = {order: String}";

/// What names the row of a refused hit, which has no id of its own, without saying whose it is: ClickHouse keeps the
/// text of a mutation.
const REJECTION: &str = "account_id, goal_id, toUnixTimestamp64Milli(received_at), batch_id, toString(code), \
                         length(order_id), length(request)";
type Rejection = (u32, u32, i64, u64, String, u64, u64);

const BY_REJECTION: Change = Change {
    table: "rejections",
    how: "order id and request blanked",
    statement: "UPDATE order_id = '', request = ''",
    // The columns of `REJECTION`.
    rows: "(account_id, goal_id, toUnixTimestamp64Milli(received_at), batch_id, toString(code), length(order_id), \
           length(request)) IN {rows: Array(Tuple(UInt32, UInt32, Int64, UInt64, String, UInt64, UInt64))}",
};
const REJECTIONS_PER_QUERY_MAX: usize = 1000;

impl Database {
    /// Finds what a person left: what is meant by name, the clicks that conversions among it name or owe to, and the
    /// conversions that name or owe to clicks among it. It goes no step further.
    pub async fn traces(&self, person: &Person, account: Option<AccountId>) -> Result<Traces, Failure> {
        let conversions = self.named_conversions(person, account).await?;
        let clicks = self.named_clicks(person, account).await?;
        let mut found_clicks: BTreeSet<_> = clicks.iter().copied().collect();
        for row in &conversions {
            if row.click_id != 0 {
                found_clicks.insert((AccountId(row.account_id), ClickId(row.click_id)));
            }
        }
        let ids: Vec<String> = conversions.iter().map(|row| row.conversion_id.to_string()).collect();
        for some in ids.chunks(IDS_PER_QUERY_MAX) {
            let sql = "SELECT DISTINCT account_id, click_id FROM attributions WHERE conversion_id IN {ids: Array(UUID)}";
            let rows: Vec<ClickRow> =
                self.long(self.finding(sql, account).param("ids", some).fetch_all()).await?;
            found_clicks
                .extend(rows.into_iter().map(|(account, click)| (AccountId(account), ClickId(click))));
        }
        let mut found: Vec<ConversionRow> = conversions;
        for (account, some) in by_account(&clicks) {
            let sql = format!(
                "SELECT {COLUMNS} FROM conversions WHERE account_id = {{account: UInt32}} AND \
                     (click_id IN {{ids: Array(UInt64)}} OR conversion_id IN (SELECT conversion_id FROM attributions \
                         WHERE account_id = {{account: UInt32}} AND click_id IN {{ids: Array(UInt64)}}))"
            );
            for some in some.chunks(IDS_PER_QUERY_MAX) {
                let query = self.finding(&sql, Some(account)).param("ids", some);
                found.extend(self.long(query.fetch_all::<ConversionRow>()).await?);
            }
        }
        let mut orders: BTreeSet<_> = found
            .iter()
            .filter(|row| !row.order_id.is_empty())
            .map(|row| (Some(GoalId(row.goal_id)), row.order_id.clone()))
            .collect();
        if let Person::Order { id, goal_id } = person {
            orders.insert((*goal_id, id.clone()));
        }
        let found: BTreeSet<_> =
            found.iter().map(|row| (AccountId(row.account_id), ConversionId(row.conversion_id))).collect();
        Ok(Traces {
            conversions: found.into_iter().collect(),
            clicks: found_clicks.into_iter().collect(),
            orders: orders.into_iter().collect(),
        })
    }

    /// Blanks everything that was found, and waits until it is done. To be repeated where it breaks off.
    pub async fn erase(&self, traces: &Traces, account: Option<AccountId>) -> Result<Vec<Erased>, Failure> {
        let mut erased: Vec<Erased> = Vec::new();
        let mut add =
            |change: &Change, rows| match erased.iter_mut().find(|known| known.table == change.table) {
                Some(known) => known.rows += rows,
                None => erased.push(Erased { table: change.table, how: change.how, rows }),
            };
        for change in &BY_CONVERSION {
            add(change, self.change_conversions(change, traces).await?);
        }
        for change in &BY_CLICK {
            let mut rows = 0;
            for (account, ids) in by_account(&traces.clicks) {
                for some in ids.chunks(IDS_PER_QUERY_MAX) {
                    let bind = |query: Query| query.param("ids", some).param("account", account.0);
                    rows += self.change(change, bind).await?;
                }
            }
            add(change, rows);
        }
        for (goal, order) in &traces.orders {
            let rejections = self.rejections_of(*goal, order, account).await?;
            for some in rejections.chunks(REJECTIONS_PER_QUERY_MAX) {
                add(&BY_REJECTION, self.change(&BY_REJECTION, |query| query.param("rows", some)).await?);
            }
        }
        add(&CONVERSIONS, self.change_conversions(&CONVERSIONS, traces).await?);
        self.drop_finished_mutations().await?;
        Ok(erased)
    }

    /// Refused hits that hold an order id.
    async fn rejections_of(
        &self,
        goal: Option<GoalId>,
        order: &str,
        account: Option<AccountId>,
    ) -> Result<Vec<Rejection>, Failure> {
        let sql = format!("SELECT {REJECTION} FROM rejections WHERE {OF_ORDER}");
        let query =
            self.finding(&sql, account).param("order", order).param("goal", goal.map_or(0, |goal| goal.0));
        self.long(query.fetch_all()).await
    }

    /// Removes the record of every mutation that is done, text and file: those of earlier versions named the person.
    async fn drop_finished_mutations(&self) -> Result<(), Failure> {
        let sql = "KILL MUTATION WHERE database = currentDatabase() AND is_done";
        self.long(self.long_query(sql).execute()).await
    }

    async fn change_conversions(&self, change: &Change, traces: &Traces) -> Result<u64, Failure> {
        let ids: Vec<String> = traces.conversions.iter().map(|(_, id)| id.to_string()).collect();
        let mut rows = 0;
        for some in ids.chunks(IDS_PER_QUERY_MAX) {
            rows += self.change(change, |query| query.param("ids", some)).await?;
        }
        Ok(rows)
    }

    /// One change of one table; how many rows it met.
    async fn change(&self, change: &Change, bind: impl Fn(Query) -> Query) -> Result<u64, Failure> {
        let Change { table, statement, rows, .. } = change;
        let count = format!("SELECT count() FROM {table} WHERE {rows}");
        let met: u64 = self.long(bind(self.long_query(&count)).fetch_one()).await?;
        if met > 0 {
            let sql = format!("ALTER TABLE {table} {statement} WHERE {rows}");
            let query = self.long_query(&sql).with_setting("mutations_sync", "2");
            self.long(bind(query).execute()).await?;
        }
        Ok(met)
    }

    async fn named_conversions(
        &self,
        person: &Person,
        account: Option<AccountId>,
    ) -> Result<Vec<ConversionRow>, Failure> {
        let which = match person {
            Person::Order { .. } => {
                "order_id = {order: String} AND ({goal: UInt32} = 0 OR goal_id = {goal: UInt32})"
            }
            Person::Click(_) => return Ok(Vec::new()),
            Person::Visitor(_) => {
                "(visitor_key IN {keys: Array(UInt64)} OR hasAny(visitor_keys, {keys: Array(UInt64)}))"
            }
        };
        let sql = format!("SELECT {COLUMNS} FROM conversions WHERE {which} AND {OF_ACCOUNT}");
        let query = match person {
            Person::Order { id, goal_id } => {
                self.finding(&sql, account).param("order", id).param("goal", goal_id.map_or(0, |goal| goal.0))
            }
            Person::Click(_) => self.finding(&sql, account),
            Person::Visitor(keys) => self.finding(&sql, account).param("keys", keys),
        };
        self.long(query.fetch_all()).await
    }

    async fn named_clicks(
        &self,
        person: &Person,
        account: Option<AccountId>,
    ) -> Result<Vec<(AccountId, ClickId)>, Failure> {
        let sql = match person {
            Person::Order { .. } => return Ok(Vec::new()),
            // One that never came may be named all the same.
            Person::Click(_) => format!(
                "SELECT account_id, click_id FROM clicks WHERE click_id = {{click: UInt64}} AND {OF_ACCOUNT} \
                 UNION DISTINCT SELECT account_id, click_id FROM conversions \
                     WHERE click_id = {{click: UInt64}} AND {OF_ACCOUNT} \
                 UNION DISTINCT SELECT account_id, {{click: UInt64}} AS click_id FROM rejections \
                     WHERE request != '' AND {OF_ACCOUNT} \
                         AND JSONExtractString(request, 'click_id') = toString({{click: UInt64}})"
            ),
            Person::Visitor(_) => format!(
                "SELECT account_id, click_id FROM clicks \
                 WHERE visitor_key IN {{keys: Array(UInt64)}} AND {OF_ACCOUNT}"
            ),
        };
        let query = match person {
            Person::Click(click) => self.finding(&sql, account).param("click", click.0),
            Person::Visitor(keys) => self.finding(&sql, account).param("keys", keys),
            Person::Order { .. } => self.finding(&sql, account),
        };
        let rows: Vec<ClickRow> = self.long(query.fetch_all()).await?;
        Ok(rows.into_iter().map(|(account, click)| (AccountId(account), ClickId(click))).collect())
    }

    fn finding(&self, sql: &str, account: Option<AccountId>) -> Query {
        self.long_query(sql)
            .with_setting("max_result_rows", ROWS_MAX)
            .param("account", account.map_or(0, |account| account.0))
    }
}

const COLUMNS: &str = "account_id, goal_id, conversion_id, order_id, click_id";
/// 0: of any account.
const OF_ACCOUNT: &str = "({account: UInt32} = 0 OR account_id = {account: UInt32})";

/// Clicks are numbered by account.
fn by_account(clicks: &[(AccountId, ClickId)]) -> Vec<(AccountId, Vec<u64>)> {
    let mut sorted = clicks.to_vec();
    sorted.sort_unstable();
    sorted
        .chunk_by(|(a, _), (b, _)| a == b)
        .filter_map(|of| Some((of.first()?.0, of.iter().map(|(_, click)| click.0).collect())))
        .collect()
}
