//! What happened: people click, some sign up, some of those buy, some want their money back.

use serde_json::{Value, json};

use crate::rng::{SplitMix64, scramble};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A link, and what its visitors are like.
pub(super) struct LinkPlan {
    pub(super) name: &'static str,
    pub(super) slug: &'static str,
    destination: &'static str,
    variants: &'static [&'static str],
    /// Source, medium and campaign of its visits, one of them for each.
    campaigns: &'static [[&'static str; 3]],
    /// Of a hundred visits.
    share: u64,
    /// The chance that a person signs up.
    sign_up: f64,
}

pub(super) const LINKS: [LinkPlan; 4] = [
    LinkPlan {
        name: "Winter sale",
        slug: "demo-winter",
        destination: "https://shop.example/winter?cid={click_id}",
        variants: &["A", "B"],
        campaigns: &[
            ["google", "cpc", "winter_sale"],
            ["facebook", "paid_social", "winter_sale"],
            ["bing", "cpc", "winter_sale"],
            ["google", "cpc", "brand"],
        ],
        share: 45,
        sign_up: 0.14,
    },
    LinkPlan {
        name: "Newsletter",
        slug: "demo-newsletter",
        destination: "https://shop.example/news?cid={click_id}",
        variants: &[],
        campaigns: &[["newsletter", "email", "weekly"], ["newsletter", "email", "back_in_stock"]],
        share: 20,
        sign_up: 0.28,
    },
    LinkPlan {
        name: "Partners",
        slug: "demo-partners",
        destination: "https://shop.example/?cid={click_id}",
        variants: &[],
        campaigns: &[
            ["gadget_blog", "affiliate", "reviews"],
            ["deals_site", "affiliate", "coupons"],
            ["", "", ""],
        ],
        share: 20,
        sign_up: 0.09,
    },
    LinkPlan {
        name: "Profile",
        slug: "demo-profile",
        destination: "https://shop.example/hello?cid={click_id}",
        variants: &[],
        campaigns: &[["instagram", "social", "profile"], ["", "", ""]],
        share: 15,
        sign_up: 0.05,
    },
];

const BROWSERS: [&str; 4] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
];
const ROBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

impl LinkPlan {
    pub(super) fn json(&self) -> Value {
        let variants: Vec<_> = self.variants.iter().map(|name| json!({"name": name, "weight": 50})).collect();
        json!({"name": self.name, "slug": self.slug, "destination_url": self.destination, "variants": variants})
    }
}

/// A visit.
pub(super) struct Click {
    id: u64,
    link: usize,
    at: i64,
    person: Person,
    campaign: [&'static str; 3],
    variant: &'static str,
}

/// Somebody's sign-up or purchase.
pub(super) struct Conversion {
    order_id: String,
    /// 0 the sign-up, 1 the purchase.
    goal: usize,
    at: i64,
    person: Person,
    /// The click that is named; none: the person has to be recognised, or never clicked.
    click_id: Option<u64>,
    cents: u64,
    fate: u64,
}

#[derive(Clone, Copy)]
struct Person {
    number: u32,
    browser: &'static str,
}

/// Everything that happens.
pub(super) struct History {
    clicks: Vec<Click>,
    conversions: Vec<Conversion>,
    seed: u64,
}

impl History {
    /// What `people` do in `days` that end at `until` (milliseconds since 1970).
    pub(super) fn new(seed: u64, people: u32, days: u32, until: i64) -> Self {
        let mut history = Self { clicks: Vec::new(), conversions: Vec::new(), seed };
        for number in 0..people {
            let mut rng = SplitMix64::new(scramble(seed ^ (u64::from(number) << 20)));
            history.live(&mut rng, number, days, until);
        }
        history.clicks.sort_by_key(|click| click.at);
        history.conversions.sort_by_key(|conversion| conversion.at);
        history
    }

    pub(super) fn clicks(&self) -> impl Iterator<Item = &Click> {
        self.clicks.iter()
    }

    pub(super) fn conversions(&self) -> impl Iterator<Item = &Conversion> {
        self.conversions.iter()
    }

