//! Bulk calls over HTTP, and what ClickHouse holds afterwards.

use std::net::SocketAddr;

use loadtest::clickhouse::{ClickHouse, ClickHouseError};
use serde_json::Value;

use super::daemon::Site;
use super::http::{agent, read};
use super::wait_for;

/// Somebody with the first key. Clones may be moved to other threads.
#[derive(Clone)]
pub struct Caller {
    address: SocketAddr,
    key: String,
}

/// What came back.
pub struct Told {
    pub status: u16,
    pub body: Value,
}

impl Told {
    /// `accepted`, `duplicates` and `refused` of a bulk answer.
    pub fn counts(&self) -> [u64; 3] {
        ["accepted", "duplicates", "refused"].map(|name| self.body["data"][name].as_u64().expect("a count"))
    }

    /// The results of a bulk answer.
    pub fn results(&self) -> &[Value] {
        self.body["data"]["results"].as_array().expect("results")
    }
}

impl Caller {
    pub fn new(site: &Site) -> Self {
        let key = loadtest::daemon::api_key(site.data_dir()).expect("a key");
        Self { address: site.daemon.options.listen, key }
    }

    /// Posts a body of that type; none: there was no answer.
    pub fn try_post(&self, path: &str, content_type: &str, body: &str) -> Option<Told> {
        let url = format!("http://{}{path}", self.address);
        let request = agent().post(url).header("Authorization", format!("Bearer {}", self.key));
        let answer = request.header("Content-Type", content_type).send(body).and_then(read).ok()?;
        let body = serde_json::from_slice(&answer.body).unwrap_or_default();
        Some(Told { status: answer.status, body })
    }

    /// Posts lines.
    pub fn lines(&self, path: &str, body: &str) -> Told {
        self.try_post(path, "application/x-ndjson", body).expect("an answer")
    }
}

/// One number of the daemon's database.
pub fn number(site: &Site, query: &str) -> u64 {
    try_number(site, query).unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Waits until the number is there, as it is when everything has been shipped, and stays.
pub fn settles_at(site: &Site, query: &str, expected: u64) {
    wait_for(query, || try_number(site, query).is_ok_and(|number| number >= expected));
    site.wait_settled();
    assert_eq!(number(site, query), expected, "{query}");
}

fn try_number(site: &Site, query: &str) -> Result<u64, ClickHouseError> {
    ClickHouse::new(&site.daemon.reader_url().expect("a URL"))?.number(query)
}
