//! The decision against a slow model that says the rules one after the other, and at its borders.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::{AccountId, Matching, Traffic};

const DAY: i64 = 86_400;

/// A click of account 1 by visitor 7 at that second, accepted at once.
fn click(id: u64, at_seconds: i64) -> Candidate {
    Candidate {
        account_id: AccountId(1),
        click_id: ClickId(id),
        link_id: Some(LinkId(3)),
        clicked_at: UnixMillis(at_seconds * 1000),
        received_at: UnixMillis(at_seconds * 1000),
        traffic: Traffic::Human,
        visitor_key: 7,
        private_address: false,
        labels: Arc::default(),
    }
}

/// A conversion of account 1 at that second, accepted at once, with 5 seconds to settle.
fn question(matching: &Matching, at_seconds: i64, window_days: u32) -> Question<'_> {
    Question {
        account_id: AccountId(1),
        click_id: None,
        matching,
        converted_at: UnixMillis(at_seconds * 1000),
        window_seconds: window_days * 86_400,
        settled_at: UnixMillis(at_seconds * 1000 + 5000),
    }
}

fn visitor() -> Matching {
    Matching::Keys(vec![7])
}

fn outcome(question: &Question<'_>, clicks: &[Candidate]) -> Result<(u64, u32), Unattributed> {
    decide(question, clicks, Model::Last).outcome.map(|earned| (earned.click_id.0, earned.seconds_to_convert))
}

/// The same borders hold for a click that is named and for one that is found.
fn both_ways(
    clicked_at: UnixMillis,
    converted_at: UnixMillis,
    window_days: u32,
) -> Result<u32, Unattributed> {
    let clicks = [Candidate { clicked_at, ..click(1, 0) }];
    let keys = visitor();
    let found =
        Question { converted_at, settled_at: UnixMillis(i64::MAX), ..question(&keys, 0, window_days) };
    let named = Question { click_id: Some(ClickId(1)), ..found.clone() };
    let seconds = outcome(&found, &clicks).map(|(_, seconds)| seconds);
    assert_eq!(outcome(&named, &clicks).map(|(_, seconds)| seconds), seconds);
    seconds
}

#[test]
fn the_window_holds_to_the_second_at_both_ends() {
    let at = |seconds: i64, millis: i64| UnixMillis(seconds * 1000 + millis);
    let seconds_apart = |seconds| both_ways(at(0, 0), at(seconds, 0), 30);
    assert_eq!(seconds_apart(0), Ok(0));
    assert_eq!(seconds_apart(-1), Err(Unattributed::AfterConversion));
    assert_eq!(seconds_apart(30 * DAY), Ok(30 * 86_400));
    assert_eq!(seconds_apart(30 * DAY + 1), Err(Unattributed::OutsideWindow));
    // Parts of a second count for neither side.
    assert_eq!(both_ways(at(0, 999), at(0, 0), 30), Ok(0));
    assert_eq!(both_ways(at(1, 0), at(0, 999), 30), Err(Unattributed::AfterConversion));
    assert_eq!(both_ways(at(0, 0), at(30 * DAY, 999), 30), Ok(30 * 86_400));
    assert_eq!(both_ways(at(0, 999), at(30 * DAY + 1, 0), 30), Err(Unattributed::OutsideWindow));
    // Before 1970 as after it.
    assert_eq!(both_ways(UnixMillis(-1), UnixMillis(0), 30), Ok(1));
}

#[test]
fn a_day_counts_from_the_click() {
    let day = |n: i64| UnixMillis((n - 1) * DAY * 1000 + 43_200_000);
    assert_eq!(both_ways(day(1), day(1), 1), Ok(0), "window of a day, the same day");
    assert_eq!(both_ways(day(1), day(2), 1), Ok(86_400), "window of a day, a day later");
    assert_eq!(both_ways(day(1), day(2).plus(1000), 1), Err(Unattributed::OutsideWindow));
    assert_eq!(both_ways(day(1), day(5), 30), Ok(4 * 86_400), "clicked on the 1st, converted on the 5th");
    assert_eq!(both_ways(day(1), day(35), 30), Err(Unattributed::OutsideWindow), "on the 35th day");
}

#[test]
fn the_newest_click_wins_or_the_oldest() {
    let keys = visitor();
    let question = question(&keys, 100, 30);
    let clicks = [click(2, 50), click(9, 40), click(3, 50), click(4, 101)];
    let wins = |model| decide(&question, &clicks, model).outcome.map(|earned| earned.click_id.0);
    assert_eq!(wins(Model::Last), Ok(3), "of the same millisecond, the greater number");
    assert_eq!(wins(Model::First), Ok(9));
    assert_eq!(decide(&question, &clicks, Model::First).candidates, 3);
}

