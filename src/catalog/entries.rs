//! What the kinds of entries have in common.

use super::{
    changes::EntryKind,
    snapshot::{Rows, Snapshot},
};
use crate::core::{Account, AccountId, ApiKey, Goal, Link};

/// An entry of the catalog.
pub(super) trait Entry: Sized {
    const KIND: EntryKind;

    fn id(&self) -> u32;

    /// Whose it is; accounts are nobody's.
    fn owner(&self) -> AccountId;

    /// Whether it counts against the limit, unless it is deleted.
    fn takes_room(&self) -> bool {
        true
    }

    fn rows(snapshot: &Snapshot) -> &Rows<Self>;
    fn rows_mut(snapshot: &mut Snapshot) -> &mut Rows<Self>;
}

/// Whose the accounts are, as far as their number is limited.
pub(super) const NO_OWNER: AccountId = AccountId(0);

impl Entry for Account {
    const KIND: EntryKind = EntryKind::Account;

    fn id(&self) -> u32 {
        self.id.0
    }

    fn owner(&self) -> AccountId {
        NO_OWNER
    }

    fn rows(snapshot: &Snapshot) -> &Rows<Self> {
        &snapshot.accounts
    }

    fn rows_mut(snapshot: &mut Snapshot) -> &mut Rows<Self> {
        &mut snapshot.accounts
    }
}

impl Entry for ApiKey {
    const KIND: EntryKind = EntryKind::Key;

    fn id(&self) -> u32 {
        self.id
    }

    fn owner(&self) -> AccountId {
        self.account_id
    }

    fn takes_room(&self) -> bool {
        !self.revoked
    }

    fn rows(snapshot: &Snapshot) -> &Rows<Self> {
        &snapshot.api_keys
    }

    fn rows_mut(snapshot: &mut Snapshot) -> &mut Rows<Self> {
        &mut snapshot.api_keys
    }
}

impl Entry for Goal {
    const KIND: EntryKind = EntryKind::Goal;

    fn id(&self) -> u32 {
        self.id.0
    }

    fn owner(&self) -> AccountId {
        self.account_id
    }

    fn rows(snapshot: &Snapshot) -> &Rows<Self> {
        &snapshot.goals
    }

    fn rows_mut(snapshot: &mut Snapshot) -> &mut Rows<Self> {
        &mut snapshot.goals
    }
}

impl Entry for Link {
    const KIND: EntryKind = EntryKind::Link;

    fn id(&self) -> u32 {
        self.id.0
    }

    fn owner(&self) -> AccountId {
        self.account_id
    }

    fn rows(snapshot: &Snapshot) -> &Rows<Self> {
        &snapshot.links
    }

    fn rows_mut(snapshot: &mut Snapshot) -> &mut Rows<Self> {
        &mut snapshot.links
    }
}
