//! A ClickHouse in memory: tokens per table, views, rollups; and every way to fail.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::rows::{Row, adjusted, derived, read};
use crate::{
    clickhouse::{
        Adjusted, ClickPage, Doubtful, Failure, Finding, Footprint, Insert, KeyQuery, KnownKey, Rollup,
        SideTable, Visitors,
    },
    core::{
        AccountId, BatchId, CANDIDATES_MAX, Candidate, ClickId, ClickLabels, ConversionId, CountedClick, Day,
        Label, LabelBook, OrderKey, Traffic, rows::Table,
    },
};

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
    /// in a side table,
    HoleInSide,
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
    Fault::HoleInSide,
    Fault::HoleInHours,
    Fault::HalfOfRaw,
];

/// When things go wrong.
pub(super) struct Faults {
    random: Option<StdRng>,
    /// At the next insert into that table.
    next: Option<(Table, Fault)>,
    always: Option<Fault>,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self { random: None, next: None, always: None }
    }

    pub(super) fn random(seed: u64) -> Self {
        Self { random: Some(StdRng::seed_from_u64(seed ^ 0xfa)), ..Self::none() }
    }

    pub(super) fn once(table: Table, fault: Fault) -> Self {
        Self { next: Some((table, fault)), ..Self::none() }
    }

    pub(super) fn down() -> Self {
        Self { always: Some(Fault::LostRequest), ..Self::none() }
    }

    fn next(&mut self, table: Table) -> Option<Fault> {
        let random = self.random.as_mut().and_then(|random| {
            (random.random_range(0..5) == 0).then(|| LOSSES[random.random_range(0..LOSSES.len())])
        });
        let next = self.next.take_if(|(of, _)| *of == table).map(|(_, fault)| fault);
        self.always.or(next).or(random)
    }

    fn fails(&mut self) -> bool {
        self.random.as_mut().is_some_and(|random| random.random_range(0..8) == 0)
    }
}

/// A group of a rollup: the account, the goal or link, the hour.
pub(super) type Group = (u32, u32, u32);
/// How many rows, and what they are worth.
type Sums = (u64, i128);
type Groups = BTreeMap<(usize, Group), Sums>;

/// A row of a side table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SideRow {
    pub(super) table: SideTable,
    pub(super) key: Option<(OrderKey, KnownKey)>,
}

/// Something that happens to the database from outside.
type Event = Box<dyn FnOnce(&mut Store) + Send>;

/// What the database holds.
#[derive(Default)]
pub(super) struct Store {
    /// With the batch's number.
    rows: Vec<(u64, Row)>,
    side: Vec<(u64, SideRow)>,
    groups: Groups,
    tokens: HashSet<(String, String)>,
    accepts_everything: bool,
    /// How often clicks were looked for.
    pub(super) click_queries: u32,
    /// What happens before the next look-up of keys, which every decision begins with.
    pub(super) before_lookup: Option<Event>,
}

impl Store {
    /// Every raw row.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().map(|(_, row)| row)
    }

    /// Blanks the visitor's key in all clicks.
    pub(super) fn erase_visitor(&mut self, key: u64) {
        for (_, row) in &mut self.rows {
            if let Row::Click(CountedClick { click, .. }) = row
                && click.visitor_key == key
            {
                click.visitor_key = 0;
            }
        }
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        candidates(self.rows())
    }

    /// What the views made is what the raw rows say.
    pub(super) fn verify_derived(&self) {
        assert_eq!(self.groups, count(self.rows()));
        let side = |batch: u64| {
            let own = self.rows.iter().filter(move |(of, _)| *of == batch);
            own.flat_map(|(_, row)| derived(row).side).collect::<Vec<_>>()
        };
        let batches: HashSet<u64> = self.rows.iter().map(|(batch, _)| *batch).collect();
        for batch in batches {
            let mut there: Vec<_> =
                self.side.iter().filter(|(of, _)| *of == batch).map(|(_, row)| row).collect();
            for row in side(batch) {
                let at = there.iter().position(|other| **other == row).expect("the row of a side table");
                there.swap_remove(at);
            }
            assert_eq!(there, Vec::<&SideRow>::new());
        }
    }

    fn touched<'a>(&'a self, of: &'a Footprint) -> impl Iterator<Item = &'a Row> {
        self.rows()
            .filter(|row| derived(row).groups.iter().any(|(rollup, group, _)| touches(of, *rollup, *group)))
    }
}

fn touches(of: &Footprint, rollup: Rollup, (account, owner, hour): Group) -> bool {
    let touched = &of.touched[rollup as usize];
    touched.accounts.contains(&account) && touched.owners.contains(&owner) && touched.hours.contains(&hour)
}

fn count<'a>(rows: impl Iterator<Item = &'a Row>) -> Groups {
    let mut groups = Groups::new();
    rows.for_each(|row| add(&mut groups, row));
    groups
}

