//! Numbers for clicks: 41 bits of milliseconds since 2020 and 12 bits that count within one, below 2^53.
//!
//! What must hold:
//! - No number is given out twice, also not after a kill or after the clock was set back. The counter only grows; and a
//!   file on disk says below which number it has stayed, written ahead ([`ClickIds::renew`]): a start goes on from there.
//! - Giving one out never waits and never fails: a visitor is behind it. Where the clock is past the lease (it jumped, or
//!   the file could not be written ahead), what is left of the lease is given out in order: those numbers lag behind the
//!   clock. Where nothing is left (245 million clicks later: the disk took nothing, nor did the log), numbers are drawn at
//!   random from the upper half of the range, which the clock reaches in 2054: nobody else's either.
//! - Not even a clock that was decades ahead ends the counting, as it did in an earlier version: it begins again at the
//!   present, beyond all that was given out while the clock was right.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    core::{ClickId, INTEGER_MAX, UnixMillis},
    durable_file,
};

/// 2020-01-01T00:00:00Z, from which the milliseconds in a number are counted.
const EPOCH_MILLIS: i64 = 1_577_836_800_000;
/// 2026-01-01T00:00:00Z: no daemon gave out numbers before.
const NOBODY_BEFORE: UnixMillis = UnixMillis(1_767_225_600_000);
/// Numbers of one millisecond: more than 4,096 take those of the next.
const SEQUENCE_BITS: u32 = 12;
/// How far ahead of the last number the file reaches after it was written: a minute.
const LEASE: u64 = 60_000 << SEQUENCE_BITS;
/// What is left of the lease when it is time for the next: half a minute.
const RENEW_BELOW: u64 = LEASE / 2;
/// How far ahead of the clock counting begins again, where the file is of a clock that was years ahead: the clock itself
/// may be a day behind what it was.
const BEGIN_AGAIN_MILLIS: i64 = 2 * 86_400_000;
/// The lower end of the numbers that are drawn at random.
const RANDOM_FROM: u64 = 1 << 52;
/// The file's name in the data folder.
pub const CLICK_IDS_FILE: &str = "click-ids";

/// Gives out numbers. Shared by all workers, without a lock.
#[derive(Debug)]
pub struct ClickIds {
    path: PathBuf,
    /// The last number that was given out, or could have been.
    last: AtomicU64,
    /// Durably, every number given out in order is below this.
    ceiling: AtomicU64,
}

/// The file of the lease can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClickIdsError {
    /// Not readable or not writable.
    #[error("the numbers of clicks in {path} can't be kept: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold a number.
    #[error(
        "{path} does not hold a number below 2^53; restore it from a backup, or go on from the clock by `tally repair \
         --accept-loss click-ids`", path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl ClickIds {
    /// Goes on where the last daemon on this folder could have stopped.
    pub fn open(data_dir: &Path, now: UnixMillis) -> Result<Self, ClickIdsError> {
        let path = data_dir.join(CLICK_IDS_FILE);
        let mut used = load(&path)?;
        if used >= RANDOM_FROM && earliest(now) < RANDOM_FROM {
            tracing::warn!(
                path = %path.display(), used,
                "the numbers of clicks were carried decades ahead by a wrong clock; counting begins again at the present"
            );
            used = earliest(now.plus(BEGIN_AGAIN_MILLIS));
        }
        let last = used.max(earliest(now).saturating_sub(1));
        let ids = Self { path, last: AtomicU64::new(last), ceiling: AtomicU64::new(used) };
        ids.renew(now).map_err(|source| ClickIdsError::Io { path: ids.path.clone(), source })?;
        Ok(ids)
    }

    /// When the lease in a data folder was taken, about; none: there is no file that says so.
    #[must_use]
    pub fn leased_at(data_dir: &Path) -> Option<UnixMillis> {
        let used = load(&data_dir.join(CLICK_IDS_FILE)).ok().filter(|used| *used > LEASE)?;
        let millis = i64::try_from((used - LEASE) >> SEQUENCE_BITS).ok()?;
        Some(UnixMillis(millis.saturating_add(EPOCH_MILLIS)))
    }

    /// The next number.
    pub fn issue(&self, now: UnixMillis) -> ClickId {
        let earliest = earliest(now);
        let ceiling = self.ceiling.load(Ordering::Acquire);
        let next = |last: u64| if earliest < ceiling { (last + 1).max(earliest) } else { last + 1 };
        let issued = self.last.try_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            Some(next(last)).filter(|next| *next < ceiling)
        });
        match issued {
            Ok(last) => ClickId(next(last)),
            Err(_) => ClickId(RANDOM_FROM | (rand::random::<u64>() & (RANDOM_FROM - 1))),
        }
    }

    /// Whether a number may be one of a recorded click that was issued it. Of those drawn at random none is: they are given
    /// out only when the disk has long taken nothing, so that their clicks are not recorded either.
    pub fn may_have_issued(&self, id: ClickId) -> bool {
        (earliest(NOBODY_BEFORE)..self.ceiling.load(Ordering::Acquire)).contains(&id.0)
    }

    /// Extends the lease, durably, when it is time. Blocks on the disk. To be called every few seconds, by one task.
    pub fn renew(&self, now: UnixMillis) -> io::Result<()> {
        let reached = self.last.load(Ordering::Relaxed).max(earliest(now));
        if self.ceiling.load(Ordering::Acquire).saturating_sub(reached) >= RENEW_BELOW {
            return Ok(());
        }
        let ceiling = reached.saturating_add(LEASE).min(INTEGER_MAX);
        durable_file::replace(&self.path, format!("{ceiling}\n").as_bytes())?;
        self.ceiling.store(ceiling, Ordering::Release);
        Ok(())
    }
}