#[test]
fn a_click_that_came_after_the_conversion_settled_does_not_count() {
    let keys = visitor();
    let found = question(&keys, 100, 30);
    let named = Question { click_id: Some(ClickId(1)), ..found.clone() };
    let received = |millis| [Candidate { received_at: UnixMillis(millis), ..click(1, 90) }];
    assert_eq!(outcome(&found, &received(105_000)), Ok((1, 10)));
    assert_eq!(outcome(&named, &received(105_000)), Ok((1, 10)));
    assert_eq!(outcome(&found, &received(105_001)), Err(Unattributed::NoCandidate));
    assert_eq!(outcome(&named, &received(105_001)), Err(Unattributed::ClickNotFound));
}

#[test]
fn a_named_click_is_taken_as_it_is_and_never_guessed() {
    let keys = visitor();
    let named = Question { click_id: Some(ClickId(8)), ..question(&keys, 100, 30) };
    let bot = Candidate { traffic: Traffic::Bot, visitor_key: 0, private_address: true, ..click(8, 60) };
    let attribution = decide(&named, &[click(1, 90), bot], Model::Last);
    assert_eq!(attribution.candidates, 1);
    let earned = attribution.outcome.expect("attributed");
    assert_eq!(
        (earned.method, earned.click_id, earned.seconds_to_convert),
        (Method::ClickId, ClickId(8), 40)
    );
    assert_eq!(outcome(&named, &[click(1, 90)]), Err(Unattributed::ClickNotFound));
    let theirs = Candidate { account_id: AccountId(2), ..click(8, 60) };
    assert_eq!(outcome(&named, &[theirs]), Err(Unattributed::ClickNotFound));
}

#[test]
fn whoever_can_not_be_told_apart_is_not_looked_for() {
    let clicks = [click(1, 90)];
    assert_eq!(outcome(&question(&Matching::Unknown, 100, 30), &clicks), Err(Unattributed::NoVisitor));
    let private = question(&Matching::PrivateAddress, 100, 30);
    assert_eq!(outcome(&private, &clicks), Err(Unattributed::PrivateAddress));
}

#[test]
fn every_candidate_is_told_why() {
    use Verdict::{
        AfterConversion, ArrivedTooLate, Bot, NotNamed, OlderThanWindow, OtherAccount, OtherVisitor,
        Outranked, PrivateAddress, Won,
    };
    let keys = Matching::Keys(vec![7, 8]);
    let asked = question(&keys, 10 * DAY, 5);
    let at = 9 * DAY;
    let clicks = [
        click(1, at),
        Candidate { visitor_key: 8, ..click(2, at + 1) },
        click(3, at - 5 * DAY),
        click(4, 10 * DAY + 1),
        Candidate { received_at: UnixMillis(i64::MAX), ..click(5, at) },
        Candidate { traffic: Traffic::Bot, ..click(6, at) },
        Candidate { traffic: Traffic::Prefetch, ..click(7, at) },
        Candidate { private_address: true, ..click(8, at) },
        Candidate { visitor_key: 9, ..click(9, at) },
        Candidate { account_id: AccountId(2), ..click(10, at) },
    ];
    let expected = [
        Outranked,
        Won,
        OlderThanWindow,
        AfterConversion,
        ArrivedTooLate,
        Bot,
        Bot,
        PrivateAddress,
        OtherVisitor,
        OtherAccount,
    ];
    assert_eq!(explain(&asked, &clicks, Model::Last), expected);
    assert_eq!(explain(&asked, &clicks, Model::First)[..2], [Won, Outranked]);
    let named = Question { click_id: Some(ClickId(6)), ..asked };
    let verdicts = explain(&named, &clicks, Model::Last);
    assert_eq!((verdicts[0], verdicts[5], verdicts[9]), (NotNamed, Won, OtherAccount));
}

/// A history in which collisions are likely: few accounts, visitors, seconds.
fn history() -> impl Strategy<Value = Vec<Candidate>> {
    let traffic = prop::sample::select(vec![Traffic::Human, Traffic::Human, Traffic::Bot, Traffic::Prefetch]);
    let one = (1..3u32, 0..4u64, -2000..40_000i64, 0..12_000i64, traffic, prop::bool::weighted(0.1));
    proptest::collection::vec(one, 0..30).prop_map(|clicks| {
        let click = |(id, (account, visitor, clicked, delay, traffic, private_address))| Candidate {
            account_id: AccountId(account),
            clicked_at: UnixMillis(clicked),
            received_at: UnixMillis(clicked + delay),
            traffic,
            visitor_key: visitor,
            private_address,
            ..super::tests::click(id, 0)
        };
        (1u64..).zip(clicks).map(click).collect()
    })
}

