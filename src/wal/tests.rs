//! The log against a small model: a list of records.

mod damage;

use std::{fs::OpenOptions, os::unix::fs::FileExt as _, path::Path};

use proptest::prelude::*;

use super::*;

const SEGMENT_BYTES: u64 = 4096;

fn config(dir: &Path) -> Config {
    Config {
        dir: dir.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        spool_bytes_max: 1 << 20,
        disk_free_bytes_min: 0,
        appenders: 2,
    }
}

/// A log with its pumps running on a worker of its own.
struct Fixture {
    wal: Wal,
    runtime: tokio::runtime::Runtime,
}

impl Fixture {
    fn open(config: Config, settled: Position) -> Self {
        Self::try_open(config, settled).expect("the log opens")
    }

    fn try_open(config: Config, settled: Position) -> Result<Self, OpenError> {
        let appenders = config.appenders;
        let wal = Wal::open(config, settled)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for index in 0..appenders {
            runtime.spawn(wal.appender(index).pump());
        }
        Ok(Self { wal, runtime })
    }

    fn append(&self, records: &[Vec<u8>]) -> Vec<Result<(), Lost>> {
        self.runtime.block_on(async {
            // Taken by a task, as a connection's would be, so that the pump sees a worker's turn.
            let wal = self.wal.clone();
            let records = records.to_vec();
            let tickets = tokio::spawn(async move {
                let appender = |n: usize| wal.appender(u16::try_from(n % 2).expect("0 or 1"));
                let take =
                    |(n, bytes): (usize, &Vec<u8>)| appender(n).append(|out| out.extend_from_slice(bytes));
                records.iter().enumerate().map(take).collect::<Vec<_>>()
            });
            let mut outcomes = Vec::new();
            for ticket in tickets.await.expect("no panic") {
                outcomes.push(match ticket {
                    Ok(ticket) => self.wal.wait(ticket).await,
                    Err(AppendError::Full(shortage)) => Err(Lost::Full(shortage)),
                    Err(other) => panic!("{other}"),
                });
            }
            outcomes
        })
    }

    fn close(self) {
        self.wal.close();
    }
}

fn read(mut reader: Reader) -> Vec<(u64, Vec<u8>, Position)> {
    let mut all = Vec::new();
    while let Some(entry) = reader.next().expect("an intact log") {
        all.push((entry.lsn, entry.payload.to_vec(), entry.end));
    }
    all
}

fn sorted(records: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut records: Vec<_> = records.into_iter().collect();
    records.sort();
    records
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    Reopen,
    /// A crash in the middle of a write: what follows the end is garbage.
    Torn(Vec<u8>),
    /// Settle up to that share of what is there.
    Settle(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = proptest::collection::vec(any::<u8>(), 0..300);
    let step = prop_oneof![
        6 => proptest::collection::vec(record, 1..6).prop_map(Step::Append),
        1 => Just(Step::Reopen),
        1 => proptest::collection::vec(any::<u8>(), 1..200).prop_map(Step::Torn),
        2 => any::<prop::sample::Index>().prop_map(Step::Settle),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_was_durable_is_read_back_in_order(steps in steps()) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settled = Position::START;
        let mut fixture = Fixture::open(config(folder.path()), settled);
        // Records that are not settled, in the order of the log: appenders interleave, so a group's order is its own.
        let mut model: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                Step::Append(records) => {
                    prop_assert!(fixture.append(&records).iter().all(Result::is_ok));
                    let all = read(fixture.wal.reader(settled).expect("readable"));
                    let new = all[model.len()..].iter().map(|(_, bytes, _)| bytes.clone());
                    prop_assert_eq!(sorted(new.clone()), sorted(records));
                    model.extend(new);
                }
                Step::Reopen => {
                    fixture.close();
                    fixture = Fixture::open(config(folder.path()), settled);
                }
                Step::Torn(garbage) => {
                    let end = fixture.wal.durable_end();
                    fixture.close();
                    let file = segment::open(folder.path(), end.segment).expect("the last segment");
                    let room = usize::try_from(SEGMENT_BYTES - end.offset).expect("small").min(garbage.len());
                    file.write_all_at(&garbage[..room], end.offset).expect("written");
                    fixture = Fixture::open(config(folder.path()), settled);
                    prop_assert_eq!(fixture.wal.durable_end(), end);
                }
                Step::Settle(share) => {
                    let all = read(fixture.wal.reader(settled).expect("readable"));
                    let count = share.index(all.len() + 1);
                    if count > 0 {
                        settled = all[count - 1].2;
                        model.drain(..count);
                        fixture.wal.trim(settled);
                    }
                }
            }
            let all = read(fixture.wal.reader(settled).expect("readable"));
            prop_assert_eq!(all.iter().map(|(lsn, ..)| *lsn).collect::<Vec<_>>(), (settled.lsn..).take(all.len()).collect::<Vec<_>>());
            let bytes: Vec<_> = all.into_iter().map(|(_, bytes, _)| bytes).collect();
            prop_assert_eq!(&bytes, &model);
        }
        fixture.close();
        let offline: Vec<_> = read(Reader::open(folder.path(), settled).expect("readable")).into_iter().map(|(_, bytes, _)| bytes).collect();
        prop_assert_eq!(offline, model);
    }
}

