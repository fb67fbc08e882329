//! Every example of `docs/tracking-guide.md` is run as it stands: shell with curl, PHP, Ruby, and a browser on a page of
//! another site. Each ends as what the guide says, in ClickHouse. `make test-tools` installs what they are written for.

mod client_support;
mod support;

use client_support::browser::{Browser, USER_AGENT};
use client_support::guide::{Example, Guide};
use client_support::page::Shop;
use client_support::program::run;
use loadtest::clickhouse::ClickHouse;
use loadtest::request::Goal;
use support::daemon::Site;
use support::wait_for;

/// What stands in `tally.conversions` for an example: name, order id, source, value, currency, click id.
type Expected = (&'static str, &'static str, &'static str, &'static str, &'static str, u64);

const FROM_SERVERS: [Expected; 5] = [
    ("postback", "ORDER-1001", "postback", "99.99", "USD", 789),
    ("postback-php", "ORDER-1002", "postback", "89.9", "EUR", 789),
    ("postback-ruby", "ORDER-1003", "postback", "79.5", "USD", 789),
    ("postback-form", "ORDER-1004", "postback", "12", "GBP", 0),
    ("network", "NET-1008", "pixel", "4.2", "USD", 789),
];
const FROM_BROWSERS: [Expected; 3] = [
    ("fetch", "ORDER-1005", "postback", "49.99", "USD", 0),
    ("beacon", "ORDER-1006", "postback", "19.99", "USD", 0),
    ("pixel", "ORDER-1007", "pixel", "9.99", "USD", 0),
];
const IN_BULK: [Expected; 3] = [
    ("batch", "ORDER-1009", "api", "25", "USD", 1001),
    ("batch", "ORDER-1010", "api", "30", "USD", 0),
    ("batch", "ORDER-1011", "api", "35", "USD", 0),
];
/// Examples of the rest of the API.
const OTHERS: [&str; 5] = ["goal", "link", "click", "clicks", "refund"];

/// A daemon, a goal, and the guide with both filled in.
struct Reader {
    site: Site,
    goal: Goal,
    guide: Guide,
    clickhouse: ClickHouse,
}

impl Reader {
    fn start() -> Self {
        // Visitors of these tests come from this machine, whose address names nobody elsewhere.
        let site = Site::start(&["--match-private-addresses", "--settle-seconds", "1"]);
        let goal = site.goals(1).remove(0);
        let clickhouse = ClickHouse::new(&site.daemon.reader_url().expect("a URL")).expect("a URL");
        Self { site, goal, guide: Guide::read(), clickhouse }
    }

    fn example(&self, name: &str) -> Example {
        self.example_with(name, &[])
    }

    /// The example with more of it replaced.
    fn example_with(&self, name: &str, more: &[(&str, &str)]) -> Example {
        let key = loadtest::daemon::api_key(self.site.data_dir()).expect("a key");
        let url = format!("http://{}", self.site.daemon.options.listen);
        let filled =
            [("https://tally.example", &*url), ("YOUR_TOKEN", &*self.goal.token), ("YOUR_API_KEY", &*key)];
        self.guide.example(name, &[&filled, more].concat())
    }

    /// Waits for what the conversion of an order is attributed to: method, click, reason. The click stands in a table
    /// of its own, which is written a moment later.
    fn assert_attributed(&self, order: &str, expected: &str) {
        let query = format!(
            "SELECT attribution_method, a.click_id, attribution_reason FROM tally.conversions AS c \
             LEFT JOIN tally.attributions AS a USING (conversion_id) \
             WHERE order_id = '{order}' AND (attribution_method = 'none' OR a.click_id != 0)"
        );
        assert_eq!(self.wait_for_line(&query), expected, "{order}");
    }

    /// Waits for the example's row, and compares it.
    fn assert_tracked(&self, (name, order, source, value, currency, click): Expected) {
        let query = format!(
            "SELECT goal_id, toString(source), toString(value), currency, click_id FROM tally.conversions \
             WHERE order_id = '{order}'"
        );
        assert_eq!(
            self.wait_for_line(&query),
            format!("{}\t{source}\t{value}\t{currency}\t{click}", self.goal.id),
            "{name}"
        );
    }

    /// The one line that a query gives in the end.
    fn wait_for_line(&self, query: &str) -> String {
        let mut found = Vec::new();
        wait_for(query, || {
            found = self.clickhouse.lines(query).and_then(Iterator::collect).unwrap_or_default();
            !found.is_empty()
        });
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        found.remove(0)
    }
}

#[test]
fn no_example_is_left_out() {
    let known: Vec<&str> = FROM_SERVERS
        .iter()
        .chain(&FROM_BROWSERS)
        .chain(&IN_BULK)
        .map(|expected| expected.0)
        .chain(OTHERS)
        .collect();
    for example in Guide::read().examples() {
        assert!(known.contains(&&*example.name), "no test runs the example {:?}", example.name);
    }
}

#[test]
fn servers_report_conversions() {
    let reader = Reader::start();
    let created = run(&reader.example("goal"));
    assert!(created.contains("\"success\":true") && created.contains("postback_token"), "{created}");
    let said = run(&reader.example("click"));
    assert!(said.contains("\"click_id\":789") && said.contains("\"duplicate\":false"), "{said}");
    for expected in FROM_SERVERS {
        let said = run(&reader.example(expected.0));
        reader.assert_tracked(expected);
        let id = reader.wait_for_line(&format!(
            "SELECT conversion_id FROM tally.conversions WHERE order_id = '{}'",
            expected.1
        ));
        assert!(said.contains(&id), "{} is told the conversion's id: {said}", expected.0);
        if expected.5 == 789 {
            reader.assert_attributed(expected.1, "click_id\t789\t");
        }
    }
}

#[test]
fn clicks_and_past_sales_are_reported_in_bulk_and_refunded() {
    let reader = Reader::start();
    let said = run(&reader.example("clicks"));
    assert!(said.contains("1001") && said.contains("1002"), "a result for each line: {said}");
    run(&reader.example("batch"));
    for expected in IN_BULK {
        reader.assert_tracked(expected);
    }
    reader.assert_attributed("ORDER-1009", "click_id\t1001\t");
    reader.assert_attributed("ORDER-1010", "ip_user_agent\t1002\t");
    reader.assert_attributed("ORDER-1011", "none\t0\tno_visitor");
    let of = |column: &str| {
        reader.wait_for_line(&format!("SELECT {column} FROM tally.conversions WHERE order_id = 'ORDER-1011'"))
    };
    assert_eq!(of("intDiv(dateDiff('second', converted_at, received_at), 3600)"), "24");

    let id = of("conversion_id");
    run(&reader.example_with("refund", &[("YOUR_CONVERSION_ID", &id)]));
    let refund =
        format!("SELECT kind, value, net_value_change FROM tally.adjustments WHERE conversion_id = '{id}'");
    assert_eq!(reader.wait_for_line(&refund), "refund\t20\t-20");
}

#[test]
fn a_visitor_of_a_link_is_followed_to_the_sale() {
    let reader = Reader::start();
    let shop = Shop::serve([("/".to_owned(), reader.example("pixel").code)].into());
    let created = run(&reader.example_with("link", &[("https://shop.example", &shop.url(""))]));
    assert!(created.contains("\"success\":true"), "{created}");
    let browser = Browser::start();
    browser.open(&format!("http://{}/r/winter", reader.site.daemon.options.listen));
    let arrived = browser.evaluate("location.search");
    let click =
        arrived.as_str().and_then(|query| query.strip_prefix("?cid=")).expect("a click id").to_owned();
    assert!(click.parse::<u64>().is_ok_and(|click| click > 0), "{arrived}");

    // The pixel of the page that was arrived at, by the visitor; the shop's server, by the number.
    reader.assert_attributed("ORDER-1007", &format!("ip_user_agent\t{click}\t"));
    run(&reader.example_with("postback", &[("789", &click)]));
    reader.assert_attributed("ORDER-1001", &format!("click_id\t{click}\t"));
    let stored = format!("SELECT source, traffic, user_agent FROM tally.clicks WHERE click_id = {click}");
    assert_eq!(reader.wait_for_line(&stored), format!("redirect\thuman\t{USER_AGENT}"));
}

#[test]
fn browsers_report_conversions_from_pages_of_another_site() {
    let reader = Reader::start();
    let page = |name: &str| (format!("/{name}"), reader.example(name).code);
    let shop = Shop::serve(FROM_BROWSERS.iter().map(|expected| page(expected.0)).collect());
    let browser = Browser::start();
    for expected in FROM_BROWSERS {
        browser.open(&shop.url(&format!("/{}", expected.0)));
        reader.assert_tracked(expected);
        let console = browser.console();
        assert!(!console.contains("SEVERE"), "{}: {console}", expected.0);
        if expected.0 == "fetch" {
            assert!(console.contains("tracked as "), "the page may read the answer: {console}");
        }
    }
}
