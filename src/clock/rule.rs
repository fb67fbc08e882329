//! The rule by which the system's clock is believed. Without IO: readings are handed in.

use crate::core::UnixMillis;

/// How far the system's clock may be from what is expected.
pub const DAY_MILLIS: i64 = 86_400_000;
/// How long a machine may have been off, in days, for its clock to be believed without being asked.
pub const OFF_DAYS_MAX: i64 = 31;
/// 2026-01-01T00:00:00Z: tally was not made before.
pub const EARLIEST: UnixMillis = UnixMillis(1_767_225_600_000);
/// 2089-01-01T00:00:00Z: numbers of clicks, which hold their time, reach to September of that year.
pub const END: UnixMillis = UnixMillis(3_755_376_000_000);
/// What is expected follows the system's clock by at most this part of the time that passes (an hour a day), so that a
/// clock that is corrected now and then is believed for years, and one that creeps away is not.
const FOLLOWS: i64 = 24;
/// How much faster than time the retention time may move, to catch up after a stop.
const RETENTION_SPEED: i64 = 2;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The system's clock.
    pub(super) wall: UnixMillis,
    /// Milliseconds since the machine's start.
    pub(super) running: i64,
}

/// What an earlier daemon left in the data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The machine's start that `running` counts from.
    pub(super) boot: String,
    pub(super) running: i64,
    pub(super) believed: UnixMillis,
    pub(super) expected: UnixMillis,
    pub(super) retention: UnixMillis,
}

/// What is known of time. Three offsets to the time since the machine's start, in milliseconds.
///
/// `|offset - expected| <= DAY_MILLIS` at any time, but for a start that found the machine off for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// What the believed clock shows beyond `running`.
    pub(super) offset: i64,
    /// What the system's clock is held against.
    expected: i64,
    /// How far ahead of `expected` it may be: a day, or more where the machine may have been off.
    ahead_max: i64,
    /// When this was last looked at.
    seen: i64,
    /// What the deletion of old data goes by.
    pub(super) retention: UnixMillis,
    pub(super) believed: bool,
}

impl Reading {
    fn offset(self) -> i64 {
        self.wall.0.saturating_sub(self.running)
    }

    pub(super) fn is_representable(self) -> bool {
        (EARLIEST..END).contains(&self.wall)
    }
}

impl Rule {
    /// At the start of a daemon. `traces` are times at which an earlier daemon wrote to a folder without a `kept` time.
    /// `None`: the system's clock can't be right, and there is nothing to go by instead.
    pub(super) fn start(
        now: Reading,
        boot: &str,
        kept: Option<&Kept>,
        traces: &[UnixMillis],
    ) -> Option<Self> {
        let off = OFF_DAYS_MAX * DAY_MILLIS;
        let begin = |offset: i64, expected: i64, ahead_max: i64, retention: UnixMillis| {
            let mut rule =
                Self { offset, expected, ahead_max, seen: now.running, retention, believed: false };
            rule.observe(now);
            rule
        };
        if let Some(kept) = kept {
            let same_boot = kept.boot == boot && kept.running <= now.running;
            // Of a machine that was restarted, nothing is known but that time has not gone back.
            let (since, ahead_max) = if same_boot { (kept.running, DAY_MILLIS) } else { (now.running, off) };
            let offset = kept.believed.0.saturating_sub(since);
            let expected = kept.expected.0.saturating_sub(since);
            return Some(begin(offset, expected, ahead_max, kept.retention));
        }
        // An earlier version believed any clock, so that a trace from the future says nothing.
        let past = |at: &UnixMillis| !now.is_representable() || *at <= now.wall.plus(DAY_MILLIS);
        let last = traces.iter().copied().filter(|at| (EARLIEST..END).contains(at)).filter(past).max();
        match last {
            Some(at) => {
                let offset = at.0.saturating_sub(now.running);
                Some(begin(offset, offset, off, at))
            }
            None if now.is_representable() => Some(begin(now.offset(), now.offset(), DAY_MILLIS, now.wall)),
            None => None,
        }
    }

