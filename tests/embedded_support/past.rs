//! A made-up past of any size for the dashboards' queries, made by the engine itself, through the raw tables, so that every
//! view is fed.

use super::Engine;
use tally::clickhouse::{Database, Endpoint, Timeouts};

pub const DAY: i64 = 86_400;
/// A source that somebody wrote into a URL; no daemon would have kept it.
pub const HOSTILE: &str = "x\\'; DROP TABLE tally.clicks; -- \u{202e}";

/// How much happened. A tenth of it is account 2's; account 3 has nothing.
pub struct Past {
    pub clicks: i64,
    pub conversions: i64,
    pub days: i64,
    /// Each has six campaigns.
    pub links: i64,
}

impl Past {
    /// Migrates, and inserts the past that ends now. Returns its end.
    pub fn fill(&self, engine: &Engine) -> i64 {
        let writer = engine.writer();
        let endpoint = Endpoint {
            url: writer.url,
            user: writer.user,
            password: writer.password,
            database: "tally".into(),
        };
        engine
            .runtime
            .block_on(Database::new(endpoint, Timeouts::default()).migrate())
            .expect("migrations run");
        let to: i64 = engine.run("SELECT toUnixTimestamp(now())").trim().parse().expect("a number");
        for statement in CATALOG {
            engine.run(statement);
        }
        for (first, rows) in chunks(self.clicks) {
            engine.run(&self.clicks(to, first, rows));
        }
        for (first, rows) in chunks(self.conversions) {
            engine.run(&self.conversions(to, first, rows));
            engine.run(&self.attributions(to, first, rows));
        }
        engine.run(&self.adjustments(to));
        to
    }

    fn clicks(&self, to: i64, first: i64, rows: i64) -> String {
        let (at, people) = (self.at(to, self.clicks), self.clicks / 2);
        format!(
            "INSERT INTO clicks (click_id, clicked_at, received_at, source, traffic, visitor_key, {LABELS}) \
             SELECT number + 1, {at} AS clicked_at, clicked_at, 'redirect', if(number % 20 = 0, 'bot', 'human'), \
                cityHash64(number % {people}), {LABELS} \
             FROM (SELECT {labels}, number FROM numbers({first}, {rows}))",
            labels = self.labels(),
        )
    }

    fn conversions(&self, to: i64, first: i64, rows: i64) -> String {
        let at = self.at(to, self.conversions);
        format!(
            "INSERT INTO conversions (conversion_id, account_id, goal_id, order_id, value, currency, received_at, converted_at, \
                source, attribution_method, attribution_reason, visitor_key) \
             SELECT {ID}, {ACCOUNT}, {GOAL}, toString(number), {VALUE}, {CURRENCY}, {at} AS received_at, received_at, 'postback', \
                if(number % 10 < 3, 'none', 'click_id'), if(number % 10 < 3, 'no_candidate', ''), cityHash64(number) \
             FROM numbers({first}, {rows})"
        )
    }

    /// Of seven conversions in ten.
    fn attributions(&self, to: i64, first: i64, rows: i64) -> String {
        let at = self.at(to, self.conversions);
        format!(
            "INSERT INTO attributions (conversion_id, goal_id, value, currency, converted_at, received_at, seconds_to_convert, \
                clicked_at, method, click_id, visitor_key, {LABELS}) \
             SELECT {ID}, {GOAL}, {VALUE}, {CURRENCY}, {at} AS converted_at, converted_at, \
                toUInt32(60 + 7 * {DAY} * pow(cityHash64(number, 't') % 10000 / 10000, 4)) AS seconds_to_convert, \
                converted_at - seconds_to_convert, 'click_id', number + 1, cityHash64(number), {LABELS} \
             FROM (SELECT {labels}, number FROM numbers({first}, {rows}) WHERE number % 10 >= 3)",
            labels = self.labels(),
        )
    }

