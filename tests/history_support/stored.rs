//! What the daemon made of a history, read from ClickHouse.

use loadtest::clickhouse::ClickHouse;

use super::history::{Event, History};
use super::model::{KnownClick, KnownConversion, Told};
use crate::support::wait_for;

/// Waits until every event is there, and what conversions owe to clicks with them.
pub fn wait_complete(clickhouse: &ClickHouse, history: &History) {
    let conversions =
        history.events.iter().filter(|event| matches!(event, Event::Conversion(_))).count() as u64;
    let clicks = history.events.len() as u64 - conversions;
    let counts = "SELECT (SELECT uniqExact(utm_content) FROM tally.clicks), (SELECT count() FROM tally.conversions), \
                  (SELECT countIf(attribution_method != 'none') FROM tally.conversions) = \
                  (SELECT count() FROM tally.attributions)";
    let wanted = format!("{clicks}\t{conversions}\t1");
    wait_for(&format!("{wanted} by {counts}"), || {
        // An engine on its way back answers nothing.
        let mut lines = clickhouse.lines(counts).into_iter().flatten();
        matches!(lines.next(), Some(Ok(line)) if line == wanted)
    });
}

/// Every stored click that belongs to the history. One whose number was issued may be there again, if the daemon was
/// killed before it could acknowledge it: no number, no promise.
pub fn clicks<'a>(clickhouse: &ClickHouse, history: &'a History) -> Vec<KnownClick<'a>> {
    let query = "SELECT utm_content, click_id, toUnixTimestamp64Milli(clicked_at), \
                 toUnixTimestamp64Milli(received_at) FROM tally.clicks ORDER BY ALL";
    let clicks: Vec<_> = rows(clickhouse, query)
        .into_iter()
        .map(|row| {
            let tag: usize = parse(&row[0]);
            let Event::Click(event) = &history.events[tag] else { panic!("{tag} is no click") };
            let (clicked_at, received_at) = (parse(&row[2]), parse(&row[3]));
            assert_eq!(
                clicked_at,
                event.at.unwrap_or(received_at),
                "click {tag} happened when it was said to"
            );
            KnownClick { event, tag, id: parse(&row[1]), clicked_at, received_at }
        })
        .collect();
    for (tag, event) in history.events.iter().enumerate() {
        if let Event::Click(event) = event {
            let stored: Vec<_> = clicks.iter().filter(|click| click.tag == tag).collect();
            match event.id {
                Some(id) => assert!(stored.len() == 1 && stored[0].id == id, "{event:?}: {stored:?}"),
                None => assert!(!stored.is_empty(), "{event:?} was acknowledged and is not there"),
            }
        }
    }
    clicks
}

/// Every conversion, and what it is attributed to.
pub fn conversions<'a>(
    clickhouse: &ClickHouse,
    history: &'a History,
) -> Vec<(KnownConversion<'a>, String, Told)> {
    let query = "SELECT order_id, toUnixTimestamp64Milli(c.converted_at), toUnixTimestamp64Milli(c.received_at), \
                 conversion_id, attribution_method, attribution_reason, candidates, a.click_id, a.utm_content, \
                 a.seconds_to_convert FROM tally.conversions AS c LEFT JOIN tally.attributions AS a \
                 USING (conversion_id) ORDER BY toUInt32(order_id)";
    let conversions: Vec<_> = rows(clickhouse, query)
        .into_iter()
        .map(|row| {
            let tag: usize = parse(&row[0]);
            let Event::Conversion(event) = &history.events[tag] else { panic!("{tag} is no conversion") };
            let (converted_at, received_at) = (parse(&row[1]), parse(&row[2]));
            assert_eq!(
                converted_at,
                event.at.unwrap_or(received_at),
                "conversion {tag} happened when it was said to"
            );
            let method = (row[4] != "none").then(|| row[4].clone());
            let told = Told {
                reason: (!row[5].is_empty()).then(|| row[5].clone()),
                click: method.is_some().then(|| (parse(&row[7]), parse(&row[8]))),
                seconds: method.is_some().then(|| parse(&row[9])),
                candidates: parse(&row[6]),
                method,
            };
            (KnownConversion { event, converted_at, received_at }, row[3].clone(), told)
        })
        .collect();
    let sent = history.events.iter().filter(|event| matches!(event, Event::Conversion(_))).count();
    assert_eq!(conversions.len(), sent, "each conversion is there once, and attributed at most once");
    conversions
}

fn rows(clickhouse: &ClickHouse, query: &str) -> Vec<Vec<String>> {
    let lines = clickhouse.lines(query).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let lines = lines.unwrap_or_else(|error| panic!("{query}: {error}"));
    lines.iter().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not what was asked for"))
}