    /// Looks at both clocks; to be called every few seconds. Returns whether the system's clock is believed.
    pub(super) fn observe(&mut self, now: Reading) -> bool {
        let elapsed = now.running.saturating_sub(self.seen).max(0);
        self.seen = now.running;
        let ahead = now.offset().saturating_sub(self.expected);
        self.believed = now.is_representable() && (-DAY_MILLIS..=self.ahead_max).contains(&ahead);
        if self.believed {
            self.offset = now.offset();
            // A machine was off only before the first time that its clock is believed.
            if self.ahead_max > DAY_MILLIS {
                self.expected = self.offset;
            } else {
                self.expected += ahead.clamp(-(elapsed / FOLLOWS), elapsed / FOLLOWS);
            }
            self.ahead_max = DAY_MILLIS;
            self.retention = self.retention.plus(elapsed.saturating_mul(RETENTION_SPEED)).min(now.wall);
        }
        self.believed
    }

    /// An operator says that the system's clock is right. `false`: it can't be.
    pub(super) fn confirm(&mut self, now: Reading) -> bool {
        if now.is_representable() {
            (self.offset, self.expected, self.ahead_max) = (now.offset(), now.offset(), DAY_MILLIS);
            self.observe(now);
        }
        now.is_representable()
    }

    /// What the system's clock is held against.
    pub(super) fn expected(&self, now: Reading) -> UnixMillis {
        UnixMillis(self.expected.saturating_add(now.running))
    }

