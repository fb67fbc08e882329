//! Visitors: who they are to us, for how long, and which of them can be told apart at all.
//!
//! A visitor is a keyed hash of account, address and user agent. The key lasts for an epoch of 30 days and is dropped
//! once the clicks of its epoch are: from then on nobody, we included, can tell which visits belong together or try
//! addresses against what is stored. A click has the key of its own epoch; a conversion is looked for under the keys of
//! every epoch that its window touches.

mod address;
mod epochs;
mod file;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use arc_swap::ArcSwap;

pub(super) use self::epochs::EPOCH_DAYS;
pub use self::file::{VISITOR_KEYS_FILE, VisitorKeysError};
use self::{address::names_nobody, epochs::Epochs};
use super::{Submission, records::kept_of};
use crate::core::{AccountId, Matching, UnixMillis};

/// The visitors' keys that are in force. Read without a lock; renewed now and then.
pub struct Visitors {
    path: PathBuf,
    retention_days: u32,
    match_private_addresses: bool,
    epochs: ArcSwap<Epochs>,
}

impl Visitors {
    /// Reads the keys from the data folder and makes those that are missing for the last `retention_days` and the next
    /// epoch. What is made is durable before it is used.
    pub fn open(
        data_dir: &Path,
        retention_days: u32,
        match_private_addresses: bool,
        now: UnixMillis,
        retention_time: Option<UnixMillis>,
    ) -> Result<Self, VisitorKeysError> {
        let path = data_dir.join(VISITOR_KEYS_FILE);
        let epochs = ArcSwap::from_pointee(file::load(&path)?);
        let visitors = Self { path, retention_days, match_private_addresses, epochs };
        let renewed = visitors.renew(now, retention_time);
        renewed.map_err(|source| VisitorKeysError::Io { path: visitors.path.clone(), source })?;
        Ok(visitors)
    }

    /// The keys that are in the data folder, for whoever looks but is not the daemon: nothing is made or dropped.
    pub fn read(data_dir: &Path) -> Result<Self, VisitorKeysError> {
        let path = data_dir.join(VISITOR_KEYS_FILE);
        // Without the file nobody is found, which is not the same as that there is nobody.
        std::fs::metadata(&path).map_err(|source| VisitorKeysError::Io { path: path.clone(), source })?;
        let epochs = ArcSwap::from_pointee(file::load(&path)?);
        Ok(Self { path, retention_days: 0, match_private_addresses: false, epochs })
    }

    /// Makes what will be needed at `now` and drops what has outlived the clicks at `retention_time`; none: drops nothing.
    /// Cheap where there is nothing to do.
    pub fn renew(&self, now: UnixMillis, retention_time: Option<UnixMillis>) -> io::Result<()> {
        let current = self.epochs.load();
        let Some(renewed) = current.renewed(now, retention_time, self.retention_days)? else { return Ok(()) };
        file::save(&self.path, &renewed)?;
        self.epochs.store(renewed.into());
        Ok(())
    }

    /// The visitor's key at that time; 0: there is no telling.
    #[must_use]
    pub fn key(&self, account: AccountId, ip: Option<IpAddr>, user_agent: &str, at: UnixMillis) -> u64 {
        ip.map_or(0, |ip| self.epochs.load().visitor(account, ip, user_agent, at))
    }

    /// Every key that the visitor has or had, newest first: what is known of a person is found under these.
    #[must_use]
    pub fn keys(&self, account: AccountId, ip: IpAddr, user_agent: &str) -> Vec<u64> {
        let (from, to) = (UnixMillis(i64::MIN), UnixMillis(i64::MAX));
        self.epochs.load().visitor_over(account, ip, kept_of(user_agent), from, to)
    }

    /// Whether the address stands for many people or for nobody in particular.
    #[must_use]
    pub fn is_private(&self, ip: Option<IpAddr>) -> bool {
        !self.match_private_addresses && ip.is_some_and(names_nobody)
    }