fn add(groups: &mut Groups, row: &Row) {
    for (rollup, group, value) in derived(row).groups {
        let sums = groups.entry((rollup as usize, group)).or_default();
        sums.0 += 1;
        sums.1 += value;
    }
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

    /// Whether the failure that was ordered happened.
    pub(super) fn has_failed(&self) -> bool {
        self.inner.lock().1.next.is_none()
    }

    fn flaky(&self) -> Result<(), Failure> {
        if self.inner.lock().1.fails() { Err(unknown()) } else { Ok(()) }
    }
}

fn candidates<'a>(rows: impl Iterator<Item = &'a Row>) -> impl Iterator<Item = Candidate> {
    rows.filter_map(|row| match row {
        Row::Click(CountedClick { click, labelled }) => {
            let (campaign, variant) = (click.campaign.clone(), click.variant.clone());
            Some(Candidate::new(click, Arc::new(ClickLabels { campaign, variant, labelled: *labelled })))
        }
        _ => None,
    })
}

fn unknown() -> Failure {
    Failure::Unknown { code: None, message: "reset".into() }
}

impl super::super::Warehouse for Warehouse {
    async fn insert(&self, insert: Insert<'_>) -> Result<(), Failure> {
        let (store, faults) = &mut *self.inner.lock();
        let fault = faults.next(insert.table);
        match fault {
            Some(Fault::TooManyParts) => {
                return Err(Failure::Retry { code: Some(252), message: "too many parts".into() });
            }
            Some(Fault::LostRequest) => return Err(unknown()),
            _ => {}
        }
        // Its token names the batch: tally-<batch>-<table>-<generation>.
        let batch: u64 = insert.token.split('-').nth(1).and_then(|id| id.parse().ok()).expect("a batch");
        let rows: Vec<_> = read(insert.table, insert.rows).into_iter().map(|row| (batch, row)).collect();
        let refused = !store.accepts_everything && rows.iter().any(|(_, row)| row.is_refused());
        // Half of the time a view refuses, after the raw rows were written.
        let refused_late = refused && insert.table != Table::Rejections && rows.len().is_multiple_of(2);
        let refusal = Err(Failure::Reject { code: Some(469), message: "constraint violated".into() });
        if refused && !refused_late {
            return refusal;
        }
        let mut takes = |target: &str| store.tokens.insert((target.to_owned(), insert.token.to_owned()));
        if takes("raw") {
            let kept = match fault {
                Some(Fault::HoleInRaw) => 0,
                Some(Fault::HalfOfRaw) => rows.len() / 2,
                _ => rows.len(),
            };
            store.rows.extend_from_slice(&rows[..kept]);
        }
        if refused_late {
            return refusal;
        }
        if fault == Some(Fault::ViewsMissed) {
            return Err(unknown());
        }
        if takes("side") && fault != Some(Fault::HoleInSide) {
            let side =
                rows.iter().flat_map(|(batch, row)| derived(row).side.into_iter().map(|row| (*batch, row)));
            store.side.extend(side);
        }
        if takes("hours") && fault != Some(Fault::HoleInHours) {
            for (_, row) in &rows {
                add(&mut store.groups, row);
            }
        }
        if fault.is_some() { Err(unknown()) } else { Ok(()) }
    }

    async fn lookup(&self, queries: &[KeyQuery]) -> Result<Vec<Option<KnownKey>>, Failure> {
        self.flaky()?;
        let mut store = self.store();
        if let Some(happens) = store.before_lookup.take() {
            happens(&mut store);
        }
        let find = |query: &KeyQuery| {
            let mut keys = store.side.iter().filter_map(|(_, row)| row.key);
            keys.find(|(key, _)| *key == query.key).map(|(_, known)| known)
        };
        Ok(queries.iter().map(find).collect())
    }

    async fn clicks_named(&self, named: &[(AccountId, ClickId)]) -> Result<Vec<Candidate>, Failure> {
        self.flaky()?;
        let mut store = self.store();
        store.click_queries += 1;
        let found = store.candidates().filter(|click| named.contains(&(click.account_id, click.click_id)));
        Ok(found.collect())
    }

    async fn clicks_of(&self, visitors: &Visitors<'_>) -> Result<Vec<Candidate>, Failure> {
        self.flaky()?;
        let mut store = self.store();
        store.click_queries += 1;
        let mut found: Vec<_> = store
            .candidates()
            .filter(|click| visitors.keys.contains(&(click.account_id, click.visitor_key)))
            .filter(|click| click.traffic == Traffic::Human && !click.private_address)
            .filter(|click| (visitors.from..=visitors.to).contains(&click.clicked_at))
            .collect();
        found.sort_by_key(|click| std::cmp::Reverse((click.clicked_at, click.click_id)));
        let mut counts = HashMap::<(AccountId, u64), u16>::new();
        found.retain(|click| {
            let count = counts.entry((click.account_id, click.visitor_key)).or_default();
            *count += 1;
            *count <= CANDIDATES_MAX
        });
        Ok(found)
    }

    async fn clicks_origin(&self) -> Result<String, Failure> {
        self.flaky()?;
        Ok("fake".to_owned())
    }

