//! Records of every kind, as they stand in a batch.

use super::engine::{NOVEMBER, conversion};
use tally::core::{
    AccountId, Adjustment, AdjustmentId, AdjustmentKind, Attribution, Campaign, Click, ClickId, ClickSource,
    ConversionId, CountedAdjustment, CountedClick, CountedConversion, Currency, Earned, LinkId, Method,
    Money, OrderKey, RunId, Traffic, Unattributed, UnixMillis,
};
use tally::shipper::Content;

/// The `n`th of many clicks: every second one with the caller's number, some of robots, three hours before it came.
pub fn click(n: u32) -> Click {
    let received_at = UnixMillis(NOVEMBER + i64::from(n) * 1000);
    let label = |of: &str, kinds: u32| format!("{of}-{}", n % kinds);
    Click {
        id: ClickId(1_000_000 + u64::from(n)),
        account_id: AccountId(1),
        link_id: (!n.is_multiple_of(10)).then_some(LinkId(1 + n % 4)),
        key: n.is_multiple_of(2).then_some(OrderKey(2_000_000_011 * (u128::from(n) + 1))),
        clicked_at: received_at.plus(-3 * 3_600_000),
        received_at,
        source: ClickSource::Api,
        traffic: if n.is_multiple_of(7) { Traffic::Bot } else { Traffic::Human },
        campaign: Campaign {
            source: label("source", 3),
            medium: "cpc".to_owned(),
            campaign: label("campaign", 2),
            term: String::new(),
            content: "it's \\ \"fine\"".to_owned(),
        },
        variant: label("", 2),
        subs: [String::new(), "two".to_owned(), String::new(), String::new(), String::new()],
        ip: Some("2001:db8::".parse().expect("an address")),
        user_agent: "Mozilla/5.0".to_owned(),
        visitor_key: u64::from(n % 50),
        private_address: n.is_multiple_of(11),
        unverified: false,
    }
}

/// What the `n`th conversion owes to the `n`th click.
pub fn earned(n: u32) -> Earned {
    let click = click(n);
    Earned {
        method: if n.is_multiple_of(4) { Method::ClickId } else { Method::IpUserAgent },
        click_id: click.id,
        link_id: click.link_id,
        clicked_at: click.clicked_at,
        seconds_to_convert: 3 * 3600 + n % 100,
        campaign: click.campaign,
        variant: click.variant,
        labelled: !n.is_multiple_of(5),
    }
}

/// The `n`th conversion; a click earned every second one.
pub fn counted(n: u32) -> CountedConversion {
    let outcome = if n.is_multiple_of(2) { Ok(earned(n)) } else { Err(Unattributed::NoCandidate) };
    let attribution = Attribution { outcome, candidates: 1 };
    CountedConversion { conversion: conversion(n), attribution, run: RunId(0) }
}

/// The `n`th adjustment, of the `n`th conversion.
pub fn adjustment(n: u32) -> CountedAdjustment {
    let of = counted(n);
    let id = of.conversion.id.0.as_u128() ^ (1 << 61);
    CountedAdjustment {
        adjustment: Adjustment {
            id: AdjustmentId(uuid::Uuid::from_u128(id)),
            account_id: AccountId(1),
            conversion_id: ConversionId(of.conversion.id.0),
            kind: AdjustmentKind::Refund,
            value: Money::from_micros(1_000_001),
            key: n.is_multiple_of(3).then_some(OrderKey(3_000_000_019 * (u128::from(n) + 1))),
            reason: "came back".to_owned(),
            received_at: of.conversion.received_at,
            unverified: false,
        },
        goal_id: of.conversion.goal_id,
        currency: Currency::USD,
        converted_at: of.conversion.converted_at,
        earned: of.attribution.outcome.ok(),
        net_value_change: -1_000_001,
        net_conversions_change: -i8::from(n.is_multiple_of(9)),
        run: RunId(0),
    }
}

/// The clicks, conversions and adjustments of these numbers.
pub fn content(numbers: std::ops::Range<u32>) -> Content {
    Content {
        clicks: numbers
            .clone()
            .map(|n| CountedClick { click: click(n), labelled: !n.is_multiple_of(5) })
            .collect(),
        conversions: numbers.clone().map(counted).collect(),
        adjustments: numbers.filter(|n| n.is_multiple_of(4)).map(adjustment).collect(),
        ..Content::default()
    }
}
