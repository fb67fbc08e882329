//! The shipper against a database that fails in every way we know of, and a disk that stops it at any step.

mod attribution;
mod burst;
mod fake;
mod past;
mod rows;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{dead_letters::Letter, samples::*, *};
use crate::{
    clock::Clock,
    core::{
        Adjustment, BatchId, Click, Conversion, ConversionId, DedupScope, INTEGER_MAX, Kind, OrderId,
        OrderKey, Refusal, UnixMillis, rows::Table,
    },
    wal,
};
use fake::{Faults, Warehouse};
use rows::Row;

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        UnixMillis(NOVEMBER + 3_600_000)
    }
}

/// A data folder whose log lives through restarts of the shipper.
struct Rig {
    folder: tempfile::TempDir,
    wal: Wal,
    warehouse: Warehouse,
    appended: Vec<Record>,
    told: Arc<Mutex<BTreeSet<ConversionId>>>,
}

/// A goal whose conversions nobody is told of.
const NOBODYS: GoalId = GoalId(77);

/// Whoever is told of batches: before they count, and again after a crash.
struct Told {
    folder: Folder,
    told: Arc<Mutex<BTreeSet<ConversionId>>>,
}

impl Announce for Told {
    fn listens(&self, goal: GoalId) -> bool {
        goal != NOBODYS
    }

    fn prepare(&mut self, batch: BatchId, conversions: &[CountedConversion]) -> io::Result<()> {
        let settled = self.folder.load_checkpoint().expect("readable").settled;
        assert!(settled < batch, "told before the batch counts");
        self.told.lock().extend(conversions.iter().map(|counted| counted.conversion.id));
        Ok(())
    }

    fn release(&mut self, batch: BatchId) {
        assert_eq!(self.folder.load_checkpoint().expect("readable").settled, batch);
    }
}