    async fn click_months(&self, after: BatchId, through: BatchId) -> Result<Vec<u32>, Failure> {
        self.flaky()?;
        let store = self.store();
        let mut batches = store.rows.iter().filter(|(_, row)| row.table() == Table::Clicks);
        let some = batches.any(|(batch, _)| (after.0 + 1..=through.0).contains(batch));
        Ok(if some { vec![202_611] } else { Vec::new() })
    }

    async fn clicks_page(&self, page: &ClickPage) -> Result<Vec<Candidate>, Failure> {
        self.flaky()?;
        let store = self.store();
        let rows = store.rows.iter().filter(|(batch, _)| (page.after.0 + 1..=page.through.0).contains(batch));
        let mut found: Vec<_> = candidates(rows.map(|(_, row)| row)).collect();
        found.retain(|click| (click.account_id, click.click_id) > page.beyond);
        found.sort_by_key(|click| (click.account_id, click.click_id));
        found.truncate(page.limit as usize);
        Ok(found)
    }

    async fn adjusted(
        &self,
        conversions: &[(AccountId, ConversionId)],
    ) -> Result<HashMap<(AccountId, ConversionId), Adjusted>, Failure> {
        self.flaky()?;
        let store = self.store();
        let found = store.rows().filter_map(adjusted);
        Ok(found.filter(|(named, _)| conversions.contains(named)).collect())
    }

    async fn label_book(&self, day: Day) -> Result<LabelBook, Failure> {
        self.flaky()?;
        let mut book = LabelBook::new(day, std::hash::RandomState::new());
        for row in self.store().rows() {
            if let Row::Click(CountedClick { click, labelled: true }) = row
                && Day::of(click.received_at) == day
            {
                book.admit(&Label::of(click));
            }
        }
        Ok(book)
    }

    async fn inspect(&self, doubtful: Doubtful<'_>) -> Result<Finding, Failure> {
        self.flaky()?;
        let (store, mut found) = (self.store(), Finding::default());
        for (_, row) in store.rows.iter().filter(|(batch, _)| *batch == doubtful.batch.0) {
            found.rows[row.table() as usize] += 1;
        }
        for (_, row) in store.side.iter().filter(|(batch, _)| *batch == doubtful.batch.0) {
            found.side[row.table as usize] += 1;
        }
        for rollup in Rollup::ALL {
            let ours =
                |(of, group): &(usize, Group)| *of == rollup as usize && touches(doubtful.of, rollup, *group);
            let mut expected = count(store.touched(doubtful.of));
            expected.retain(|of, _| ours(of));
            let there = store.groups.iter().filter(|(of, _)| ours(of));
            let wrong = there.filter(|(of, sums)| expected.remove(of).as_ref() != Some(*sums)).count();
            found.groups_off[rollup as usize] = (wrong + expected.len()) as u64;
        }
        Ok(found)
    }

    async fn mend(&self, doubtful: Doubtful<'_>, found: &Finding) -> Result<u64, Failure> {
        for table in SideTable::ALL {
            if found.side[table as usize] == doubtful.of.side[table as usize] {
                continue;
            }
            self.flaky()?;
            self.store().side.retain(|(batch, row)| *batch != doubtful.batch.0 || row.table != table);
            self.flaky()?;
            let mut store = self.store();
            let ours = store.rows.iter().filter(|(batch, _)| *batch == doubtful.batch.0);
            let rows: Vec<_> = ours
                .flat_map(|(batch, row)| derived(row).side.into_iter().map(|row| (*batch, row)))
                .filter(|(_, row)| row.table == table)
                .collect();
            store.side.extend(rows);
        }
        for rollup in Rollup::ALL {
            if found.groups_off[rollup as usize] > 0 {
                self.rebuild(rollup, doubtful.of)?;
            }
        }
        Ok(1)
    }

    async fn withdraw(&self, doubtful: Doubtful<'_>) -> Result<(), Failure> {
        for table in Table::ALL {
            self.flaky()?;
            self.store().rows.retain(|(batch, row)| *batch != doubtful.batch.0 || row.table() != table);
        }
        self.flaky()?;
        self.store().side.retain(|(batch, _)| *batch != doubtful.batch.0);
        Rollup::ALL.into_iter().try_for_each(|rollup| self.rebuild(rollup, doubtful.of))
    }

    async fn stop_attempts(&self, _: &str) -> Result<(), Failure> {
        self.flaky()
    }
}

impl Warehouse {
    fn rebuild(&self, rollup: Rollup, of: &Footprint) -> Result<(), Failure> {
        self.flaky()?;
        self.store().groups.retain(|(n, group), _| *n != rollup as usize || !touches(of, rollup, *group));
        self.flaky()?;
        let mut store = self.store();
        let mut groups = count(store.touched(of));
        groups.retain(|(n, group), _| *n == rollup as usize && touches(of, rollup, *group));
        store.groups.extend(groups);
        drop(store);
        self.flaky()
    }
}
