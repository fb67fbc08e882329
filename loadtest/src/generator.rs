//! A deterministic stream of hits: which goal, which order, and whether it is new, a copy or wrong; and of clicks
//! between them.
//!
//! The stream of a seed never changes. Everything about an order (its id, its goal, its value) follows from the run and
//! its sequence number, so a copy is byte for byte the hit that it copies.

use crate::clicks;
use crate::rng::{SplitMix64, scramble};
use crate::text::ShortText;

/// How many orders back a late copy may reach.
const RECENT_MAX: usize = 4096;
/// How many clicks back a copy of a click may reach: it comes well before an order names that click.
const RECENT_CLICKS_MAX: u64 = clicks::LAG / 4;

/// What share of all hits is what; the rest is new hits with an order id of their own. Clicks come on top.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// Copies of the order sent just before: mostly while that one is still under way.
    pub repeats: f64,
    /// Copies of any of the last few thousand orders: mostly after it was answered.
    pub late_copies: f64,
    /// Hits that must be refused.
    pub bad: f64,
    /// Hits without an order id, never deduplicated.
    pub anonymous: f64,
    /// New clicks for each hit. Copies of clicks come on top, with the share that copies have of hits.
    pub clicks_per_hit: u32,
}

impl Mix {
    /// Nothing but new orders.
    pub const NEW_ONLY: Self =
        Self { repeats: 0.0, late_copies: 0.0, bad: 0.0, anonymous: 0.0, clicks_per_hit: 0 };

    /// Copies (half of them immediate), bad and anonymous hits by share.
    #[must_use]
    pub fn with(duplicates: f64, bad: f64, anonymous: f64) -> Self {
        Self { repeats: duplicates / 2.0, late_copies: duplicates / 2.0, bad, anonymous, ..Self::NEW_ONLY }
    }

    /// The same with so many clicks for each hit; orders name clicks then.
    #[must_use]
    pub const fn and_clicks(self, clicks_per_hit: u32) -> Self {
        Self { clicks_per_hit, ..self }
    }
}

/// What is wrong with a bad hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The JSON ends early.
    Malformed,
    /// A value below zero.
    NegativeValue,
    /// A currency that ISO 4217 does not have.
    UnknownCurrency,
    /// A token of no goal.
    UnknownToken,
}

/// What the sender knows about a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HitKind {
    /// An order never sent before.
    New,
    /// A copy of the order sent just before.
    Repeat,
    /// A copy of an earlier order.
    LateCopy,
    /// No order id.
    Anonymous,
    /// To be refused.
    Bad(Fault),
    /// A click, not a conversion; perhaps a copy of an earlier one.
    Click,
}

/// One hit to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// What it is.
    pub kind: HitKind,
    /// Index into the list of goals.
    pub goal: usize,
    /// Number of the order in its run, or of the click; copies share it.
    pub sequence: u64,
}

/// The stream.
#[derive(Debug)]
pub struct Generator {
    rng: SplitMix64,
    run: u32,
    mix: Mix,
    goals: usize,
    sequence: u64,
    /// Hits and new clicks so far.
    hits: u64,
    clicks: u64,
    last: Option<u64>,
    recent: Vec<u64>,
}

impl Generator {
    /// The stream of `seed` over `goals` goals (at least one). `stream` tells apart streams of one seed that run at once.
    #[must_use]
    pub fn new(seed: u64, stream: u32, mix: Mix, goals: usize) -> Self {
        let mixed = scramble(seed ^ scramble(u64::from(stream) + 1));
        Self {
            rng: SplitMix64::new(mixed),
            run: run_of(mixed),
            mix,
            goals: goals.max(1),
            sequence: 0,
            hits: 0,
            clicks: 0,
            last: None,
            recent: Vec::new(),
        }
    }

    /// The first half of every order id of this stream.
    #[must_use]
    pub const fn run(&self) -> u32 {
        self.run
    }

    /// The next hit.
    pub fn next_hit(&mut self) -> Hit {
        let Mix { repeats, late_copies, bad, anonymous, clicks_per_hit } = self.mix;
        if self.clicks < self.hits * u64::from(clicks_per_hit) {
            return self.next_click();
        }
        self.hits += 1;
        let draw = self.rng.unit();
        if draw < bad {
            let fault = match self.rng.below(4) {
                0 => Fault::Malformed,
                1 => Fault::NegativeValue,
                2 => Fault::UnknownCurrency,
                _ => Fault::UnknownToken,
            };
            return self.fresh(HitKind::Bad(fault));
        }
        if draw < bad + anonymous {
            return self.fresh(HitKind::Anonymous);
        }
        if draw < bad + anonymous + repeats
            && let Some(sequence) = self.last
        {
            return self.hit(HitKind::Repeat, sequence);
        }
        if draw >= bad + anonymous + repeats
            && draw < bad + anonymous + repeats + late_copies
            && !self.recent.is_empty()
        {
            let pick = self.rng.below(self.recent.len() as u64);
            let sequence = self.recent[usize::try_from(pick).unwrap_or(0)];
            return self.hit(HitKind::LateCopy, sequence);
        }
        let hit = self.fresh(HitKind::New);
        self.remember(hit.sequence);
        hit
    }

    fn next_click(&mut self) -> Hit {
        // At most every other click is a copy, or there might be nothing but copies.
        let copies = (self.mix.repeats + self.mix.late_copies).min(0.5);
        if self.clicks > 0 && copies > 0.0 && self.rng.unit() < copies {
            let back = 1 + self.rng.below(self.clicks.min(RECENT_CLICKS_MAX));
            return self.hit(HitKind::Click, self.clicks - back);
        }
        self.clicks += 1;
        self.hit(HitKind::Click, self.clicks - 1)
    }