impl Rig {
    fn new(warehouse: Warehouse) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = wal::Config {
            dir: folder.path().join("wal"),
            segment_bytes: 4096,
            spool_bytes_max: 1 << 24,
            disk_free_bytes_min: 0,
            appenders: 1,
        };
        let wal = Wal::open(config, Position::START).expect("the log opens");
        Folder::new(folder.path()).initialise().expect("initialised");
        tokio::spawn(wal.appender(0).pump());
        Self { folder, wal, warehouse, appended: Vec::new(), told: Arc::default() }
    }

    async fn append(&mut self, records: Vec<Record>) {
        // Little at a time: the log's queue is as small as its segments.
        for some in records.chunks(4) {
            let (wal, some) = (self.wal.clone(), some.to_vec());
            let take = async move {
                let take = |record: &Record| {
                    wal.appender(0).append(|out| payload::encode(record, out)).expect("taken")
                };
                some.iter().map(take).collect::<Vec<_>>()
            };
            for ticket in tokio::spawn(take).await.expect("no panic") {
                self.wal.wait(ticket).await.expect("durable");
            }
        }
        self.appended.extend(records);
    }

    fn start(&self, limits: Limits, fuse: i64) -> Surroundings<Warehouse> {
        let folder = Folder::new(self.folder.path());
        let recovered = recover(&folder, &self.wal, |_, _| ()).expect("recovered");
        folder.fuse.store(fuse, Ordering::SeqCst);
        for kind in Kind::ALL {
            let terms = recovered.ledger.terms(kind);
            assert_eq!(terms.accepted, self.accepted(kind).len() as u64, "{kind:?} {terms:?}");
        }
        Surroundings {
            config: Config {
                limits,
                linger: Duration::ZERO,
                settle: Duration::from_secs(5),
                poll: Duration::ZERO,
                backoff_min: Duration::ZERO,
                backoff_max: Duration::from_micros(10),
                click_retention_days: 400,
            },
            folder,
            wal: self.wal.clone(),
            warehouse: self.warehouse.clone(),
            clock: Box::new(Still),
            ledger: recovered.ledger,
            on_settled: Box::new(|_, _| ()),
            give_way: None,
            newest_batch: BatchId(0),
            announce: Some(Box::new(Told {
                folder: Folder::new(self.folder.path()),
                told: Arc::clone(&self.told),
            })),
            stop: CancellationToken::new(),
        }
    }

    /// Runs the shipper until it is idle, starting it anew whenever it crashes: after each of the given numbers of
    /// file operations, and then to the end.
    async fn ship(&self, limits: Limits, fuses: impl IntoIterator<Item = i64>) {
        for fuse in fuses.into_iter().chain([i64::MAX]) {
            let mut around = self.start(limits, fuse);
            if run_until_idle(&mut around).await.is_ok() && fuse == i64::MAX {
                assert!(Kind::ALL.into_iter().all(|kind| around.ledger.terms(kind).pending == 0));
            }
        }
    }

    /// The names of all records of a kind that were appended, sorted.
    fn accepted(&self, kind: Kind) -> Vec<ConversionId> {
        let mut names: Vec<_> =
            self.appended.iter().filter(|r| r.kind() == Some(kind)).filter_map(name).collect();
        names.sort_unstable();
        names
    }

    fn checkpoint(&self) -> Checkpoint {
        Folder::new(self.folder.path()).load_checkpoint().expect("readable")
    }

    /// Everything that was appended is accounted for, once.
    fn verify(&self) {
        let folder = Folder::new(self.folder.path());
        let (totals, store) = (self.checkpoint().totals, self.warehouse.store());
        assert_eq!(self.checkpoint().position.lsn, self.appended.len() as u64);
        assert_eq!(folder.cut_ids().expect("listed"), []);
        let letters: Vec<Letter> = folder
            .dead_letters()
            .expect("listed")
            .iter()
            .map(|id| dead_letters::read(id, &folder.read_dead_letter(id).expect("readable")).expect("whole"))
            .collect();
        let mut found = PerKind::<Vec<ConversionId>>::default();
        let mut refusals = 0;
        for row in store.rows() {
            match row {
                Row::Click(row) => found[Kind::Click].push(row.click.id.as_counted()),
                Row::Conversion(row) => found[Kind::Conversion].push(row.conversion.id),
                Row::Adjustment(row) => found[Kind::Adjustment].push(ConversionId(row.adjustment.id.0)),
                Row::Rejection(row) if row.conversion_id.is_none() => refusals += 1,
                Row::Rejection(_) | Row::Attribution(_) => {}
            }
        }
        let told: Vec<_> = self.told.lock().iter().copied().collect();
        let counted: BTreeSet<_> = found[Kind::Conversion].iter().copied().collect();
        assert_eq!(told, counted.into_iter().collect::<Vec<_>>(), "told of what counts, and of nothing else");
        for kind in Kind::ALL {
            let of = totals.kinds[kind];
            assert_eq!(of.accepted, self.accepted(kind).len() as u64);
            assert_eq!(of.accepted, of.inserted + of.duplicates + of.dead_lettered, "{kind:?} {of:?}");
            assert_eq!(of.inserted, found[kind].len() as u64, "{kind:?}");
            let late = store.rows().filter_map(|row| match row {
                Row::Rejection(row) => late(row, kind),
                _ => None,
            });
            let late: Vec<_> = late.collect();
            assert_eq!(of.duplicates, late.len() as u64, "{kind:?}");
            let dead: Vec<_> = letters.iter().filter_map(|letter| name_of_letter(letter, kind)).collect();
            assert_eq!(of.dead_lettered, dead.len() as u64, "{kind:?}");
            let names = &mut found[kind];
            names.extend(late);
            names.extend(dead);
            names.sort_unstable();
            assert_eq!(*names, self.accepted(kind), "each {kind:?} is somewhere, once");
        }
        assert_eq!(refusals, totals.refusals);
        let dead: u64 = Kind::ALL.into_iter().map(|kind| totals.kinds[kind].dead_lettered).sum();
        assert_eq!(letters.len() as u64, dead + totals.refusals_dead_lettered);
        let mut keys: Vec<OrderKey> = store
            .rows()
            .flat_map(|row| rows::derived(row).side)
            .filter_map(|row| row.key)
            .map(|(key, _)| key)
            .collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all, "no key counts twice");
        // The click that earned a conversion stands beside it, or nowhere.
        let attributed =
            store.rows().filter(|row| matches!(row, Row::Conversion(row) if row.attribution.is_ok()));
        let attributions = store.rows().filter(|row| matches!(row, Row::Attribution(_)));
        assert_eq!(attributed.count(), attributions.count());
        store.verify_derived();
    }
}

/// What a record is known by.
fn name(record: &Record) -> Option<ConversionId> {
    match record {
        Record::Conversion(conversion) => Some(conversion.id),
        Record::Click(click) => Some(click.id.as_counted()),
        Record::Adjustment(adjustment) => Some(ConversionId(adjustment.id.0)),
        Record::Refusal(_) => None,
    }
}

fn late(refusal: &Refusal, kind: Kind) -> Option<ConversionId> {
    let key = SettledKey { key: OrderKey(0), counted: refusal.conversion_id? };
    let late = LateDuplicate { refusal: refusal.clone(), key };
    late.refusal.conversion_id.filter(|_| late.kind() == kind)
}

