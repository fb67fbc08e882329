//! Macros in a postback's URL, for ad networks that are called by GET: `https://network/pb?cid={click_id}`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Event, body::timestamp};
use crate::core::OrderId;

/// Everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The URL with its macros replaced by percent-encoded values; one that is not known becomes empty, and what is in
/// braces and no macro stays as it is. A value can't start another macro, nor end the parameter that it stands in.
#[must_use]
pub fn expand(url: &str, event: &Event) -> String {
    let mut expanded = String::with_capacity(url.len() + 64);
    let mut rest = url;
    while let Some((before, after)) = rest.split_once('{') {
        expanded.push_str(before);
        let value = after.split_once('}').and_then(|(name, tail)| Some((value(name, event)?, tail)));
        if let Some((value, tail)) = value {
            expanded.extend(utf8_percent_encode(&value, ENCODED));
            rest = tail;
        } else {
            expanded.push('{');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

fn value(name: &str, event: &Event) -> Option<String> {
    Some(match name {
        "event" => if event.test { "conversion.test" } else { "conversion.tracked" }.to_owned(),
        "conversion_id" => event.conversion_id.to_string(),
        "webhook_id" => event.webhook_id(),
        "goal_id" => event.goal_id.0.to_string(),
        "click_id" => event.click_id.map(|click| click.0.to_string()).unwrap_or_default(),
        "link_id" => event.link_id.map(|link| link.0.to_string()).unwrap_or_default(),
        "order_id" => event.order_id.as_ref().map(OrderId::as_str).unwrap_or_default().to_owned(),
        "value" => event.value.to_string(),
        "currency" => event.currency.to_string(),
        "timestamp" => timestamp(event.converted_at).to_string(),
        "attribution_method" => event.method.unwrap_or_default().to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::webhook::sample;

    #[test]
    fn values_are_percent_encoded() {
        let url = "https://network/pb?cid={click_id}&payout={value}&txid={order_id}&at={timestamp}&x={y}&{";
        assert_eq!(
            expand(url, &sample()),
            "https://network/pb?cid=789&payout=99.99&txid=ORDER%201%2F2&at=2026-01-21T12%3A00%3A00Z&x={y}&{"
        );
        let unknown = Event { click_id: None, order_id: None, ..sample() };
        assert_eq!(expand("?cid={click_id}&txid={order_id}", &unknown), "?cid=&txid=");
    }

    proptest! {
        #[test]
        fn no_value_adds_a_parameter_or_a_macro(order in "[ -~]{1,40}") {
            let event = Event { order_id: OrderId::parse(&order).ok().flatten(), ..sample() };
            let expanded = expand("https://n/?a={order_id}&b=1", &event);
            let pairs: Vec<_> = form_urlencoded::parse(expanded.split_once('?').expect("a query").1.as_bytes())
                .into_owned().collect();
            let text = event.order_id.as_ref().map(OrderId::as_str).unwrap_or_default();
            prop_assert_eq!(pairs, vec![("a".to_owned(), text.to_owned()), ("b".to_owned(), "1".to_owned())]);
        }
    }
}
