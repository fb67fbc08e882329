//! Old rows are removed once a day, by a time that is trusted for it.

use std::{sync::Arc, time::Duration};

use metrics::{Unit, counter, describe_counter};

use crate::{clickhouse::Database, clock::BelievedClock};

/// How often it is looked whether a new day has begun.
const PERIOD: Duration = Duration::from_mins(10);
const DAY_SECONDS: i64 = 86_400;

/// Removes what has outlived its time, until it is dropped. While the system's clock is not believed, nothing is removed.
pub(super) async fn keep_removing(database: Database, clock: Arc<BelievedClock>, click_days: u32) {
    let mut done = None;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(now) = clock.retention_time() else { continue };
        let day = now.seconds().div_euclid(DAY_SECONDS);
        if done == Some(day) {
            continue;
        }
        match database.remove_expired(now, click_days).await {
            Ok(expired) => {
                done = Some(day);
                for of in expired.iter().filter(|of| of.rows > 0) {
                    counter!("tally_retention_rows_removed_total", "table" => of.table).increment(of.rows);
                    tracing::info!(
                        table = of.table,
                        rows = of.rows,
                        before = crate::clock::text(of.before),
                        "removed what has outlived its retention"
                    );
                }
            }
            Err(failure) => {
                tracing::warn!(%failure, "rows that have outlived their retention could not be removed; trying again");
            }
        }
    }
}

/// Says what the metric means. Once, after the recorder is in force.
pub(super) fn describe_metrics() {
    describe_counter!(
        "tally_retention_rows_removed_total",
        Unit::Count,
        "Rows removed, or blanked, since they had outlived their retention."
    );
}
