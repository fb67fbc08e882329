//! `loadtest demo` on a running daemon: a past that every panel has something to show of, of which dashboards, API and raw
//! tables say the same, and the same again adds nothing.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use loadtest::clickhouse::ClickHouse;
use loadtest::demo::{self, DemoOptions};
use serde_json::{Value, json};
use support::{
    command::post,
    daemon::Site,
    grafana::{Choice, ask, dashboards, expand, hex, number, panels, rows, targets},
    http::{agent, read},
    wait_for,
};

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

    wait_for("the refusals", || number("SELECT count() FROM tally.rejections") >= made.refused);
    site.wait_settled();
    every_panel_has_something_to_show(&site);
    dashboards_api_and_raw_tables_agree(&site);
    let again = demo::run(&options).expect("the same past");
    assert_eq!((again.clicks, again.conversions, again.adjustments), (0, 0, 0), "{again}");
    assert_eq!(again.known, made.clicks + made.conversions);
    hostile_labels_are_harmless(&site);
}

fn choice(from: i64, to: i64) -> Choice {
    let variables = BTreeMap::from([
        ("account".to_owned(), vec!["1".to_owned()]),
        ("currency".to_owned(), vec!["EUR".to_owned()]),
    ]);
    Choice { from, to, interval_seconds: 7200, variables }
}

fn every_panel_has_something_to_show(site: &Site) {
    let reader = site.daemon.reader_url().expect("a URL");
    // Seconds: what came in this one belongs to it.
    let now = jiff::Timestamp::now().as_second() + 1;
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for sql in targets(panel).iter().filter_map(|target| target["rawSql"].as_str()) {
                let found = ask(&reader, &expand(sql, &choice(now - 7 * 86_400, now)));
                assert!(!found.is_empty(), "{file}: {} shows nothing", panel["title"]);
            }
        }
    }
}

fn dashboards_api_and_raw_tables_agree(site: &Site) {
    let reader = site.daemon.reader_url().expect("a URL");
    let report = &site.api("/api/v1/analytics/conversions?days=30")["data"];
    let at = |name: &str| {
        let time: jiff::Timestamp = report["period"][name].as_str().expect("a time").parse().expect("a time");
        time.as_second()
    };
    let chosen = choice(at("from"), at("to"));
    let sum = |file: &str, title: &str, column: &str| -> f64 {
        rows(&reader, file, title, &chosen).iter().map(|row| number(&row[column])).sum()
    };
    let raw = |what: &str| {
        let found = ask(&reader, &format!("SELECT {what}").replace("$from", &chosen.from.to_string()));
        number(found[0].as_object().expect("a row").values().next().expect("a column"))
    };
    let same = |what: &str, panel: f64, api: f64, raw: f64| {
        assert!((panel - api).abs() < 0.01 && (api - raw).abs() < 0.01, "{what}: {panel}, {api}, {raw}");
    };
    same(
        "conversions",
        sum("conversions.json", "Conversions", "conversions"),
        number(&report["conversions"]),
        raw("count() FROM tally.conversions WHERE converted_at >= $from"),
    );
    same(
        "clicks of people",
        sum("campaigns.json", "Clicks", "clicks"),
        number(&report["human_clicks"]),
        raw("count() FROM tally.clicks WHERE traffic = 'human' AND clicked_at >= $from"),
    );
    same(
        "attributed",
        sum("campaigns.json", "Attributed conversions", "conversions"),
        number(&report["attributed"]),
        raw("count() FROM tally.attributions_current WHERE method != 'none' AND converted_at >= $from"),
    );
    same(
        "rate",
        sum("conversions.json", "Conversion rate", "rate"),
        number(&report["conversion_rate"]),
        raw("100 * (SELECT count() FROM tally.attributions_current WHERE converted_at >= $from) \
             / (SELECT count() FROM tally.clicks WHERE traffic = 'human' AND clicked_at >= $from)"),
    );
    same(
        "net conversions",
        sum("conversions.json", "Goals", "net"),
        number(&report["net_conversions"]),
        raw("(SELECT count() FROM tally.conversions WHERE converted_at >= $from) \
             + (SELECT sum(net_conversions_change) FROM tally.adjustments WHERE converted_at >= $from)"),
    );
    let seconds = sum("conversions.json", "Average time to convert", "seconds");
    let exact = raw("avg(seconds_to_convert) FROM tally.attributions_current WHERE converted_at >= $from");
    assert!(
        (seconds - exact).abs() < 0.01
            && (number(&report["time_to_convert"]["average_seconds"]) - exact).abs() <= 1.0
    );

    let by_currency = rows(&reader, "conversions.json", "Value", &chosen);
    let averages = rows(&reader, "conversions.json", "Average value", &chosen);
    assert_eq!(by_currency.len(), report["total_value"].as_object().expect("values").len());
    for row in by_currency {
        let currency = row["currency"].as_str().expect("a currency");
        let of = |what: &str| {
            format!(
                "{what}(value) FROM tally.conversions WHERE currency = '{currency}' AND converted_at >= $from"
            )
        };
        same(currency, number(&row["value"]), number(&report["total_value"][currency]), raw(&of("sum")));
        let average = averages.iter().find(|row| row["currency"] == currency).expect("an average");
        same(
            currency,
            number(&average["average"]),
            number(&report["average_value"][currency]),
            raw(&of("avg")),
        );
    }
    for row in rows(&reader, "conversions.json", "Links", &chosen) {
        let link = number(&row["link_id"]);
        let report = &site.api(&format!("/api/v1/analytics/conversions?days=30&link_id={link}"))["data"];
        let attributed = format!(
            "count() FROM tally.attributions_current WHERE link_id = {link} AND converted_at >= $from"
        );
        same("a link", number(&row["conversions"]), number(&report["conversions"]), raw(&attributed));
    }
}

