//! Submissions on a real log, with a key table that says what the test wants.

use std::{
    collections::HashSet,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::FutureExt as _;

use super::*;
use crate::{
    core::{
        AccountId, Campaign, ClickSource, Currency, GoalId, Money, OrderId, SUBS, Source, Traffic, UnixMillis,
    },
    dedup::{Filter, KeyRef, KeySource, KnownKey, LookupUnavailable, SECRET_BYTES},
    wal::{Config, Position},
};

const NOW: UnixMillis = UnixMillis(1_793_534_400_000);

/// Knows nothing; counts what it is asked, and fails after so many queries.
#[derive(Clone)]
struct Table {
    asked: Arc<AtomicUsize>,
    answers: usize,
}

impl KeySource for Table {
    async fn known_keys(
        &self,
        keys: &[KeyRef],
        _: UnixMillis,
    ) -> Result<Vec<Option<KnownKey>>, LookupUnavailable> {
        if self.asked.fetch_add(1, Ordering::Relaxed) < self.answers {
            Ok(vec![None; keys.len()])
        } else {
            Err(LookupUnavailable)
        }
    }
}

struct Fixture {
    intake: Intake,
    wal: Wal,
    ledger: Arc<Ledger>,
    asked: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

/// How a fixture differs from the usual.
struct Setup {
    warm: bool,
    keys_in_flight_max: usize,
    answers: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { warm: true, keys_in_flight_max: 100_000, answers: usize::MAX }
    }
}

impl Fixture {
    fn new(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let wal = open_log(folder.path());
        let dedup = Arc::new(Dedup::new(setup.keys_in_flight_max, Filter::with_capacity(0)));
        if setup.warm {
            dedup.set_warm();
        }
        let asked = Arc::new(AtomicUsize::new(0));
        let (lookup, lookups) = Lookup::new(Table { asked: asked.clone(), answers: setup.answers });
        tokio::spawn(lookups);
        let ledger = Arc::<Ledger>::default();
        let shared = IntakeShared::new(Parts {
            wal: wal.clone(),
            dedup,
            lookup,
            hasher: KeyHasher::new(&[7; SECRET_BYTES]),
            ip_storage: IpStorage::Truncated,
            visitors: Arc::new(Visitors::open(folder.path(), 400, false, NOW, Some(NOW)).expect("keys")),
            click_ids: Arc::new(ClickIds::open(folder.path(), NOW).expect("a lease")),
            ledger: ledger.clone(),
            ack_seconds: Arc::new(Histogram::new(&[1])),
        });
        let appender = wal.appender(0);
        tokio::spawn(appender.pump());
        Self { intake: Intake::new(Arc::new(shared), appender), wal, ledger, asked, _folder: folder }
    }

    /// Waits for what the gate holds.
    async fn open(&self, gate: &Gate) -> bool {
        std::future::poll_fn(|context| gate.poll_open(context)).await.is_ok()
    }

    /// Every record of the log.
    fn records(&self) -> Vec<Record> {
        let mut reader = self.wal.reader(Position::START).expect("readable");
        let mut records = Vec::new();
        while let Some(entry) = reader.next().expect("intact") {
            records.push(payload::decode(entry.payload).expect("a record"));
        }
        records
    }
}

fn open_log(folder: &Path) -> Wal {
    let config = Config {
        dir: folder.join("wal"),
        segment_bytes: 32 << 20,
        spool_bytes_max: 1 << 30,
        disk_free_bytes_min: 0,
        appenders: 2,
    };
    Wal::open(config, Position::START).expect("a log")
}

fn click(id: Option<u64>) -> ClickSubmission {
    ClickSubmission {
        account_id: AccountId(1),
        link_id: None,
        click_id: id.map(ClickId),
        clicked_at: NOW.plus(-1000),
        received_at: NOW,
        source: ClickSource::Api,
        traffic: Traffic::Human,
        campaign: Campaign::default(),
        variant: String::new(),
        subs: [const { String::new() }; SUBS],
        ip: "203.0.113.77".parse().ok(),
        user_agent: "ua".into(),
    }
}

fn hit(order_id: &str, value: &str) -> Submission {
    Submission {
        account_id: AccountId(1),
        goal_id: GoalId(1),
        order_id: OrderId::parse(order_id).expect("fits"),
        idempotency_key: None,
        value: Money::parse(value).expect("an amount"),
        currency: Currency::USD,
        click_id: None,
        ip: "10.0.0.1".parse().ok(),
        user_agent: "ua".into(),
        source: Source::Api,
        received_at: NOW,
        converted_at: NOW,
        window_seconds: 86_400,
    }
}

#[tokio::test]
async fn a_number_is_one_click_of_its_account() {
    let it = Fixture::new(&Setup::default());
    let gate = it.intake.gate();
    let other = ClickSubmission { account_id: AccountId(2), ..click(Some(7)) };
    let outcomes = it.intake.clicks(vec![click(Some(7)), click(Some(7)), other], &gate).await;
    let id = ClickId(7);
    assert_eq!(outcomes, [ClickOutcome::New(id), ClickOutcome::Duplicate(id), ClickOutcome::New(id)]);
    assert_eq!(it.intake.click(click(Some(7)), &gate).await, ClickOutcome::Duplicate(id));
    assert!(it.open(&gate).await);
    let records = it.records();
    let clicks: Vec<_> = records
        .iter()
        .map(|record| match record {
            Record::Click(click) => click,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(clicks.iter().map(|click| click.account_id.0).collect::<Vec<_>>(), [1, 2]);
    assert!(clicks.iter().all(|click| click.is_matchable() && click.key.is_some() && !click.unverified));
    assert_ne!(clicks[0].visitor_key, clicks[1].visitor_key, "one visitor, two accounts");
    assert_eq!(clicks[0].ip.map(|ip| ip.to_string()).as_deref(), Some("203.0.113.0"));
    assert_eq!(it.ledger.terms(Kind::Click).accepted, 2);
}

#[tokio::test]
async fn issued_numbers_differ_and_have_no_key() {
    let it = Fixture::new(&Setup::default());
    let gate = it.intake.gate();
    let outcomes = it.intake.clicks(vec![click(None); 100], &gate).await;
    let ids: HashSet<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            ClickOutcome::New(id) => id.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 100);
    assert!(it.open(&gate).await);
    let keyless = |record: &Record| matches!(record, Record::Click(click) if click.key.is_none());
    assert!(it.records().iter().all(keyless));
}

#[tokio::test]
async fn a_number_that_was_issued_here_is_left_to_the_shipper() {
    let it = Fixture::new(&Setup::default());
    let gate = it.intake.gate();
    let ClickOutcome::New(issued) = it.intake.click(click(None), &gate).await else { panic!("not new") };
    let outcomes = it.intake.clicks(vec![click(Some(issued.0)), click(Some(7))], &gate).await;
    assert_eq!(outcomes, [ClickOutcome::Unverified(issued), ClickOutcome::New(ClickId(7))]);
    assert_eq!(it.intake.click(click(Some(issued.0)), &gate).await, ClickOutcome::Duplicate(issued));
}

#[tokio::test]
async fn copies_inside_of_a_group_stand_on_the_first() {
    let it = Fixture::new(&Setup::default());
    let gate = it.intake.gate();
    let outcomes =
        it.intake.submit_all(vec![hit("A", "1"), hit("B", "1"), hit("A", "2"), hit("A", "1")], &gate);
    let outcomes = outcomes.await;
    let Outcome::New(original) = outcomes[0] else { panic!("{outcomes:?}") };
    assert!(matches!(outcomes[1], Outcome::New(_)));
    assert_eq!(outcomes[2], Outcome::Duplicate { original, conflict: true });
    assert_eq!(outcomes[3], Outcome::Duplicate { original, conflict: false });
    assert!(it.open(&gate).await);
    assert_eq!(it.records().len(), 2);
}

#[tokio::test]
async fn a_group_that_finds_no_room_leaves_neither_record_nor_key() {
    let it = Fixture::new(&Setup::default());
    let gate = it.intake.gate();
    let outcomes = it.intake.clicks((1..=20_000).map(|id| click(Some(id))).collect(), &gate).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, ClickOutcome::Overloaded { .. })));
    assert!(it.intake.shared.dedup.in_flight().is_empty());
    assert_eq!(it.intake.click(click(Some(1)), &gate).await, ClickOutcome::New(ClickId(1)), "free");
    assert!(it.open(&gate).await);
    assert_eq!((it.records().len(), it.ledger.terms(Kind::Click).accepted), (1, 1));
}

