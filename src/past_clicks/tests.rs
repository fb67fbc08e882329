//! The store against a list that is searched from end to end, through restarts, damage and age.

use std::{fs, path::Path, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::core::{AccountId, BatchId, Candidate, ClickId, ClickLabels, LinkId, Traffic, UnixMillis};

/// Clicks of few numbers and visitors, so that they meet; batch after batch.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of so many clicks is settled.
    Settle(u8),
    /// So many days pass.
    Wait(u8),
    /// The daemon starts anew, with what it made durable.
    Reopen,
    /// A merge that is under way ends.
    Merged,
    /// One of the files loses its end,
    Truncate(u8, u16),
    /// or a bit of one turns.
    Flip(u8, u16),
    /// A file that nobody knows lies there.
    Stray,
    /// A person was erased: all of it is void.
    Void,
}

const DAY: i64 = 86_400_000;
const KEPT_DAYS: i64 = 90;

struct Rig {
    data_dir: tempfile::TempDir,
    store: PastClicks,
    /// What ClickHouse has.
    clicks: Vec<(BatchId, Candidate)>,
    batch: BatchId,
    now: i64,
    damaged: bool,
    numbers: u64,
}

impl Rig {
    fn new() -> Self {
        let data_dir = tempfile::tempdir().expect("a folder");
        let store = PastClicks::open(data_dir.path(), "table").expect("opened");
        let mut rig = Self {
            data_dir,
            store,
            clicks: Vec::new(),
            batch: BatchId(0),
            now: 0,
            damaged: false,
            numbers: 0,
        };
        rig.fill();
        rig
    }

    /// Adds what is missing, as the shipper does after a start.
    fn fill(&mut self) {
        let through = self.store.through();
        assert!(through <= self.batch);
        for (_, click) in self.clicks.iter().filter(|(batch, _)| *batch > through) {
            self.store.add(click).expect("added");
        }
        self.store.complete(self.batch).expect("complete");
        self.store.settled(self.batch, self.kept_since()).expect("tidy");
        self.damaged = false;
    }

    fn reopen(&mut self) {
        self.store = PastClicks::open(self.data_dir.path(), "table").expect("opened");
        self.fill();
    }

    fn kept_since(&self) -> UnixMillis {
        UnixMillis(self.now - KEPT_DAYS * DAY)
    }

    fn take(&mut self, step: &Step, random: &mut u64) {
        match step {
            Step::Settle(count) => {
                self.batch.0 += 1;
                let clicks: Vec<_> = (0..*count).map(|_| self.click(random)).collect();
                let added = clicks.iter().try_for_each(|click| self.store.add(click));
                self.clicks.extend(clicks.into_iter().map(|click| (self.batch, click)));
                if added.and_then(|()| self.store.settled(self.batch, self.kept_since())).is_err() {
                    self.begin_anew();
                }
            }
            Step::Wait(days) => {
                self.now += i64::from(*days) * DAY;
                if self.store.settled(self.batch, self.kept_since()).is_err() {
                    self.begin_anew();
                }
            }
            Step::Reopen => self.reopen(),
            Step::Merged => {
                if self.store.wait_for_merge().is_err() {
                    self.begin_anew();
                }
            }
            Step::Truncate(file, by) => self.change(*file, |bytes| {
                bytes.truncate(bytes.len().saturating_sub(usize::from(*by) + 1));
            }),
            Step::Flip(file, at) => self.change(*file, |bytes| {
                let (bit, at) = (at % 8, usize::from(*at) % bytes.len().max(1));
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }),
            Step::Stray => {
                let name = self.data_dir.path().join(FOLDER).join("00000099.table");
                fs::write(name, b"unfinished").expect("written");
                self.reopen();
            }
            Step::Void => {
                void(self.data_dir.path()).expect("void");
                assert!(self.store.is_void());
                assert_eq!(files(self.data_dir.path()).len(), 0, "nothing is left even without a daemon");
                self.reopen();
                assert!(!self.store.is_void());
            }
        }
    }

    /// Only after damage.
    fn begin_anew(&mut self) {
        assert!(self.damaged);
        let through = BatchId(0);
        void(self.data_dir.path()).expect("void");
        self.store = PastClicks::open(self.data_dir.path(), "table").expect("opened");
        assert_eq!(self.store.through(), through);
        self.fill();
    }

