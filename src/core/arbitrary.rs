//! Any records and entries, for property tests.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use uuid::Uuid;

use super::{
    AccountId, Adjustment, AdjustmentId, AdjustmentKind, Attribution, Campaign, Click, ClickId, ClickSource,
    Conversion, ConversionId, CountedAdjustment, CountedClick, CountedConversion, Currency, DedupScope,
    Earned, GoalId, LinkId, Matching, Method, Money, OrderId, OrderKey, Refusal, RunId, Source, Traffic,
    Unattributed, UnixMillis,
};

fn money() -> impl Strategy<Value = Money> {
    (0..10u64.pow(18)).prop_map(|micros| Money::from_micros(micros).expect("18 digits"))
}

fn text() -> impl Strategy<Value = String> {
    ".{0,40}"
}

fn ip() -> impl Strategy<Value = Option<IpAddr>> {
    any::<Option<Ipv4Addr>>().prop_map(|ip| ip.map(IpAddr::V4))
}

fn matching() -> impl Strategy<Value = Matching> {
    prop_oneof![
        Just(Matching::Unknown),
        Just(Matching::PrivateAddress),
        proptest::collection::vec(any::<u64>(), 1..15).prop_map(Matching::Keys),
    ]
}

prop_compose! {
    pub(super) fn campaigns()(
        source in text(), medium in text(), campaign in text(), term in text(), content in text(),
    ) -> Campaign {
        Campaign { source, medium, campaign, term, content }
    }
}

prop_compose! {
    pub(super) fn conversions()(
        id: u128, ids: (u32, u32), order in "[A-Za-z0-9-]{0,200}", key: Option<(u128, bool)>, value in money(),
        at: i64, before in 0..1i64 << 40, window_seconds: u32, click in proptest::option::of(1u64..),
        source in prop::sample::select(vec![Source::Postback, Source::Pixel, Source::Api]),
        visitor in (ip(), text(), any::<u64>(), matching()),
    ) -> Conversion {
        let (ip, user_agent, visitor_key, matching) = visitor;
        Conversion {
            id: ConversionId(Uuid::from_u128(id)),
            account_id: AccountId(ids.0),
            goal_id: GoalId(ids.1),
            order_id: OrderId::parse(&order).expect("fits"),
            key: key.map(|(k, day)| {
                (OrderKey(k.max(1)), if day { DedupScope::Day } else { DedupScope::Forever })
            }),
            value,
            currency: Currency::USD,
            received_at: UnixMillis(at),
            converted_at: UnixMillis(at.saturating_sub(before)),
            window_seconds,
            source,
            click_id: click.map(ClickId),
            ip,
            user_agent,
            visitor_key,
            matching,
            unverified: false,
        }
    }
}

prop_compose! {
    pub(super) fn clicks()(
        id: u64, account: u32, link in proptest::option::of(1u32..), key in proptest::option::of(1u128..),
        at: i64, before in 0..1i64 << 40, redirect: bool,
        traffic in prop::sample::select(vec![Traffic::Human, Traffic::Bot, Traffic::Prefetch]),
        campaign in campaigns(), variant in text(), subs in proptest::array::uniform5(".{0,20}"),
        visitor in (ip(), text(), any::<u64>(), any::<bool>()),
    ) -> Click {
        let (ip, user_agent, visitor_key, private_address) = visitor;
        Click {
            id: ClickId(id),
            account_id: AccountId(account),
            link_id: link.map(LinkId),
            key: key.map(OrderKey),
            clicked_at: UnixMillis(at.saturating_sub(before)),
            received_at: UnixMillis(at),
            source: if redirect { ClickSource::Redirect } else { ClickSource::Api },
            traffic,
            campaign,
            variant,
            subs,
            ip,
            user_agent,
            visitor_key,
            private_address,
            unverified: false,
        }
    }
}

prop_compose! {
    pub(super) fn adjustments()(
        id: u128, account: u32, conversion: u128, kind in prop::sample::select(AdjustmentKind::ALL.to_vec()),
        value in proptest::option::of(money()), key in proptest::option::of(1u128..), reason in text(), at: i64,
    ) -> Adjustment {
        Adjustment {
            id: AdjustmentId(Uuid::from_u128(id)),
            account_id: AccountId(account),
            conversion_id: ConversionId(Uuid::from_u128(conversion)),
            kind,
            value,
            key: key.map(OrderKey),
            reason,
            received_at: UnixMillis(at),
            unverified: false,
        }
    }
}

prop_compose! {
    pub(super) fn refusals()(
        account: u32, goal: u32, at: i64, code in "[a-z_]{1,30}", message in text(), id: Option<u128>,
        original: Option<u128>, request in prop_oneof![".{0,300}", "\\{\"body_bytes\":.{0,300}"],
    ) -> Refusal {
        let id_of = |id: u128| ConversionId(Uuid::from_u128(id.max(1)));
        Refusal {
            account_id: AccountId(account),
            goal_id: GoalId(goal),
            received_at: UnixMillis(at),
            code,
            field: String::new(),
            message,
            order_id: "A-1".into(),
            conversion_id: id.map(id_of),
            original_id: original.map(id_of),
            source: Source::Pixel,
            request,
        }
    }
}

prop_compose! {
    pub(super) fn earned()(
        explicit: bool, click: u64, link in proptest::option::of(1u32..), at: i64, seconds_to_convert: u32,
        campaign in campaigns(), variant in text(), labelled: bool,
    ) -> Earned {
        Earned {
            method: if explicit { Method::ClickId } else { Method::IpUserAgent },
            click_id: ClickId(click),
            link_id: link.map(LinkId),
            clicked_at: UnixMillis(at),
            seconds_to_convert,
            campaign,
            variant,
            labelled,
        }
    }
}

prop_compose! {
    pub(super) fn counted_conversions()(
        conversion in conversions(), earned in earned(), attributed: bool, candidates: u16, run: u32,
        reason in prop::sample::select(Unattributed::ALL.to_vec()),
    ) -> CountedConversion {
        let outcome = if attributed { Ok(earned) } else { Err(reason) };
        CountedConversion { conversion, attribution: Attribution { outcome, candidates }, run: RunId(run) }
    }
}

prop_compose! {
    pub(super) fn counted_clicks()(click in clicks(), labelled: bool) -> CountedClick {
        CountedClick { click, labelled }
    }
}

prop_compose! {
    pub(super) fn counted_adjustments()(
        adjustment in adjustments(), goal: u32, at: i64, earned in proptest::option::of(earned()),
        net_value_change: i64, net_conversions_change in -1i8..=1, run: u32,
    ) -> CountedAdjustment {
        CountedAdjustment {
            adjustment,
            goal_id: GoalId(goal),
            currency: Currency::USD,
            converted_at: UnixMillis(at),
            earned,
            net_value_change,
            net_conversions_change,
            run: RunId(run),
        }
    }
}