#[tokio::test]
async fn a_map_that_is_full_leaves_the_rest_unverified() {
    let it = Fixture::new(&Setup { keys_in_flight_max: 2, ..Setup::default() });
    let gate = it.intake.gate();
    let outcomes = it.intake.clicks((1..=4).map(|id| click(Some(id))).collect(), &gate).await;
    let unverified = |id| ClickOutcome::Unverified(ClickId(id));
    assert_eq!(outcomes[..2], [ClickOutcome::New(ClickId(1)), ClickOutcome::New(ClickId(2))]);
    assert_eq!(outcomes[2..], [unverified(3), unverified(4)]);
    assert!(it.open(&gate).await);
    let flagged = |record: &Record| matches!(record, Record::Click(click) if click.unverified);
    assert_eq!(it.records().iter().filter(|record| flagged(record)).count(), 2);
}

#[tokio::test]
async fn a_silent_key_table_is_not_asked_for_the_rest_of_a_group() {
    let it = Fixture::new(&Setup { warm: false, answers: 1, ..Setup::default() });
    let gate = it.intake.gate();
    let outcomes = it.intake.clicks((1..=5_000).map(|id| click(Some(id))).collect(), &gate).await;
    let new = outcomes.iter().filter(|outcome| matches!(outcome, ClickOutcome::New(_))).count();
    let unverified = outcomes.iter().filter(|outcome| matches!(outcome, ClickOutcome::Unverified(_))).count();
    assert_eq!((new, unverified), (1_000, 4_000));
    assert_eq!(it.asked.load(Ordering::Relaxed), 2, "one answer, one failure");
    assert!(it.open(&gate).await);
}

