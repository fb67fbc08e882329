//! Changes: decided on the newest snapshot, made durable, and only then visible.

mod accounts;
mod goals;
mod links;

use std::sync::Arc;

pub use accounts::{AccountDraft, AccountPatch};
pub use goals::{GoalDraft, GoalPatch};
pub use links::{LinkDraft, LinkPatch};

use super::{Catalog, ChangeError, entries::NO_OWNER, snapshot::Snapshot};
use crate::core::{AccountId, Plan};

/// What the catalog has entries of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Every kind.
    pub(super) const ALL: [Self; 4] = [Self::Account, Self::Key, Self::Goal, Self::Link];
    /// The last of them.
    pub(super) const LAST: Self = Self::Link;
}

/// How many entries there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Accounts.
    pub(super) accounts: usize,
    /// Keys of one account, revoked ones not among them.
    pub(super) keys: usize,
    /// Goals of one account.
    pub(super) goals: usize,
    /// Links of one account.
    pub(super) links: usize,
    /// Deleted entries of one account and kind that are not purged yet, since the copy does not know of them.
    pub(super) deleted: usize,
    /// Revoked keys of one account that are still listed.
    pub(super) revoked_keys: usize,
}

impl Limits {
    /// Those in force.
    pub(super) const USUAL: Self = Self {
        accounts: 10_000,
        keys: 1_000,
        goals: 10_000,
        links: 100_000,
        deleted: 10_000,
        revoked_keys: 100,
    };

    fn most(self, kind: EntryKind) -> usize {
        match kind {
            EntryKind::Account => self.accounts,
            EntryKind::Key => self.keys,
            EntryKind::Goal => self.goals,
            EntryKind::Link => self.links,
        }
    }

    /// Whether an account may have another entry. Each account has room of its own, and what is deleted takes up none.
    fn check_room(self, snapshot: &Snapshot, account: AccountId, kind: EntryKind) -> Result<(), ChangeError> {
        let owner = if kind == EntryKind::Account { NO_OWNER } else { account };
        let (counts, most) = (snapshot.counts(owner, kind), self.most(kind));
        if counts.live >= most {
            Err(ChangeError::TooMany { kind, most })
        } else if counts.deleted >= self.deleted {
            Err(ChangeError::CopyBehind(kind))
        } else {
            Ok(())
        }
    }
}

/// Deleted entries that are purged in one change.
const PURGED_AT_ONCE: usize = 1_000;

impl Catalog {
    /// One change. `decide` works on a copy of the newest snapshot, which shares everything with it, and whose version is
    /// the change's; where it refuses, nothing has happened. It costs as much as it changes.
    fn change<T>(
        &self,
        decide: impl FnOnce(&mut Snapshot) -> Result<T, ChangeError>,
    ) -> Result<T, ChangeError> {
        let mut store = self.store.lock();
        self.catch_up(&mut store)?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        next.version += 1;
        let changed = decide(&mut next)?;
        store.write(&mut next)?;
        self.publish(next);
        Ok(changed)
    }

    /// Removes what was deleted up to that version of the catalog: the copy in ClickHouse, which names old conversions,
    /// has it. The numbers and the slugs stay taken.
    pub(super) fn purge(&self, copied: u64) -> Result<(), ChangeError> {
        loop {
            let mut store = self.store.lock();
            self.catch_up(&mut store)?;
            let mut next = Snapshot::clone(&self.snapshot.load());
            next.purge(copied, PURGED_AT_ONCE);
            if next.journal.is_empty() {
                return Ok(());
            }
            store.write(&mut next)?;
            self.publish(next);
        }
    }

    fn publish(&self, next: Snapshot) {
        let version = next.version;
        self.snapshot.store(Arc::new(next));
        // A purge is no change that anybody follows.
        self.version.send_if_modified(|known| std::mem::replace(known, version) != version);
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
