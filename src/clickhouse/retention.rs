//! How long clicks are kept: a setting of the daemon, which the tables follow.

use super::{Database, Failure};

/// The tables that hold clicks one by one. Statistics of them stay.
const TABLES: [&str; 2] = ["clicks", "clicks_by_visitor"];
/// So many days longer than a click may be reported late: every hour that one may still fall into has all of its rows, and
/// its statistics can be held against them.
const SPARE_DAYS: u32 = 2;

#[derive(clickhouse::Row, serde::Deserialize)]
struct Kept {
    name: String,
    days: String,
}

impl Database {
    /// Makes the tables of clicks drop what was received more than `days` days ago, and two; returns those that
    /// did otherwise. Rows that have outlived a shorter time go with the next merges.
    pub async fn keep_clicks(&self, days: u32) -> Result<Vec<&'static str>, Failure> {
        let sql = "SELECT name, extract(engine_full, ' TTL toDateTime\\\\(received_at\\\\) \\\\+ toIntervalDay\\\\((\\\\d+)\\\\)') \
                   AS days FROM system.tables WHERE database = currentDatabase() AND name IN {tables: Array(String)}";
        let query = self.query(sql).param("tables", &TABLES[..]);
        let kept: Vec<Kept> = self.read(query.fetch_all()).await?;
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
}
