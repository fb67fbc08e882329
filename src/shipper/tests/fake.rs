//! A ClickHouse in memory: tokens per table, views, rollups; and every way to fail.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    clickhouse::{Adjusted, Failure, Finding, Footprint, Insert, KeyQuery, KnownKey},
    core::{AccountId, BatchId, Conversion, ConversionId, OrderKey, Record, Refusal, rows, rows::Table},
};

/// A row with this text is refused.
pub(super) const REFUSED: &str = "refused by a constraint";

/// What goes wrong with one insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Refused before anything happened.
    TooManyParts,
    /// Nothing happened, and nobody knows.
    LostRequest,
    /// Everything happened, and nobody knows.
    LostAnswer,
    /// The raw table has the rows, the views have nothing; nobody knows.
    ViewsMissed,
    /// The token is remembered, the rows are gone: in the raw table,
    HoleInRaw,
    /// in the key table,
    HoleInKeys,
    /// in the rollup.
    HoleInHours,
    /// Half of the raw rows are gone, the token is remembered.
    HalfOfRaw,
}

pub(super) const LOSSES: [Fault; 8] = [
    Fault::TooManyParts,
    Fault::LostRequest,
    Fault::LostAnswer,
    Fault::ViewsMissed,
    Fault::HoleInRaw,
    Fault::HoleInKeys,
    Fault::HoleInHours,
    Fault::HalfOfRaw,
];

/// When things go wrong.
pub(super) struct Faults {
    random: Option<StdRng>,
    next: Vec<Fault>,
    always: Option<Fault>,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self { random: None, next: Vec::new(), always: None }
    }

    pub(super) fn random(seed: u64) -> Self {
        Self { random: Some(StdRng::seed_from_u64(seed ^ 0xfa)), ..Self::none() }
    }

    pub(super) fn once(fault: Fault) -> Self {
        Self { next: vec![fault], ..Self::none() }
    }

    pub(super) fn down() -> Self {
        Self { always: Some(Fault::LostRequest), ..Self::none() }
    }

    fn next(&mut self) -> Option<Fault> {
        let random = self.random.as_mut().and_then(|random| {
            (random.random_range(0..3) == 0).then(|| LOSSES[random.random_range(0..LOSSES.len())])
        });
        self.always.or_else(|| self.next.pop()).or(random)
    }

    fn fails(&mut self) -> bool {
        self.random.as_mut().is_some_and(|random| random.random_range(0..8) == 0)
    }
}

type Hour = (u32, i64);

/// What the database holds.
#[derive(Default)]
pub(super) struct Store {
    pub(super) raw: Vec<(u64, Conversion)>,
    pub(super) rejections: Vec<(u64, Refusal)>,
    keys: Vec<(u64, OrderKey, KnownKey)>,
    hours: BTreeMap<Hour, (u64, u64)>,
    tokens: HashSet<(&'static str, String)>,
    accepts_everything: bool,
}

impl Store {
    /// What the views made is what the raw rows say.
    pub(super) fn verify_derived(&self) {
        let mut hours = BTreeMap::<Hour, (u64, u64)>::new();
        for (_, conversion) in &self.raw {
            add(&mut hours, conversion);
        }
        assert_eq!(self.hours, hours);
        let keyed = self.raw.iter().filter(|(_, conversion)| conversion.key.is_some()).count();
        assert_eq!(self.keys.len(), keyed);
    }

    fn key_row(batch: u64, conversion: &Conversion) -> Option<(u64, OrderKey, KnownKey)> {
        let known = KnownKey {
            conversion_id: conversion.id,
            value: conversion.value,
            currency: conversion.currency,
            received_at: conversion.received_at,
        };
        Some((batch, conversion.key?.0, known))
    }

    fn hours_of<'a>(&'a self, of: &'a Footprint) -> impl Iterator<Item = &'a (u64, Conversion)> {
        self.raw.iter().filter(|(_, c)| touches(of, hour_of(c)))
    }