/// The first number of the millisecond.
fn earliest(now: UnixMillis) -> u64 {
    let millis = u64::try_from(now.0.saturating_sub(EPOCH_MILLIS)).unwrap_or_default();
    millis.min(INTEGER_MAX >> SEQUENCE_BITS) << SEQUENCE_BITS
}

/// The number below which all are used; 0 where there is no file.
fn load(path: &Path) -> Result<u64, ClickIdsError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(ClickIdsError::Io { path: path.to_owned(), source }),
    };
    let number = text.trim_end().parse().ok().filter(|number| *number <= INTEGER_MAX);
    number.ok_or_else(|| ClickIdsError::Malformed { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn open(folder: &tempfile::TempDir, now: UnixMillis) -> ClickIds {
        ClickIds::open(folder.path(), now).expect("opened")
    }

    #[test]
    fn a_number_is_its_millisecond_and_its_place_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = open(&folder, NOW);
        let first = ids.issue(NOW).0;
        assert_eq!(first, 212_163_200_000 << 12);
        assert_eq!(ids.issue(NOW).0, first + 1);
        assert_eq!(ids.issue(NOW.plus(1)).0, first + 4096);
        assert!(first < 1 << 52);
    }

    #[test]
    fn more_than_a_millisecond_has_run_ahead_of_the_clock() {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = open(&folder, NOW);
        let issued: HashSet<u64> = (0..10_000).map(|_| ids.issue(NOW).0).collect();
        assert_eq!(issued.len(), 10_000);
        assert!(!issued.contains(&ids.issue(NOW.plus(1)).0), "its numbers are used already");
    }

    #[test]
    fn threads_never_share_a_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = Arc::new(open(&folder, NOW));
        let issue = |ids: Arc<ClickIds>| (0..20_000).map(|n| ids.issue(NOW.plus(n / 9000)).0).collect();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let ids = ids.clone();
                std::thread::spawn(move || -> Vec<u64> { issue(ids) })
            })
            .collect();
        let issued: Vec<u64> = threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
        assert_eq!(issued.iter().collect::<HashSet<_>>().len(), 80_000);
    }

    #[test]
    fn a_kill_and_a_clock_set_back_repeat_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let before: Vec<u64> = {
            let ids = open(&folder, NOW);
            (0..5000).map(|_| ids.issue(NOW.plus(20_000)).0).collect()
        };
        for back in [0, -1, -3_600_000, -100_000_000_000] {
            let ids = open(&folder, NOW.plus(back));
            assert!(ids.issue(NOW.plus(back)).0 > *before.last().expect("some"));
        }
    }

    #[test]
    fn a_clock_that_jumps_past_the_lease_leaves_its_rest_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = open(&folder, NOW);
        let late = NOW.plus(61_000);
        let issued: Vec<u64> = (0..1000).map(|_| ids.issue(late).0).collect();
        assert!(issued.is_sorted_by(|one, next| one < next));
        assert!(issued.iter().all(|id| ids.may_have_issued(ClickId(*id))), "and they are known again");
        ids.renew(late).expect("renewed");
        assert!(ids.issue(late).0 >= earliest(late), "with the clock again");
    }

    #[test]
    fn without_a_lease_numbers_are_drawn_and_none_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = open(&folder, NOW);
        ids.last.store(ids.ceiling.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        let drawn: HashSet<u64> = (0..1000).map(|_| ids.issue(NOW).0).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(drawn.iter().all(|id| (RANDOM_FROM..=INTEGER_MAX).contains(id)));
        ids.renew(NOW).expect("renewed");
        assert!(ids.issue(NOW).0 < RANDOM_FROM, "in order again");
    }

    /// An earlier version believed any clock: in order again, and beyond all that was given out before.
    #[test]
    fn a_file_of_a_clock_that_was_decades_ahead_does_not_end_the_counting() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = open(&folder, NOW).issue(NOW);
        let ahead = open(&folder, NOW.plus(25_300 * 86_400_000));
        assert!(ahead.ceiling.load(Ordering::Relaxed) == INTEGER_MAX);
        let ids = open(&folder, NOW.plus(-86_000_000));
        let issued: Vec<_> = (0..1000).map(|_| ids.issue(NOW)).collect();
        assert!(issued.is_sorted_by(|one, next| one < next));
        assert!(issued[0] > before && issued[999].0 < earliest(NOW.plus(3 * 86_400_000)));
        assert!(open(&folder, NOW).issue(NOW) > issued[999], "and goes on from there");
    }

    #[test]
    fn a_lease_is_written_only_when_it_is_due() {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = open(&folder, NOW);
        assert_eq!(ClickIds::leased_at(folder.path()), Some(NOW));
        let written = || std::fs::read(folder.path().join(CLICK_IDS_FILE)).expect("there");
        let first = written();
        ids.renew(NOW.plus(29_000)).expect("nothing to do");
        assert_eq!(written(), first);
        ids.renew(NOW.plus(31_000)).expect("written");
        assert_ne!(written(), first);
    }

    /// What a released version wrote is read for ever.
    #[test]
    fn the_format_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("click-ids");
        std::fs::write(&path, "2345678901234\n").expect("written");
        assert_eq!(load(&path).expect("a number"), 2_345_678_901_234);
        let ids = ClickIds { path: path.clone(), last: AtomicU64::new(0), ceiling: AtomicU64::new(0) };
        ids.renew(UnixMillis(EPOCH_MILLIS)).expect("stored");
        assert_eq!(std::fs::read_to_string(path).expect("there"), format!("{LEASE}\n"));
    }

    #[test]
    fn a_file_that_is_no_number_stops_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        for wrong in ["", "x", "-1", "9007199254740992", "1 2"] {
            std::fs::write(folder.path().join(CLICK_IDS_FILE), wrong).expect("written");
            let opened = ClickIds::open(folder.path(), NOW);
            assert!(matches!(opened, Err(ClickIdsError::Malformed { .. })), "{wrong:?}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Issue(u16),
        Move(i64),
        Renew,
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1u16..5000).prop_map(Step::Issue),
            4 => (-100_000i64..100_000).prop_map(Step::Move),
            2 => Just(Step::Renew),
            1 => Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_ever_given_out_twice(steps in steps()) {
            let folder = tempfile::tempdir().expect("a folder");
            let (mut now, mut seen) = (NOW, HashSet::new());
            let mut ids = open(&folder, now);
            for step in steps {
                match step {
                    Step::Issue(count) => for _ in 0..count {
                        let id = ids.issue(now).0;
                        prop_assert!(id <= INTEGER_MAX && seen.insert(id));
                    },
                    Step::Move(millis) => now = now.plus(millis),
                    Step::Renew => ids.renew(now).expect("renewed"),
                    Step::Restart => ids = open(&folder, now),
                }
            }
        }
    }
}
