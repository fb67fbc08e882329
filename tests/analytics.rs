//! Reports over clicks and conversions say what the raw tables say, of every period, span and group, by either basis, by
//! the run of attribution in force: random histories on a real engine.

mod analytics_support;
mod support;

use std::collections::BTreeMap;

use analytics_support::history::{insert_all, random_click, random_conversion, random_history, reattribute};
use analytics_support::model::{Raw, assert_consistent, comparable};
use analytics_support::{DAY, HOUR};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use support::engine::{NOVEMBER, fresh_database};
use support::faults::daemon::{Start, Tally, folder};
use support::faults::wait_for;
use tally::core::{
    AccountId, Basis, ConversionQuery, ConversionReport, Currency, GoalId, Group, GroupBy, GroupKey, LinkId,
    Money, UnixMillis,
};

fn random_query(random: &mut StdRng, by: Option<GroupBy>) -> ConversionQuery {
    let first = random.random_range(0..9 * 24);
    let hours = random.random_range(1..6 * 24);
    let step = [1, 7, 24][random.random_range(0..3)];
    let at = |hour: i64| UnixMillis(NOVEMBER + hour * HOUR);
    let one = |random: &mut StdRng, n: u32| Some(random.random_range(1..4)).filter(|_| n == 0);
    let (goal, link) = (random.random_range(0..3), random.random_range(0..3));
    ConversionQuery {
        account_id: AccountId(random.random_range(1..4)),
        goal_id: one(random, goal).map(GoalId),
        link_id: one(random, link).map(LinkId),
        basis: if random.random_range(0..2) == 0 { Basis::Conversion } else { Basis::Click },
        group_by: by,
        before: at(first - hours),
        starts: (first..first + hours).step_by(step).map(at).collect(),
        to: at(first + hours),
    }
}

#[tokio::test]
async fn totals_series_and_groups_are_what_the_raw_tables_say() {
    let database = fresh_database().await;
    let mut random = StdRng::seed_from_u64(7);
    insert_all(&database, 1, &random_history(&mut random)).await;
    let mut attributed = BTreeMap::new();
    for in_force in [0, 1] {
        if in_force == 1 {
            reattribute(&database).await;
            assert_eq!(database.groups_off().await.expect("compared"), [], "statistics of the run");
        }
        let raw = Raw::read(&database, in_force).await;
        let groupings = [None].into_iter().chain(GroupBy::ALL.map(Some));
        for by in groupings.cycle().take(40) {
            let query = random_query(&mut random, by);
            let report = database.conversion_report(&query).await.expect("reported");
            assert_eq!(comparable(&report), comparable(&raw.report(&query)), "run {in_force}: {query:?}");
            assert_consistent(&query, &report);
            *attributed.entry((in_force, query.basis == Basis::Click)).or_default() +=
                report.whole.attributed;
        }
    }
    assert!(attributed.len() == 4 && attributed.values().all(|sum: &u64| *sum > 100), "{attributed:?}");
}

/// Two hundred sources, each with as many conversions as its number says.
#[tokio::test]
async fn groups_are_the_best_hundred_and_the_rest() {
    let database = fresh_database().await;
    let mut random = StdRng::seed_from_u64(8);
    let (mut clicks, mut conversions) = (Vec::new(), Vec::new());
    for n in 0..200u32 {
        let mut counted = random_click(&mut random, n.into());
        counted.labelled = true;
        counted.click.account_id = AccountId(1);
        counted.click.campaign.source = format!("it's source \\{n}\"");
        for _ in 0..n % 20 {
            let number = u32::try_from(conversions.len()).expect("few");
            let mut of = random_conversion(&mut random, std::slice::from_ref(&counted), number);
            of.conversion.value = Money::from_micros(1_000_000 + u64::from(n)).expect("fits");
            of.conversion.currency = Currency::USD;
            conversions.push(of);
        }
        clicks.push(counted);
    }
    insert_all(&database, 1, &(clicks, conversions, Vec::new())).await;
    let raw = Raw::read(&database, 0).await;
    for basis in [Basis::Conversion, Basis::Click] {
        let query = ConversionQuery {
            account_id: AccountId(1),
            goal_id: None,
            link_id: None,
            basis,
            group_by: Some(GroupBy::UtmSource),
            before: UnixMillis(NOVEMBER - 20 * DAY),
            starts: vec![UnixMillis(NOVEMBER - HOUR)],
            to: UnixMillis(NOVEMBER + 20 * DAY),
        };
        let report = database.conversion_report(&query).await.expect("reported");
        assert!(report.groups_truncated);
        assert_consistent(&query, &report);
        let expected = raw.report(&query);
        assert_eq!(comparable(&report).whole, expected.whole);
        let named: Vec<_> =
            report.groups.iter().filter(|group| matches!(group.key, GroupKey::Text(_))).collect();
        assert_eq!(named.len(), 100);
        let other = report.groups.last().expect("the rest");
        assert_eq!(other.key, GroupKey::Other);
        let least = named.iter().map(|group| group.measures.conversions()).min().expect("a hundred");
        for Group { key, measures } in &expected.groups {
            match report.groups.iter().find(|group| group.key == *key) {
                Some(group) => assert_eq!(group.measures.by_currency, measures.by_currency, "{key:?}"),
                None => assert!(measures.conversions() <= least, "{key:?}"),
            }
        }
        // States of the rest are put together, not added: nobody counts twice.
        assert!(other.measures.visitors <= 100 && other.measures.clicks == 100, "{other:?}");
    }
}