    fn hours_off(&self, of: &Footprint) -> u64 {
        let mut hours = BTreeMap::new();
        for (_, conversion) in self.hours_of(of) {
            add(&mut hours, conversion);
        }
        let there = self.hours.iter().filter(|(hour, _)| touches(of, **hour));
        let wrong = there.filter(|(hour, sums)| hours.remove(hour).as_ref() != Some(*sums)).count();
        (wrong + hours.len()) as u64
    }
}

fn hour_of(conversion: &Conversion) -> Hour {
    (conversion.goal_id.0, conversion.received_at.hour_start_seconds())
}

fn touches(of: &Footprint, (goal, hour): Hour) -> bool {
    of.goals.contains(&goal) && of.hours.iter().any(|ours| i64::from(*ours) == hour)
}

fn add(hours: &mut BTreeMap<Hour, (u64, u64)>, conversion: &Conversion) {
    let sums = hours.entry(hour_of(conversion)).or_default();
    sums.0 += 1;
    sums.1 += conversion.value.micros();
}

/// The database. Clones share it.
#[derive(Clone)]
pub(super) struct Warehouse {
    inner: Arc<Mutex<(Store, Faults)>>,
}

impl Warehouse {
    pub(super) fn new(faults: Faults) -> Self {
        Self { inner: Arc::new(Mutex::new((Store::default(), faults))) }
    }

    pub(super) fn store(&self) -> MappedMutexGuard<'_, Store> {
        MutexGuard::map(self.inner.lock(), |(store, _)| store)
    }

    pub(super) fn accept_everything(&self) {
        self.store().accepts_everything = true;
    }

    pub(super) fn recover(&self) {
        self.inner.lock().1.always = None;
    }

    fn flaky(&self) -> Result<(), Failure> {
        if self.inner.lock().1.fails() { Err(unknown()) } else { Ok(()) }
    }
}

fn unknown() -> Failure {
    Failure::Unknown { code: None, message: "reset".into() }
}

impl super::super::Warehouse for Warehouse {
    async fn insert(&self, insert: Insert<'_>) -> Result<(), Failure> {
        let (store, faults) = &mut *self.inner.lock();
        let fault = faults.next();
        match fault {
            Some(Fault::TooManyParts) => {
                return Err(Failure::Retry { code: Some(252), message: "too many parts".into() });
            }
            Some(Fault::LostRequest) => return Err(unknown()),
            _ => {}
        }
        let mut rest = &insert.rows[..];
        let mut records = Vec::new();
        while !rest.is_empty() {
            // A row ends with its batch's id.
            let record = match insert.table {
                Table::Rejections => Record::Refusal(rows::decode_rejection(&mut rest).expect("rows")),
                _ => Record::Conversion(rows::decode_conversion(&mut rest).expect("rows").conversion),
            };
            let end = insert.rows.len() - rest.len();
            let batch = u64::from_le_bytes(insert.rows[end - 8..end].try_into().expect("8 bytes"));
            records.push((batch, record));
        }
        let refused = !store.accepts_everything
            && records.iter().any(|(_, record)| match record {
                Record::Conversion(conversion) => conversion.user_agent == REFUSED,
                Record::Refusal(refusal) => refusal.request == REFUSED,
                Record::Click(_) | Record::Adjustment(_) => false,
            });
        // Half of the time a view refuses, after the raw rows were written.
        let refused_late = refused && insert.table == Table::Conversions && records.len().is_multiple_of(2);
        let refusal = Err(Failure::Reject { code: Some(469), message: "constraint violated".into() });
        if refused && !refused_late {
            return refusal;
        }
        let mut takes = |target| store.tokens.insert((target, insert.token.to_owned()));
        if insert.table == Table::Rejections {
            if takes("rejections") && fault != Some(Fault::HoleInRaw) {
                for (batch, record) in records {
                    if let Record::Refusal(refusal) = record {
                        store.rejections.push((batch, refusal));
                    }
                }
            }
            return if fault.is_some() { Err(unknown()) } else { Ok(()) };
        }
        let conversions: Vec<_> = records
            .into_iter()
            .filter_map(|(batch, record)| match record {
                Record::Conversion(conversion) => Some((batch, conversion)),
                _ => None,
            })
            .collect();
        if takes("raw") {
            let kept = match fault {
                Some(Fault::HoleInRaw) => 0,
                Some(Fault::HalfOfRaw) => conversions.len() / 2,
                _ => conversions.len(),
            };
            store.raw.extend_from_slice(&conversions[..kept]);
        }
        if refused_late {
            return refusal;
        }
        if fault == Some(Fault::ViewsMissed) {
            return Err(unknown());
        }
        if store.tokens.insert(("keys", insert.token.to_owned())) && fault != Some(Fault::HoleInKeys) {
            store.keys.extend(conversions.iter().filter_map(|(batch, c)| Store::key_row(*batch, c)));
        }
        if store.tokens.insert(("hours", insert.token.to_owned())) && fault != Some(Fault::HoleInHours) {
            for (_, conversion) in &conversions {
                add(&mut store.hours, conversion);
            }
        }
        if fault.is_some() { Err(unknown()) } else { Ok(()) }
    }

