//! The shipper against a database that fails in every way we know of, and a disk that stops it at any step.

mod fake;

use std::sync::{Arc, atomic::Ordering};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{samples::*, *};
use crate::{
    clock::Clock,
    core::{Conversion, ConversionId, DedupScope, Kind, OrderId, OrderKey, Refusal, UnixMillis},
    wal,
};
use fake::{Faults, Warehouse};

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
        tokio::spawn(wal.appender(0).pump());
        Self { folder, wal, warehouse, appended: Vec::new() }
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
        let terms = recovered.ledger.terms(Kind::Conversion);
        assert_eq!(terms.accepted, self.conversions(), "{terms:?}");
        Surroundings {
            config: Config {
                limits,
                linger: Duration::ZERO,
                poll: Duration::ZERO,
                backoff_min: Duration::ZERO,
                backoff_max: Duration::from_micros(10),
            },
            folder,
            wal: self.wal.clone(),
            warehouse: self.warehouse.clone(),
            clock: Box::new(Still),
            ledger: recovered.ledger,
            on_settled: Box::new(|_, _| ()),
            stop: CancellationToken::new(),
        }
    }

    /// Runs the shipper until it is idle, starting it anew whenever it crashes: after each of the given numbers of
    /// file operations, and then to the end.
    async fn ship(&self, limits: Limits, fuses: impl IntoIterator<Item = i64>) {
        for fuse in fuses.into_iter().chain([i64::MAX]) {
            let mut around = self.start(limits, fuse);
            if run_until_idle(&mut around).await.is_ok() && fuse == i64::MAX {
                assert_eq!(around.ledger.terms(Kind::Conversion).pending, 0);
            }
        }
    }

    fn conversions(&self) -> u64 {
        self.appended.iter().filter(|record| matches!(record, Record::Conversion(_))).count() as u64
    }

    fn checkpoint(&self) -> Checkpoint {
        Folder::new(self.folder.path()).load_checkpoint().expect("readable")
    }

    /// Everything that was appended is accounted for, once.
    fn verify(&self) {
        let folder = Folder::new(self.folder.path());
        let (all, store) = (self.checkpoint().totals, self.warehouse.store());
        let totals = all.kinds[Kind::Conversion];
        assert_eq!(self.checkpoint().position.lsn, self.appended.len() as u64);
        assert_eq!(folder.cut_ids().expect("listed"), []);
        assert_eq!(totals.accepted, self.conversions());
        assert_eq!(totals.accepted, totals.inserted + totals.duplicates + totals.dead_lettered, "{totals:?}");
        assert_eq!(store.raw.len() as u64, totals.inserted);
        let late = store.rejections.iter().filter(|(_, refusal)| refusal.conversion_id.is_some()).count();
        assert_eq!(late as u64, totals.duplicates);
        assert_eq!((store.rejections.len() - late) as u64, all.refusals);
        let letters = folder.dead_letters().expect("listed").len() as u64;
        assert_eq!(letters, totals.dead_lettered + all.refusals_dead_lettered);

        let mut ids: Vec<ConversionId> = store.raw.iter().map(|(_, conversion)| conversion.id).collect();
        ids.extend(store.rejections.iter().filter_map(|(_, refusal)| refusal.conversion_id));
        for name in folder.dead_letters().expect("listed") {
            let json = folder.read_dead_letter(&name).expect("readable");
            match dead_letters::read(&name, &json).expect("whole") {
                dead_letters::Letter::Record(Record::Conversion(conversion)) => ids.push(conversion.id),
                dead_letters::Letter::LateDuplicate { refusal, .. } => ids.extend(refusal.conversion_id),
                dead_letters::Letter::Record(_) => {}
            }
        }
        ids.sort_unstable();
        let mut expected: Vec<ConversionId> = self
            .appended
            .iter()
            .filter_map(|record| match record {
                Record::Conversion(conversion) => Some(conversion.id),
                _ => None,
            })
            .collect();
        expected.sort_unstable();
        assert_eq!(ids, expected, "each conversion is somewhere, once");
        let mut keys: Vec<OrderKey> =
            store.raw.iter().filter_map(|(_, c)| c.key.map(|(key, _)| key)).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all, "no key counts twice");
        store.verify_derived();
    }
}

async fn run_until_idle(around: &mut Surroundings<Warehouse>) -> Result<(), ShipError> {
    let mut worker = Worker::open(around)?;
    while worker.step(around).await? == Step::Worked {}
    Ok(())
}

const LIMITS: Limits = Limits { rows_max: 7, bytes_max: 1 << 20 };

fn bad(n: u32) -> Conversion {
    Conversion { user_agent: fake::REFUSED.into(), ..conversion(n) }
}

/// Records of every kind: new ones, unverified ones that are duplicates or not, refusals, rows that are refused.
fn mixture(seed: u64, count: u32) -> Vec<Record> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|n| match random.random_range(0..10) {
            0 => Record::Refusal(refusal(n)),
            1 if random.random_range(0..3) == 0 => {
                Record::Refusal(Refusal { request: fake::REFUSED.into(), ..refusal(n) })
            }
            2 if random.random_range(0..3) == 0 => Record::Conversion(bad(n)),
            3 | 4 => {
                let of = random.random_range(0..=n);
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
            5 => Record::Conversion(Conversion { key: None, order_id: None, ..conversion(n) }),
            // A month earlier: the batch ends.
            6 if n % 16 == 0 => {
                Record::Conversion(Conversion { received_at: UnixMillis(NOVEMBER - 1000), ..conversion(n) })
            }
            _ => Record::Conversion(Conversion { unverified: true, ..conversion(n) }),
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
    for fault in fake::LOSSES {
        let mut rig = Rig::new(Warehouse::new(Faults::once(fault)));
        rig.append((0..20).map(|n| Record::Conversion(conversion(n))).collect()).await;
        rig.ship(LIMITS, []).await;
        rig.verify();
        assert_eq!(rig.checkpoint().totals.kinds[Kind::Conversion].inserted, 20, "{fault:?}");
    }
}

#[tokio::test]
async fn dead_letters_are_replayed_once_through_any_crash() {
    for fuse in 0..40 {
        let mut rig = Rig::new(Warehouse::new(Faults::none()));
        let mut records: Vec<_> = (0..10).map(|n| Record::Conversion(conversion(n))).collect();
        records[3] = Record::Conversion(bad(3));
        records[7] = Record::Conversion(bad(7));
        records.push(Record::Refusal(Refusal { request: fake::REFUSED.into(), ..refusal(11) }));
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
        assert_eq!(dead_letters::replay(&folder, None).expect("moved"), 3);
        rig.warehouse.accept_everything();
        rig.ship(LIMITS, [fuse]).await;
        rig.verify();
        let all = rig.checkpoint().totals;
        let totals = all.kinds[Kind::Conversion];
        assert_eq!((totals.inserted, totals.duplicates, totals.dead_lettered), (10, 1, 0), "{totals:?}");
        assert_eq!((all.refusals, all.refusals_dead_lettered), (1, 0));
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
    assert_eq!(rig.warehouse.store().raw.len(), 0);

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
