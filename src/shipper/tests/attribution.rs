//! Conversions and clicks in any order, through restarts: what is decided is what the pure decision says of the whole
//! history.

use super::{fake::Faults, *};
use crate::core::{
    AccountId, Attribution, Candidate, ClickId, Matching, Model, Question, Traffic, Unattributed, decide,
};

const SETTLE_MILLIS: i64 = 5000;

/// At that many milliseconds into November.
pub(super) struct At(pub(super) i64);

impl Clock for At {
    fn now(&self) -> UnixMillis {
        UnixMillis(NOVEMBER + self.0)
    }
}

/// A click of visitor 7 of account 1, made and accepted then.
pub(super) fn clicked(id: u32, at: i64) -> Click {
    let at = UnixMillis(NOVEMBER + at);
    let (id, of) = (ClickId(id.into()), click(id));
    let (key, traffic) = (None, Traffic::Human);
    Click { id, key, traffic, clicked_at: at, received_at: at, visitor_key: 7, ..of }
}

/// A conversion of visitor 7 of account 1, made and accepted then.
pub(super) fn converted(n: u32, at: i64) -> Conversion {
    let at = UnixMillis(NOVEMBER + at);
    Conversion { converted_at: at, received_at: at, matching: Matching::Keys(vec![7]), ..conversion(n) }
}

fn naming(id: u64, of: Conversion) -> Conversion {
    Conversion { click_id: Some(ClickId(id)), ..of }
}

impl Rig {
    /// Takes steps at that time until nothing is left to do, or told to stop.
    async fn ship_at(&self, at: i64, stop: bool) -> Step {
        let mut around = self.start(LIMITS, i64::MAX);
        around.clock = Box::new(At(at));
        if stop {
            around.stop.cancel();
        }
        let mut worker = Worker::open(&around).expect("opened");
        loop {
            let did = worker.step(&mut around).await.expect("no error");
            if did != Step::Worked {
                return did;
            }
        }
    }

    /// Every conversion of the history was decided as the pure decision says, and everything adds up.
    pub(super) fn verify_decisions(&self, records: &[Record], seed: u64) {
        self.verify();
        let clicks = records.iter().filter_map(|record| match record {
            Record::Click(click) => Some(Candidate::new(click, Arc::default())),
            _ => None,
        });
        let clicks: Vec<_> = clicks.collect();
        for record in records {
            let Record::Conversion(conversion) = record else { continue };
            let Attribution { outcome, candidates } =
                decide(&Question::of(conversion, SETTLE_MILLIS), &clicks, Model::Last);
            let store = self.warehouse.store();
            let stored = store.rows().find_map(|row| match row {
                Row::Conversion(row) if row.conversion.id == conversion.id => Some(row.clone()),
                _ => None,
            });
            let stored = stored.expect("shipped");
            let earned = store.rows().find_map(|row| match row {
                Row::Attribution(row) if row.conversion_id == conversion.id => Some(row.earned.click_id),
                _ => None,
            });
            let expected = outcome.as_ref().ok().map(|earned| earned.click_id);
            assert_eq!(earned, expected, "seed {seed}: {conversion:?}");
            assert_eq!(stored.attribution.err(), outcome.err(), "seed {seed}: {conversion:?}");
            assert_eq!(stored.candidates, candidates, "seed {seed}: {conversion:?}");
        }
    }

    /// What was decided: the click, or why there is none.
    pub(super) fn decided(&self, n: u32) -> Option<Result<u64, Unattributed>> {
        let store = self.warehouse.store();
        let stored = store.rows().find_map(|row| match row {
            Row::Conversion(row) if row.conversion.id == id(n) => Some(row.attribution),
            _ => None,
        })?;
        Some(stored.map(|_| {
            let earned = store.rows().find_map(|row| match row {
                Row::Attribution(row) if row.conversion_id == id(n) => Some(row.earned.click_id.0),
                _ => None,
            });
            earned.expect("an attributed conversion has its row")
        }))
    }
}

async fn rig(records: Vec<Record>) -> Rig {
    let mut rig = Rig::new(Warehouse::new(Faults::none()));
    rig.append(records).await;
    rig
}

#[tokio::test]
async fn a_conversion_that_overtakes_its_click_finds_it() {
    let records = vec![
        Record::Conversion(converted(1, 1000)),
        Record::Conversion(naming(9, converted(2, 1000))),
        Record::Click(Click { clicked_at: UnixMillis(NOVEMBER), ..clicked(9, 6000) }),
    ];
    let rig = rig(records).await;
    // One record a batch: the click is behind both.
    let mut around = rig.start(Limits { rows_max: 1, ..LIMITS }, i64::MAX);
    around.clock = Box::new(At(60_000));
    run_until_idle(&mut around).await.expect("shipped");
    assert_eq!((rig.decided(1), rig.decided(2)), (Some(Ok(9)), Some(Ok(9))));
    rig.verify();
}

