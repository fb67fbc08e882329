//! The keys of the epochs, and hashing with them.

use std::{collections::BTreeMap, hash::Hasher as _, io, net::IpAddr};

use siphasher::sip::SipHasher13;

use crate::core::{AccountId, UnixMillis};

/// How long a key is in use, in days counted from 1970.
pub(in crate::intake) const EPOCH_DAYS: u32 = 30;

const DAY_MILLIS: i64 = 86_400_000;
const EPOCH_MILLIS: i64 = EPOCH_DAYS as i64 * DAY_MILLIS;

/// A random key for each epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct Epochs(pub(super) BTreeMap<i64, u128>);

impl Epochs {
    /// These keys with what is needed at `now`, and without what is not any more at `retention_time` (none: nothing goes,
    /// since a key that is dropped is lost for ever); none: they are as they should be.
    pub(super) fn renewed(
        &self,
        now: UnixMillis,
        retention_time: Option<UnixMillis>,
        retention_days: u32,
    ) -> io::Result<Option<Self>> {
        let oldest_at = |at: UnixMillis| epoch_of(at.plus(-i64::from(retention_days) * DAY_MILLIS));
        let oldest = oldest_at(now);
        let kept = retention_time.map_or(i64::MIN, |at| oldest_at(at).min(oldest));
        // One ahead, so that none has to be made at the moment in which it is needed. What lies further ahead is from
        // before the clock was set back, and stays.
        let needed = oldest..=epoch_of(now).saturating_add(1);
        let mut missing = needed.filter(|epoch| !self.0.contains_key(epoch)).peekable();
        if missing.peek().is_none() && self.0.first_key_value().is_none_or(|(first, _)| *first >= kept) {
            return Ok(None);
        }
        let mut keys = self.0.clone();
        for epoch in missing {
            let mut key = [0; 16];
            getrandom::fill(&mut key).map_err(io::Error::from)?;
            keys.insert(epoch, u128::from_le_bytes(key));
        }
        keys.retain(|epoch, _| *epoch >= kept);
        Ok(Some(Self(keys)))
    }

    /// The visitor's key in the epoch of `at`; 0: that epoch has none.
    pub(super) fn visitor(&self, account: AccountId, ip: IpAddr, user_agent: &str, at: UnixMillis) -> u64 {
        self.0.get(&epoch_of(at)).map_or(0, |key| hash(*key, account, ip, user_agent))
    }

    /// The visitor's keys in every epoch from that of `from` to that of `to`, newest first.
    pub(super) fn visitor_over(
        &self,
        account: AccountId,
        ip: IpAddr,
        user_agent: &str,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Vec<u64> {
        let epochs = self.0.range(epoch_of(from)..=epoch_of(to).max(epoch_of(from)));
        epochs.rev().map(|(_, key)| hash(*key, account, ip, user_agent)).collect()
    }
}

fn epoch_of(at: UnixMillis) -> i64 {
    at.0.div_euclid(EPOCH_MILLIS)
}

/// Never 0, which stands for an unknown visitor.
fn hash(key: u128, account: AccountId, ip: IpAddr, user_agent: &str) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key.to_le_bytes());
    hasher.write_u32(account.0);
    match ip.to_canonical() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write(user_agent.as_bytes());
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_differ_between_accounts_and_not_between_spellings_of_an_address() {
        let v4 = "203.0.113.7".parse().expect("an address");
        let mapped = "::ffff:203.0.113.7".parse().expect("an address");
        assert_eq!(hash(1, AccountId(1), v4, "ua"), hash(1, AccountId(1), mapped, "ua"));
        assert_ne!(hash(1, AccountId(1), v4, "ua"), hash(1, AccountId(2), v4, "ua"));
        assert_ne!(hash(1, AccountId(1), v4, "ua"), hash(2, AccountId(1), v4, "ua"));
        assert_ne!(hash(1, AccountId(1), v4, "ua"), hash(1, AccountId(1), v4, "UA"));
    }

    #[test]
    fn a_clock_set_back_loses_no_key() {
        let now = UnixMillis(700 * EPOCH_MILLIS);
        let keys = Epochs::default().renewed(now, Some(now), 400).expect("random").expect("made");
        assert_eq!(keys.0.keys().copied().collect::<Vec<_>>(), (686..=701).collect::<Vec<_>>());
        assert!(keys.renewed(now, Some(now), 400).expect("random").is_none());
        let before = now.plus(-20 * EPOCH_MILLIS);
        let back = keys.renewed(before, Some(before), 400).expect("random").expect("older ones");
        assert!(keys.0.iter().all(|(epoch, key)| back.0.get(epoch) == Some(key)));
    }

    #[test]
    fn a_key_goes_by_the_retention_time_alone() {
        let now = UnixMillis(700 * EPOCH_MILLIS);
        let keys = Epochs::default().renewed(now, Some(now), 400).expect("random").expect("made");
        let ahead = now.plus(20 * EPOCH_MILLIS);
        for retention_time in [None, Some(now)] {
            let later = keys.renewed(ahead, retention_time, 400).expect("random").expect("new ones");
            assert!(keys.0.iter().all(|(epoch, key)| later.0.get(epoch) == Some(key)), "{retention_time:?}");
        }
        let gone = keys.renewed(ahead, Some(ahead), 400).expect("random").expect("new ones");
        assert!(!gone.0.contains_key(&700));
    }
}