    fn live(&mut self, rng: &mut SplitMix64, number: u32, days: u32, until: i64) {
        let person = Person { number, browser: BROWSERS[index(rng, BROWSERS.len())] };
        let first = moment(rng, days, until);
        let mut part = rng.below(100);
        let link = LINKS.iter().position(|link| match part.checked_sub(link.share) {
            Some(rest) => {
                part = rest;
                false
            }
            None => true,
        });
        let link = link.unwrap_or(0);
        let plan = &LINKS[link];
        let campaign = plan.campaigns[index(rng, plan.campaigns.len())];
        let variant =
            if plan.variants.is_empty() { "" } else { plan.variants[index(rng, plan.variants.len())] };
        let is_robot = rng.below(100) < 6;
        let person = if is_robot { Person { browser: ROBOT, ..person } } else { person };
        let id = (self.seed % 1000 + 1) * 10_000_000_000 + u64::from(number) * 10;
        let visits = if is_robot { 1 } else { 1 + rng.below(5) / 3 + rng.below(10) / 9 };
        let mut last = first;
        for visit in 0..visits {
            let at = first + pause(rng, 2 * DAY) * i64::try_from(visit).unwrap_or(0);
            if at < until {
                self.clicks.push(Click { id: id + visit, link, at, person, campaign, variant });
                last = last.max(at);
            }
        }
        // The second variant is better, and not by little.
        let chance = plan.sign_up * if variant == "B" { 1.35 } else { 1.0 };
        if is_robot || rng.unit() >= chance {
            return;
        }
        let signed_up = last + pause(rng, 6 * HOUR);
        self.convert(rng, 0, signed_up, until, person, id);
        if rng.unit() < 0.4 {
            let bought = signed_up + pause(rng, 3 * DAY);
            self.convert(rng, 1, bought, until, person, id);
        }
    }

    fn convert(
        &mut self,
        rng: &mut SplitMix64,
        goal: usize,
        at: i64,
        until: i64,
        person: Person,
        click: u64,
    ) {
        let (named, cents, fate) = (rng.below(100), 900 + rng.below(40) * rng.below(500), rng.below(100));
        if at >= until {
            return;
        }
        // Two of three name their click; some come from a click that nobody knows, or from none.
        let click_id = match named {
            0..66 => Some(click),
            66..69 => Some(click + 9),
            _ => None,
        };
        let person =
            if named >= 92 { Person { number: person.number + 10_000_000, ..person } } else { person };
        let order_id = format!("demo-{}-{}-{goal}", self.seed, click);
        let cents = if goal == 1 { cents } else { 0 };
        self.conversions.push(Conversion { order_id, goal, at, person, click_id, cents, fate });
    }
}

/// Hits that a daemon refuses: the troubles of a network's template.
pub(super) fn mistakes() -> impl Iterator<Item = Value> {
    (0..30).map(|n| match n % 3 {
        0 => json!({"value": -5, "order_id": format!("wrong-{n}")}),
        1 => json!({"value": 20, "click_id": "{click_id}"}),
        _ => json!({"value": 20, "currency": "EURO"}),
    })
}

impl Click {
    /// A line of a report; `links` are the ids of [`LINKS`].
    pub(super) fn json(&self, links: &[u64]) -> Value {
        let [source, medium, campaign] = self.campaign;
        json!({
            "click_id": self.id, "link_id": links[self.link], "clicked_at": time(self.at), "ip": self.person.ip(),
            "user_agent": self.person.browser, "utm_source": source, "utm_medium": medium, "utm_campaign": campaign,
            "variant": self.variant,
        })
    }
}

impl Conversion {
    /// A line of a batch; `tokens` are those of the sign-up and of the purchase.
    pub(super) fn json(&self, tokens: &[&str; 2]) -> Value {
        let value = format!("{}.{:02}", self.cents / 100, self.cents % 100);
        let currency = ["EUR", "EUR", "EUR", "USD", "GBP"][self.person.number as usize % 5];
        let mut line = json!({
            "postback_token": tokens[self.goal], "order_id": self.order_id, "value": value, "currency": currency,
            "converted_at": time(self.at), "ip": self.person.ip(), "user_agent": self.person.browser,
        });
        if let Some(click) = self.click_id {
            line["click_id"] = click.into();
        }
        line
    }

