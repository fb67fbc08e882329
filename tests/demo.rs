//! `loadtest demo` on a running daemon: a past that every panel has something to show of, and the same again adds nothing.

mod support;

use loadtest::clickhouse::ClickHouse;
use loadtest::demo::{self, DemoOptions};
use support::{daemon::Site, wait_for};

#[test]
fn a_past_is_made_once() {
    let site = Site::start(&[]);
    let now = jiff::Timestamp::now().as_millisecond();
    let options = DemoOptions {
        url: format!("http://{}", site.daemon.options.listen),
        api_key: loadtest::daemon::api_key(site.data_dir()).expect("a key"),
        seed: 1,
        people: 1500,
        days: 21,
        until_millis: now,
    };
    let made = demo::run(&options).expect("a past");
    println!("{made}");
    assert!(
        made.clicks > 1500 && made.conversions > 150 && made.adjustments > 2 && made.known == 0,
        "{made}"
    );
    let clickhouse = ClickHouse::new(&site.daemon.reader_url().expect("a URL")).expect("a URL");
    let number = |sql: &str| clickhouse.number(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    for (made, table) in
        [(made.clicks, "clicks"), (made.conversions, "conversions"), (made.adjustments, "adjustments")]
    {
        // The last of them are still on their way.
        wait_for(table, || number(&format!("SELECT count() FROM tally.{table}")) >= made);
        assert_eq!(number(&format!("SELECT count() FROM tally.{table}")), made, "{table}");
    }
    // Something of everything that panels divide by.
    for (least, what) in [
        (10, "countDistinct(utm_source, utm_medium, utm_campaign) FROM tally.clicks"),
        (2, "countDistinct(variant) FROM tally.attributed_hourly_current WHERE variant != ''"),
        (2, "countDistinct(goal_id) FROM tally.attributed_hourly_current"),
        (3, "countDistinct(currency) FROM tally.conversions_hourly"),
        (2, "countDistinct(method) FROM tally.attributions"),
        (2, "countDistinct(attribution_reason) FROM tally.conversions WHERE attribution_method = 'none'"),
        (1, "count() FROM tally.clicks WHERE traffic = 'bot'"),
        (20, "countDistinct(toDate(hour)) FROM tally.conversions_hourly"),
    ] {
        let found = number(&format!("SELECT {what}"));
        assert!(found >= least, "{what}: {found}, not {least}");
    }

    let again = demo::run(&options).expect("the same past");
    assert_eq!((again.clicks, again.conversions, again.adjustments), (0, 0, 0), "{again}");
    assert_eq!(again.known, made.clicks + made.conversions);
}