    /// Changes a file behind the store's back, and starts anew or not.
    fn change(&mut self, file: u8, change: impl FnOnce(&mut Vec<u8>)) {
        let files = files(self.data_dir.path());
        let Some(path) = files.get(usize::from(file) % files.len().max(1)) else { return };
        let mut bytes = fs::read(path).expect("read");
        change(&mut bytes);
        fs::write(path, bytes).expect("written");
        self.damaged = true;
    }

    fn click(&mut self, random: &mut u64) -> Candidate {
        let mut next = |below: u32| {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(*random >> 33).expect("31 bits") % below
        };
        // Numbers are unique within an account, and not across them.
        self.numbers += 1 + u64::from(next(100));
        let traffic =
            [Traffic::Human, Traffic::Human, Traffic::Bot][usize::try_from(next(3)).expect("small")];
        Candidate {
            account_id: AccountId(1 + next(2)),
            click_id: ClickId(self.numbers),
            link_id: Some(LinkId(next(3))).filter(|link| link.0 != 0),
            clicked_at: UnixMillis(self.now - i64::from(next(1000))),
            received_at: UnixMillis(self.now),
            traffic,
            visitor_key: next(6).into(),
            private_address: next(5) == 0,
            labels: Arc::new(ClickLabels { variant: next(3).to_string(), ..ClickLabels::default() }),
        }
    }

    fn look(
        &mut self,
        named: &[(AccountId, ClickId)],
        keys: &[(AccountId, u64)],
    ) -> Result<Found, PastClicksError> {
        let mut look_up = self.store.look_up(named, keys);
        while !self.store.proceed(&mut look_up, 3)? {}
        Ok(look_up.found())
    }

