//! A postback that waits, and its bytes on disk.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::core::{
    AccountId, BatchId, ClickId, ConversionId, Currency, GoalId, LinkId, Method, Money, OrderId,
    Unattributed, UnixMillis, webhook::Event,
};

/// A postback that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// What is told.
    pub(super) event: Event,
    /// The batch that must count first; 0: none.
    pub(super) batch: BatchId,
    /// Attempts so far.
    pub(super) attempts: u8,
    /// When the next one is due.
    pub(super) due: UnixMillis,
}

/// The bytes are not an entry: the outbox is damaged, or a newer tally wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryError;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct EntryV1 {
    conversion_id: u128,
    account_id: u32,
    goal_id: u32,
    batch_id: u64,
    attempts: u8,
    due_ms: i64,
    order_id: String,
    click_id: u64,
    link_id: u32,
    value_micros: u64,
    currency: String,
    converted_at_ms: i64,
    method: String,
    reason: String,
}

impl Entry {
    /// Due at once, when its batch counts.
    pub(super) fn new(event: Event, batch: BatchId, now: UnixMillis) -> Self {
        Self { event, batch, attempts: 0, due: now }
    }

    /// Its key in the outbox.
    pub(super) fn key(&self) -> u128 {
        self.event.conversion_id.0.as_u128()
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let event = &self.event;
        let entry = EntryV1 {
            conversion_id: self.key(),
            account_id: event.account_id.0,
            goal_id: event.goal_id.0,
            batch_id: self.batch.0,
            attempts: self.attempts,
            due_ms: self.due.0,
            order_id: event.order_id.as_ref().map(OrderId::as_str).unwrap_or_default().to_owned(),
            click_id: event.click_id.map_or(0, |click| click.0),
            link_id: event.link_id.map_or(0, |link| link.0),
            value_micros: event.value.micros(),
            currency: event.currency.to_string(),
            converted_at_ms: event.converted_at.0,
            method: event.method.unwrap_or_default().to_owned(),
            reason: event.reason.unwrap_or_default().to_owned(),
        };
        // Writing to memory has no error to report; short bytes would not decode.
        postcard::to_extend(&entry, vec![VERSION]).unwrap_or_default()
    }

    /// Reads them back.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let (&VERSION, bytes) = bytes.split_first().ok_or(EntryError)? else { return Err(EntryError) };
        let entry: EntryV1 = postcard::from_bytes(bytes).map_err(|_| EntryError)?;
        let methods = [Method::ClickId, Method::IpUserAgent].map(Method::as_str);
        let reasons = Unattributed::ALL.map(Unattributed::as_str);
        let event = Event {
            conversion_id: ConversionId(Uuid::from_u128(entry.conversion_id)),
            account_id: AccountId(entry.account_id),
            goal_id: GoalId(entry.goal_id),
            order_id: OrderId::parse(&entry.order_id).map_err(|_| EntryError)?,
            click_id: (entry.click_id != 0).then_some(ClickId(entry.click_id)),
            link_id: (entry.link_id != 0).then_some(LinkId(entry.link_id)),
            value: Money::from_micros(entry.value_micros).ok_or(EntryError)?,
            currency: Currency::from_stored(&entry.currency).map_err(|_| EntryError)?,
            converted_at: UnixMillis(entry.converted_at_ms),
            method: known(&methods, &entry.method)?,
            reason: known(&reasons, &entry.reason)?,
            test: false,
        };
        Ok(Self {
            event,
            batch: BatchId(entry.batch_id),
            attempts: entry.attempts,
            due: UnixMillis(entry.due_ms),
        })
    }
}

/// One of these names, or none: the empty text. Another one is of a newer tally, and must not be told as none.
fn known(names: &[&'static str], stored: &str) -> Result<Option<&'static str>, EntryError> {
    match names.iter().find(|name| **name == stored) {
        Some(name) => Ok(Some(name)),
        None if stored.is_empty() => Ok(None),
        None => Err(EntryError),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::webhook;

    #[test]
    fn reads_back() {
        let told = Entry { attempts: 3, ..Entry::new(webhook::sample(), BatchId(9), UnixMillis(7)) };
        assert_eq!(Entry::decode(&told.encode()), Ok(told.clone()));
        let event = Event {
            order_id: None,
            click_id: None,
            link_id: None,
            method: None,
            reason: Some("no_candidate"),
            ..webhook::sample()
        };
        let bare = Entry::new(event, BatchId(0), UnixMillis(-1));
        assert_eq!(Entry::decode(&bare.encode()), Ok(bare.clone()));
    }

    /// What a released version wrote is read for ever.
    #[test]
    fn the_format_stays() {
        let entry = Entry { attempts: 3, ..Entry::new(webhook::sample(), BatchId(9), UnixMillis(7)) };
        assert_golden!("outbox-entry-1", &entry.encode());
    }

    #[test]
    fn a_name_that_is_not_known_is_an_error_and_not_none() {
        assert_eq!(known(&["click_id"], "click_id"), Ok(Some("click_id")));
        assert_eq!(known(&["click_id"], ""), Ok(None));
        assert_eq!(known(&["click_id"], "fingerprint"), Err(EntryError));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode(&bytes);
            let _ = Entry::decode(&[[VERSION].as_slice(), &bytes].concat());
        }
    }
}
