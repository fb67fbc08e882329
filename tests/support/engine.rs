//! A ClickHouse to test against, and a database of one's own in it.

use tally::clickhouse::{Database, Endpoint, Timeouts};
use tally::core::{
    AccountId, Conversion, ConversionId, Currency, DedupScope, GoalId, Matching, Money, OrderId, OrderKey,
    Source, UnixMillis,
};
use tally::embedded::Embedded;
use tempfile::TempDir;

/// A database of the test's own, and what keeps it alive.
pub struct Fresh {
    database: Database,
    _engine: Option<(Embedded, TempDir)>,
}

impl std::ops::Deref for Fresh {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

/// A migrated database of its own: in the ClickHouse that `TALLY_TEST_CLICKHOUSE` names, else in an embedded one.
pub async fn fresh_database() -> Fresh {
    let (endpoint, engine) = match std::env::var("TALLY_TEST_CLICKHOUSE") {
        Ok(url) if !url.is_empty() => {
            let endpoint = Endpoint::parse(&url).expect("TALLY_TEST_CLICKHOUSE is an address");
            let database = format!("test_{}", uuid::Uuid::now_v7().simple());
            (Endpoint { database, ..endpoint }, None)
        }
        _ => {
            let folder = tempfile::tempdir().expect("a folder");
            tally::embedded::locate(None).expect("run `make libchdb`, or set TALLY_TEST_CLICKHOUSE");
            let embedded = Embedded::start(super::config(folder.path())).expect("a handle");
            embedded.ready(super::DEADLINE).await.expect("the engine is up");
            let writer = embedded.writer();
            let endpoint = Endpoint {
                url: writer.url,
                user: writer.user,
                password: writer.password,
                database: "tally".to_owned(),
            };
            (endpoint, Some((embedded, folder)))
        }
    };
    let database = Database::new(endpoint, Timeouts::default());
    database.migrate().await.expect("migrations run");
    Fresh { database, _engine: engine }
}

/// Runs SQL of the test's own.
pub fn sql(database: &Database) -> clickhouse::Client {
    let endpoint = database.endpoint();
    clickhouse::Client::default()
        .with_url(&endpoint.url)
        .with_user(&endpoint.user)
        .with_password(&endpoint.password)
        .with_database(&endpoint.database)
        .with_compression(clickhouse::Compression::None)
}

/// One number.
pub async fn number(database: &Database, query: &str) -> u64 {
    sql(database).query_raw(query).fetch_one::<u64>().await.unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// 2026-11-01T00:00:00Z.
pub const NOVEMBER: i64 = 1_793_491_200_000;

/// The `n`th of many conversions, each with an order id of its own, one a second from [`NOVEMBER`] on.
pub fn conversion(n: u32) -> Conversion {
    let at = NOVEMBER + i64::from(n) * 1000;
    let time = u128::from(u64::try_from(at).expect("after 1970"));
    Conversion {
        id: ConversionId(uuid::Uuid::from_u128(time << 80 | 7 << 76 | 2 << 62 | u128::from(n))),
        account_id: AccountId(1),
        goal_id: GoalId(1 + n % 3),
        order_id: OrderId::parse(&format!("ORDER-{n}")).expect("fits"),
        key: Some((OrderKey(1_000_000_007 * (u128::from(n) + 1)), DedupScope::Forever)),
        value: Money::from_micros(10_000_001 + u64::from(n)).expect("fits"),
        currency: if n.is_multiple_of(2) { Currency::USD } else { Currency::parse("EUR").expect("known") },
        received_at: UnixMillis(at),
        converted_at: UnixMillis(at),
        window_seconds: 30 * 86_400,
        matching: Matching::Unknown,
        source: Source::Postback,
        click_id: None,
        ip: Some("203.0.113.0".parse().expect("an address")),
        user_agent: "Mozilla/5.0".to_owned(),
        visitor_key: u64::from(n % 50),
        unverified: false,
    }
}
