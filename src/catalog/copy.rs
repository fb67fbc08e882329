//! The catalog's copy in ClickHouse: for dashboards to name goals, and for a data folder that lost its file.

use std::{sync::Arc, time::Duration};

use super::Catalog;
use crate::{core::CatalogRows, tasks};

/// The copy could not be written or read; it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CopyError(pub String);

/// Where the copy is kept.
pub trait CatalogCopy: Send + Sync {
    /// Adds these rows; of two rows of one entry the greater version counts. May be called again with the same rows.
    fn push(&self, rows: CatalogRows) -> impl Future<Output = Result<(), CopyError>> + Send;

    /// All rows, or `None` where nothing was ever copied.
    fn load(&self) -> impl Future<Output = Result<Option<CatalogRows>, CopyError>> + Send;
}

/// Rows that are copied at once.
const ROWS_PER_PUSH: usize = 5_000;

/// Copies the catalog, and every change of it, for ever. Starts with all of it, since the copy may have been lost; after
/// that, what changed. While the copy can't be written it is tried again; nothing waits for it but the purge of what was
/// deleted.
pub async fn keep_copied(catalog: Arc<Catalog>, copy: impl CatalogCopy, retry_after: Duration) {
    let mut versions = catalog.versions();
    let mut copied = 0;
    let mut failing = false;
    loop {
        versions.mark_unchanged();
        let rows = catalog.snapshot().rows_since(copied, ROWS_PER_PUSH);
        let version = rows.version;
        match copy.push(rows).await {
            Ok(()) => {
                copied = version;
                failing = false;
                purge(&catalog, copied).await;
                if copied < catalog.snapshot().version() {
                    continue;
                }
                if versions.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the catalog's copy can't be written; trying again");
                }
                failing = true;
                tokio::time::sleep(retry_after).await;
            }
        }
    }
}

/// Away from the threads that wait for nobody: it writes a file.
async fn purge(catalog: &Arc<Catalog>, copied: u64) {
    let catalog = Arc::clone(catalog);
    if let Err(error) = tasks::blocking(move || catalog.purge(copied)).await {
        tracing::warn!(%error, "deleted entries of the catalog are not purged yet");
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::{catalog::tests::Still, core::AccountId};

    #[derive(Default)]
    struct Flaky {
        failures: Mutex<u32>,
        pushed: Mutex<Vec<CatalogRows>>,
    }

    impl CatalogCopy for Arc<Flaky> {
        async fn push(&self, rows: CatalogRows) -> Result<(), CopyError> {
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(CopyError("down".into()));
            }
            self.pushed.lock().push(rows);
            Ok(())
        }

        async fn load(&self) -> Result<Option<CatalogRows>, CopyError> {
            Ok(self.pushed.lock().first().cloned())
        }
    }

    #[tokio::test]
    async fn everything_arrives_although_the_copy_was_down() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Arc::new(Catalog::open(folder.path(), &Still(1), None).expect("opened").catalog);
        let copy = Arc::new(Flaky { failures: Mutex::new(3), ..Flaky::default() });
        let task =
            tokio::spawn(keep_copied(Arc::clone(&catalog), Arc::clone(&copy), Duration::from_millis(1)));
        let wait_for = |count: usize| {
            let copy = Arc::clone(&copy);
            async move {
                while copy.pushed.lock().len() < count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        wait_for(1).await;
        let draft = crate::catalog::GoalDraft {
            name: "g".into(),
            goal_type: crate::core::GoalType::Custom,
            value: None,
            currency: None,
            attribution_window_days: 30,
            postback_url: None,
            postback_method: crate::core::webhook::PostbackMethod::Post,
            trust_client_fields: false,
        };
        catalog.create_goal(AccountId(1), draft, crate::core::UnixMillis(2)).expect("made");
        wait_for(2).await;
        let pushed = copy.pushed.lock().clone();
        assert_eq!((pushed[0].accounts.len(), pushed[1].accounts.len(), pushed[1].goals.len()), (1, 0, 1));
        // What was deleted is purged once the copy knows of it.
        catalog.delete_goal(AccountId(1), crate::core::GoalId(1)).expect("deleted");
        wait_for(3).await;
        assert!(copy.pushed.lock()[2].goals[0].deleted);
        while !catalog.snapshot().rows_since(0, 10).goals.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        task.abort();
    }
}
