//! Clicks in memory: those that are not in ClickHouse yet, and none that is: a person who is erased there is not found
//! here.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use crate::core::{AccountId, CANDIDATES_MAX, Candidate, Click, ClickId, ClickLabels};

/// Clicks of one visitor that are looked at for a conversion; only a robot has more.
const OF_VISITOR_MAX: usize = 10 * CANDIDATES_MAX as usize;

/// Finds clicks by number and by visitor, always within an account.
#[derive(Debug, Default)]
pub(super) struct ClickIndex {
    by_id: HashMap<(AccountId, ClickId), Candidate>,
    by_visitor: HashMap<(AccountId, u64), VecDeque<ClickId>>,
    /// In the order of the log: which click, and how far the log must be settled for it to be in ClickHouse.
    order: VecDeque<(u64, AccountId, ClickId)>,
    /// What clicks hand on, each once.
    labels: HashSet<Arc<ClickLabels>>,
}

impl ClickIndex {
    /// Takes a click that is in ClickHouse once the log is settled up to `settled_lsn`. One that is there stays: of two
    /// with the same number, the first counts.
    pub(super) fn insert(&mut self, click: &Click, labelled: bool, settled_lsn: u64) {
        let id = (click.account_id, click.id);
        if self.by_id.contains_key(&id) {
            return;
        }
        let labels = self.shared(ClickLabels {
            campaign: click.campaign.clone(),
            variant: click.variant.clone(),
            labelled,
        });
        self.by_id.insert(id, Candidate::new(click, labels));
        if click.visitor_key != 0 {
            self.by_visitor.entry((click.account_id, click.visitor_key)).or_default().push_back(click.id);
        }
        self.order.push_back((settled_lsn, click.account_id, click.id));
    }

    /// Forgets the clicks that are in ClickHouse, now that the log is settled up to `settled_lsn`.
    pub(super) fn forget(&mut self, settled_lsn: u64) {
        while let Some((_, account, id)) = self.order.pop_front_if(|(lsn, ..)| *lsn <= settled_lsn) {
            let visitor = self.by_id.remove(&(account, id)).map_or(0, |candidate| candidate.visitor_key);
            if let Some(clicks) = self.by_visitor.get_mut(&(account, visitor)) {
                clicks.pop_front();
                if clicks.is_empty() {
                    self.by_visitor.remove(&(account, visitor));
                }
            }
        }
        // What nobody hands on any more, once it is the larger part.
        if self.labels.len() > 1000 && self.labels.len() / 2 > self.by_id.len() {
            self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The account's click of that number.
    pub(super) fn named(&self, account: AccountId, id: ClickId) -> Option<&Candidate> {
        self.by_id.get(&(account, id))
    }

    /// The account's clicks by that visitor.
    pub(super) fn of_visitor(&self, account: AccountId, key: u64) -> impl Iterator<Item = &Candidate> {
        let clicks = self.by_visitor.get(&(account, key));
        let newest = clicks.into_iter().flat_map(|clicks| clicks.iter().rev()).take(OF_VISITOR_MAX);
        newest.filter_map(move |id| self.by_id.get(&(account, *id)))
    }

    fn shared(&mut self, labels: ClickLabels) -> Arc<ClickLabels> {
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        let labels = Arc::new(labels);
        self.labels.insert(labels.clone());
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipper::samples::click;

    fn of_visitor(index: &ClickIndex, account: u32, key: u64) -> Vec<u64> {
        index.of_visitor(AccountId(account), key).map(|candidate| candidate.click_id.0).collect()
    }

    #[test]
    fn finds_within_the_account_and_keeps_the_first() {
        let mut index = ClickIndex::default();
        let one = Click { id: ClickId(7), visitor_key: 5, ..click(1) };
        index.insert(&one, true, 1);
        index.insert(&Click { visitor_key: 6, ..one.clone() }, true, 2);
        index.insert(&Click { account_id: AccountId(2), ..one.clone() }, false, 3);
        assert_eq!(index.named(AccountId(1), ClickId(7)).map(|c| c.visitor_key), Some(5));
        assert_eq!(index.named(AccountId(2), ClickId(7)).map(|c| c.labels.labelled), Some(false));
        assert!(index.named(AccountId(3), ClickId(7)).is_none());
        assert_eq!((of_visitor(&index, 1, 5), of_visitor(&index, 1, 6)), (vec![7], vec![]));
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn forgets_only_what_clickhouse_has() {
        let mut index = ClickIndex::default();
        for n in 0..10u32 {
            let click = Click { id: ClickId(n.into()), visitor_key: u64::from(1 + n % 2), ..click(n) };
            index.insert(&click, true, u64::from(n) + 1);
        }
        index.forget(4);
        assert_eq!(index.len(), 6);
        assert!(index.named(AccountId(1), ClickId(3)).is_none());
        assert_eq!((of_visitor(&index, 1, 1), of_visitor(&index, 1, 2)), (vec![8, 6, 4], vec![9, 7, 5]));
        index.forget(10);
        assert!(index.by_id.is_empty() && index.by_visitor.is_empty());
    }
}