fn name_of_letter(letter: &Letter, kind: Kind) -> Option<ConversionId> {
    match letter {
        Letter::Record(record) => name(record).filter(|_| record.kind() == Some(kind)),
        Letter::LateDuplicate { refusal, .. } => late(refusal, kind),
    }
}

async fn run_until_idle(around: &mut Surroundings<Warehouse>) -> Result<(), ShipError> {
    let mut worker = Worker::open(around)?;
    while worker.step(around).await? == Step::Worked {}
    Ok(())
}

const LIMITS: Limits = Limits { rows_max: 7, bytes_max: 1 << 20 };

fn bad(n: u32) -> Conversion {
    Conversion { user_agent: rows::REFUSED.into(), ..conversion(n) }
}

/// Records of every kind: new ones, unverified ones that are duplicates or not, refusals, rows that are refused.
fn mixture(seed: u64, count: u32) -> Vec<Record> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|n| {
            let refused = random.random_range(0..12) == 0;
            let of = random.random_range(0..=n);
            match random.random_range(0..10) {
                0 if refused => Record::Refusal(Refusal { message: rows::REFUSED.into(), ..refusal(n) }),
                0 => Record::Refusal(refusal(n)),
                1..=3 if refused => Record::Click(Click { user_agent: rows::REFUSED.into(), ..click(n) }),
                1 => Record::Click(Click { key: click(of).key, unverified: true, ..click(n) }),
                2 | 3 => Record::Click(Click { unverified: true, ..click(n) }),
                8 if refused => {
                    Record::Adjustment(Adjustment { reason: rows::REFUSED.into(), ..adjustment(n) })
                }
                8 => {
                    let about = id(random.random_range(0..=n));
                    Record::Adjustment(Adjustment { conversion_id: about, unverified: true, ..adjustment(n) })
                }
                _ if refused => Record::Conversion(bad(n)),
                4 | 5 => {
                    let first = conversion(of);
                    let unverified = Conversion {
                        key: first.key,
                        goal_id: first.goal_id,
                        order_id: first.order_id,
                        unverified: true,
                        ..conversion(n)
                    };
                    Record::Conversion(unverified)
                }
                6 => Record::Conversion(Conversion { key: None, order_id: None, ..conversion(n) }),
                // A month earlier: the batch ends.
                7 if n % 16 == 0 => {
                    let received_at = UnixMillis(NOVEMBER - 1000);
                    Record::Conversion(Conversion { received_at, unverified: true, ..conversion(n) })
                }
                _ => Record::Conversion(Conversion { unverified: true, ..conversion(n) }),
            }
        })
        .collect()
}

#[tokio::test]
async fn ships_everything_once_when_nothing_fails() {
    let mut rig = Rig::new(Warehouse::new(Faults::none()));
    rig.append(mixture(1, 100)).await;
    rig.ship(LIMITS, []).await;
    rig.verify();
    let before = rig.checkpoint();
    rig.ship(LIMITS, []).await;
    assert_eq!(rig.checkpoint(), before, "nothing more to do");
    rig.append((200..230).map(|n| Record::Conversion(conversion(n))).collect()).await;
    rig.ship(Limits { rows_max: 1000, ..LIMITS }, []).await;
    rig.verify();
}

/// What a build that clamped ids left: every further batch had the last one's token and counted as there already.
#[tokio::test]
async fn a_folder_whose_ids_were_used_up_counts_on() {
    let mut rig = Rig::new(Warehouse::new(Faults::none()));
    let stuck = Checkpoint { settled: BatchId(INTEGER_MAX), ..Checkpoint::NEW };
    Folder::new(rig.folder.path()).store_checkpoint(&stuck).expect("stored");
    rig.append(mixture(1, 100)).await;
    rig.ship(LIMITS, [5, 9, 20]).await;
    rig.verify();
    assert!(rig.checkpoint().settled.0 > INTEGER_MAX + 1, "several batches, each with an id of its own");
}

