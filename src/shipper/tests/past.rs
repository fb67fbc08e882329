//! Clicks found in files: decided as without them, whatever happens to the files.

use std::{fs, path::PathBuf};

use super::{
    attribution::{At, clicked, converted, history},
    fake::Faults,
    *,
};
use crate::core::Unattributed;

impl Rig {
    /// Takes steps at that time, once everything can be found in files, until nothing is left to do that need not wait.
    async fn ship_with_files(&self, at: i64) {
        let mut around = self.start(LIMITS, i64::MAX);
        around.clock = Box::new(At(at));
        let mut worker = Worker::open(&around).expect("opened");
        while worker.tend(&around).await {}
        around.stop.cancel();
        while worker.step(&mut around).await.expect("no error") == Step::Worked {}
    }

    /// Ships a history bit by bit.
    async fn ship_bit_by_bit(&mut self, records: &[Record], mut between: impl FnMut(&Self)) {
        for some in records.chunks(25) {
            self.append(some.to_vec()).await;
            // What has not settled yet stays: the rest of the history has not come.
            let now = some.last().map_or(0, |last| last.received_at().0 - NOVEMBER);
            self.ship_with_files(now).await;
            between(self);
        }
        self.ship_with_files(1_000_000_000).await;
    }

    fn files(&self) -> Vec<PathBuf> {
        // Made once ClickHouse has answered.
        let files = fs::read_dir(self.folder.path().join("past-clicks")).into_iter().flatten();
        let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        files.sort();
        files
    }
}

#[tokio::test]
async fn files_say_what_clickhouse_would_without_asking_it() {
    for seed in 0..4 {
        let records = history(seed, 120);
        let mut rig = Rig::new(Warehouse::new(Faults::none()));
        rig.ship_bit_by_bit(&records, |_| ()).await;
        rig.verify_decisions(&records, seed);
        assert_eq!(rig.warehouse.store().click_queries, 0, "seed {seed}");
        assert!(rig.files().len() > 2, "seed {seed}: some of the clicks were in files");
    }
}

#[tokio::test]
async fn lost_damaged_and_void_files_are_noticed_and_change_no_decision() {
    for seed in 0..8 {
        let records = history(seed, 150);
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::new(Warehouse::new(Faults::random(seed)));
        let harm = |rig: &Rig| {
            let files = rig.files();
            let Some(file) = (!files.is_empty()).then(|| &files[random.random_range(0..files.len())]) else {
                return;
            };
            match random.random_range(0..5) {
                0 => fs::remove_file(file).expect("removed"),
                1 => {
                    let mut bytes = fs::read(file).expect("read");
                    bytes.truncate(bytes.len() / 2);
                    fs::write(file, bytes).expect("written");
                }
                2 => {
                    let mut bytes = fs::read(file).expect("read");
                    let at = random.random_range(0..bytes.len().max(1));
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
                    fs::write(file, bytes).expect("written");
                }
                3 => crate::past_clicks::void(rig.folder.path()).expect("void"),
                _ => {}
            }
        };
        rig.ship_bit_by_bit(&records, harm).await;
        rig.warehouse.recover();
        rig.ship(LIMITS, []).await;
        rig.verify_decisions(&records, seed);
    }
}

/// The folder is that of an older backup, the checkpoint is not; or the other way round.
#[tokio::test]
async fn files_of_another_time_are_completed_or_made_anew() {
    let records = history(3, 150);
    let (early, late) = records.split_at(75);
    let mut rig = Rig::new(Warehouse::new(Faults::none()));
    let keep = tempfile::tempdir().expect("a folder");
    rig.ship_bit_by_bit(early, |_| ()).await;
    for file in rig.files() {
        fs::copy(&file, keep.path().join(file.file_name().expect("a name"))).expect("copied");
    }
    rig.ship_bit_by_bit(&late[..50], |_| ()).await;
    let folder = rig.folder.path().join("past-clicks");
    fs::remove_dir_all(&folder).expect("removed");
    fs::rename(keep.path(), &folder).expect("restored");
    rig.ship_bit_by_bit(&late[50..], |_| ()).await;
    rig.verify_decisions(&records, 3);
    assert_eq!(rig.warehouse.store().click_queries, 0);
}

/// The daemon runs on, and has the click in files, or had it in memory; the worst moment is after its last look around.
#[tokio::test]
async fn a_visitor_who_was_erased_is_not_found_in_any_copy() {
    for in_files in [true, false] {
        let mut rig = Rig::new(Warehouse::new(Faults::none()));
        rig.append(vec![Record::Click(clicked(1, 0)), Record::Conversion(converted(1, 1000))]).await;
        let mut around = rig.start(LIMITS, i64::MAX);
        around.clock = Box::new(At(60_000));
        let mut worker = Worker::open(&around).expect("opened");
        while in_files && worker.tend(&around).await {}
        while worker.step(&mut around).await.expect("no error") == Step::Worked {}
        assert_eq!(rig.decided(1), Some(Ok(1)));

        rig.append(vec![Record::Conversion(converted(2, 2000))]).await;
        let folder = rig.folder.path().to_owned();
        rig.warehouse.store().before_lookup = Some(Box::new(move |store| {
            store.erase_visitor(7);
            crate::past_clicks::void(&folder).expect("void");
        }));
        while worker.step(&mut around).await.expect("no error") == Step::Worked {}
        assert_eq!(rig.decided(2), Some(Err(Unattributed::NoCandidate)), "in files: {in_files}");
    }
}
