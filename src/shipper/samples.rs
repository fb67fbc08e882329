//! Records for tests.

use uuid::Uuid;

use super::cut::{Content, LateDuplicate};
use crate::{
    core::{
        AccountId, Adjustment, AdjustmentId, AdjustmentKind, Attribution, CLICK_ID_FIELD, Campaign, Click,
        ClickId, ClickSource, Conversion, ConversionId, CountedAdjustment, CountedClick, CountedConversion,
        Currency, DedupScope, Earned, GoalId, LinkId, Method, Money, OrderId, OrderKey, Refusal, RunId,
        Source, Traffic, Unattributed, UnixMillis,
    },
    dedup::SettledKey,
};

/// 2026-11-01T00:00:00Z.
pub(crate) const NOVEMBER: i64 = 1_793_491_200_000;

pub(crate) fn id(n: u32) -> ConversionId {
    ConversionId(Uuid::from_u128(0x019f_0000_0000_7000_8000_0000_0000_0000 + u128::from(n)))
}

pub(crate) fn conversion(n: u32) -> Conversion {
    Conversion {
        id: id(n),
        account_id: AccountId(1),
        goal_id: GoalId(1 + n % 3),
        order_id: OrderId::parse(&format!("ORDER-{n}")).expect("fits"),
        key: Some((OrderKey(1000 + u128::from(n)), DedupScope::Forever)),
        value: Money::from_micros(1_000_000 + u64::from(n)).expect("fits"),
        currency: Currency::USD,
        received_at: UnixMillis(NOVEMBER + i64::from(n) * 1000),
        converted_at: UnixMillis(NOVEMBER + i64::from(n) * 1000),
        window_seconds: 30 * 86_400,
        matching: crate::core::Matching::Unknown,
        source: Source::Api,
        click_id: None,
        ip: None,
        user_agent: "curl/8".into(),
        visitor_key: 0,
        unverified: false,
    }
}

pub(crate) fn counted(n: u32) -> CountedConversion {
    CountedConversion::unattributed(conversion(n), Unattributed::NoVisitor)
}

pub(crate) fn click(n: u32) -> Click {
    Click {
        id: ClickId(7000 + u64::from(n)),
        account_id: AccountId(1),
        link_id: (!n.is_multiple_of(4)).then_some(LinkId(1 + n % 4)),
        key: n.is_multiple_of(2).then_some(OrderKey(2000 + u128::from(n))),
        clicked_at: UnixMillis(NOVEMBER + i64::from(n) * 1000 - 90_000),
        received_at: UnixMillis(NOVEMBER + i64::from(n) * 1000),
        source: ClickSource::Api,
        traffic: if n.is_multiple_of(5) { Traffic::Bot } else { Traffic::Human },
        campaign: Campaign { source: "news \"letter\"".into(), ..Campaign::default() },
        variant: "B".into(),
        subs: ["a".into(), String::new(), String::new(), String::new(), "e".into()],
        ip: Some("203.0.113.0".parse().expect("an address")),
        user_agent: "Mozilla/5.0".into(),
        visitor_key: u64::MAX - u64::from(n),
        private_address: false,
        unverified: false,
    }
}

pub(crate) fn counted_click(n: u32) -> CountedClick {
    CountedClick { click: click(n), labelled: !n.is_multiple_of(3) }
}

/// A conversion that the click of the same number earned.
pub(crate) fn attributed(n: u32) -> CountedConversion {
    let click = click(n);
    let earned = Earned {
        method: if n.is_multiple_of(2) { Method::ClickId } else { Method::IpUserAgent },
        click_id: click.id,
        link_id: click.link_id,
        clicked_at: click.clicked_at,
        seconds_to_convert: 90,
        campaign: click.campaign,
        variant: click.variant,
        labelled: true,
    };
    let attribution = Attribution { outcome: Ok(earned), candidates: 2 };
    CountedConversion { conversion: conversion(n), attribution, run: RunId(3) }
}

pub(crate) fn adjustment(n: u32) -> Adjustment {
    Adjustment {
        id: AdjustmentId(Uuid::from_u128(0x019f_0000_0000_7000_8001_0000_0000_0000 + u128::from(n))),
        account_id: AccountId(1),
        conversion_id: id(n),
        kind: AdjustmentKind::ALL[n as usize % AdjustmentKind::ALL.len()],
        value: Money::from_micros(1),
        key: n.is_multiple_of(2).then_some(OrderKey(3000 + u128::from(n))),
        reason: "came back".into(),
        received_at: UnixMillis(NOVEMBER + i64::from(n) * 1000),
        unverified: false,
    }
}

pub(crate) fn counted_adjustment(n: u32) -> CountedAdjustment {
    let counted = attributed(n);
    CountedAdjustment {
        adjustment: adjustment(n),
        goal_id: counted.conversion.goal_id,
        currency: counted.conversion.currency,
        converted_at: counted.conversion.converted_at,
        earned: counted.attribution.outcome.ok().filter(|_| n.is_multiple_of(2)),
        net_value_change: -1,
        net_conversions_change: 0,
        run: RunId(3),
    }
}

/// Some of everything that a cut may hold.
pub(crate) fn everything() -> Content {
    Content {
        clicks: (20..23).map(counted_click).collect(),
        conversions: (0..5).map(|n| if n < 3 { attributed(n) } else { counted(n) }).collect(),
        adjustments: (30..32).map(counted_adjustment).collect(),
        late: vec![late_duplicate(5, 0), late_click(6), late_adjustment(7)],
        refusals: vec![refusal(8), refusal(9)],
    }
}

pub(crate) fn refusal(n: u32) -> Refusal {
    Refusal {
        account_id: AccountId(1),
        goal_id: GoalId(1),
        received_at: UnixMillis(NOVEMBER + i64::from(n) * 1000),
        code: "invalid_value".into(),
        field: "value".into(),
        message: "not a decimal number".into(),
        order_id: String::new(),
        conversion_id: None,
        original_id: None,
        source: Source::Pixel,
        request: "value=x".into(),
    }
}

pub(crate) fn late_duplicate(n: u32, original: u32) -> LateDuplicate {
    let refusal = Refusal {
        code: "duplicate".into(),
        field: "order_id".into(),
        message: "counted already".into(),
        conversion_id: Some(id(n)),
        original_id: Some(id(original)),
        ..refusal(n)
    };
    LateDuplicate {
        refusal,
        key: SettledKey { key: OrderKey(1000 + u128::from(original)), counted: id(original) },
    }
}

pub(crate) fn late_click(n: u32) -> LateDuplicate {
    let own = click(n).id.as_counted();
    let refusal = Refusal {
        goal_id: GoalId(0),
        code: "duplicate".into(),
        field: CLICK_ID_FIELD.into(),
        conversion_id: Some(own),
        original_id: Some(own),
        ..refusal(n)
    };
    LateDuplicate { refusal, key: SettledKey { key: OrderKey(2000 + u128::from(n)), counted: own } }
}

pub(crate) fn late_adjustment(n: u32) -> LateDuplicate {
    let refusal = Refusal {
        goal_id: GoalId(0),
        code: "duplicate".into(),
        field: "idempotency_key".into(),
        conversion_id: Some(ConversionId(adjustment(n).id.0)),
        original_id: Some(ConversionId(adjustment(0).id.0)),
        ..refusal(n)
    };
    let counted = ConversionId(adjustment(0).id.0);
    LateDuplicate { refusal, key: SettledKey { key: OrderKey(3000), counted } }
}
