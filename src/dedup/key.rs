//! Keyed hashes: what stands for an order id, a click's number or an idempotency key.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::core::{AccountId, ClickId, DedupScope, GoalId, OrderKey};

/// How many secret bytes a [`KeyHasher`] takes.
pub const SECRET_BYTES: usize = 32;

/// What a key of an account is for.
const CLICK: u8 = 2;
const ADJUSTMENT: u8 = 3;

/// Hashes with a secret of this installation: nobody else can aim at the filter. It must never change while the data
/// lives, or order ids are counted again.
#[derive(Clone)]
pub struct KeyHasher {
    orders: SipHasher13,
}

impl KeyHasher {
    /// A hasher of these secrets.
    #[must_use]
    pub fn new(secret: &[u8; SECRET_BYTES]) -> Self {
        // Half of it is enough; the rest is spare.
        let key = secret.first_chunk().copied().unwrap_or_default();
        Self { orders: SipHasher13::new_with_key(&key) }
    }

    /// What stands for an order id or an idempotency key within its goal.
    #[must_use]
    pub fn order(&self, goal: GoalId, scope: DedupScope, text: &str) -> OrderKey {
        let mut hasher = self.orders;
        hasher.write_u32(goal.0);
        hasher.write_u8(match scope {
            DedupScope::Forever => 0,
            DedupScope::Day => 1,
        });
        hasher.write(text.as_bytes());
        key_of(hasher)
    }

    /// What stands for a caller's own number of a click within its account.
    #[must_use]
    pub fn click(&self, account: AccountId, id: ClickId) -> OrderKey {
        self.of_account(CLICK, account, &id.0.to_le_bytes())
    }

    /// What stands for an adjustment's `Idempotency-Key` within its account.
    #[must_use]
    pub fn adjustment(&self, account: AccountId, text: &str) -> OrderKey {
        self.of_account(ADJUSTMENT, account, text.as_bytes())
    }

    /// No goal has the number 0, so that none of these is an order's key.
    fn of_account(&self, kind: u8, account: AccountId, bytes: &[u8]) -> OrderKey {
        let mut hasher = self.orders;
        hasher.write_u32(0);
        hasher.write_u8(kind);
        hasher.write_u32(account.0);
        hasher.write(bytes);
        key_of(hasher)
    }
}

fn key_of(hasher: SipHasher13) -> OrderKey {
    let hash = hasher.finish128().as_u128();
    // 0 stands for 'no key' in ClickHouse.
    OrderKey(hash.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goal_scope_text_and_secret_all_count() {
        let hasher = KeyHasher::new(&[1; SECRET_BYTES]);
        let key = hasher.order(GoalId(1), DedupScope::Forever, "A");
        assert_eq!(key, hasher.order(GoalId(1), DedupScope::Forever, "A"));
        assert_ne!(key, hasher.order(GoalId(2), DedupScope::Forever, "A"));
        assert_ne!(key, hasher.order(GoalId(1), DedupScope::Day, "A"));
        assert_ne!(key, hasher.order(GoalId(1), DedupScope::Forever, "a"));
        assert_ne!(key, KeyHasher::new(&[2; SECRET_BYTES]).order(GoalId(1), DedupScope::Forever, "A"));
    }

    #[test]
    fn keys_of_accounts_are_their_own() {
        let hasher = KeyHasher::new(&[1; SECRET_BYTES]);
        let click = |account, id| hasher.click(AccountId(account), ClickId(id));
        assert_eq!(click(1, 7), click(1, 7));
        assert_ne!(click(1, 7), click(2, 7));
        assert_ne!(click(1, 7), click(1, 8));
        let text = "\u{7}\0\0\0\0\0\0\0";
        assert_ne!(click(1, 7), hasher.adjustment(AccountId(1), text), "the same bytes of another kind");
        assert_ne!(hasher.adjustment(AccountId(1), "a"), hasher.adjustment(AccountId(2), "a"));
    }
}