/// What a visitor writes into a URL reaches the panels without what could end a text in SQL, or pass for another text.
fn hostile_labels_are_harmless(site: &Site) {
    let reader = site.daemon.reader_url().expect("a URL");
    let link =
        json!({"link": {"name": "Hostile", "slug": "hostile", "destination_url": "https://shop.example/"}});
    assert_eq!(post(site, "/api/v1/links", &link, None).status, 201);
    let written = "x\\'); DROP TABLE tally.clicks; -- \"`\u{202e}\n\0";
    let kept = "x); DROP TABLE tally.clicks; --";
    let encoded: String = form_urlencoded::byte_serialize(written.as_bytes()).collect();
    let visit = format!(
        "http://{}/r/hostile?utm_source={encoded}&utm_campaign={encoded}",
        site.daemon.options.listen
    );
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0";
    let visit = agent().get(visit).config().max_redirects(0).build().header("User-Agent", firefox);
    assert_eq!(read(visit.call().expect("an answer")).expect("a body").status, 302);
    let click = json!({"click_id": 77, "utm_source": written, "utm_campaign": written, "variant": written});
    assert_eq!(post(site, "/api/v1/clicks", &click, None).status, 201);
    let stored = format!("SELECT count() AS n FROM tally.clicks_hourly WHERE utm_source = '{kept}'");
    wait_for("the visits", || number(&ask(&reader, &stored)[0]["n"]) >= 1.0);
    site.wait_settled();

    let now = jiff::Timestamp::now().as_second();
    let mut chosen = choice(now - 86_400, now);
    let campaigns = &dashboards()["campaigns.json"];
    let variables = campaigns["templating"]["list"].as_array().expect("variables");
    let source = variables.iter().find(|it| it["name"] == "source").expect("a variable");
    let offered = ask(&reader, &expand(source["query"].as_str().expect("SQL"), &chosen));
    let columns = |row: &Value| -> Vec<String> {
        row.as_object().expect("a row").values().map(|it| it.as_str().expect("text").to_owned()).collect()
    };
    let offered: BTreeSet<String> = offered.iter().flat_map(columns).collect();
    assert!(
        offered.iter().all(|text| !text.contains(['\\', '\'', '"', '`', '\n', '\0', '\u{202e}'])),
        "{offered:?}"
    );
    assert!(offered.contains(kept), "{offered:?}");
    assert!(offered.contains(&hex(kept)), "{offered:?}");

    chosen.variables.insert("source".to_owned(), vec![hex(kept), hex("google")]);
    let shown = rows(&reader, "campaigns.json", "Campaigns", &chosen);
    let row = shown.iter().find(|row| row["campaign"] == kept).expect("it is shown");
    assert_eq!((row["source"].as_str(), number(&row["clicks"])), (Some(kept), 2.0), "{row}");
    // Even spliced in as a text of its own it stays one.
    chosen.variables.insert("text".to_owned(), vec![kept.to_owned()]);
    let spliced = ask(&reader, &expand("SELECT ${text:singlequote} AS text", &chosen));
    assert_eq!(spliced[0]["text"], kept);
}