#[tokio::test]
async fn an_account_without_anything_sees_nothing() {
    let database = fresh_database().await;
    let mut random = StdRng::seed_from_u64(9);
    insert_all(&database, 1, &random_history(&mut random)).await;
    reattribute(&database).await;
    for by in [None].into_iter().chain(GroupBy::ALL.map(Some)) {
        for basis in [Basis::Conversion, Basis::Click] {
            let query = ConversionQuery {
                account_id: AccountId(3),
                goal_id: None,
                link_id: None,
                basis,
                before: UnixMillis(NOVEMBER - 20 * DAY),
                starts: vec![UnixMillis(NOVEMBER - HOUR)],
                to: UnixMillis(NOVEMBER + 20 * DAY),
                group_by: by,
            };
            let report = database.conversion_report(&query).await.expect("reported");
            assert_eq!(report, ConversionReport::default(), "{query:?}");
        }
    }
}

/// Through the daemon: what is asked is what is answered, names stand beside numbers, no account sees another, and no
/// word of a caller becomes part of a statement.
#[test]
fn the_daemon_answers_each_account_about_itself() {
    let folder = folder();
    let tally = Tally::start(&folder.path().join("data"), &Start::default());
    let ask = |key: &str, query: &str| {
        tally.api_with(key, &format!("GET /api/v1/analytics/conversions?{query}"), "")
    };
    let data = |key: &str, query: &str| {
        let answer = ask(key, query);
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        answer.json()["data"].clone()
    };
    let one = tally.api_key();
    let made = tally.api("POST /api/v1/accounts", r#"{"account":{"name":"two","plan":"pro"}}"#);
    let two = made.json()["data"]["api_key"].as_str().expect("a key").to_owned();
    let create = |key: &str, path: &str, body: &str| {
        let answer = tally.api_with(key, &format!("POST {path}"), body);
        assert!(matches!(answer.status, 200..=202), "{path}: {answer:?}");
        answer.json()["data"].clone()
    };
    let mut told = Vec::new();
    for (key, sales) in [(&one, 3u32), (&two, 5)] {
        let goal =
            create(key, "/api/v1/conversions/goals", r#"{"goal":{"name":"It's a 'sale'","currency":"EUR"}}"#);
        let link = create(
            key,
            "/api/v1/links",
            r#"{"link":{"name":"Winter \"sale\"","destination_url":"https://shop.example/"}}"#,
        );
        let (token, link) = (goal["postback_token"].as_str().expect("a token"), &link["id"]);
        for n in 1..=10 {
            let click = format!(
                r#"{{"click_id":{n},"link_id":{link},"ip":"203.0.113.{n}","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0","utm_source":"it's \\ {}"}}"#,
                n % 2
            );
            create(key, "/api/v1/clicks", &click);
        }
        for n in 1..=sales {
            let body = format!(r#"{{"postback_token":"{token}","click_id":{n},"value":"{n}.50"}}"#);
            create(key, "/api/v1/conversions/track", &body);
        }
        told.push((key.clone(), sales, goal["id"].clone(), link.clone()));
    }
    for (key, sales, goal, link) in &told {
        wait_for("the conversions", || {
            // The database may still be starting.
            let answer = ask(key, "days=1");
            let data = if answer.status == 200 { answer.json()["data"].clone() } else { Value::Null };
            data["attributed"] == *sales && data["human_clicks"] == 10
        });
        for basis in ["conversion", "click"] {
            for (by, name, groups) in [
                ("goal", "It's a 'sale'", 1),
                ("link", "Winter \"sale\"", 1),
                // Quotes and backslashes are left out of labels.
                ("utm_source", "its  1", 2),
                ("currency", "EUR", 1),
            ] {
                let query = format!("days=2&interval=hour&group_by={by}&basis={basis}");
                let data = data(key, &query);
                assert_eq!(data["conversions"], *sales, "{query}");
                assert_eq!(data["conversion_rate"], f64::from(*sales) * 10.0, "{query}");
                assert_eq!(data["unique_rate"], f64::from(*sales) * 10.0, "{query}");
                assert_eq!(data["groups"].as_array().map(Vec::len), Some(groups), "{query}: {data}");
                assert_eq!(data["groups"][0]["name"], name, "{query}");
                assert_eq!(data["change"]["conversions"]["percent"], Value::Null);
                let series = data["series"].as_array().expect("a series").iter();
                assert_eq!(
                    series.map(|span| span["conversions"].as_u64().expect("a number")).sum::<u64>(),
                    u64::from(*sales)
                );
            }
        }
        let narrowed = data(key, &format!("days=1&link_id={link}&goal_id={goal}"));
        assert_eq!(
            (narrowed["conversions"].clone(), narrowed["clicks"].clone()),
            ((*sales).into(), 10.into())
        );
    }
    let (first, second) = (&told[0], &told[1]);
    let foreign = data(&first.0, &format!("link_id={}&group_by=link", second.3));
    assert_eq!((foreign["clicks"].clone(), foreign["conversions"].clone()), (0.into(), 0.into()));
    assert_eq!(foreign["groups"], serde_json::json!([]));
    let refused = ask(&first.0, &format!("goal_id={}", second.2));
    assert_eq!((refused.status, refused.code().as_str()), (404, "goal_not_found"));

    for query in [
        "group_by=link%20UNION%20ALL%20SELECT%201",
        "group_by=account_id",
        "basis=click'",
        "interval=day)%3B%20DROP%20TABLE%20tally.clicks",
        "tz=UTC'%20OR%201%3D1%20--",
        "tz=..%2F..%2F..%2Fetc%2Fpasswd",
        "tz=%00",
        "link_id=1%20OR%201%3D1",
        "link_id=18446744073709551616",
        "goal_id=-1",
        "days=99999999999999999999999",
        "days=400&interval=hour",
        "from=2026-01-01'&to=2026-01-02",
        "from=-9999-01-01&to=9999-12-31",
    ] {
        let answer = ask(&first.0, query);
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{query}");
    }
}