    /// To be kept for the next daemon.
    pub(super) fn keep(&self, now: Reading, boot: &str) -> Kept {
        Kept {
            boot: boot.to_owned(),
            running: now.running,
            believed: UnixMillis(self.offset.saturating_add(now.running)),
            expected: self.expected(now),
            retention: self.retention,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = DAY_MILLIS;
    const HOUR: i64 = DAY / 24;
    /// 2026-11-30T00:00:00Z, and as long since the machine's start.
    const NOW: Reading = Reading { wall: UnixMillis(1_796_000_000_000), running: 5 * DAY };

    fn later(reading: Reading, running: i64, jump: i64) -> Reading {
        Reading { wall: reading.wall.plus(running + jump), running: reading.running + running }
    }

    fn fresh() -> Rule {
        Rule::start(NOW, "boot", None, &[]).expect("a good clock")
    }

    fn shows(rule: &Rule, at: Reading) -> UnixMillis {
        UnixMillis(rule.offset + at.running)
    }

    #[test]
    fn a_jump_of_more_than_a_day_is_not_believed_and_its_end_is() {
        for jump in
            [25_300 * DAY, 500 * DAY, 3652 * DAY, DAY + 1, -DAY - 1, -NOW.wall.0, i64::MIN / 4, i64::MAX / 4]
        {
            let mut rule = fresh();
            let at = later(NOW, HOUR, jump);
            assert!(!rule.observe(at), "{jump}");
            assert_eq!(shows(&rule, at), NOW.wall.plus(HOUR), "it runs on from the last believed time");
            assert!(rule.retention <= NOW.wall, "{jump}");
            let back = later(NOW, 2 * HOUR, 1);
            assert!(rule.observe(back));
            assert_eq!(shows(&rule, back), back.wall);
        }
    }

    #[test]
    fn corrections_are_followed_and_a_clock_that_creeps_away_is_not() {
        let (mut rule, mut at) = (fresh(), NOW);
        for _ in 0..1000 {
            at = later(at, DAY, HOUR / 2);
            assert!(rule.observe(at), "half an hour a day");
        }
        let mut believed = 0;
        for _ in 0..100 {
            at = later(at, HOUR, 20 * HOUR);
            believed += i32::from(rule.observe(at));
        }
        assert!(believed <= 1, "{believed} jumps of 20 hours each");
    }

    #[test]
    fn a_restart_is_no_way_around_it() {
        let kept = fresh().keep(NOW, "boot");
        let start = |at, boot| Rule::start(at, boot, Some(&kept), &[]).expect("something to go by");
        let jumped = later(NOW, 60_000, 3 * DAY);
        let same = start(jumped, "boot");
        assert!(!same.believed, "the machine ran on: three days can't have passed");
        assert_eq!(shows(&same, jumped), NOW.wall.plus(60_000));
        // The machine was on for two weeks, and the daemon was not.
        assert!(start(later(NOW, 14 * DAY, 0), "boot").believed);
        // The machine was off.
        let off = |days: i64| Reading { wall: NOW.wall.plus(days * DAY), running: 1000 };
        assert!(start(off(14), "other").believed);
        assert!(!start(off(500), "other").believed);
        assert!(!start(off(-2), "other").believed, "time does not go back");
        let old = Reading { wall: UnixMillis(0), running: 1000 };
        let mut rule = start(old, "other");
        assert_eq!(shows(&rule, old), NOW.wall, "as much as is known");
        assert!(rule.observe(Reading { running: 2000, ..off(3) }), "and then a time server answers");
        assert!(!rule.observe(Reading { running: 3000, ..off(9) }), "which it does once");
    }

    #[test]
    fn a_folder_of_an_earlier_version_goes_by_what_was_written_last() {
        let start = |at, traces: &[UnixMillis]| Rule::start(at, "boot", None, traces);
        let day = |days: i64| NOW.wall.plus(days * DAY);
        let first = start(NOW, &[day(-90), day(-3), UnixMillis(0)]).expect("known");
        assert!(first.believed && first.retention == day(-3), "what is deleted goes by what is known");
        assert!(!start(NOW, &[day(-40)]).expect("known").believed);
        assert!(start(NOW, &[day(4000)]).expect("known").believed, "written by a clock that was ahead");
        let never = Reading { wall: UnixMillis(0), ..NOW };
        assert!(!start(never, &[day(-3)]).expect("known").believed);
        assert!(start(never, &[]).is_none());
        assert!(start(Reading { wall: END, ..NOW }, &[]).is_none());
    }

    #[test]
    fn an_operator_is_believed_within_what_the_formats_hold() {
        let mut rule = fresh();
        let jumped = later(NOW, HOUR, 500 * DAY);
        assert!(!rule.observe(jumped) && rule.confirm(jumped));
        assert_eq!(shows(&rule, jumped), jumped.wall);
        assert!(rule.observe(later(jumped, HOUR, 0)));
        assert!(!rule.confirm(later(NOW, HOUR, 25_300 * DAY)));
    }

    #[test]
    fn what_deletes_lags_behind_a_jump_that_was_believed() {
        let mut rule = fresh();
        let mut at = later(NOW, HOUR, 30 * DAY);
        rule.confirm(at);
        assert_eq!(rule.retention, NOW.wall.plus(2 * HOUR));
        for days in 1..40 {
            at = later(at, DAY, 0);
            rule.observe(at);
            let lag = (at.wall.0 - rule.retention.0) / DAY;
            assert!((lag - (30 - days).max(0)).abs() <= 1, "{days}: {lag}");
        }
        assert_eq!(rule.retention, at.wall);
    }

    proptest! {
        #[test]
        fn it_shows_a_time_that_every_format_holds_and_no_jump(
            steps in proptest::collection::vec((0..2 * HOUR, prop_oneof![-HOUR..HOUR, any::<i64>()]), 1..50)
        ) {
            let (mut rule, mut at) = (fresh(), NOW);
            let mut before = shows(&rule, at);
            for (running, jump) in steps {
                at = Reading { wall: UnixMillis(at.wall.0.saturating_add(running).saturating_add(jump)), running: at.running + running };
                rule.observe(at);
                let now = shows(&rule, at);
                prop_assert!((EARLIEST..END).contains(&now));
                prop_assert!((now.0 - before.0 - running).abs() <= 2 * DAY);
                prop_assert!(rule.retention <= now);
                before = now;
            }
        }
    }
}
