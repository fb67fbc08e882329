//! Records for tests.

use uuid::Uuid;

use super::cut::LateDuplicate;
use crate::{
    core::{
        AccountId, Conversion, ConversionId, CountedConversion, Currency, DedupScope, GoalId, Money, OrderId,
        OrderKey, Refusal, Source, Unattributed, UnixMillis,
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