#[tokio::test]
async fn no_id_is_below_the_newest_batch_in_the_database_nor_taken() {
    let mut rig = Rig::new(Warehouse::new(Faults::none()));
    rig.append(mixture(1, 10)).await;
    let newest = BatchId(INTEGER_MAX + 7);
    let mut around = Surroundings { newest_batch: newest, ..rig.start(LIMITS, i64::MAX) };
    let mut worker = Worker::open(&around).expect("opened");
    let path = rig.folder.path().join(format!("cuts/{}.cut", newest.0 + 1));
    std::fs::write(&path, "another daemon's").expect("written");
    let step = worker.step(&mut around).await;
    assert!(matches!(step, Err(ShipError::IdTaken(id)) if id.0 == newest.0 + 1), "{step:?}");
    assert_eq!(std::fs::read(&path).expect("left alone"), b"another daemon's");
    std::fs::remove_file(&path).expect("removed");
    run_until_idle(&mut around).await.expect("shipped");
    assert!(rig.checkpoint().settled > newest);
    around.newest_batch = BatchId::MAX;
    rig.append((200..210).map(|n| Record::Conversion(conversion(n))).collect()).await;
    assert!(matches!(run_until_idle(&mut around).await, Err(ShipError::IdsUsedUp)), "and none is used twice");
}

#[tokio::test]
async fn a_crash_after_any_step_is_harmless() {
    for fuse in 0..120 {
        let mut rig = Rig::new(Warehouse::new(Faults::none()));
        rig.append(mixture(2, 40)).await;
        rig.ship(LIMITS, [fuse]).await;
        rig.verify();
    }
}

#[tokio::test]
async fn every_failure_and_crash_together_still_count_once() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::new(Warehouse::new(Faults::random(seed)));
        rig.append(mixture(seed, 60)).await;
        let fuses: Vec<i64> = (0..random.random_range(0..12)).map(|_| random.random_range(0..25)).collect();
        rig.ship(LIMITS, fuses).await;
        rig.verify();
    }
}

#[tokio::test]
async fn each_way_to_lose_rows_is_mended() {
    for (table, fault) in Table::ALL.into_iter().flat_map(|table| fake::LOSSES.map(|fault| (table, fault))) {
        let rig = Rig::new(Warehouse::new(Faults::once(table, fault)));
        // What is decided about records is told elsewhere: here it is everything that a cut may hold.
        let content = everything();
        let mut around = rig.start(LIMITS, i64::MAX);
        let origin = Origin::Log { from: Position::START, to: Position::START };
        let cut = Cut::new(BatchId(9), None, origin, &content);
        around.folder.store_cut(&cut).expect("stored");
        let delivery = deliver::Delivery {
            warehouse: &around.warehouse,
            folder: &around.folder,
            stop: &around.stop,
            backoff: around.config.backoff(),
            kept: crate::clickhouse::Kept::at(Still.now(), 400),
        };
        let delivered = delivery.deliver(&cut, true).await.expect("delivered");
        assert!(matches!(delivered, deliver::Delivered::Whole), "{table:?} {fault:?}");
        assert!(rig.warehouse.has_failed(), "{table:?} {fault:?}");
        {
            let store = rig.warehouse.store();
            let attributed = content.conversions.iter().filter(|c| c.attribution.outcome.is_ok()).count();
            assert_eq!(store.rows().count(), content.records() + attributed, "{table:?} {fault:?}");
            store.verify_derived();
        }
        // A start that finds the cut looks, and finds it whole.
        run_until_idle(&mut around).await.expect("settled");
        let totals = rig.checkpoint().totals;
        for kind in Kind::ALL {
            let of = totals.kinds[kind];
            assert_eq!((of.accepted, of.inserted), (cut.inserted(kind) + 1, cut.inserted(kind)), "{kind:?}");
            assert_eq!((of.duplicates, of.dead_lettered), (1, 0), "{kind:?}");
        }
        assert_eq!((totals.refusals, totals.refusals_dead_lettered), (2, 0));
        rig.warehouse.store().verify_derived();
    }
}