    /// A refund of every fiftieth.
    fn adjustments(&self, to: i64) -> String {
        let at = self.at(to, self.conversions);
        format!(
            "INSERT INTO adjustments (adjustment_id, account_id, goal_id, conversion_id, kind, value, currency, received_at, \
                converted_at, net_value_change, net_conversions_change, method) \
             SELECT generateUUIDv7(), {ACCOUNT}, {GOAL}, {ID}, 'refund', 5, {CURRENCY}, {at} AS at, at, -5, 0, 'none' \
             FROM (SELECT number * 50 AS number FROM numbers({}))",
            self.conversions / 50
        )
    }

    /// Of thirteen sources, one of them not set and one hostile; every second link has two variants.
    fn labels(&self) -> String {
        let hostile = HOSTILE.replace('\\', "\\\\").replace('\'', "\\'");
        let links = self.links;
        format!(
            "{ACCOUNT}, toUInt32(1 + floor({links} * pow(cityHash64(number, 'l') % 100000 / 100000, 2))) AS link_id, \
             toUInt32(floor(6 * pow(cityHash64(number, 'c') % 100000 / 100000, 2))) AS campaign, \
             (link_id * 7 + campaign) % 13 AS s, \
             multiIf(s = 0, '', s = 12, '{hostile}', concat('source', toString(s))) AS utm_source, \
             ['cpc', 'email', 'social', 'affiliate', 'display', ''][1 + campaign] AS utm_medium, \
             if(campaign = 5, '', concat('campaign ', toString((link_id * 3 + campaign) % 70))) AS utm_campaign, \
             if(link_id % 2 = 1, ['A', 'B'][1 + cityHash64(number, 'v') % 2], '') AS variant, true AS labelled"
        )
    }

    /// When: evenly over the days.
    fn at(&self, to: i64, rows: i64) -> String {
        let seconds = self.days * DAY;
        format!("toDateTime64({to} - {seconds} + intDiv(number * {seconds}, {rows}), 3, 'UTC')")
    }
}

const CATALOG: [&str; 4] = [
    "INSERT INTO accounts VALUES (1, 'one', 'enterprise', 0, false, 9), (2, 'two', 'enterprise', 0, false, 9), \
     (3, 'empty', 'pro', 0, false, 9)",
    "INSERT INTO goals (id, account_id, name, goal_type, created_at, version) \
     SELECT number + 1, if(number < 8, 1, 2), concat('Goal ', toString(number + 1)), 'purchase', now(), 9 FROM numbers(9)",
    "INSERT INTO links (id, account_id, name, slug, created_at, version) \
     SELECT number + 1, 1, concat('O''Brien \\\\ ', toString(number + 1)), toString(number), now(), 9 FROM numbers(60)",
    "INSERT INTO attribution_runs VALUES (1, 0, 2592000, 'last', 'done', false, now(), 1)",
];

const ID: &str =
    "toUUID(concat('00000000-0000-7000-8000-', leftPad(toString(number), 12, '0'))) AS conversion_id";
const ACCOUNT: &str = "toUInt32(1 + (number % 10 = 9)) AS account_id";
/// Few goals have most conversions, and so with links and campaigns.
const GOAL: &str = "if(number % 10 = 9, 9, toUInt32(1 + floor(8 * pow(cityHash64(number, 'g') % 1000 / 1000, 2)))) AS goal_id";
const CURRENCY: &str = "['EUR', 'EUR', 'EUR', 'EUR', 'EUR', 'EUR', 'USD', 'USD', 'GBP', 'JPY'][1 + cityHash64(number, 'm') % 10] \
     AS currency";
const VALUE: &str = "toDecimal64(5 + cityHash64(number, 'p') % 9000 / 100, 6) AS value";
const LABELS: &str = "utm_source, utm_medium, utm_campaign, variant, labelled, link_id, account_id";

/// One insert each: a block is a part, and a part of ten million rows takes more memory than the engine is given.
fn chunks(rows: i64) -> impl Iterator<Item = (i64, i64)> {
    const ROWS_MAX: i64 = 1_000_000;
    (0..rows).step_by(1_000_000).map(move |first| (first, ROWS_MAX.min(rows - first)))
}
