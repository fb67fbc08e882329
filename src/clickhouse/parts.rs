//! How finely tables are divided: what grows when rows come faster than ClickHouse merges them.

use super::{Database, Failure};

const PARTS_MAX: &str = "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts \
     WHERE active AND database = currentDatabase() GROUP BY table, partition_id)";

impl Database {
    /// The parts of the partition that has the most. ClickHouse slows inserts down at 1,000 and refuses them at 3,000.
    pub async fn parts_max(&self) -> Result<u64, Failure> {
        self.read(self.query(PARTS_MAX).fetch_one()).await
    }
}