#[tokio::test]
async fn dead_letters_are_replayed_once_through_any_crash() {
    for fuse in 0..40 {
        let mut rig = Rig::new(Warehouse::new(Faults::none()));
        let mut records: Vec<_> = (0..10).map(|n| Record::Conversion(conversion(n))).collect();
        records[3] = Record::Conversion(bad(3));
        records[7] = Record::Conversion(bad(7));
        records.push(Record::Click(Click { user_agent: rows::REFUSED.into(), ..click(8) }));
        records.push(Record::Adjustment(Adjustment { reason: rows::REFUSED.into(), ..adjustment(2) }));
        records.push(Record::Refusal(Refusal { message: rows::REFUSED.into(), ..refusal(11) }));
        rig.append(records).await;
        rig.ship(LIMITS, []).await;
        rig.verify();
        assert_eq!(rig.checkpoint().totals.kinds[Kind::Conversion].dead_lettered, 2);

        // The order of the second came again meanwhile, and counted.
        let again = Conversion {
            id: id(77),
            key: conversion(7).key,
            goal_id: conversion(7).goal_id,
            ..conversion(12)
        };
        rig.append(vec![Record::Conversion(again)]).await;
        rig.ship(LIMITS, []).await;
        let folder = Folder::new(rig.folder.path());
        assert_eq!(dead_letters::replay(&folder, None).expect("moved"), 5);
        rig.warehouse.accept_everything();
        rig.ship(LIMITS, [fuse]).await;
        rig.verify();
        let all = rig.checkpoint().totals;
        let totals = all.kinds[Kind::Conversion];
        assert_eq!((totals.inserted, totals.duplicates, totals.dead_lettered), (10, 1, 0), "{totals:?}");
        assert_eq!((all.refusals, all.refusals_dead_lettered), (1, 0));
        for kind in [Kind::Click, Kind::Adjustment] {
            let of = all.kinds[kind];
            assert_eq!((of.inserted, of.duplicates, of.dead_lettered), (1, 0, 0), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_letter_that_can_not_be_read_is_laid_down_again() {
    let rig = Rig::new(Warehouse::new(Faults::none()));
    let folder = Folder::new(rig.folder.path());
    folder.create().expect("made");
    folder.store_dead_letter("5-0", b"not json").expect("stored");
    folder.start_replay("5-0").expect("moved");
    rig.ship(LIMITS, []).await;
    assert_eq!(folder.dead_letters().expect("listed"), ["5-0"]);
}

#[tokio::test]
async fn late_duplicates_and_keys_are_reported_as_settled() {
    let mut rig = Rig::new(Warehouse::new(Faults::none()));
    let late = Conversion { id: id(50), key: conversion(1).key, unverified: true, ..conversion(1) };
    rig.append(vec![Record::Conversion(conversion(1)), Record::Conversion(late)]).await;
    let mut around = rig.start(LIMITS, i64::MAX);
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let copy = seen.clone();
    around.on_settled = Box::new(move |keys, upto| copy.lock().push((keys.to_vec(), upto.lsn)));
    run_until_idle(&mut around).await.expect("shipped");
    let key = SettledKey { key: OrderKey(1001), counted: id(1) };
    assert_eq!(*seen.lock(), [(vec![key, key], 2)]);
}

#[tokio::test]
async fn batches_that_nobody_is_told_of_are_not_prepared() {
    let mut rig = Rig::new(Warehouse::new(Faults::none()));
    let of = |number, goal| Record::Conversion(Conversion { goal_id: goal, ..conversion(number) });
    rig.append(vec![of(1, NOBODYS)]).await;
    rig.ship(LIMITS, []).await;
    assert!(rig.told.lock().is_empty() && rig.warehouse.store().rows().count() == 1);
    rig.append(vec![of(2, NOBODYS), of(3, GoalId(2))]).await;
    rig.ship(LIMITS, []).await;
    assert!(rig.told.lock().contains(&id(3)), "somebody is told of one of the batch");
}

#[tokio::test]
async fn stops_when_told_and_leaves_nothing_behind_that_matters() {
    let mut rig = Rig::new(Warehouse::new(Faults::down()));
    rig.append((0..20).map(|n| Record::Conversion(conversion(n))).collect()).await;
    let around = rig.start(LIMITS, i64::MAX);
    let stop = CancellationToken::new();
    let shipper = Shipper { around };
    let running = shipper.run(stop.clone());
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), running), stopping);
    ran.expect("stops").expect("no error");
    assert_eq!(rig.warehouse.store().rows().count(), 0);

    // Told to stop from the start, it still ships what is there.
    rig.warehouse.recover();
    let shipper = Shipper { around: rig.start(LIMITS, i64::MAX) };
    shipper.run(stop).await.expect("no error");
    rig.verify();
}

#[test]
fn keys_of_samples_fit() {
    assert_eq!(conversion(1).key, Some((OrderKey(1001), DedupScope::Forever)));
    assert!(OrderId::parse("ORDER-1").is_ok());
}

#[tokio::test]
async fn a_log_that_ends_before_a_sealed_batch_is_not_written_on() {
    let rig = Rig::new(Warehouse::new(Faults::none()));
    let folder = Folder::new(rig.folder.path());
    folder.create().expect("made");
    let to = Position { lsn: 3, segment: 0, offset: 900 };
    let origin = Origin::Log { from: Position::START, to };
    folder.store_cut(&Cut::new(BatchId(12), None, origin, &Content::default())).expect("stored");
    let refused = recover(&folder, &rig.wal, |_, _| ()).expect_err("its records would be written over");
    assert!(matches!(refused, ShipError::LogTooShort { batch: 12, to: 3, end: 0 }), "{refused}");
    assert!(!refused.is_passing());
}
