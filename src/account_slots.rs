//! A bounded number of calls of one kind at once: few of one account, so that no account holds all of them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::core::AccountId;

/// How many calls of one kind each account and all of them have under way. `account_max < all_max`.
pub struct AccountSlots {
    account_max: usize,
    all_max: usize,
    taken: Mutex<HashMap<AccountId, usize>>,
}

/// One call's slot, given back when it is dropped.
pub struct AccountSlot {
    slots: Arc<AccountSlots>,
    account: AccountId,
}

/// There is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSlot {
    /// The account has as many as it may have.
    #[error("the account has as many of these calls under way as it may have")]
    OfAccount,
    /// All accounts together have.
    #[error("as many of these calls are under way as may be")]
    OfAll,
}

impl AccountSlots {
    /// All of them free.
    #[must_use]
    pub fn new(account_max: usize, all_max: usize) -> Arc<Self> {
        Arc::new(Self { account_max, all_max, taken: Mutex::default() })
    }

    /// Takes a slot, if there is one.
    pub fn take(self: &Arc<Self>, account: AccountId) -> Result<AccountSlot, NoSlot> {
        let mut taken = self.taken.lock();
        let own = taken.get(&account).copied().unwrap_or(0);
        if own >= self.account_max {
            return Err(NoSlot::OfAccount);
        }
        if taken.values().sum::<usize>() >= self.all_max {
            return Err(NoSlot::OfAll);
        }
        taken.insert(account, own + 1);
        Ok(AccountSlot { slots: self.clone(), account })
    }
}

impl Drop for AccountSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        if let Some(own) = taken.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_for_each_account_and_for_all() {
        let slots = AccountSlots::new(2, 4);
        let take = |account| slots.take(AccountId(account));
        let first = [take(1), take(1)];
        assert!(first.iter().all(Result::is_ok));
        assert_eq!(take(1).err(), Some(NoSlot::OfAccount));
        let second = [take(2), take(3)];
        assert!(second.iter().all(Result::is_ok));
        assert_eq!(take(4).err(), Some(NoSlot::OfAll));
        drop(first);
        assert!(take(4).is_ok());
        drop(second);
        assert!(slots.taken.lock().is_empty());
    }
}