    /// What the merchant learns later, for some.
    pub(super) fn adjustment(&self) -> Option<Value> {
        let half = format!("{}.{:02}", self.cents / 200, self.cents / 2 % 100);
        let adjustment = match (self.goal, self.fate) {
            (1, 0..4) => json!({"type": "refund", "reason": "sent back"}),
            (1, 4..6) => json!({"type": "refund", "value": half, "reason": "half of it sent back"}),
            (1, 6) => json!({"type": "correction", "value": half, "reason": "a wrong price"}),
            (0, 0) => json!({"type": "reject", "reason": "an address that does not exist"}),
            _ => return None,
        };
        Some(json!({ "adjustment": adjustment }))
    }
}

impl Person {
    /// In the range that is set aside for examples: nobody's, and not a private one, which is never matched. Each person
    /// has a network of their own.
    fn ip(self) -> String {
        format!("2001:db8:{:x}:{:x}::1", self.number >> 16, self.number & 0xffff)
    }
}

/// A moment of the days before `until`: more each week, more by day than by night, fewer at weekends.
fn moment(rng: &mut SplitMix64, days: u32, until: i64) -> i64 {
    let length = i64::from(days.max(1)) * DAY;
    loop {
        let back = i64::try_from(rng.below(length.cast_unsigned())).unwrap_or(0);
        let at = until - back;
        let hour = at.rem_euclid(DAY) / HOUR;
        let weekend = matches!((at / DAY + 4).rem_euclid(7), 0 | 6);
        let by_hour = [2, 1, 1, 1, 1, 2, 4, 6, 8, 9, 9, 9, 10, 9, 9, 9, 9, 9, 10, 10, 10, 9, 6, 4];
        let weight = by_hour[usize::try_from(hour).unwrap_or(0)] * if weekend { 7 } else { 10 };
        // A third more at the end than at the beginning.
        let growth = 75 + 25 * (length - back) / length;
        if rng.below(100 * 100) < weight * growth.cast_unsigned() {
            return at;
        }
    }
}

/// Mostly short, sometimes many times `scale`.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a pause of some days")]
fn pause(rng: &mut SplitMix64, scale: i64) -> i64 {
    let unit = rng.unit().max(1e-6);
    20_000 + (scale as f64 * 0.5 * -unit.ln() * rng.unit()) as i64
}

fn index(rng: &mut SplitMix64, length: usize) -> usize {
    usize::try_from(rng.below(length as u64)).unwrap_or(0)
}

/// RFC 3339, in milliseconds.
fn time(millis: i64) -> String {
    let days = millis.div_euclid(DAY);
    let of_day = millis.rem_euclid(DAY);
    let (year, month, day) = civil(days);
    let (hour, minute) = (of_day / HOUR, of_day % HOUR / 60_000);
    let (second, milli) = (of_day % 60_000 / 1000, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a day counted from 1970: years begin in March, so that the leap day is their last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: i64 = 1_793_491_200_000;

    #[test]
    fn times_are_written_as_the_api_reads_them() {
        assert_eq!(time(UNTIL), "2026-11-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_123), "2000-02-29T00:00:00.123Z");
    }

    #[test]
    fn a_seed_has_one_history() {
        let written = |history: &History| {
            let clicks: Vec<_> =
                history.clicks().map(|click| click.json(&[1, 2, 3, 4]).to_string()).collect();
            let conversions = history.conversions().map(|it| it.json(&["s", "p"]).to_string());
            (clicks, conversions.collect::<Vec<_>>())
        };
        let one = History::new(7, 500, 21, UNTIL);
        assert_eq!(written(&one), written(&History::new(7, 500, 21, UNTIL)));
        assert_ne!(written(&one), written(&History::new(8, 500, 21, UNTIL)));
    }

    #[test]
    fn everything_happens_in_the_days_and_orders_are_unlike() {
        let history = History::new(1, 3000, 21, UNTIL);
        assert!(history.clicks().all(|click| (UNTIL - 21 * DAY..UNTIL).contains(&click.at)));
        assert!(history.conversions().all(|it| (UNTIL - 21 * DAY..UNTIL).contains(&it.at)));
        let mut ids: Vec<_> = history.clicks().map(|click| click.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), history.clicks.len());
        let of = |goal| history.conversions().filter(|conversion| conversion.goal == goal).count();
        assert!(of(0) > 200 && of(1) > 50 && of(1) < of(0), "{} sign-ups, {} purchases", of(0), of(1));
        assert!(history.conversions().any(|conversion| conversion.adjustment().is_some()));
    }
}