    fn fresh(&mut self, kind: HitKind) -> Hit {
        let sequence = self.sequence;
        self.sequence += 1;
        self.hit(kind, sequence)
    }

    fn hit(&self, kind: HitKind, sequence: u64) -> Hit {
        let goal = usize::try_from(sequence % self.goals as u64).unwrap_or(0);
        Hit { kind, goal, sequence }
    }

    /// A ring: the newest order takes the place of the oldest.
    fn remember(&mut self, sequence: u64) {
        self.last = Some(sequence);
        if self.mix.late_copies <= 0.0 {
            return;
        }
        if self.recent.len() < RECENT_MAX {
            self.recent.push(sequence);
        } else {
            self.recent[usize::try_from(sequence % RECENT_MAX as u64).unwrap_or(0)] = sequence;
        }
    }
}

/// Length of every order id.
pub const ORDER_ID_BYTES: usize = 21;

/// The order id of `sequence` in `run`, always [`ORDER_ID_BYTES`] long so that requests can be rendered ahead of time.
#[must_use]
pub fn order_id(run: u32, sequence: u64) -> [u8; ORDER_ID_BYTES] {
    let mut id = [b'-'; ORDER_ID_BYTES];
    hex(&mut id[..8], u64::from(run));
    hex(&mut id[9..], sequence);
    id
}

/// The same as a text.
#[must_use]
pub fn order_text(run: u32, sequence: u64) -> Option<ShortText> {
    ShortText::from_bytes(&order_id(run, sequence))
}

/// The value of an order in hundredths, five digits.
#[must_use]
pub const fn value_cents(sequence: u64) -> u64 {
    10_000 + scramble(sequence) % 90_000
}

const fn run_of(mixed: u64) -> u32 {
    (scramble(mixed) >> 32) as u32
}

fn hex(target: &mut [u8], mut value: u64) {
    for digit in target.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(seed: u64, stream: u32, count: usize) -> Vec<Hit> {
        let mix = Mix { repeats: 0.05, late_copies: 0.1, bad: 0.02, anonymous: 0.03, clicks_per_hit: 0 };
        let mut generator = Generator::new(seed, stream, mix, 3);
        (0..count).map(|_| generator.next_hit()).collect()
    }

    #[test]
    fn a_seed_always_gives_the_same_hits() {
        assert_eq!(take(42, 0, 5_000), take(42, 0, 5_000));
        assert_ne!(take(42, 0, 100), take(43, 0, 100));
        assert_ne!(take(42, 0, 100), take(42, 1, 100));
    }

    #[test]
    fn streams_of_one_seed_share_no_order_id() {
        let run = |stream| Generator::new(42, stream, Mix::NEW_ONLY, 1).run();
        assert_ne!(run(0), run(1));
    }

    #[test]
    fn the_mix_is_kept_within_a_few_per_mille() {
        let hits = take(7, 0, 200_000);
        let share = |wanted: fn(&HitKind) -> bool| {
            f64::from(u32::try_from(hits.iter().filter(|hit| wanted(&hit.kind)).count()).unwrap()) / 200_000.0
        };
        for (found, wanted) in [
            (share(|kind| *kind == HitKind::Repeat), 0.05),
            (share(|kind| *kind == HitKind::LateCopy), 0.1),
            (share(|kind| matches!(kind, HitKind::Bad(_))), 0.02),
            (share(|kind| *kind == HitKind::Anonymous), 0.03),
            (share(|kind| *kind == HitKind::New), 0.8),
        ] {
            assert!((found - wanted).abs() < 0.004, "{found} instead of {wanted}");
        }
    }

    #[test]
    fn copies_copy_an_order_that_was_sent_and_new_ones_never_do() {
        let mut sent = std::collections::HashSet::new();
        let mut last = None;
        for hit in take(1, 0, 50_000) {
            match hit.kind {
                HitKind::New => {
                    assert!(sent.insert(hit.sequence));
                    last = Some(hit);
                }
                HitKind::Repeat => {
                    assert_eq!(Some((hit.sequence, hit.goal)), last.map(|l| (l.sequence, l.goal)));
                }
                HitKind::LateCopy => assert!(sent.contains(&hit.sequence)),
                HitKind::Anonymous | HitKind::Bad(_) => assert!(!sent.contains(&hit.sequence)),
                HitKind::Click => panic!("no clicks were asked for"),
            }
        }
    }

    #[test]
    fn orders_name_clicks_that_were_sent_and_are_not_sent_again() {
        let mut generator = Generator::new(3, 0, Mix::with(0.2, 0.02, 0.05).and_clicks(2), 3);
        let (mut sent, mut copies, mut named) = (0, 0, 0);
        for _ in 0..50_000 {
            let hit = generator.next_hit();
            match hit.kind {
                HitKind::Click if hit.sequence == sent => sent += 1,
                HitKind::Click => {
                    assert!(hit.sequence < sent && hit.sequence + RECENT_CLICKS_MAX >= sent);
                    copies += 1;
                }
                HitKind::New => {
                    if let Some(click) = clicks::named(hit.sequence, 2) {
                        assert!(click + clicks::LAG <= sent, "it can no longer be sent");
                        named += 1;
                    }
                }
                _ => {}
            }
        }
        assert!(sent > 25_000 && copies > 4_000 && named > 5_000, "{sent} {copies} {named}");
    }

    #[test]
    fn order_ids_have_one_length() {
        assert_eq!(&order_id(0xAB, 0x1F), b"000000ab-00000000001f");
        assert_eq!(&order_id(u32::MAX, (1 << 48) - 1), b"ffffffff-ffffffffffff");
        assert!((10_000..100_000).contains(&value_cents(99)));
    }
}
