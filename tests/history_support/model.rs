//! What each conversion must be attributed to, looked up the slow way: every click is held against every conversion.

use super::history::{Click, Conversion, Visitor};

/// A click with what only the daemon could know: its number where one was issued, and its times.
#[derive(Debug, Clone)]
pub struct KnownClick<'a> {
    pub event: &'a Click,
    pub tag: usize,
    pub id: u64,
    pub clicked_at: i64,
    pub received_at: i64,
}

/// A conversion with its times.
#[derive(Debug, Clone)]
pub struct KnownConversion<'a> {
    pub event: &'a Conversion,
    pub converted_at: i64,
    pub received_at: i64,
}

/// What is said of a conversion, by the model or by the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub method: Option<String>,
    pub reason: Option<String>,
    /// The click, and its tag.
    pub click: Option<(u64, usize)>,
    pub seconds: Option<i64>,
    pub candidates: usize,
}

/// The model's word. A click counts if it was accepted at most `settle_millis` after the conversion.
pub fn told(conversion: &KnownConversion<'_>, clicks: &[KnownClick<'_>], settle_millis: i64) -> Told {
    let of_account = || {
        clicks.iter().filter(|click| {
            click.event.account == conversion.event.account
                && click.received_at <= conversion.received_at + settle_millis
        })
    };
    let (method, found, none): (_, Vec<_>, _) = match (conversion.event.click, &conversion.event.visitor) {
        (Some(id), _) => {
            ("click_id", of_account().filter(|click| click.id == id).collect(), "click_not_found")
        }
        (None, Visitor::Unknown) => return unattributed("no_visitor"),
        (None, Visitor::Private { .. }) => return unattributed("private_address"),
        (None, visitor) => {
            // Visitors are known by another key in each epoch: they are looked for in those that the window touches.
            let last = conversion.converted_at.div_euclid(1000);
            let epochs =
                epoch((last - conversion.event.window_seconds()) * 1000)..=epoch(conversion.converted_at);
            let same = of_account().filter(|click| {
                click.event.visitor == *visitor
                    && matches!(click.event.visitor, Visitor::Person { .. })
                    && epochs.contains(&epoch(click.clicked_at))
            });
            ("ip_user_agent", same.collect(), "no_candidate")
        }
    };
    let seconds =
        |click: &KnownClick<'_>| conversion.converted_at.div_euclid(1000) - click.clicked_at.div_euclid(1000);
    let window = conversion.event.window_seconds();
    let in_window = |click: &&&KnownClick<'_>| (0..=window).contains(&seconds(click));
    match found.iter().filter(in_window).max_by_key(|click| (click.clicked_at, click.id)) {
        Some(best) => Told {
            method: Some(method.to_owned()),
            reason: None,
            click: Some((best.id, best.tag)),
            seconds: Some(seconds(best)),
            candidates: found.iter().filter(in_window).count(),
        },
        None if found.iter().any(|click| seconds(click) > window) => unattributed("outside_window"),
        None if !found.is_empty() => unattributed("click_after_conversion"),
        None => unattributed(none),
    }
}

/// 30 days each, counted from 1970.
fn epoch(millis: i64) -> i64 {
    millis.div_euclid(30 * 86_400_000)
}

fn unattributed(reason: &str) -> Told {
    Told { reason: Some(reason.to_owned()), ..Told::default() }
}
