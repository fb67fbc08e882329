//! Invariant 3: an order that only ClickHouse knows, sent again while ClickHouse is down, is accepted as unverified,
//! and never counted twice.

mod support;

use loadtest::clickhouse::ClickHouse;
use serde_json::Value;
use support::accounts::{assert_derived_adds_up, audit};
use support::daemon::Site;
use support::gateway::{Engine, Gateway};
use support::http::Answer;
use support::wait_for;

#[test]
fn a_copy_of_an_old_order_sent_while_clickhouse_is_down_is_not_counted() {
    let engine = Engine::start();
    let (mut gateway, url) = Gateway::to(&engine);
    gateway.open();
    let mut site = Site::start(&["--clickhouse-url", &url]);
    let goal = site.goals(1).remove(0);
    site.wait_warm();
    let first = site.track(&goal, "OLD");
    assert_eq!((first.status, duplicate(&first)), (201, Value::Bool(false)));
    site.wait_inserted(1);

    // After this start nothing but ClickHouse knows the order.
    site.kill();
    gateway.close();
    site.restart();
    let copies = [site.track(&goal, "OLD"), site.track(&goal, "OLD")];
    assert_eq!((copies[0].status, duplicate(&copies[0])), (202, Value::Null), "{}", copies[0].text());
    assert_eq!(id(&copies[1]), id(&copies[0]), "the second copy meets the first one in the log");
    let new = site.track(&goal, "NEW");
    assert_eq!((new.status, duplicate(&new)), (202, Value::Null), "a new order can't be told from it");

    // Once more: that they are undecided survives a kill.
    site.kill();
    gateway.open();
    site.restart();
    site.wait_inserted(2);
    let reader = ClickHouse::new(&engine.reader_url()).expect("a URL");
    wait_for("the decision", || {
        reader.number("SELECT count() FROM tally.rejections").is_ok_and(|rows| rows > 0)
    });

    let rows = reader.lines("SELECT order_id, conversion_id FROM tally.conversions ORDER BY order_id");
    let rows: Vec<_> = rows.expect("rows").map(|row| row.expect("a row")).collect();
    assert_eq!(rows, [format!("NEW\t{}", id(&new)), format!("OLD\t{}", id(&first))]);
    assert_eq!(reader.number("SELECT sum(conversions) FROM tally.conversions_hourly").expect("a sum"), 2);
    assert_derived_adds_up(&reader);
    audit(&site);

    let copy = site.api(&format!("/api/v1/conversions/{}", id(&copies[0])))["data"].take();
    assert_eq!(copy["duplicate"], true);
    assert_eq!(copy["original_conversion_id"], id(&first));
    let rejections = site.api("/api/v1/conversions/rejections?code=duplicate")["data"].take();
    let late =
        rejections.as_array().expect("a list").iter().find(|one| one["conversion_id"] == id(&copies[0]));
    assert_eq!(late.expect("the copy is listed")["original_conversion_id"], id(&first));

    // Now that it can be asked, the answer is plain, and names what counted.
    let again = site.track(&goal, "OLD");
    assert_eq!((again.status, duplicate(&again), id(&again)), (200, Value::Bool(true), id(&first)));
}

fn data(answer: &Answer) -> Value {
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    body["data"].clone()
}

fn duplicate(answer: &Answer) -> Value {
    data(answer)["duplicate"].clone()
}

fn id(answer: &Answer) -> String {
    data(answer)["conversion_id"].as_str().expect("an id").to_owned()
}
