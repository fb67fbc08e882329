//! Requests rendered ahead of time: sending one is a copy of some 200 bytes with the order id and the value written over.

use crate::clicks::{self, CLICK_ID_DIGITS, click_id};
use crate::generator::{Fault, Hit, HitKind, order_id, value_cents};
use crate::rng::scramble;

/// A goal that hits can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// Its id in the database; 0 if it is not known.
    pub id: u64,
    /// The postback token.
    pub token: String,
}

const ORDER_HOLE: &str = "000000000000000000000";
const VALUE_HOLE: &str = "000.00";
const CLICK_HOLE: &str = "0000000000000000";
const VISITOR_HOLE: &str = "000";
/// Clicks come from so many addresses.
const VISITORS: u64 = 100;
/// Never a valid token: tokens hold no such word.
const UNKNOWN_TOKEN: &str = "no-such-token-anywhere";

/// Turns hits into request bytes.
#[derive(Debug)]
pub struct Renderer {
    run: u32,
    clicks_per_hit: u32,
    goals: Vec<Templates>,
    click: Template,
}

impl Renderer {
    /// Prepares the requests of stream `run` for each of `goals`; clicks are reported with `api_key`.
    #[must_use]
    pub fn new(run: u32, goals: &[Goal], clicks_per_hit: u32, api_key: &str) -> Self {
        let click = format!(
            r#"{{"click_id":{CLICK_HOLE},"ip":"203.0.113.{VISITOR_HOLE}","user_agent":"Mozilla/5.0 (load)","utm_source":"load"}}"#
        );
        Self {
            run,
            clicks_per_hit,
            goals: goals.iter().map(|goal| Templates::new(&goal.token)).collect(),
            click: Template::new("/api/v1/clicks", &format!("authorization: Bearer {api_key}\r\n"), &click),
        }
    }

    /// The click that a hit names, or that it is.
    #[must_use]
    pub fn click_of(&self, hit: &Hit) -> Option<u64> {
        let number = match hit.kind {
            HitKind::Click => Some(hit.sequence),
            HitKind::New | HitKind::Repeat | HitKind::LateCopy => {
                clicks::named(hit.sequence, self.clicks_per_hit)
            }
            HitKind::Anonymous | HitKind::Bad(_) => None,
        };
        number.map(|number| click_id(self.run, number))
    }

    /// Appends the request of `hit` to `requests`.
    pub fn render(&self, hit: &Hit, requests: &mut Vec<u8>) {
        let templates = &self.goals[hit.goal];
        let click = self.click_of(hit);
        let template = match hit.kind {
            HitKind::Click => &self.click,
            HitKind::New | HitKind::Repeat | HitKind::LateCopy if click.is_some() => &templates.clicked,
            HitKind::New | HitKind::Repeat | HitKind::LateCopy => &templates.ordered,
            HitKind::Anonymous => &templates.anonymous,
            HitKind::Bad(Fault::Malformed) => &templates.malformed,
            HitKind::Bad(Fault::NegativeValue) => &templates.negative,
            HitKind::Bad(Fault::UnknownCurrency) => &templates.currency,
            HitKind::Bad(Fault::UnknownToken) => &templates.token,
        };
        let start = requests.len();
        requests.extend_from_slice(&template.bytes);
        if let Some(hole) = template.order {
            let id = order_id(self.run, hit.sequence);
            requests[start + hole..start + hole + id.len()].copy_from_slice(&id);
        }
        if let (Some(hole), Some(click)) = (template.click, click) {
            write_number(&mut requests[start + hole..start + hole + CLICK_ID_DIGITS], click);
        }
        if let Some(hole) = template.visitor {
            let visitor = VISITORS + scramble(hit.sequence) % VISITORS;
            write_number(&mut requests[start + hole..start + hole + VISITOR_HOLE.len()], visitor);
        }
        if let Some(hole) = template.value {
            write_value(
                &mut requests[start + hole..start + hole + VALUE_HOLE.len()],
                value_cents(hit.sequence),
            );
        }
    }
}

#[derive(Debug)]
struct Templates {
    ordered: Template,
    clicked: Template,
    anonymous: Template,
    malformed: Template,
    negative: Template,
    currency: Template,
    token: Template,
}

