//! What is written ahead of its use: the lease of click numbers, and visitors' keys.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Clock,
    intake::{ClickIds, Visitors},
    tasks,
};

/// Well below the half minute that is left of a lease when it may be extended.
const PERIOD: Duration = Duration::from_secs(5);

/// Keeps both ahead until it is dropped.
pub(super) async fn keep_renewed(click_ids: Arc<ClickIds>, visitors: Arc<Visitors>, clock: Arc<dyn Clock>) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let (click_ids, visitors, now) = (click_ids.clone(), visitors.clone(), clock.now());
        let renewed = tasks::blocking(move || {
            let ids = click_ids.renew(now);
            visitors.renew(now).and(ids)
        });
        if let Err(error) = renewed.await {
            tracing::warn!(%error, "the numbers of clicks or the visitors' keys could not be written ahead");
        }
    }
}
