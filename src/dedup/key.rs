//! Keyed hashes: what stands for an order id, and for a visitor.

use std::{hash::Hasher as _, net::IpAddr};

use siphasher::{
    sip::SipHasher13,
    sip128::{Hasher128 as _, SipHasher13 as SipHasher13x128},
};

use crate::core::{AccountId, ClickId, DedupScope, GoalId, OrderKey};

/// How many secret bytes a [`KeyHasher`] takes.
pub const SECRET_BYTES: usize = 32;

/// What a key of an account is for.
const CLICK: u8 = 2;
const ADJUSTMENT: u8 = 3;

/// Hashes with secrets of this installation: nobody else can aim at the filter or reverse a visitor's key by trying
/// addresses. The secrets must never change while the data lives, or order ids are counted again.
#[derive(Clone)]
pub struct KeyHasher {
    orders: SipHasher13x128,
    visitors: SipHasher13,
}

impl KeyHasher {
    /// A hasher of these secrets.
    #[must_use]
    pub fn new(secret: &[u8; SECRET_BYTES]) -> Self {
        let (orders, visitors) = secret.split_at(SECRET_BYTES / 2);
        let half = |bytes: &[u8]| <[u8; SECRET_BYTES / 2]>::try_from(bytes).unwrap_or_default();
        Self {
            orders: SipHasher13x128::new_with_key(&half(orders)),
            visitors: SipHasher13::new_with_key(&half(visitors)),
        }
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

    /// What stands for a visitor within an account; 0 where the address is unknown.
    #[must_use]
    pub fn visitor(&self, account: AccountId, ip: Option<IpAddr>, user_agent: &str) -> u64 {
        let Some(ip) = ip else { return 0 };
        let mut hasher = self.visitors;
        hasher.write_u32(account.0);
        match ip.to_canonical() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write(user_agent.as_bytes());
        hasher.finish().max(1)
    }
}

fn key_of(hasher: SipHasher13x128) -> OrderKey {
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
    fn visitors_differ_between_accounts_and_not_between_spellings_of_an_address() {
        let hasher = KeyHasher::new(&[1; SECRET_BYTES]);
        let v4 = "203.0.113.7".parse().ok();
        let mapped = "::ffff:203.0.113.7".parse().ok();
        assert_eq!(hasher.visitor(AccountId(1), v4, "ua"), hasher.visitor(AccountId(1), mapped, "ua"));
        assert_ne!(hasher.visitor(AccountId(1), v4, "ua"), hasher.visitor(AccountId(2), v4, "ua"));
        assert_eq!(hasher.visitor(AccountId(1), None, "ua"), 0);
    }
}