    /// Asks for everything.
    fn verify(&mut self) {
        let kept = self.kept_since();
        let clicks: Vec<_> = self.clicks.iter().map(|(_, click)| click.clone()).collect();
        // Each under another account too.
        let accounts = [1, 2, 3].map(AccountId);
        let named: Vec<_> = clicks.iter().flat_map(|click| accounts.map(|of| (of, click.click_id))).collect();
        let keys: Vec<_> = (0..7).flat_map(|key| accounts.map(|of| (of, key))).collect();
        let there: Vec<_> = clicks.into_iter().filter(|click| click.received_at >= kept).collect();
        let of_visitors = there.iter().filter(|click| {
            click.visitor_key != 0 && click.traffic == Traffic::Human && !click.private_address
        });
        let of_visitors: Vec<_> = of_visitors.cloned().collect();
        let outcome = self.look(&named, &keys).map(|mut found| {
            found.named.sort_by_key(|click| click.click_id);
            found.of_visitors.sort_by_key(|click| click.click_id);
            let unnamed = there.into_iter().map(|click| Candidate { visitor_key: 0, ..click });
            assert_eq!(found.named, unnamed.collect::<Vec<_>>());
            assert_eq!(found.of_visitors, of_visitors);
            assert!(found.crowds.is_empty());
        });
        match outcome {
            Ok(()) => {}
            Err(PastClicksError::Damaged { .. } | PastClicksError::Io { .. }) if self.damaged => {
                self.begin_anew();
                self.verify();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn files(data_dir: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(data_dir.join(FOLDER)).expect("a folder");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0u8..12).prop_map(Step::Settle),
        2 => (0u8..60).prop_map(Step::Wait),
        2 => Just(Step::Reopen),
        2 => Just(Step::Merged),
        1 => any::<(u8, u16)>().prop_map(|(file, by)| Step::Truncate(file, by)),
        1 => any::<(u8, u16)>().prop_map(|(file, at)| Step::Flip(file, at)),
        1 => Just(Step::Stray),
        1 => Just(Step::Void),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn finds_what_a_list_finds_through_restarts_damage_and_age(steps in steps(), seed in any::<u64>()) {
        let (mut rig, mut random) = (Rig::new(), seed);
        for step in &steps {
            rig.take(step, &mut random);
            rig.verify();
        }
    }
}

/// So many batches of eight clicks.
fn filled(batches: u8) -> (Rig, u64) {
    let (mut rig, mut random) = (Rig::new(), 1);
    for _ in 0..batches {
        rig.take(&Step::Settle(8), &mut random);
        rig.take(&Step::Merged, &mut random);
    }
    (rig, random)
}

#[test]
fn a_start_reads_only_what_was_not_in_files() {
    let (mut rig, mut random) = filled(20);
    rig.take(&Step::Settle(3), &mut random);
    rig.store = PastClicks::open(rig.data_dir.path(), "table").expect("opened");
    assert_eq!(rig.store.through(), BatchId(20));
    assert!(!rig.store.is_complete());
    rig.fill();
    rig.verify();
}

#[test]
fn clicks_of_another_table_are_not_believed() {
    let (rig, _) = filled(3);
    let other = PastClicks::open(rig.data_dir.path(), "another table").expect("opened");
    assert_eq!(other.through(), BatchId(0));
    assert_eq!(files(rig.data_dir.path()).len(), 0);
}

#[test]
fn files_stay_few_and_go_with_their_clicks() {
    let (mut rig, mut random) = filled(50);
    let tables = |rig: &Rig| {
        files(rig.data_dir.path())
            .iter()
            .filter(|file| file.extension().is_some_and(|of| of == "table"))
            .count()
    };
    assert!(tables(&rig) <= 6, "{} tables of 50", tables(&rig));
    rig.take(&Step::Wait(91), &mut random);
    assert_eq!(files(rig.data_dir.path()).len(), 1, "only the manifest");
    rig.take(&Step::Settle(8), &mut random);
    rig.verify();
}

#[test]
fn a_visitor_with_more_clicks_than_one_looks_at_is_told() {
    let (mut rig, mut random) = filled(1);
    let one = Candidate {
        traffic: Traffic::Human,
        private_address: false,
        visitor_key: 77,
        account_id: AccountId(1),
        ..rig.click(&mut random)
    };
    let asked = [(AccountId(1), 77)];
    for n in 0..=u64::from(crate::core::CANDIDATES_MAX) {
        if n % 250 == 0 {
            rig.store.settled(BatchId(100 + n), UnixMillis(0)).expect("settled");
            let before = rig.look(&[], &asked).expect("found");
            assert_eq!((before.of_visitors.len() as u64, before.crowds.len()), (n, 0));
        }
        rig.store.add(&Candidate { click_id: ClickId(1_000_000 + n), ..one.clone() }).expect("added");
    }
    rig.store.settled(BatchId(2000), UnixMillis(0)).expect("settled");
    let crowd = Found { crowds: asked.to_vec(), ..Found::default() };
    assert_eq!(rig.look(&[], &asked).expect("found"), crowd);
}

/// What a released version wrote is read for ever: records, and the table that finds them.
#[test]
fn the_formats_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let labels = |source: &str, labelled| {
        let campaign =
            crate::core::Campaign { source: source.to_owned(), ..crate::core::Campaign::default() };
        Arc::new(ClickLabels { campaign, variant: "b".to_owned(), labelled })
    };
    let click = |n: u64, traffic, private_address| Candidate {
        account_id: AccountId(1),
        click_id: ClickId(n),
        link_id: (n > 1).then_some(LinkId(4)),
        clicked_at: UnixMillis(-1),
        received_at: UnixMillis(1_793_491_200_000),
        traffic,
        visitor_key: 5,
        private_address,
        labels: labels("news", n > 1),
    };
    let clicks =
        [click(1, Traffic::Human, false), click(2, Traffic::Bot, true), click(3, Traffic::Prefetch, false)];
    let (mut records, mut entries) = (Vec::new(), Vec::new());
    let key = entry::HashKey(7);
    for click in &clicks {
        let at = records.len() as u64;
        let length = record::encode(&record::Row::from(click), &mut records);
        let hash = key.of_click(click.account_id, click.click_id);
        entries.push(entry::Entry { hash, place: entry::Place::new(at, length, false) });
        let bytes = &records[records.len() - usize::from(length)..];
        let read = record::decode(bytes, 5, &mut record::SharedLabels::default()).expect("own bytes");
        assert_eq!(&read, click);
    }
    assert_golden!("click-index-records-1", &records);

    entries.sort_unstable();
    let path = folder.path().join("x.table");
    let mut table = table::TableWriter::create(&path, 100).expect("made");
    for entry in &entries {
        table.push(*entry).expect("written");
    }
    let table = table.finish().expect("opened");
    assert_golden!("click-index-table-1", &fs::read(&path).expect("there"));
    for entry in entries {
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        table.find(entry.hash, &mut buffer, &mut found).expect("read");
        assert_eq!(found, [entry]);
    }
}
