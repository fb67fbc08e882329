//! A believable past for a daemon that has none: links, campaigns, variants, sign-ups and purchases that follow clicks,
//! refunds, and some hits that are refused, so that every panel has something to show.
//!
//! Everything goes through the HTTP API, as it would from outside. What happens follows from the seed; when, from the
//! moment that the past ends at. The same seed again adds nothing: clicks and orders are recognised.

mod api;
mod history;

use std::fmt;

use serde_json::{Value, json};

use self::api::Api;
pub use self::api::DemoError;
use self::history::{History, LINKS};

/// Lines of one request.
const LINES: usize = 2000;

/// What to make.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The daemon's public address, as `http://HOST:PORT`.
    pub url: String,
    /// An API key of the account that is to have a past.
    pub api_key: String,
    /// Decides what happens.
    pub seed: u64,
    /// People who click.
    pub people: u32,
    /// Days before `until` at which the past begins.
    pub days: u32,
    /// When the past ends, in milliseconds since 1970.
    pub until_millis: i64,
}

/// What was made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DemoReport {
    /// Links there are now.
    pub links: usize,
    /// Clicks that were new.
    pub clicks: u64,
    /// Conversions that were new.
    pub conversions: u64,
    /// Clicks and conversions that were there already.
    pub known: u64,
    /// Refunds, corrections and rejections.
    pub adjustments: u64,
    /// Hits that were refused, as they should be.
    pub refused: u64,
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} links, 2 goals (a sign-up, then a purchase)", self.links)?;
        writeln!(
            f,
            "{} clicks and {} conversions, {} known already",
            self.clicks, self.conversions, self.known
        )?;
        write!(f, "{} adjustments, {} hits refused on purpose", self.adjustments, self.refused)
    }
}

/// Makes it.
pub fn run(options: &DemoOptions) -> Result<DemoReport, DemoError> {
    let api = Api::new(&options.url, &options.api_key);
    let mut report = DemoReport::default();
    let mut links = Vec::new();
    for link in &LINKS {
        links.push(api.link(link)?);
    }
    report.links = links.len();
    let sign_up =
        api.goal(&json!({"name": "Sign-up", "goal_type": "signup", "value": "0", "currency": "EUR"}))?;
    let purchase =
        api.goal(&json!({"name": "Purchase", "goal_type": "purchase", "value": "49.00", "currency": "EUR"}))?;
    let tokens = [sign_up.as_str(), purchase.as_str()];
    let history = History::new(options.seed, options.people, options.days, options.until_millis);

    let clicks: Vec<Value> = history.clicks().map(|click| click.json(&links)).collect();
    for lines in clicks.chunks(LINES) {
        for result in api.lines("/api/v1/clicks", lines)? {
            report.count(&result, |report| &mut report.clicks);
        }
    }
    let conversions: Vec<_> = history.conversions().collect();
    let mut adjusted = Vec::new();
    for some in conversions.chunks(LINES) {
        let batch: Vec<Value> = some.iter().map(|conversion| conversion.json(&tokens)).collect();
        for (conversion, result) in some.iter().zip(api.lines("/api/v1/conversions/batch", &batch)?) {
            let new = report.count(&result, |report| &mut report.conversions);
            if let (true, Some(adjustment)) = (new, conversion.adjustment()) {
                let id = result["data"]["conversion_id"].as_str().unwrap_or_default().to_owned();
                adjusted.push((id, adjustment));
            }
        }
    }
    for (id, adjustment) in &adjusted {
        api.adjust(id, adjustment)?;
        report.adjustments += 1;
    }
    for body in history::mistakes() {
        api.mistake(&purchase, &body)?;
        report.refused += 1;
    }
    Ok(report)
}

impl DemoReport {
    /// Whether the line was new.
    fn count(&mut self, result: &Value, new: impl Fn(&mut Self) -> &mut u64) -> bool {
        let is_new = result["status"] != 200;
        *if is_new { new(self) } else { &mut self.known } += 1;
        is_new
    }
}
