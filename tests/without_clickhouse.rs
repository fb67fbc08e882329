//! ClickHouse is down: the daemon starts, starts again, and takes hits. Once ClickHouse is there, each is there once.

mod support;

use loadtest::clickhouse::ClickHouse;
use loadtest::generator::Mix;
use support::accounts::assert_exactly_once;
use support::daemon::Site;
use support::gateway::{Engine, Gateway};
use support::wait_for;

#[test]
fn hits_are_taken_before_clickhouse_is_there_and_inserted_once_it_is() {
    let engine = Engine::start();
    let (mut gateway, url) = Gateway::to(&engine);
    let mut site = Site::start(&["--clickhouse-url", &url]);
    let goals = site.goals(2);
    let first = site.track(&goals[0], "ORDER-1");
    assert!(matches!(first.status, 201 | 202), "{}", first.text());
    let again = site.track(&goals[0], "ORDER-1");
    assert_eq!(
        again.status,
        200,
        "the log knows the order although ClickHouse can't be asked: {}",
        again.text()
    );

    let traffic = site.load(&goals, 3, Mix::with(0.2, 0.02, 0.05));
    for restart in 0..3 {
        traffic.wait_for_more(1_500);
        assert_eq!(site.ops("/readyz").expect("an answer").status, 200, "it is ready without a database");
        site.kill();
        site.restart();
        assert!(site.log().contains("read back"), "start {restart} reads the log");
    }
    traffic.wait_for_more(1_500);
    assert_eq!(
        count(&engine, "SELECT count() FROM system.tables WHERE database = 'tally'"),
        0,
        "nothing is there"
    );

    gateway.open();
    wait_for("the first rows", || {
        count(&engine, "SELECT count() FROM system.tables WHERE database = 'tally' AND name = 'conversions'")
            == 1
            && count(&engine, "SELECT count() FROM tally.conversions") > 0
    });
    // It goes away and comes back, in the middle of whatever the shipper does.
    gateway.close();
    traffic.wait_for_more(1_500);
    gateway.open();
    traffic.wait_for_more(1_500);
    let (report, ledger) = traffic.finish();
    println!("{:?}", report.total);
    assert_eq!(
        report.total.failed + report.total.overloaded,
        0,
        "nothing is refused because ClickHouse is down"
    );
    assert!(report.total.undecided > 0, "without ClickHouse a new key is not known to be new");
    assert_exactly_once(&site, &engine.reader_url(), &ledger.entries());
}

fn count(engine: &Engine, query: &str) -> u64 {
    let reader = ClickHouse::new(&engine.reader_url()).expect("a URL");
    reader.number(query).unwrap_or_else(|error| panic!("{query}: {error}"))
}