/// A log of several segments whose records are `0..count`, closed.
fn filled(dir: &Path, count: u32) -> Position {
    let fixture = Fixture::open(config(dir), Position::START);
    for n in 0..count {
        let mut record = vec![0; 100];
        record[..4].copy_from_slice(&n.to_le_bytes());
        assert_eq!(fixture.append(&[record]), [Ok(())]);
    }
    let end = fixture.wal.durable_end();
    fixture.close();
    end
}

fn flip(dir: &Path, number: u64, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(segment::path(dir, number)).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("inside");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("written");
}

#[test]
fn damage_before_the_end_stops_the_opening_and_names_the_place() {
    // (segment, byte to break, byte that the error names: the block's or the header's beginning)
    for (number, offset, named) in [(0, 70, 64), (0, 100, 64), (1, 10, 0), (1, 70, 64)] {
        let folder = tempfile::tempdir().expect("a folder");
        let end = filled(folder.path(), 100);
        assert!(end.segment >= 2, "several segments are in play");
        flip(folder.path(), number, offset);
        match Fixture::try_open(config(folder.path()), Position::START).err() {
            Some(OpenError::Read(ReadError::Damaged { segment, offset, .. })) => {
                assert_eq!((segment, offset), (number, named));
            }
            other => panic!("damage in segment {number} at {offset} was answered by {other:?}"),
        }
    }
}

#[test]
fn damage_in_the_last_segment_is_no_torn_tail_while_records_follow() {
    let folder = tempfile::tempdir().expect("a folder");
    let end = filled(folder.path(), 100);
    flip(folder.path(), end.segment, segment::HEADER_BYTES + 40);
    assert!(Fixture::try_open(config(folder.path()), Position::START).is_err());
}

#[test]
fn a_missing_segment_stops_the_opening() {
    let folder = tempfile::tempdir().expect("a folder");
    filled(folder.path(), 100);
    std::fs::remove_file(segment::path(folder.path(), 1)).expect("removed");
    assert!(matches!(Fixture::try_open(config(folder.path()), Position::START), Err(OpenError::Missing(1))));
}

#[test]
fn a_full_spool_refuses_and_settling_opens_it_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { spool_bytes_max: 3 * SEGMENT_BYTES, ..config(folder.path()) };
    let fixture = Fixture::open(config, Position::START);
    let mut accepted = 0u64;
    let refused = loop {
        match fixture.append(&[vec![7; 200]])[..] {
            [Ok(())] => accepted += 1,
            [Err(lost)] => break lost,
            _ => unreachable!("one record, one outcome"),
        }
        assert!(accepted < 1000, "the spool never filled");
    };
    assert_eq!(refused, Lost::Full(Shortage::SpoolFull));
    assert_eq!(fixture.wal.status().shortage, Some(Shortage::SpoolFull));
    let all = read(fixture.wal.reader(Position::START).expect("readable"));
    assert_eq!(all.len() as u64, accepted, "refused records leave no trace");

    fixture.wal.trim(all.last().expect("records").2);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while fixture.append(&[vec![8; 200]]) != [Ok(())] {
        assert!(std::time::Instant::now() < deadline, "settling did not make room");
        std::thread::yield_now();
    }
    fixture.close();
}

#[test]
fn more_than_the_disk_can_take_is_refused_until_it_has_caught_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { segment_bytes: 16 << 20, spool_bytes_max: 1 << 30, ..config(folder.path()) };
    let wal = Wal::open(config, Position::START).expect("opens");
    let appender = wal.appender(0);
    let mut taken = 0u32;
    // No pump runs, so nothing is decided.
    let refused = loop {
        match appender.append(|out| out.push(1)) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 100_000, "there is no bound");
    };
    assert_eq!((refused, taken), (AppendError::Overloaded, 1024));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::spawn(appender.pump());
        let other = wal.appender(1);
        tokio::spawn(other.pump());
        let ticket = other.append(|out| out.push(2)).expect("another worker has its own queue");
        assert_eq!(wal.wait(ticket).await, Ok(()));
        // What shared its group is decided too.
        let ticket = appender.append(|out| out.push(3)).expect("there is room again");
        assert_eq!(wal.wait(ticket).await, Ok(()));
    });
    wal.close();
}

#[test]
fn nobody_is_told_before_the_sync() {
    let folder = tempfile::tempdir().expect("a folder");
    let wal = Wal::open(config(folder.path()), Position::START).expect("opens");
    // No pump runs, so the writer never hears of the record.
    let ticket = wal.appender(0).append(|out| out.push(1)).expect("taken");
    assert_eq!(wal.status_of(ticket), TicketStatus::Pending);
    wal.close();
    assert_eq!(wal.status_of(ticket), TicketStatus::Durable, "closing makes durable what was taken");
    assert_eq!(wal.appender(0).append(|out| out.push(2)), Err(AppendError::Closed));
}