/// ClickHouse was away for an hour, everything is in one batch: when it is decided does not matter.
#[tokio::test]
async fn a_click_that_comes_after_the_settling_time_is_too_late_for_ever() {
    let records = vec![
        Record::Conversion(converted(1, 1000)),
        Record::Conversion(naming(9, converted(2, 1000))),
        Record::Click(Click { clicked_at: UnixMillis(NOVEMBER), ..clicked(9, 6001) }),
        Record::Conversion(converted(3, 6002)),
    ];
    let rig = rig(records).await;
    assert_eq!(rig.ship_at(3_600_000, false).await, Step::Idle);
    assert_eq!(rig.decided(1), Some(Err(Unattributed::NoCandidate)));
    assert_eq!(rig.decided(2), Some(Err(Unattributed::ClickNotFound)));
    assert_eq!(rig.decided(3), Some(Ok(9)));
}

#[tokio::test]
async fn told_to_stop_while_it_waits_it_leaves_the_batch_to_the_next_start() {
    let mut rig = rig(vec![Record::Conversion(converted(1, 1000))]).await;
    assert_eq!(rig.ship_at(2000, true).await, Step::Stopped);
    assert_eq!(rig.decided(1), None);
    assert_eq!(rig.checkpoint().position.lsn, 0);
    rig.append(vec![Record::Click(Click { clicked_at: UnixMillis(NOVEMBER), ..clicked(9, 3000) })]).await;
    assert_eq!(rig.ship_at(6000, true).await, Step::Stopped, "old enough, it is shipped while stopping");
    assert_eq!(rig.decided(1), Some(Ok(9)));
    rig.verify();
}

#[tokio::test]
async fn what_can_not_meet_a_click_waits_for_nothing_and_asks_nothing() {
    let mut rig = rig(vec![
        Record::Conversion(Conversion { matching: Matching::Unknown, ..converted(1, 1000) }),
        Record::Conversion(Conversion { matching: Matching::PrivateAddress, ..converted(2, 1000) }),
        Record::Click(clicked(9, 500)),
        Record::Conversion(naming(9, converted(3, 1000))),
    ])
    .await;
    // Told to stop, a batch that had to wait would stay.
    rig.ship_at(1000, true).await;
    assert_eq!(rig.decided(1), Some(Err(Unattributed::NoVisitor)));
    assert_eq!(rig.decided(2), Some(Err(Unattributed::PrivateAddress)));
    assert_eq!(rig.decided(3), Some(Ok(9)));
    assert_eq!(rig.warehouse.store().click_queries, 0);
    // After a restart the click is in ClickHouse alone: one look, no waiting.
    rig.append(vec![Record::Conversion(naming(9, converted(4, 2000)))]).await;
    rig.ship_at(2000, true).await;
    assert_eq!(rig.decided(4), Some(Ok(9)));
    assert_eq!(rig.warehouse.store().click_queries, 1);
}

#[tokio::test]
async fn two_accounts_never_meet_not_even_under_one_key() {
    let theirs = Click { account_id: AccountId(2), ..clicked(9, 0) };
    let mut rig = rig(vec![
        Record::Click(theirs.clone()),
        Record::Conversion(converted(1, 1000)),
        Record::Conversion(naming(9, converted(2, 1000))),
    ])
    .await;
    rig.ship_at(60_000, false).await;
    // The same with their click in ClickHouse alone, and with a conversion of theirs in the batch.
    let mine = Conversion { account_id: AccountId(2), ..converted(5, 61_000) };
    let records = [converted(3, 61_000), naming(9, converted(4, 61_000)), mine].map(Record::Conversion);
    rig.append(records.to_vec()).await;
    rig.ship_at(120_000, false).await;
    for (by_visitor, by_id) in [(1, 2), (3, 4)] {
        assert_eq!(rig.decided(by_visitor), Some(Err(Unattributed::NoCandidate)));
        assert_eq!(rig.decided(by_id), Some(Err(Unattributed::ClickNotFound)));
    }
    assert_eq!(rig.decided(5), Some(Ok(9)));
}

#[tokio::test]
async fn a_click_that_does_not_count_earns_nothing() {
    let first = Click { key: Some(OrderKey(77)), visitor_key: 8, ..clicked(9, 0) };
    let mut rig = rig(vec![Record::Click(first)]).await;
    rig.ship_at(1000, false).await;
    let again = Click { key: Some(OrderKey(77)), unverified: true, ..clicked(9, 2000) };
    rig.append(vec![Record::Conversion(converted(1, 1500)), Record::Click(again)]).await;
    let mut around = rig.start(Limits { rows_max: 1, ..LIMITS }, i64::MAX);
    around.clock = Box::new(At(60_000));
    run_until_idle(&mut around).await.expect("shipped");
    assert_eq!(rig.decided(1), Some(Err(Unattributed::NoCandidate)));
    assert_eq!(rig.checkpoint().totals.kinds[Kind::Click].duplicates, 1);
}

