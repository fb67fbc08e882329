//! What happens: clicks and conversions of several accounts, by few visitors, so that much could be confused.

use loadtest::rng::SplitMix64;
use serde_json::{Map, Value, json};

const SECOND: i64 = 1_000;
const DAY: i64 = 86_400 * SECOND;
/// Attribution windows of an account's goals, in days.
pub const WINDOWS: [u32; 3] = [1, 7, 30];
/// Links of an account.
pub const LINKS: usize = 2;

const BROWSERS: [&str; 2] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:150.0) Gecko/20100101 Firefox/150.0",
];
const BOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
/// The same for every account: all of them behind one NAT.
const ADDRESSES: [&str; 3] = ["203.0.113.7", "203.0.113.8", "2001:db8:7::1"];
const PRIVATE: &str = "192.168.1.20";

/// Who came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visitor {
    /// With a public address and a browser.
    Person { address: usize, browser: usize },
    /// A robot at one of the same addresses.
    Bot { address: usize },
    /// Behind a private address.
    Private { browser: usize },
    /// Not told.
    Unknown,
}

/// A click as it is reported.
#[derive(Debug, Clone)]
pub struct Click {
    pub account: usize,
    /// The caller's number; none: issued.
    pub id: Option<u64>,
    pub link: Option<usize>,
    pub visitor: Visitor,
    /// In milliseconds; none: when it arrives.
    pub at: Option<i64>,
}

/// A conversion as it is reported.
#[derive(Debug, Clone)]
pub struct Conversion {
    pub account: usize,
    /// Which of [`WINDOWS`].
    pub goal: usize,
    /// The click that it names.
    pub click: Option<u64>,
    pub visitor: Visitor,
    pub at: Option<i64>,
}

#[derive(Debug, Clone)]
pub enum Event {
    Click(Click),
    Conversion(Conversion),
}

/// Every event, in the order of sending; its place is its tag, which it carries to ClickHouse.
#[derive(Debug, Clone)]
pub struct History {
    pub events: Vec<Event>,
}

impl History {
    /// `stories` conversions of each account, each with clicks around the ends of its window, and all of it shuffled.
    pub fn random(random: &mut SplitMix64, accounts: usize, stories: u64, now: i64) -> Self {
        let mut events = Vec::new();
        for account in 0..accounts {
            // Callers number their clicks as they like: the same numbers in every account.
            let mut numbers = 1..;
            for _ in 0..stories {
                story(random, account, now, &mut numbers, &mut events);
            }
            // Too rare to be left to chance.
            for visitor in [Visitor::Unknown, Visitor::Private { browser: 0 }] {
                events.push(Event::Conversion(Conversion {
                    account,
                    goal: 0,
                    click: None,
                    visitor,
                    at: None,
                }));
            }
        }
        for last in (1..events.len()).rev() {
            events.swap(last, below(random, last + 1));
        }
        Self { events }
    }
}

impl Click {
    /// The body's fields. The tag travels as `utm_content`, which is copied to what the click earns.
    pub fn body(&self, tag: usize, links: &[u64]) -> Value {
        let mut body = Map::new();
        if let Some(id) = self.id {
            body.insert("click_id".into(), id.into());
        }
        if let Some(link) = self.link {
            body.insert("link_id".into(), links[link].into());
        }
        body.insert("utm_content".into(), tag.to_string().into());
        fill(&mut body, &self.visitor, "clicked_at", self.at)
    }
}

impl Conversion {
    /// The body's fields. The tag travels as the order id.
    pub fn body(&self, tag: usize, tokens: &[String]) -> Value {
        let mut body = Map::new();
        body.insert("postback_token".into(), tokens[self.goal].clone().into());
        body.insert("order_id".into(), tag.to_string().into());
        if let Some(click) = self.click {
            body.insert("click_id".into(), click.into());
        }
        fill(&mut body, &self.visitor, "converted_at", self.at)
    }

    pub fn window_seconds(&self) -> i64 {
        i64::from(WINDOWS[self.goal]) * 86_400
    }
}

fn fill(body: &mut Map<String, Value>, visitor: &Visitor, name: &str, at: Option<i64>) -> Value {
    let visitor = match *visitor {
        Visitor::Person { address, browser } => Some((ADDRESSES[address], BROWSERS[browser])),
        Visitor::Bot { address } => Some((ADDRESSES[address], BOT)),
        Visitor::Private { browser } => Some((PRIVATE, BROWSERS[browser])),
        Visitor::Unknown => None,
    };
    if let Some((ip, user_agent)) = visitor {
        body.insert("ip".into(), ip.into());
        body.insert("user_agent".into(), user_agent.into());
    }
    if let Some(at) = at {
        body.insert(name.into(), time(at).into());
    }
    json!(body)
}

/// RFC 3339 with milliseconds.
fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).expect("a time").to_string()
}

/// One conversion and up to four clicks by the same visitor, at moments that decide.
fn story(
    random: &mut SplitMix64,
    account: usize,
    now: i64,
    numbers: &mut impl Iterator<Item = u64>,
    events: &mut Vec<Event>,
) {
    let goal = below(random, WINDOWS.len());
    let visitor = visitor(random);
    // Now and then it is reported as it happens.
    let at = (random.below(5) > 0).then(|| now - DAY - millis(random, 60 * DAY));
    let mut named = None;
    for _ in 0..random.below(5) {
        let id = (random.below(4) > 0).then(|| numbers.next().expect("endless"));
        let clicked_at = at.map(|at| at - distance(random, i64::from(WINDOWS[goal]) * DAY));
        let visitor = if random.below(10) == 0 { self::visitor(random) } else { visitor.clone() };
        let link = (random.below(3) > 0).then(|| below(random, LINKS));
        events.push(Event::Click(Click { account, id, link, visitor, at: clicked_at }));
        named = named.or(id);
    }
    let click = match random.below(10) {
        // One of its own, where there is one with a number.
        0..4 => named,
        // One that was never reported, or is another account's alone, or some other story's.
        4 => Some(1 + random.below(1 << 40)),
        5 => Some(1 + random.below(150)),
        _ => None,
    };
    events.push(Event::Conversion(Conversion { account, goal, click, visitor, at }));
}

fn visitor(random: &mut SplitMix64) -> Visitor {
    match random.below(12) {
        0 => Visitor::Bot { address: below(random, ADDRESSES.len()) },
        1 => Visitor::Private { browser: below(random, BROWSERS.len()) },
        2 => Visitor::Unknown,
        _ => Visitor::Person {
            address: below(random, ADDRESSES.len()),
            browser: below(random, BROWSERS.len()),
        },
    }
}

/// From a click to its conversion, in milliseconds: at the ends of the window, and anywhere.
fn distance(random: &mut SplitMix64, window: i64) -> i64 {
    let jitter = millis(random, SECOND);
    match random.below(8) {
        0 => jitter,
        1 => -jitter,
        2 => window + jitter - SECOND / 2,
        3 => window + jitter,
        4 => window - jitter,
        5 => window + SECOND + millis(random, 5 * DAY),
        6 => -millis(random, DAY / 2),
        _ => millis(random, window),
    }
}

fn millis(random: &mut SplitMix64, bound: i64) -> i64 {
    random.below(bound.cast_unsigned()).cast_signed()
}

fn below(random: &mut SplitMix64, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("below the bound")
}