fn matchings() -> impl Strategy<Value = Matching> {
    prop_oneof![
        6 => prop::sample::subsequence(vec![0, 1, 2, 3u64], 1..4).prop_map(Matching::Keys),
        1 => Just(Matching::PrivateAddress),
        1 => Just(Matching::Unknown),
    ]
}

/// The rules, one after the other, in plain words.
fn slow(question: &Question<'_>, clicks: &[Candidate], model: Model) -> (Result<u64, Unattributed>, usize) {
    let mut mine: Vec<&Candidate> = clicks.iter().filter(|c| c.account_id == question.account_id).collect();
    mine.retain(|c| c.received_at <= question.settled_at);
    if let Some(named) = question.click_id {
        mine.retain(|c| c.click_id == named);
        if mine.is_empty() {
            return (Err(Unattributed::ClickNotFound), 0);
        }
    } else {
        match question.matching {
            Matching::Unknown => return (Err(Unattributed::NoVisitor), 0),
            Matching::PrivateAddress => return (Err(Unattributed::PrivateAddress), 0),
            Matching::Keys(keys) => mine.retain(|c| c.visitor_key != 0 && keys.contains(&c.visitor_key)),
        }
        mine.retain(|c| c.traffic == Traffic::Human && !c.private_address);
        if mine.is_empty() {
            return (Err(Unattributed::NoCandidate), 0);
        }
    }
    let second = |at: UnixMillis| at.0.div_euclid(1000);
    let converted = second(question.converted_at);
    let before: Vec<_> = mine.iter().filter(|c| second(c.clicked_at) <= converted).collect();
    if before.is_empty() {
        return (Err(Unattributed::AfterConversion), 0);
    }
    let earliest = converted - i64::from(question.window_seconds);
    let mut in_window: Vec<_> = before.into_iter().filter(|c| second(c.clicked_at) >= earliest).collect();
    in_window.sort_by_key(|c| (c.clicked_at, c.click_id));
    let winner = match model {
        Model::Last => in_window.last(),
        Model::First => in_window.first(),
    };
    (winner.map(|c| c.click_id.0).ok_or(Unattributed::OutsideWindow), in_window.len())
}

proptest! {
    #[test]
    fn decides_as_the_rules_say_in_whatever_order_clicks_come(
        clicks in history(),
        matching in matchings(),
        named in proptest::option::weighted(0.3, 1..32u64),
        converted in 0..40_000i64,
        delay in 0..5000i64,
        window_seconds in 0..30u32,
        settle in 0..6000i64,
        first: bool,
        shuffled in any::<prop::sample::Index>(),
    ) {
        let model = if first { Model::First } else { Model::Last };
        let question = Question {
            account_id: AccountId(1),
            click_id: named.map(ClickId),
            matching: &matching,
            converted_at: UnixMillis(converted),
            window_seconds,
            settled_at: UnixMillis(converted + delay + settle),
        };
        let attribution = decide(&question, &clicks, model);
        let (expected, candidates) = slow(&question, &clicks, model);
        let winner = attribution.outcome.as_ref().map(|earned| earned.click_id.0).map_err(|reason| *reason);
        prop_assert_eq!(winner, expected);
        prop_assert_eq!(usize::from(attribution.candidates), candidates);

        let mut other_order = clicks.clone();
        if !clicks.is_empty() {
            other_order.rotate_left(shuffled.index(clicks.len()));
            other_order.reverse();
        }
        prop_assert_eq!(&decide(&question, &other_order, model), &attribution);

        let verdicts = explain(&question, &clicks, model);
        let told = |verdict| verdicts.iter().filter(|v| **v == verdict).count();
        prop_assert_eq!(told(Verdict::Won), usize::from(expected.is_ok()));
        prop_assert_eq!(told(Verdict::Won) + told(Verdict::Outranked), candidates);
        for (click, verdict) in clicks.iter().zip(&verdicts) {
            prop_assert_eq!(*verdict == Verdict::OtherAccount, click.account_id != AccountId(1));
            prop_assert_eq!(*verdict == Verdict::Won, Ok(click.click_id.0) == expected);
        }
    }
}