impl Templates {
    fn new(token: &str) -> Self {
        let track =
            |token: &str, body: &str| Template::new(&format!("/api/conversions/track/{token}"), "", body);
        let ordered = format!(r#"{{"value":{VALUE_HOLE},"currency":"USD","order_id":"{ORDER_HOLE}"}}"#);
        let clicked = ordered.replace('}', &format!(r#","click_id":{CLICK_HOLE}}}"#));
        Self {
            anonymous: track(token, &format!(r#"{{"value":{VALUE_HOLE},"currency":"USD"}}"#)),
            malformed: track(token, ordered.trim_end_matches('}')),
            negative: track(token, &ordered.replace(VALUE_HOLE, "-9.99")),
            currency: track(token, &ordered.replace("USD", "ZZZ")),
            token: track(UNKNOWN_TOKEN, &ordered),
            clicked: track(token, &clicked),
            ordered: track(token, &ordered),
        }
    }
}

#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    order: Option<usize>,
    value: Option<usize>,
    click: Option<usize>,
    visitor: Option<usize>,
}

impl Template {
    /// `headers` end with their lines' ends.
    fn new(path: &str, headers: &str, body: &str) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // The holes are looked for in the body only: a token may well hold such a run of zeros.
        let hole = |pattern: &str| body.find(pattern).map(|at| head.len() + at);
        let order = hole(&format!("\"{ORDER_HOLE}\"")).map(|at| at + 1);
        let value = hole(&format!(":{VALUE_HOLE},")).map(|at| at + 1);
        let click = hole(&format!(":{CLICK_HOLE}")).map(|at| at + 1);
        let visitor = hole(&format!(".{VISITOR_HOLE}\"")).map(|at| at + 1);
        Self { bytes: [head.as_bytes(), body.as_bytes()].concat(), order, value, click, visitor }
    }
}

/// Five digits as `123.45`.
fn write_value(target: &mut [u8], cents: u64) {
    let mut rest = cents;
    for place in [5, 4, 2, 1, 0] {
        target[place] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

/// As many last digits as there is room for.
fn write_number(target: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in target.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(kind: HitKind, sequence: u64) -> String {
        let renderer = Renderer::new(0xAB, &[Goal { id: 1, token: "tok".into() }], 1, "key");
        let mut requests = Vec::new();
        renderer.render(&Hit { kind, goal: 0, sequence }, &mut requests);
        String::from_utf8(requests).unwrap()
    }

    fn body(request: &str) -> &str {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        body
    }

    #[test]
    fn an_order_carries_its_id_and_value() {
        let request = rendered(HitKind::New, 31);
        assert!(request.starts_with("POST /api/conversions/track/tok HTTP/1.1\r\n"));
        let json: serde_json::Value = serde_json::from_str(body(&request)).unwrap();
        assert_eq!(json["order_id"], "000000ab-00000000001f");
        let cents = u32::try_from(value_cents(31)).unwrap();
        assert!((json["value"].as_f64().unwrap() - f64::from(cents) / 100.0).abs() < 1e-9);
        assert_eq!(request, rendered(HitKind::LateCopy, 31), "a copy is the same bytes");
    }

    #[test]
    fn bad_hits_are_bad_in_one_way_each() {
        let parse =
            |fault| serde_json::from_str::<serde_json::Value>(body(&rendered(HitKind::Bad(fault), 5)));
        assert!(parse(Fault::Malformed).is_err());
        assert!(parse(Fault::NegativeValue).unwrap()["value"].as_f64().unwrap() < 0.0);
        assert_eq!(parse(Fault::UnknownCurrency).unwrap()["currency"], "ZZZ");
        assert!(rendered(HitKind::Bad(Fault::UnknownToken), 5).contains(UNKNOWN_TOKEN));
    }

    #[test]
    fn a_click_has_its_number_and_the_order_that_names_it_the_same() {
        let click = rendered(HitKind::Click, 1_000);
        assert!(click.starts_with("POST /api/v1/clicks HTTP/1.1\r\n"));
        assert!(click.contains("\r\nauthorization: Bearer key\r\n"));
        let click: serde_json::Value = serde_json::from_str(body(&click)).unwrap();
        assert_eq!(click["click_id"], click_id(0xAB, 1_000));
        assert!(click["ip"].as_str().unwrap().parse::<std::net::Ipv4Addr>().is_ok());
        let naming = (0..1000).find(|sequence| clicks::named(*sequence, 1).is_some()).unwrap();
        let order: serde_json::Value = serde_json::from_str(body(&rendered(HitKind::New, naming))).unwrap();
        assert_eq!(order["click_id"], click_id(0xAB, clicks::named(naming, 1).unwrap()));
    }

    #[test]
    fn an_anonymous_hit_has_no_order() {
        let request = rendered(HitKind::Anonymous, 5);
        assert!(!body(&request).contains("order_id"));
    }
}
