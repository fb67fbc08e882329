//! Changes: decided on the newest snapshot, made durable, and only then visible.

mod accounts;
mod goals;
mod links;

use std::sync::Arc;

pub use accounts::{AccountDraft, AccountPatch};
pub use goals::{GoalDraft, GoalPatch};
pub use links::{LinkDraft, LinkPatch};

use super::{Catalog, ChangeError, file, snapshot::Snapshot};
use crate::{
    core::{AccountId, Plan},
    durable_file,
};

/// What the catalog has entries of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Tenants.
    Account,
    /// API keys.
    Key,
    /// Actions worth counting.
    Goal,
    /// What visitors click.
    Link,
}

impl EntryKind {
    /// Its name in a sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Key => "key",
            Self::Goal => "goal",
            Self::Link => "link",
        }
    }

    /// Most entries in one catalog, deleted and revoked ones among them: their numbers and names stay taken. Every change
    /// writes the whole file, which this bounds.
    #[must_use]
    pub fn most(self) -> usize {
        match self {
            Self::Account => 10_000,
            Self::Key | Self::Goal | Self::Link => 100_000,
        }
    }

    fn check_room(self, taken: usize) -> Result<(), ChangeError> {
        if taken < self.most() { Ok(()) } else { Err(ChangeError::TooMany(self)) }
    }
}

impl Catalog {
    /// One change. `decide` works on a copy of the newest snapshot, whose version is the change's; where it refuses,
    /// nothing has happened.
    fn change<T>(
        &self,
        decide: impl FnOnce(&mut Snapshot) -> Result<T, ChangeError>,
    ) -> Result<T, ChangeError> {
        let _one_at_a_time = self.change.lock();
        let mut next = Snapshot::clone(&self.snapshot.load());
        next.version += 1;
        let changed = decide(&mut next)?;
        durable_file::replace(&self.path, &file::write(&next.rows_since(0)))?;
        let version = next.version;
        self.snapshot.store(Arc::new(next));
        self.version.send_replace(version);
        Ok(changed)
    }
}

/// The account's plan, if that is one that tracks.
fn check_plan(snapshot: &Snapshot, account: AccountId) -> Result<Plan, ChangeError> {
    let plan = snapshot.account(account).ok_or(ChangeError::Unknown(EntryKind::Account))?.plan;
    plan.allows_tracking()?;
    Ok(plan)
}

fn put<T>(slot: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *slot = new;
    }
}
