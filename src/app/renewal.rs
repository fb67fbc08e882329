//! What is written ahead of its use: the lease of click numbers, and visitors' keys. And the last known time.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{BelievedClock, Clock as _},
    intake::{ClickIds, Visitors},
    tasks,
};

/// Well below the half minute that is left of a lease when it may be extended.
const PERIOD: Duration = Duration::from_secs(5);

/// Keeps all of it until it is dropped.
pub(super) async fn keep_renewed(
    click_ids: Arc<ClickIds>,
    visitors: Arc<Visitors>,
    clock: Arc<BelievedClock>,
) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let (click_ids, visitors, clock) = (click_ids.clone(), visitors.clone(), clock.clone());
        let renewed = tasks::blocking(move || {
            let now = clock.now();
            let ids = click_ids.renew(now);
            let keys = visitors.renew(now, clock.retention_time());
            clock.keep().and(keys).and(ids)
        });
        if let Err(error) = renewed.await {
            tracing::warn!(%error, "the numbers of clicks, the visitors' keys or the time could not be written");
        }
    }
}
