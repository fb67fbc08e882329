//! Requests rendered ahead of time: sending one is a copy of some 200 bytes with the order id and the value written over.

use crate::generator::{Fault, Hit, HitKind, order_id, value_cents};

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
/// Never a valid token: tokens hold no such word.
const UNKNOWN_TOKEN: &str = "no-such-token-anywhere";

/// Turns hits into request bytes.
#[derive(Debug)]
pub struct Renderer {
    run: u32,
    goals: Vec<Templates>,
}

impl Renderer {
    /// Prepares the requests of stream `run` for each of `goals`.
    #[must_use]
    pub fn new(run: u32, goals: &[Goal]) -> Self {
        Self { run, goals: goals.iter().map(|goal| Templates::new(&goal.token)).collect() }
    }

    /// Appends the request of `hit` to `requests`.
    pub fn render(&self, hit: &Hit, requests: &mut Vec<u8>) {
        let templates = &self.goals[hit.goal];
        let template = match hit.kind {
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
    anonymous: Template,
    malformed: Template,
    negative: Template,
    currency: Template,
    token: Template,
}

impl Templates {
    fn new(token: &str) -> Self {
        let ordered =
            format!(r#"{{"value":{VALUE_HOLE},"currency":"USD","order_id":"{ORDER_HOLE}","click_id":789}}"#);
        Self {
            anonymous: Template::new(
                token,
                &format!(r#"{{"value":{VALUE_HOLE},"currency":"USD","click_id":789}}"#),
            ),
            malformed: Template::new(token, ordered.trim_end_matches("789}")),
            negative: Template::new(token, &ordered.replace(VALUE_HOLE, "-9.99")),
            currency: Template::new(token, &ordered.replace("USD", "ZZZ")),
            token: Template::new(UNKNOWN_TOKEN, &ordered),
            ordered: Template::new(token, &ordered),
        }
    }
}

#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    order: Option<usize>,
    value: Option<usize>,
}

impl Template {
    fn new(token: &str, body: &str) -> Self {
        let head = format!(
            "POST /api/conversions/track/{token} HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // The holes are looked for in the body only: a token may well hold such a run of zeros.
        let hole = |pattern: &str| body.find(pattern).map(|at| head.len() + at);
        let order = hole(&format!("\"{ORDER_HOLE}\"")).map(|at| at + 1);
        let value = hole(&format!(":{VALUE_HOLE},")).map(|at| at + 1);
        Self { bytes: [head.as_bytes(), body.as_bytes()].concat(), order, value }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(kind: HitKind, sequence: u64) -> String {
        let renderer = Renderer::new(0xAB, &[Goal { id: 1, token: "tok".into() }]);
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
    fn an_anonymous_hit_has_no_order() {
        let request = rendered(HitKind::Anonymous, 5);
        assert!(!body(&request).contains("order_id"));
    }
}