/// One record a batch, or all in one; and the click in ClickHouse before its report comes, or in the log with it.
#[tokio::test]
async fn the_report_of_an_issued_number_neither_counts_nor_earns() {
    for (rows_max, settled_first) in [(1, true), (1, false), (100, true), (100, false)] {
        // Of a visitor that nobody looks for; its report says visitor 7.
        let mut rig = rig(vec![Record::Click(Click { visitor_key: 8, ..clicked(9, 0) })]).await;
        if settled_first {
            rig.ship_at(1000, false).await;
        }
        let report = Click { key: Some(OrderKey(77)), unverified: true, ..clicked(9, 2000) };
        let early = Click { clicked_at: UnixMillis(NOVEMBER + 1000), ..report };
        rig.append(vec![Record::Conversion(converted(1, 1500)), Record::Click(early)]).await;
        let mut around = rig.start(Limits { rows_max, ..LIMITS }, i64::MAX);
        around.clock = Box::new(At(60_000));
        run_until_idle(&mut around).await.expect("shipped");
        assert_eq!(rig.decided(1), Some(Err(Unattributed::NoCandidate)), "{rows_max} {settled_first}");
        assert_eq!(rig.checkpoint().totals.kinds[Kind::Click].duplicates, 1);
        assert_eq!(rig.warehouse.store().rows().filter(|row| matches!(row, Row::Click(_))).count(), 1);
        rig.verify();
    }
}

/// More clicks behind the batch than memory keeps, so that the click of the number is not kept and its report is asked for.
#[tokio::test]
async fn the_report_of_a_click_that_memory_has_no_room_for_earns_nothing() {
    let issued = 124;
    for (reported, expected) in [(issued, Err(Unattributed::NoCandidate)), (500, Ok(500))] {
        let mut records = vec![Record::Conversion(converted(1, 1000))];
        records.extend((100..=issued).map(|n| Record::Click(Click { visitor_key: 8, ..clicked(n, 1500) })));
        let (key, clicked_at) = (Some(OrderKey(77)), UnixMillis(NOVEMBER));
        records.push(Record::Click(Click { key, unverified: true, clicked_at, ..clicked(reported, 2000) }));
        let rig = rig(records).await;
        let mut around = rig.start(Limits { rows_max: 1, ..LIMITS }, i64::MAX);
        around.clock = Box::new(At(60_000));
        run_until_idle(&mut around).await.expect("shipped");
        assert_eq!(rig.decided(1), Some(expected));
        rig.verify();
    }
}

#[tokio::test]
async fn later_clicks_do_not_crowd_out_the_one_that_earned_it() {
    let mut records = vec![Record::Click(clicked(1, 0))];
    records.extend((2..1300).map(|n| Record::Click(clicked(n, 60_000 + i64::from(n)))));
    let mut rig = rig(records).await;
    rig.ship_at(3_600_000, false).await;
    let past = Conversion { converted_at: UnixMillis(NOVEMBER + 30_000), ..converted(1, 100_000) };
    rig.append(vec![Record::Conversion(past), Record::Conversion(converted(2, 100_000))]).await;
    rig.ship_at(3_600_000, false).await;
    assert_eq!((rig.decided(1), rig.decided(2)), (Some(Ok(1)), Some(Ok(1299))));
}

/// Clicks and conversions of few accounts and visitors, in the order in which they are accepted.
pub(super) fn history(seed: u64, count: u32) -> Vec<Record> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut at = 0;
    (1..=count)
        .map(|n| {
            at += random.random_range(0..3000);
            let account_id = AccountId(random.random_range(1..3));
            let earlier = UnixMillis(NOVEMBER + at - [0, 400, 5000, 30_000][random.random_range(0..4)]);
            let visitor = random.random_range(5..9);
            if random.random_range(0..3) > 0 {
                let traffic = if random.random_range(0..5) == 0 { Traffic::Bot } else { Traffic::Human };
                let private_address = random.random_range(0..8) == 0;
                let (visitor_key, clicked_at) = (visitor, earlier);
                let click = clicked(n, at);
                return Record::Click(Click {
                    account_id,
                    clicked_at,
                    traffic,
                    visitor_key,
                    private_address,
                    ..click
                });
            }
            let (converted_at, window_seconds) = (earlier, random.random_range(0..40));
            let matching = match random.random_range(0..8) {
                0 => Matching::Unknown,
                1 => Matching::PrivateAddress,
                2 | 3 => Matching::Keys(vec![visitor, visitor + 1]),
                _ => Matching::Keys(vec![visitor]),
            };
            let of = Conversion { account_id, converted_at, window_seconds, matching, ..converted(n, at) };
            let named = u64::from(random.random_range(1..=count));
            Record::Conversion(if random.random_range(0..3) == 0 { naming(named, of) } else { of })
        })
        .collect()
}

#[tokio::test]
async fn any_history_through_any_crash_is_decided_as_the_pure_decision_says() {
    for seed in 0..40 {
        let records = history(seed, 60);
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::new(Warehouse::new(Faults::random(seed)));
        for some in records.chunks(25) {
            rig.append(some.to_vec()).await;
            // What has not settled yet stays: the rest of the history has not come.
            let now = some.last().map_or(0, |last| last.received_at().0 - NOVEMBER);
            rig.ship_at(now, true).await;
        }
        rig.ship(LIMITS, [random.random_range(0..60)]).await;
        rig.verify_decisions(&records, seed);
    }
}