#[tokio::test]
async fn an_idempotency_key_makes_one_adjustment_of_an_account() {
    let it = Fixture::new(&Setup::default());
    let gate = it.intake.gate();
    let refund = |account, key: Option<&str>, after| AdjustmentSubmission {
        account_id: AccountId(account),
        conversion_id: ConversionId(uuid::Uuid::from_u128(7)),
        kind: crate::core::AdjustmentKind::Refund,
        value: None,
        idempotency_key: key.map(str::to_owned),
        reason: "broken".into(),
        received_at: NOW.plus(after),
    };
    let AdjustOutcome::New(first) = it.intake.adjust(refund(1, Some("k"), 0), &gate).await else {
        panic!("not new")
    };
    let again = it.intake.adjust(refund(1, Some("k"), 86_399_999), &gate).await;
    assert_eq!(again, AdjustOutcome::Duplicate { original: first, sameness: Sameness::Same });
    let another_conversion = AdjustmentSubmission {
        conversion_id: ConversionId(uuid::Uuid::from_u128(8)),
        ..refund(1, Some("k"), 1)
    };
    let another_value = AdjustmentSubmission { value: Money::parse("1").ok(), ..refund(1, Some("k"), 1) };
    let another_reason = AdjustmentSubmission { reason: "late".into(), ..refund(1, Some("k"), 1) };
    let another_kind =
        AdjustmentSubmission { kind: crate::core::AdjustmentKind::Reject, ..refund(1, Some("k"), 1) };
    for other in [another_conversion, another_value, another_reason, another_kind] {
        let reused = it.intake.adjust(other, &gate).await;
        assert_eq!(reused, AdjustOutcome::Duplicate { original: first, sameness: Sameness::Different });
    }
    for other in [refund(2, Some("k"), 0), refund(1, Some("K"), 0), refund(1, None, 0), refund(1, None, 0)] {
        assert!(matches!(it.intake.adjust(other, &gate).await, AdjustOutcome::New(id) if id != first));
    }
    let next_day = it.intake.adjust(refund(1, Some("k"), 86_400_000), &gate).await;
    assert!(matches!(next_day, AdjustOutcome::New(_)));
    assert!(it.open(&gate).await);
    assert_eq!(it.ledger.terms(Kind::Adjustment).accepted, 6);
}

#[tokio::test]
async fn a_visit_says_whether_it_is_recorded() {
    let it = Fixture::new(&Setup::default());
    let redirect = || ClickSubmission { source: ClickSource::Redirect, ..click(None) };
    let id = it.intake.issue_click_id(AccountId(1), NOW);
    assert!(it.intake.visit(redirect(), id).await);
    drop(it.intake.visit(redirect(), it.intake.issue_click_id(AccountId(1), NOW)));
    let third = it.intake.visit(redirect(), it.intake.issue_click_id(AccountId(1), NOW)).await;
    assert!(third && it.records().len() == 3, "a dropped future loses no click");
    assert!(matches!(&it.records()[0], Record::Click(click) if click.id == id && click.key.is_none()));
    let log = it.wal.clone();
    tokio::task::spawn_blocking(move || log.close()).await.expect("closed");
    assert!(!it.intake.visit(redirect(), it.intake.issue_click_id(AccountId(1), NOW)).await);
    assert_eq!(it.ledger.terms(Kind::Click).accepted, 3);
}

