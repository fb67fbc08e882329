//! The body of a postback: JSON whose first seven keys, their order and their types clients rely on.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::Event;
use crate::core::{OrderId, UnixMillis};

/// The JSON text. Money is written as a number, digit by digit; a click or a link that is not known is null.
#[must_use]
pub fn body(event: &Event) -> String {
    let mut text = String::with_capacity(384);
    let name = if event.test { "conversion.test" } else { "conversion.tracked" };
    // Writing into a String has no error to report.
    let _ = write!(
        text,
        r#"{{"event":"{name}","conversion_id":"{}","link_id":{},"click_id":{},"value":{},"currency":"{}","timestamp":"{}","goal_id":{},"order_id":{},"attribution":{{"method":{},"reason":{}}}"#,
        event.conversion_id,
        number(event.link_id.map(|link| link.0.into())),
        number(event.click_id.map(|click| click.0)),
        event.value,
        event.currency,
        timestamp(event.converted_at),
        event.goal_id.0,
        quoted(event.order_id.as_ref().map(OrderId::as_str)),
        quoted(event.method),
        quoted(event.reason),
    );
    text.push_str(if event.test { r#","test":true}"# } else { "}" });
    text
}

/// RFC 3339 in UTC, with milliseconds where there are any.
pub(super) fn timestamp(at: UnixMillis) -> Timestamp {
    Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn quoted(text: Option<&str>) -> String {
    // Text always serialises.
    serde_json::to_string(&text).unwrap_or_else(|_| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::webhook::sample;

    #[test]
    fn reads_exactly_as_documented() {
        assert_eq!(
            body(&sample()),
            r#"{"event":"conversion.tracked","conversion_id":"01980000-0000-7000-8000-000000000007","link_id":456,"click_id":789,"value":99.99,"currency":"USD","timestamp":"2026-01-21T12:00:00Z","goal_id":3,"order_id":"ORDER 1/2","attribution":{"method":"click_id","reason":null}}"#
        );
    }

    #[test]
    fn what_is_not_known_is_null_and_a_sample_says_so() {
        let event = Event {
            order_id: OrderId::parse("a\"b\\").ok().flatten(),
            click_id: None,
            link_id: None,
            method: None,
            reason: Some("no_candidate"),
            test: true,
            ..sample()
        };
        let json: serde_json::Value = serde_json::from_str(&body(&event)).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({"event":"conversion.test","conversion_id":event.conversion_id.to_string(),
                "link_id":null,"click_id":null,"value":99.99,"currency":"USD","timestamp":"2026-01-21T12:00:00Z",
                "goal_id":3,"order_id":"a\"b\\","attribution":{"method":null,"reason":"no_candidate"},"test":true})
        );
    }
}