    /// The key of a conversion's visitor, and the keys under which clicks may be found. One hash where there is nothing
    /// to find: a conversion that names its click is never matched by anything else.
    pub(super) fn of_conversion(&self, submission: &Submission, user_agent: &str) -> (u64, Matching) {
        let (account, at) = (submission.account_id, submission.converted_at);
        let Some(ip) = submission.ip else { return (0, Matching::Unknown) };
        let epochs = self.epochs.load();
        let nothing = match () {
            () if submission.click_id.is_some() || user_agent.is_empty() => Some(Matching::Unknown),
            () if self.is_private(Some(ip)) => Some(Matching::PrivateAddress),
            () => None,
        };
        if let Some(nothing) = nothing {
            return (epochs.visitor(account, ip, user_agent, at), nothing);
        }
        // The oldest click that may count: the difference of both times' seconds is the window.
        let earliest = at.seconds().saturating_sub(submission.window_seconds.into()).saturating_mul(1000);
        let keys = epochs.visitor_over(account, ip, user_agent, UnixMillis(earliest), at);
        match keys.first() {
            Some(&newest) => (newest, Matching::Keys(keys)),
            None => (0, Matching::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{ClickId, Currency, GoalId, Money, Source};

    const DAY: i64 = 86_400_000;
    /// The first instant of epoch 690.
    const START: UnixMillis = UnixMillis(690 * 30 * DAY);

    fn visitors(folder: &Path, match_private: bool) -> Visitors {
        Visitors::open(folder, 400, match_private, START, Some(START)).expect("opened")
    }

    fn conversion(ip: &str, user_agent: &str, at: UnixMillis, window_days: u32) -> Submission {
        Submission {
            account_id: AccountId(1),
            goal_id: GoalId(1),
            order_id: None,
            idempotency_key: None,
            value: Money::ZERO,
            currency: Currency::USD,
            click_id: None,
            ip: ip.parse().ok(),
            user_agent: user_agent.into(),
            source: Source::Pixel,
            received_at: at,
            converted_at: at,
            window_seconds: window_days * 86_400,
        }
    }

    fn matching(visitors: &Visitors, conversion: &Submission) -> (u64, Matching) {
        visitors.of_conversion(conversion, &conversion.user_agent)
    }

    #[test]
    fn a_click_is_found_exactly_while_the_window_reaches_its_epoch() {
        let folder = tempfile::tempdir().expect("a folder");
        let visitors = visitors(folder.path(), false);
        let click = |at| visitors.key(AccountId(1), "203.0.113.7".parse().ok(), "ua", at);
        let keys = |at, days| match matching(&visitors, &conversion("203.0.113.7", "ua", at, days)) {
            (key, Matching::Keys(keys)) => {
                assert_eq!(keys[0], key, "newest first");
                keys
            }
            other => panic!("{other:?}"),
        };
        let before = START.plus(-1);
        assert_ne!(click(START), click(before));
        assert_eq!(keys(START.plus(DAY - 1), 1), [click(START), click(before)], "the second before counts");
        assert_eq!(keys(START.plus(DAY), 1), [click(START)]);
        assert_eq!(keys(START, 0), [click(START)]);
        assert_eq!(keys(START, 365).len(), 14);
        assert_eq!(keys(START, 40_000).len(), 15, "as many as there are");
    }

    #[test]
    fn nothing_is_matched_that_names_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let visitors = visitors(folder.path(), false);
        let reason = |conversion: &Submission| matching(&visitors, conversion);
        let (key, private) = reason(&conversion("10.1.2.3", "ua", START, 30));
        assert!(key != 0 && private == Matching::PrivateAddress);
        let (key, unknown) = reason(&conversion("203.0.113.7", "", START, 30));
        assert!(key != 0 && unknown == Matching::Unknown);
        assert_eq!(reason(&conversion("none", "ua", START, 30)), (0, Matching::Unknown));
        let named = Submission { click_id: Some(ClickId(7)), ..conversion("203.0.113.7", "ua", START, 30) };
        assert_eq!(reason(&named).1, Matching::Unknown);
    }

    #[test]
    fn private_addresses_match_where_that_is_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        let visitors = visitors(folder.path(), true);
        let found = matching(&visitors, &conversion("10.1.2.3", "ua", START, 1));
        assert!(matches!(found.1, Matching::Keys(_)));
        assert!(!visitors.is_private("127.0.0.1".parse().ok()));
    }

    #[test]
    fn keys_outlive_a_restart_and_not_the_clicks() {
        let folder = tempfile::tempdir().expect("a folder");
        let ip: Option<IpAddr> = "203.0.113.7".parse().ok();
        let key = |visitors: &Visitors, at| visitors.key(AccountId(1), ip, "ua", at);
        let first = visitors(folder.path(), false);
        let (now, next) = (key(&first, START), key(&first, START.plus(30 * DAY)));
        assert!(now != 0 && next != 0, "the next epoch's key is there ahead of time");
        let again = visitors(folder.path(), false);
        assert_eq!((key(&again, START), key(&again, START.plus(30 * DAY))), (now, next));
        again.renew(START.plus(400 * DAY), Some(START.plus(400 * DAY))).expect("renewed");
        assert_eq!(key(&again, START), now, "its last click is 370 days old");
        again.renew(START.plus(430 * DAY), Some(START.plus(430 * DAY))).expect("renewed");
        assert_eq!(key(&again, START), 0);
        let reopened =
            Visitors::open(folder.path(), 400, false, START.plus(430 * DAY), None).expect("opened");
        assert_eq!(key(&reopened, START), 0, "gone from the disk as well");
        assert_eq!(reopened.keys(AccountId(1), ip.expect("one"), "ua").len(), 15);
    }
}
