//! The number of parts as a metric, for the alert on a database that merges more slowly than rows come.

use std::time::Duration;

use metrics::{Unit, describe_gauge, gauge};

use crate::clickhouse::Database;

/// Parts become too many over minutes.
const PERIOD: Duration = Duration::from_secs(15);

/// Looks until it is dropped. While ClickHouse does not answer, the last number stands: its silence has alerts of its
/// own.
pub(super) async fn watch(database: Database) {
    describe_gauge!(
        "tally_parts_max",
        Unit::Count,
        "Parts of the partition in ClickHouse that has the most."
    );
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        match database.parts_max().await {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            Ok(parts) => gauge!("tally_parts_max").set(parts as f64),
            Err(failure) => tracing::debug!(%failure, "the parts could not be counted"),
        }
    }
}
