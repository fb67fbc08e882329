//! An embedded engine for a test, and raw HTTP requests to it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod past;

use std::path::Path;
use std::time::{Duration, Instant};

use tally::embedded::{Embedded, EmbeddedConfig, Endpoint};
use tempfile::TempDir;

/// Long enough for a loaded machine; every wait ends at its condition.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// An engine on its own data folder, with a runtime to talk to it.
pub struct Engine {
    pub embedded: Embedded,
    pub runtime: tokio::runtime::Runtime,
    pub folder: TempDir,
}

pub fn config(folder: &Path) -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(folder);
    config.program = Some(env!("CARGO_BIN_EXE_tally").into());
    config
}

impl Engine {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let embedded = Embedded::start(config(folder.path())).expect("a handle");
        runtime.block_on(embedded.ready(DEADLINE)).expect("the engine is up");
        Self { embedded, runtime, folder }
    }

    pub fn writer(&self) -> Endpoint {
        self.embedded.writer()
    }

    pub fn reader(&self) -> Endpoint {
        let url = self.embedded.reader_url();
        let rest = url.strip_prefix("http://reader:").expect("a URL");
        let (password, rest) = rest.split_once('@').expect("a URL");
        let (host, _) = rest.split_once('/').expect("a URL");
        Endpoint {
            url: format!("http://{host}"),
            user: "reader".into(),
            password: password.into(),
            database: "tally".into(),
        }
    }

    pub fn client(&self) -> clickhouse::Client {
        client(&self.writer())
    }

    /// A statement that must work.
    pub fn run(&self, sql: &str) -> String {
        let answer = post(&self.writer(), "database=tally", sql.as_bytes(), &[]);
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        answer.text()
    }

    /// tally's own tables and views, with one of everything in them, and secrets where secrets may be.
    pub fn with_schema(&self) {
        let Endpoint { url, user, password, database } = self.writer();
        let endpoint = tally::clickhouse::Endpoint { url, user, password, database };
        let database = tally::clickhouse::Database::new(endpoint, tally::clickhouse::Timeouts::default());
        self.runtime.block_on(database.migrate()).expect("migrated");
        for statement in [
            "INSERT INTO conversions (conversion_id, account_id, goal_id, value, currency, received_at, converted_at, \
                 visitor_key) VALUES (generateUUIDv7(), 1, 1, 12.5, 'EUR', '2026-11-01 10:30:00', '2026-11-01 10:30:00', 7)",
            "INSERT INTO attributions (conversion_id, account_id, goal_id, value, currency, received_at, converted_at, \
                 method, click_id, link_id, seconds_to_convert, utm_campaign, labelled) \
             SELECT conversion_id, account_id, goal_id, value, currency, received_at, converted_at, 'click_id', 5, 3, 60, \
                 'winter', true FROM conversions",
            "INSERT INTO adjustments (adjustment_id, account_id, goal_id, conversion_id, kind, value, currency, \
                 received_at, converted_at, net_value_change) \
             SELECT generateUUIDv7(), account_id, goal_id, conversion_id, 'refund', 2, currency, received_at, converted_at, \
                 -2 FROM conversions",
            "INSERT INTO clicks (click_id, account_id, link_id, clicked_at, received_at, source, traffic) \
             VALUES (5, 1, 3, '2026-11-01 10:29:00', '2026-11-01 10:29:00', 'redirect', 'human')",
            "INSERT INTO goals (id, account_id, name, goal_type, postback_url, postback_token) \
             VALUES (1, 1, 'Sales', 'purchase', 'https://u:SECRET@shop.example', 'SECRET')",
            "INSERT INTO api_keys (id, account_id, name, sha256) VALUES (1, 1, 'first', 'SECRET')",
        ] {
            self.run(statement);
        }
    }

    pub fn stop(self) -> TempDir {
        self.runtime.block_on(self.embedded.stop());
        self.folder
    }
}

pub fn client(endpoint: &Endpoint) -> clickhouse::Client {
    clickhouse::Client::default()
        .with_url(&endpoint.url)
        .with_user(&endpoint.user)
        .with_password(&endpoint.password)
        .with_database(&endpoint.database)
}

pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn code(&self) -> &str {
        self.header("x-clickhouse-exception-code")
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build().into()
}

pub fn post(endpoint: &Endpoint, query: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
    try_post(endpoint, query, body, headers).expect("an answer")
}

pub fn try_post(
    endpoint: &Endpoint,
    query: &str,
    body: &[u8],
    headers: &[(&str, &str)],
) -> Result<Answer, ureq::Error> {
    let mut request = agent()
        .post(format!("{}/?{query}", endpoint.url))
        .header("X-ClickHouse-User", &endpoint.user)
        .header("X-ClickHouse-Key", &endpoint.password);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    read(request.send(body)?)
}

pub fn get(endpoint: &Endpoint, path: &str) -> Answer {
    let request = agent()
        .get(format!("{}{path}", endpoint.url))
        .header("X-ClickHouse-User", &endpoint.user)
        .header("X-ClickHouse-Key", &endpoint.password);
    read(request.call().expect("an answer")).expect("a body")
}

fn read(response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let (head, mut body) = response.into_parts();
    let body = body.with_config().limit(1 << 30).read_to_vec()?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// Waits for a condition, at most until the deadline.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}
