//! Outgoing postbacks as the domain knows them: what is said, how it is signed, when it is tried again, and which
//! addresses may be spoken to. What is said follows the Standard Webhooks specification.

mod address;
mod body;
mod delivery;
mod retry;
mod settings;
mod signature;
mod template;

pub use address::is_refused;
pub use body::body;
pub use delivery::{Backfill, BackfillQuery, Delivery, DeliveryId, DeliveryPage, DeliveryQuery, TestAnswer};
pub use retry::{ATTEMPTS_MAX, Next, RETRY_AFTER_MAX, Verdict, next, retry_after, verdict};
pub use settings::{PREVIOUS_SECRET_KEPT_MILLIS, PostbackMethod, PostbackSettings, SigningSecret};
pub use signature::sign;
pub use template::expand;

use super::{
    AccountId, ClickId, ConversionId, CountedConversion, Currency, GoalId, LinkId, Money, OrderId, UnixMillis,
};

/// What a goal's owner is told of a conversion. Everything in it is fixed when the conversion settles, so every copy
/// says the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The conversion.
    pub conversion_id: ConversionId,
    /// Whose it is.
    pub account_id: AccountId,
    /// What was completed.
    pub goal_id: GoalId,
    /// The caller's order id, if any.
    pub order_id: Option<OrderId>,
    /// The click that earned it; without one, the click that the caller named.
    pub click_id: Option<ClickId>,
    /// The link of the click that earned it.
    pub link_id: Option<LinkId>,
    /// Its value.
    pub value: Money,
    /// The value's currency.
    pub currency: Currency,
    /// When it happened.
    pub converted_at: UnixMillis,
    /// How the click that earned it was found: [`super::Method`] by name; none: no click did.
    pub method: Option<&'static str>,
    /// Why no click earned it: [`super::Unattributed`] by name.
    pub reason: Option<&'static str>,
    /// A sample that somebody asked for: nobody converted.
    pub test: bool,
}

impl Event {
    /// What is told of a conversion that counts.
    #[must_use]
    pub fn new(counted: &CountedConversion) -> Self {
        let conversion = &counted.conversion;
        let outcome = counted.attribution.outcome.as_ref();
        let earned = outcome.ok();
        Self {
            conversion_id: conversion.id,
            account_id: conversion.account_id,
            goal_id: conversion.goal_id,
            order_id: conversion.order_id.clone(),
            click_id: earned
                .map(|earned| earned.click_id)
                .or(conversion.click_id.filter(|id| *id != ClickId::UNUSABLE)),
            link_id: earned.and_then(|earned| earned.link_id),
            value: conversion.value,
            currency: conversion.currency,
            converted_at: conversion.converted_at,
            method: earned.map(|earned| earned.method.as_str()),
            reason: outcome.err().map(|reason| reason.as_str()),
            test: false,
        }
    }

    /// The name that every copy of it carries, whenever and however often it is sent: `webhook-id`.
    #[must_use]
    pub fn webhook_id(&self) -> String {
        webhook_id(self.conversion_id)
    }
}

/// The `webhook-id` of a conversion's postback.
#[must_use]
pub fn webhook_id(conversion: ConversionId) -> String {
    format!("msg_{conversion}")
}

#[cfg(test)]
pub(crate) fn sample() -> Event {
    Event {
        conversion_id: ConversionId(uuid::Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0007)),
        account_id: AccountId(1),
        goal_id: GoalId(3),
        order_id: OrderId::parse("ORDER 1/2").ok().flatten(),
        click_id: Some(ClickId(789)),
        link_id: Some(LinkId(456)),
        value: Money::parse("99.99").expect("money"),
        currency: Currency::USD,
        converted_at: UnixMillis(1_768_996_800_000),
        method: Some("click_id"),
        reason: None,
        test: false,
    }
}
