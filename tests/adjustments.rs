//! Refunds, corrections, approvals and rejections through the running daemon: gross stays, net changes, everywhere.

mod support;

use serde_json::{Value, json};
use support::accounts::audit;
use support::command::{data, post};
use support::daemon::Site;
use support::wait_for;

fn adjust(site: &Site, conversion: &str, what: &Value, key: Option<&str>) -> (u16, Value) {
    let path = format!("/api/v1/conversions/{conversion}/adjustments");
    data(&post(site, &path, &json!({ "adjustment": what }), key))
}

/// Waits until the conversion shows that many adjustments.
fn wait_adjusted(site: &Site, conversion: &str, count: usize) -> Value {
    let path = format!("/api/v1/conversions/{conversion}");
    let mut last = Value::Null;
    wait_for("the adjustments", || {
        last = site.api(&path)["data"].clone();
        last["adjustments"].as_array().map(Vec::len) == Some(count)
    });
    last
}

#[test]
fn gross_stays_and_net_changes() {
    let site = Site::start(&[]);
    site.wait_warm();
    let goal = site.goals(1).remove(0);
    let conversions: Vec<String> = (0..3)
        .map(|n| {
            let (_, tracked) = data(&site.track(&goal, &format!("ORDER-{n}")));
            tracked["conversion_id"].as_str().expect("an id").to_owned()
        })
        .collect();
    site.wait_inserted(3);

    let unknown = "01890000-0000-7000-8000-000000000000";
    assert_eq!(adjust(&site, unknown, &json!({"type": "reject"}), None).0, 404);
    let (status, refund) = adjust(
        &site,
        &conversions[0],
        &json!({"type": "refund", "value": "2.50", "reason": "damaged"}),
        None,
    );
    assert_eq!((status, refund["net_value"].clone()), (201, "10.00".into()));
    wait_adjusted(&site, &conversions[0], 1);
    let (_, corrected) = adjust(&site, &conversions[0], &json!({"type": "correction", "value": 5}), None);
    assert_eq!(corrected["net_value"], "2.50", "less the refund");
    let (status, rejected) = adjust(&site, &conversions[1], &json!({"type": "reject"}), Some("k-1"));
    assert_eq!(
        (status, rejected["net_value"].clone(), rejected["net_conversions"].clone()),
        (201, "0.00".into(), 0.into())
    );
    let (status, again) = adjust(&site, &conversions[1], &json!({"type": "reject"}), Some("k-1"));
    assert_eq!((status, again["duplicate"].clone()), (200, true.into()));
    assert_eq!(again["adjustment_id"], rejected["adjustment_id"], "it is the first one's");

    let first = wait_adjusted(&site, &conversions[0], 2);
    assert_eq!((first["value"].clone(), first["net_value"].clone()), ("12.50".into(), "2.50".into()));
    assert_eq!(wait_adjusted(&site, &conversions[1], 1)["net_conversions"], 0);
    wait_adjusted(&site, &conversions[2], 0);
    let list = site.api(&format!("/api/v1/conversions/{}/adjustments", conversions[0]));
    assert_eq!(
        (list["data"][0]["reason"].clone(), list["pagination"]["total"].clone()),
        ("damaged".into(), 2.into())
    );

    wait_for("the statistics", || {
        let report = site.api("/api/v1/analytics/conversions?days=2")["data"].clone();
        let totals = (report["total_value"]["EUR"].clone(), report["net_value"]["EUR"].clone());
        totals == ("37.50".into(), "15.00".into()) && report["net_conversions"] == 2
    });
    audit(&site);
}

/// A key belongs to one call: of one conversion, and with one body.
#[test]
fn a_used_idempotency_key_never_passes_for_another_call() {
    let mut site = Site::start(&[]);
    site.wait_warm();
    let goal = site.goals(1).remove(0);
    let [first, second] = ["ORDER-1", "ORDER-2"].map(|order| {
        let (_, tracked) = data(&site.track(&goal, order));
        tracked["conversion_id"].as_str().expect("an id").to_owned()
    });
    site.wait_inserted(2);
    let refund = json!({"type": "refund", "value": 1, "reason": "damaged"});
    let (status, kept) = adjust(&site, &first, &refund, Some("k"));
    assert_eq!(status, 201, "{kept}");
    let check = |site: &Site| {
        let (status, again) = adjust(site, &first, &refund, Some("k"));
        assert_eq!((status, &again["adjustment_id"]), (200, &kept["adjustment_id"]), "{again}");
        let other = json!({"type": "refund", "value": 2, "reason": "damaged"});
        for (conversion, body) in [(&second, &refund), (&first, &other), (&second, &other)] {
            let path = format!("/api/v1/conversions/{conversion}/adjustments");
            let answer = post(site, &path, &json!({ "adjustment": body }), Some("k"));
            assert!(
                answer.status == 422 && answer.text().contains("idempotency_key_reused"),
                "{}",
                answer.text()
            );
        }
    };
    // In flight, or settled a moment ago.
    check(&site);
    wait_adjusted(&site, &first, 1);
    check(&site);
    // Of what memory held nothing is left: the key table names the adjustment, and its row says what it was.
    site.wait_settled();
    site.kill();
    site.restart();
    site.wait_warm();
    check(&site);
    assert_eq!(wait_adjusted(&site, &first, 1)["net_value"], "11.50");
    wait_adjusted(&site, &second, 0);
    audit(&site);

    // Of many calls at once under one key one is kept, and each of the others is told the truth.
    let outcomes: Vec<(u16, u32)> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|n: u32| {
                let (site, second) = (&site, &second);
                scope.spawn(move || {
                    let refund = json!({"type": "refund", "value": 1 + n % 2});
                    (adjust(site, second, &refund, Some("at once")).0, 1 + n % 2)
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("no panic")).collect()
    });
    let of = |wanted: u16| outcomes.iter().filter(move |(status, _)| *status == wanted);
    assert_eq!((of(201).count(), of(200).count(), of(422).count()), (1, 3, 4), "{outcomes:?}");
    let value = of(201).next().expect("one").1;
    assert!(
        of(200).all(|(_, same)| *same == value) && of(422).all(|(_, other)| *other != value),
        "{outcomes:?}"
    );
    wait_adjusted(&site, &second, 1);
}

#[test]
fn adjustments_survive_a_kill() {
    let mut site = Site::start(&[]);
    site.wait_warm();
    let goal = site.goals(1).remove(0);
    let (_, tracked) = data(&site.track(&goal, "ORDER-1"));
    let conversion = tracked["conversion_id"].as_str().expect("an id").to_owned();
    site.wait_inserted(1);
    for n in 1..=4 {
        // Just started, the engine may be busy: then the answer says so, and the same key makes it safe to ask again.
        let refund = json!({"type": "refund", "value": 1});
        let mut status = 0;
        wait_for("the adjustment", || {
            status = adjust(&site, &conversion, &refund, Some(&format!("k-{n}"))).0;
            status != 503
        });
        assert!(status == 201 || status == 202, "{status}");
        site.kill();
        site.restart();
    }
    assert_eq!(wait_adjusted(&site, &conversion, 4)["net_value"], "8.50");
    // A key is still known after the restart, by ClickHouse or by the log.
    site.wait_warm();
    wait_for("the duplicate", || {
        let (status, again) = adjust(&site, &conversion, &json!({"type": "refund", "value": 1}), Some("k-2"));
        (status, again["duplicate"].clone()) == (200, true.into())
    });
    wait_for("the statistics", || {
        site.api("/api/v1/analytics/conversions?days=2")["data"]["net_value"]["EUR"] == "8.50"
    });
    audit(&site);
}
