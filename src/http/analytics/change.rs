//! How the main measures changed against the period before: as many hours, right before.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::core::{Currency, CurrencySums, Measures, MoneySum};

/// Every measure with what it was, by how much it changed, and by how many percent of what it was.
#[derive(Serialize)]
pub(super) struct ChangeJson {
    human_clicks: Change<u64, i64>,
    conversions: Change<u64, i64>,
    attributed: Change<u64, i64>,
    net_conversions: Change<u64, i64>,
    conversion_rate: Change<f64, f64>,
    unique_rate: Change<f64, f64>,
    total_value: BTreeMap<String, Change<String, String>>,
    average_value: BTreeMap<String, Change<String, String>>,
    net_value: BTreeMap<String, Change<String, String>>,
}

#[derive(Serialize)]
struct Change<T, D> {
    before: T,
    absolute: D,
    /// Null where it was 0.
    percent: Option<f64>,
}

impl ChangeJson {
    pub(super) fn new(now: &Measures, before: &Measures) -> Self {
        let count = |of: fn(&Measures) -> u64| counts(of(now), of(before));
        let rate = |of: fn(&Measures) -> f64| rates(of(now), of(before));
        let money = |of: fn(&CurrencySums) -> MoneySum| amounts(now, before, of);
        Self {
            human_clicks: count(|of| of.human_clicks),
            conversions: count(Measures::conversions),
            attributed: count(|of| of.attributed),
            net_conversions: count(|of| of.net_conversions),
            conversion_rate: rate(Measures::rate),
            unique_rate: rate(Measures::unique_rate),
            total_value: money(|sums| sums.value),
            average_value: money(|sums| sums.value.average(sums.conversions)),
            net_value: money(|sums| sums.net_value),
        }
    }
}

fn counts(now: u64, before: u64) -> Change<u64, i64> {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let percent = percent(now as f64, before as f64);
    let difference = i128::from(now) - i128::from(before);
    Change { before, absolute: i64::try_from(difference).unwrap_or(i64::MAX), percent }
}

fn rates(now: f64, before: f64) -> Change<f64, f64> {
    Change { before, absolute: hundredths(now - before), percent: percent(now, before) }
}

/// Of every currency of either period.
fn amounts(
    now: &Measures,
    before: &Measures,
    of: fn(&CurrencySums) -> MoneySum,
) -> BTreeMap<String, Change<String, String>> {
    let amount = |measures: &Measures, currency: &Currency| {
        measures.by_currency.get(currency).map(of).unwrap_or_default()
    };
    let currencies = now.by_currency.keys().chain(before.by_currency.keys());
    let changes = currencies.map(|currency| {
        let (now, before) = (amount(now, currency), amount(before, currency));
        #[expect(clippy::cast_precision_loss, reason = "a percentage to hundredths")]
        let percent = percent(now.0 as f64, before.0 as f64);
        (currency.to_string(), Change { before: before.to_string(), absolute: now.less(before), percent })
    });
    changes.collect()
}

fn percent(now: f64, before: f64) -> Option<f64> {
    (before != 0.0).then(|| hundredths((now - before) / before * 100.0))
}

/// Never -0, which JSON would write.
fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0 + 0.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn measures(human_clicks: u64, attributed: u64, money: &[(&str, u64, u128)]) -> Measures {
        let sums = |(code, conversions, micros): &(&str, u64, u128)| {
            let sums = CurrencySums {
                conversions: *conversions,
                value: MoneySum(*micros),
                net_value: MoneySum(micros / 2),
            };
            (Currency::parse(code).expect("known"), sums)
        };
        let by_currency = money.iter().map(sums).collect();
        Measures { human_clicks, attributed, by_currency, ..Measures::default() }
    }

    #[test]
    fn changes_are_absolute_and_in_percent_of_what_was() {
        let now = measures(100, 10, &[("USD", 12, 120_000_000), ("EUR", 1, 5_000_000)]);
        let before = measures(80, 12, &[("USD", 9, 160_000_000), ("JPY", 1, 7_000_000)]);
        let json = serde_json::to_value(ChangeJson::new(&now, &before)).expect("JSON");
        assert_eq!(json["human_clicks"], json!({"before": 80, "absolute": 20, "percent": 25.0}));
        assert_eq!(json["attributed"], json!({"before": 12, "absolute": -2, "percent": -16.67}));
        assert_eq!(json["conversion_rate"], json!({"before": 15.0, "absolute": -5.0, "percent": -33.33}));
        assert_eq!(json["unique_rate"], json!({"before": 0.0, "absolute": 0.0, "percent": null}));
        assert_eq!(
            json["total_value"],
            json!({
                "USD": {"before": "160.00", "absolute": "-40.00", "percent": -25.0},
                "EUR": {"before": "0.00", "absolute": "5.00", "percent": null},
                "JPY": {"before": "7.00", "absolute": "-7.00", "percent": -100.0},
            })
        );
        assert_eq!(
            json["average_value"]["USD"],
            json!({"before": "17.78", "absolute": "-7.78", "percent": -43.76})
        );
    }

    proptest! {
        #[test]
        fn what_was_and_the_change_make_what_is(now in 0..1u64 << 50, before in 0..1u64 << 50) {
            let change = counts(now, before);
            prop_assert_eq!(i128::from(change.before) + i128::from(change.absolute), i128::from(now));
            prop_assert_eq!(change.percent.is_none(), before == 0);
            prop_assert!(change.percent.is_none_or(|percent| percent >= -100.0 && percent.is_finite()));
            prop_assert!(counts(now, now).percent.is_none_or(|percent| percent == 0.0));
        }
    }
}