    async fn lookup(&self, queries: &[KeyQuery]) -> Result<Vec<Option<KnownKey>>, Failure> {
        self.flaky()?;
        let store = self.store();
        let find = |query: &KeyQuery| {
            store.keys.iter().find(|(_, key, _)| *key == query.key).map(|(.., known)| *known)
        };
        Ok(queries.iter().map(find).collect())
    }

    async fn adjusted(
        &self,
        conversions: &[(AccountId, ConversionId)],
    ) -> Result<HashMap<(AccountId, ConversionId), Adjusted>, Failure> {
        self.flaky()?;
        let store = self.store();
        let adjusted = |of: &Conversion| Adjusted {
            goal_id: of.goal_id,
            value: of.value,
            currency: of.currency,
            converted_at: of.converted_at,
            earned: None,
            adjustments: Vec::new(),
        };
        let found = store.raw.iter().map(|(_, of)| ((of.account_id, of.id), adjusted(of)));
        Ok(found.filter(|(named, _)| conversions.contains(named)).collect())
    }

    async fn inspect(&self, batch: BatchId, of: &Footprint) -> Result<Finding, Failure> {
        self.flaky()?;
        let store = self.store();
        Ok(Finding {
            conversions: store.raw.iter().filter(|(id, _)| *id == batch.0).count() as u64,
            keyed: store.keys.iter().filter(|(id, ..)| *id == batch.0).count() as u64,
            rejections: store.rejections.iter().filter(|(id, _)| *id == batch.0).count() as u64,
            hours_off: store.hours_off(of),
        })
    }

    async fn rebuild_hours(&self, of: &Footprint) -> Result<(), Failure> {
        self.flaky()?;
        self.store().hours.retain(|hour, _| !touches(of, *hour));
        self.flaky()?;
        let mut store = self.store();
        let conversions: Vec<_> = store.hours_of(of).cloned().collect();
        for (_, conversion) in conversions {
            add(&mut store.hours, &conversion);
        }
        drop(store);
        self.flaky()
    }

    async fn rebuild_keys(&self, batch: BatchId, _: &Footprint) -> Result<(), Failure> {
        self.flaky()?;
        self.store().keys.retain(|(id, ..)| *id != batch.0);
        self.flaky()?;
        let mut store = self.store();
        let ours = store.raw.iter().filter(|(id, _)| *id == batch.0);
        let rows: Vec<_> = ours.filter_map(|(id, conversion)| Store::key_row(*id, conversion)).collect();
        store.keys.extend(rows);
        Ok(())
    }

    async fn withdraw(&self, batch: BatchId, of: &Footprint) -> Result<(), Failure> {
        self.flaky()?;
        self.store().raw.retain(|(id, _)| *id != batch.0);
        self.flaky()?;
        self.store().rejections.retain(|(id, _)| *id != batch.0);
        self.store().keys.retain(|(id, ..)| *id != batch.0);
        self.rebuild_hours(of).await
    }

    async fn stop_attempts(&self, _: &str) -> Result<(), Failure> {
        self.flaky()
    }
}
