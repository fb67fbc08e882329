//! The connection to ClickHouse: a cheap clone around the official client, with a time-out on everything.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use clickhouse::{Client, Compression, query::Query};

use super::{Endpoint, Failure};
use crate::core::rows::Table;

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A look-up or a report.
    pub read: Duration,
    /// An insert, from the last byte sent to the answer, views included.
    pub insert: Duration,
    /// A mutation, a migration or a scan of a whole table.
    pub long: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { read: Duration::from_secs(10), insert: Duration::from_mins(1), long: Duration::from_mins(10) }
    }
}

/// A ClickHouse database. Clones share one pool of connections.
///
/// The pool's connections live in the runtime that opened them: each runtime makes its own `Database` by
/// [`Database::new`] rather than take a clone from another one.
#[derive(Clone)]
pub struct Database {
    client: Client,
    /// The same, for requests that say that they are reports.
    reports: Client,
    endpoint: Arc<Endpoint>,
    timeouts: Timeouts,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// One insert of encoded rows.
#[derive(Clone, Copy, Debug)]
pub struct Insert<'a> {
    /// Into which table.
    pub table: Table,
    /// Belongs to exactly these rows, for ever.
    pub token: &'a str,
    /// Names this attempt, so that it can be found and stopped.
    pub log_comment: &'a str,
    /// `RowBinary`.
    pub rows: &'a Bytes,
}

/// Tells the embedded engine what a request is for; servers take no notice of it.
const WORKLOAD_HEADER: &str = "x-tally-workload";
/// A block holds more rows than any batch, so that a batch is one block and atomic.
const BLOCK_ROWS: &str = "1048449";
const BLOCK_BYTES: &str = "268435456";
/// One report's share of the server's memory. One that needs more is refused by the server, not swapped or guessed.
const REPORT_MEMORY_BYTES_MAX: &str = "536870912";
/// What is handed to the socket at a time.
const CHUNK_BYTES: usize = 1 << 20;

impl Database {
    /// A database at that address. Nothing is sent before the first request.
    #[must_use]
    pub fn new(endpoint: Endpoint, timeouts: Timeouts) -> Self {
        // Loopback or a near network: compression costs three times what it saves there.
        let mut client = Client::default()
            .with_url(&endpoint.url)
            .with_database(&endpoint.database)
            .with_compression(Compression::None)
            .with_product_info("tally", env!("CARGO_PKG_VERSION"));
        if !endpoint.user.is_empty() {
            client = client.with_user(&endpoint.user).with_password(&endpoint.password);
        }
        let reports = client.clone().with_header(WORKLOAD_HEADER, "report");
        Self { client, reports, endpoint: Arc::new(endpoint), timeouts }
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its time-outs.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Failure> {
        let one: u8 =
            self.read(self.client.clone().with_database("default").query_raw("SELECT 1").fetch_one()).await?;
        if one == 1 { Ok(()) } else { Err(Failure::unreadable("SELECT 1")) }
    }

    /// Whether a statement over tally's own tables succeeds, as reports need it. It reads a row at most.
    pub async fn probe_reports(&self) -> Result<(), Failure> {
        let probe = self.query("SELECT count() FROM (SELECT 1 FROM conversions LIMIT 1)");
        self.read(probe.fetch_one::<u64>()).await.map(drop)
    }

    /// The server's version.
    pub async fn version(&self) -> Result<String, Failure> {
        self.read(self.client.clone().with_database("default").query_raw("SELECT version()").fetch_one())
            .await
    }

    /// Sends encoded rows under their token. Only an `Ok` of the first attempt says that they are in; see
    /// `shipper` for everything else.
    pub async fn insert(&self, insert: Insert<'_>) -> Result<(), Failure> {
        let sql =
            format!("INSERT INTO {} ({}) FORMAT RowBinary", insert.table.name(), insert.table.columns());
        let mut request = self
            .client
            .insert_formatted_with(sql)
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", insert.token)
            .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
            .with_setting("async_insert", "0")
            .with_setting("materialized_views_ignore_errors", "0")
            .with_setting("max_insert_block_size", BLOCK_ROWS)
            .with_setting("min_insert_block_size_rows", BLOCK_ROWS)
            .with_setting("min_insert_block_size_bytes", BLOCK_BYTES)
            .with_setting("log_comment", insert.log_comment)
            .with_timeouts(Some(self.timeouts.insert), Some(self.timeouts.insert));
        for start in (0..insert.rows.len()).step_by(CHUNK_BYTES) {
            let end = (start + CHUNK_BYTES).min(insert.rows.len());
            request.send(insert.rows.slice(start..end)).await?;
        }
        request.end().await?;
        Ok(())
    }

    /// A query in tally's database, to be bound by `{name: Type}` and `param`.
    pub(super) fn query(&self, sql: &str) -> Query {
        self.client.query_raw(sql).with_setting("max_execution_time", seconds(self.timeouts.read))
    }

    /// The same for what a caller of the API causes: it takes a bounded share of the server, so that inserts go on
    /// beside it, changes nothing, and ends when the caller goes. The embedded engine gives it slots of its own.
    pub(super) fn report_query(&self, sql: &str) -> Query {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        self.reports
            .query_raw(sql)
            .with_setting("max_execution_time", seconds(self.timeouts.read))
            .with_setting("max_threads", threads.to_string())
            .with_setting("max_memory_usage", REPORT_MEMORY_BYTES_MAX)
            .with_setting("timeout_overflow_mode", "throw")
            .with_setting("readonly", "2")
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
    }

    /// The same for what may take long: mutations, scans.
    pub(super) fn long_query(&self, sql: &str) -> Query {
        self.client.query_raw(sql).with_setting("max_execution_time", seconds(self.timeouts.long))
    }

    /// The bare client, for what runs outside of tally's database.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for a read, but not for ever.
    pub(super) async fn read<T>(
        &self,
        request: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, Failure> {
        within(self.timeouts.read, request).await
    }

    /// Waits for something that may take long, but not for ever.
    pub(super) async fn long<T>(
        &self,
        request: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, Failure> {
        within(self.timeouts.long, request).await
    }
}

pub(super) async fn within<T>(
    limit: Duration,
    request: impl Future<Output = clickhouse::error::Result<T>>,
) -> Result<T, Failure> {
    // The server stops by itself at the limit; the grace lets its answer arrive, which says more than a time-out.
    match tokio::time::timeout(limit + Duration::from_secs(1), request).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(_) => Err(Failure::timed_out()),
    }
}

fn seconds(limit: Duration) -> String {
    limit.as_secs().max(1).to_string()
}
