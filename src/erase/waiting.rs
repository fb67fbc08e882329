//! What of a person is not in ClickHouse yet.

use std::{path::Path, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::EraseError;
use crate::{
    clickhouse::Person,
    core::{AccountId, Conversion, Matching, OrderId, Record, payload},
    shipper::{
        Folder,
        dead_letters::{self, Letter},
    },
    wal::Reader,
};

/// How long the log may refuse to be read while it is written and trimmed.
const RESTLESS_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What can't be erased yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Records of the person in the log, on their way to ClickHouse.
    pub log_records: u64,
    /// Batches that are being inserted, whoever is in them.
    pub batches: u64,
    /// Dead letters of the person: files of the data folder.
    pub dead_letters: Vec<String>,
}

/// Looks through the log, the batches and the dead letters.
pub(super) async fn look(
    data_dir: &Path,
    wal_dir: &Path,
    person: &Person,
    account: Option<AccountId>,
) -> Result<Waiting, EraseError> {
    let folder = Folder::new(data_dir);
    let deadline = Instant::now() + RESTLESS_MAX;
    let log_records = loop {
        match records_of(&folder, wal_dir, person, account) {
            Ok(records) => break records,
            Err(EraseError::Log(_) | EraseError::Record(_)) if Instant::now() < deadline => {
                // A segment may have been given up, or a block half written, while it was read.
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
            Err(error) => return Err(error),
        }
    };
    let settled = folder.load_checkpoint()?.settled;
    let batches = folder.cut_ids()?.iter().filter(|id| **id > settled).count() as u64;
    let mut letters = Vec::new();
    for name in folder.dead_letters()? {
        // One that can't be read may be anybody's.
        let is_of = match dead_letters::read(&name, &folder.read_dead_letter(&name)?) {
            Ok(Letter::Record(record)) => concerns(&record, person, account),
            Ok(Letter::LateDuplicate { refusal, .. }) => concerns(&Record::Refusal(refusal), person, account),
            Err(_) => true,
        };
        if is_of {
            letters.push(format!("{name}.json"));
        }
    }
    Ok(Waiting { log_records, batches, dead_letters: letters })
}

fn records_of(
    folder: &Folder,
    wal_dir: &Path,
    person: &Person,
    account: Option<AccountId>,
) -> Result<u64, EraseError> {
    let mut reader = Reader::open(wal_dir, folder.load_checkpoint()?.position)?;
    let mut records = 0;
    while let Some(entry) = reader.next()? {
        let record = payload::decode(entry.payload).map_err(|_| EraseError::Record(entry.lsn))?;
        records += u64::from(concerns(&record, person, account));
    }
    Ok(records)
}

/// Whether a record is the person's, by itself.
fn concerns(record: &Record, person: &Person, account: Option<AccountId>) -> bool {
    let of_account = |id: AccountId| account.is_none_or(|account| account == id);
    match record {
        Record::Conversion(of) => of_account(of.account_id) && conversion_concerns(of, person),
        Record::Click(of) => {
            of_account(of.account_id)
                && match person {
                    Person::Order { .. } => false,
                    Person::Click(click) => of.id == *click,
                    Person::Visitor(keys) => keys.contains(&of.visitor_key),
                }
        }
        Record::Refusal(of) => match person {
            Person::Order { id, goal_id } => {
                of_account(of.account_id)
                    && goal_id.is_none_or(|goal| goal == of.goal_id)
                    && of.order_id == *id
            }
            Person::Click(click) => of_account(of.account_id) && of.names_click(*click),
            Person::Visitor(_) => false,
        },
        Record::Adjustment(_) => false,
    }
}

fn conversion_concerns(of: &Conversion, person: &Person) -> bool {
    match person {
        Person::Order { id, goal_id } => {
            of.order_id.as_ref().map(OrderId::as_str) == Some(id)
                && goal_id.is_none_or(|goal| goal == of.goal_id)
        }
        Person::Click(click) => of.click_id == Some(*click),
        Person::Visitor(keys) => {
            let looked_for: &[u64] = if let Matching::Keys(keys) = &of.matching { keys } else { &[] };
            keys.contains(&of.visitor_key) || looked_for.iter().any(|key| keys.contains(key))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{ClickId, GoalId, Refusal},
        shipper::samples::{conversion, refusal},
    };

    #[test]
    fn records_are_told_apart() {
        let record = Record::Conversion(Conversion {
            click_id: Some(ClickId(789)),
            visitor_key: 5,
            matching: Matching::Keys(vec![5, 6]),
            ..conversion(1)
        });
        let order = |id: &str, goal| Person::Order { id: id.into(), goal_id: goal };
        let concerned = |person: &Person| concerns(&record, person, None);
        assert!(concerned(&order("ORDER-1", None)) && concerned(&order("ORDER-1", Some(GoalId(2)))));
        assert!(!concerned(&order("ORDER-1", Some(GoalId(1)))) && !concerned(&order("ORDER-2", None)));
        assert!(concerned(&Person::Click(ClickId(789))) && !concerned(&Person::Click(ClickId(7))));
        assert!(concerned(&Person::Visitor(vec![6])) && !concerned(&Person::Visitor(vec![7])));
        assert!(!concerns(&record, &Person::Visitor(vec![6]), Some(AccountId(2))));
        let refused = Record::Refusal(Refusal {
            order_id: "ORDER-1".into(),
            request: r#"{"body_bytes":7,"click_id":"789"}"#.into(),
            ..refusal(1)
        });
        assert!(concerns(&refused, &order("ORDER-1", None), None));
        assert!(concerns(&refused, &Person::Click(ClickId(789)), None), "it stands in the request");
        assert!(!concerns(&refused, &Person::Click(ClickId(78)), None));
    }
}
