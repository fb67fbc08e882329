//! How long clicks are kept: a setting of the daemon, which the tables follow.

use super::{Database, Failure};

/// The tables that hold clicks one by one. Statistics of them stay.
const TABLES: [&str; 2] = ["clicks", "clicks_by_visitor"];
/// So many days longer than a click may be reported late: every hour that one may still fall into has all of its rows, and
/// its statistics can be held against them.
const SPARE_DAYS: u32 = 2;
/// Tables without a time to live: longer than there were computers to click with.
const FOR_EVER_DAYS: u32 = 20_000;

#[derive(clickhouse::Row, serde::Deserialize)]
struct Kept {
    name: String,
    days: String,
}

impl Database {
    /// Makes the tables of clicks drop what was received more than `days` days ago, and two; returns those that
    /// did otherwise. Rows that have outlived a shorter time go with the next merges.
    pub async fn keep_clicks(&self, days: u32) -> Result<Vec<&'static str>, Failure> {
        let kept = self.click_ttl().await?;
        let (mut changed, wanted) = (Vec::new(), (days + SPARE_DAYS).to_string());
        for table in TABLES {
            if kept.iter().any(|kept| kept.name == table && kept.days == wanted) {
                continue;
            }
            let sql =
                format!("ALTER TABLE {table} MODIFY TTL toDateTime(received_at) + INTERVAL {wanted} DAY");
            self.long(self.long_query(&sql).execute()).await?;
            changed.push(table);
        }
        Ok(changed)
    }

    /// How many days after they were received rows of clicks go.
    pub(super) async fn clicks_kept_days(&self) -> Result<u32, Failure> {
        let kept = self.click_ttl().await?;
        Ok(kept.iter().filter_map(|kept| kept.days.parse().ok()).min().unwrap_or(FOR_EVER_DAYS))
    }

    async fn click_ttl(&self) -> Result<Vec<Kept>, Failure> {
        let sql = "SELECT name, extract(engine_full, ' TTL toDateTime\\\\(received_at\\\\) \\\\+ toIntervalDay\\\\((\\\\d+)\\\\)') \
                   AS days FROM system.tables WHERE database = currentDatabase() AND name IN {tables: Array(String)}";
        self.read(self.query(sql).param("tables", &TABLES[..]).fetch_all()).await
    }
}