/// The other worker has the click, and the disk is slow: the visitor was sent on before it was durable.
#[tokio::test]
async fn the_report_of_an_issued_number_stands_behind_its_click() {
    for in_group in [false, true] {
        let it = Fixture::new(&Setup::default());
        let other = it.wal.appender(1);
        let slow = Intake::new(it.intake.shared.clone(), other.clone());
        let id = slow.issue_click_id(AccountId(1), NOW);
        let visit = slow.visit(ClickSubmission { source: ClickSource::Redirect, ..click(None) }, id);
        let report = click(Some(id.0));
        let gate = it.intake.gate();
        let reporting = async {
            if in_group {
                it.intake.clicks(vec![click(Some(1)), report], &gate).await.swap_remove(1)
            } else {
                it.intake.click(report, &gate).await
            }
        };
        let mut reporting = std::pin::pin!(reporting);
        assert!(reporting.as_mut().now_or_never().is_none(), "it waits for the click");
        tokio::spawn(other.pump());
        assert_eq!(reporting.await, ClickOutcome::Unverified(id));
        assert!(visit.await && it.open(&gate).await);
        let keyed = |record: Record| matches!(record, Record::Click(click) if click.key.is_some());
        let keyed: Vec<bool> = it.records().into_iter().map(keyed).collect();
        assert_eq!(keyed[..2], [false, true]);
    }
}

#[tokio::test]
async fn a_number_that_the_account_has_reported_is_not_issued_to_it() {
    let it = Fixture::new(&Setup::default());
    let gate = it.intake.gate();
    let next = it.intake.issue_click_id(AccountId(1), NOW).0 + 1;
    // One in the map, one in the filter.
    assert_eq!(it.intake.click(click(Some(next)), &gate).await, ClickOutcome::Unverified(ClickId(next)));
    it.intake.shared.dedup.filter().insert(it.intake.shared.hasher.click(AccountId(1), ClickId(next + 1)));
    assert_eq!(it.intake.issue_click_id(AccountId(1), NOW), ClickId(next + 2));
    assert!(it.open(&gate).await);
}

/// The record's size against what its group makes room for.
fn assert_fits<S: Item>(it: &Fixture, item: &S) {
    let mut bytes = Vec::new();
    let key = KeyRef {
        goal: GoalId(u32::MAX),
        key: crate::core::OrderKey(u128::MAX),
        scope: crate::core::DedupScope::Day,
    };
    item.encode(&it.intake.shared, item.id(&it.intake.shared), Some(key), true, &mut bytes);
    assert!(bytes.len() <= item.bytes_max(), "{} > {}", bytes.len(), item.bytes_max());
}

#[tokio::test]
async fn no_record_is_larger_than_its_group_makes_room_for() {
    let it = Fixture::new(&Setup::default());
    let long = |bytes| "x".repeat(bytes);
    let ip = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().ok();
    for days in [1, 30, 365, 3650] {
        assert_fits(
            &it,
            &Submission {
                account_id: AccountId(u32::MAX),
                goal_id: GoalId(u32::MAX),
                order_id: OrderId::parse(&long(255)).expect("fits"),
                value: Money::from_micros(10u64.pow(18) - 1).expect("fits"),
                converted_at: NOW.plus(-400 * 86_400_000),
                window_seconds: days * 86_400,
                ip,
                user_agent: long(512),
                ..hit("", "1")
            },
        );
    }
    assert_fits(
        &it,
        &ClickSubmission {
            account_id: AccountId(u32::MAX),
            link_id: Some(crate::core::LinkId(u32::MAX)),
            click_id: Some(ClickId(crate::core::INTEGER_MAX)),
            clicked_at: NOW.plus(-3650 * 86_400_000),
            campaign: Campaign {
                source: long(128),
                medium: long(128),
                campaign: long(128),
                term: long(128),
                content: long(128),
            },
            variant: long(128),
            subs: std::array::from_fn(|_| long(128)),
            ip,
            user_agent: long(512),
            ..click(None)
        },
    );
    assert_fits(
        &it,
        &AdjustmentSubmission {
            account_id: AccountId(u32::MAX),
            conversion_id: ConversionId(uuid::Uuid::from_u128(u128::MAX)),
            kind: crate::core::AdjustmentKind::Refund,
            value: Money::from_micros(10u64.pow(18) - 1),
            idempotency_key: Some(long(255)),
            reason: long(500),
            received_at: NOW,
        },
    );
}
