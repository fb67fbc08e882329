//! A hit's fields as text, whatever they came in, and what they mean.

use std::{borrow::Cow, net::IpAddr};

use crate::{
    core::{ClickId, Currency, Money, OrderId, UnixMillis},
    http::{
        error::{ApiError, ErrorCode},
        fields::{self, filled},
    },
};

/// The fields that a hit may have, as text. Fields that are not among these are ignored: ad networks add their own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RawHit<'a> {
    pub(super) value: Option<Cow<'a, str>>,
    pub(super) currency: Option<Cow<'a, str>>,
    pub(super) order_id: Option<Cow<'a, str>>,
    pub(super) click_id: Option<Cow<'a, str>>,
    pub(super) postback_token: Option<Cow<'a, str>>,
    pub(super) ip: Option<Cow<'a, str>>,
    pub(super) user_agent: Option<Cow<'a, str>>,
    pub(super) converted_at: Option<Cow<'a, str>>,
}

/// The fields' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Value,
    Currency,
    OrderId,
    ClickId,
    PostbackToken,
    Ip,
    UserAgent,
    ConvertedAt,
}

/// A hit's fields, read: only the goal's defaults are missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) value: Option<Money>,
    pub(super) currency: Option<Currency>,
    pub(super) order_id: Option<OrderId>,
    pub(super) click_id: Option<ClickId>,
}

/// The visitor and the time, as a merchant's server reports them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) ip: Option<IpAddr>,
    pub(super) user_agent: Option<String>,
    pub(super) converted_at: Option<UnixMillis>,
}

impl Field {
    /// The field of that name.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"value" => Some(Self::Value),
            b"currency" => Some(Self::Currency),
            b"order_id" => Some(Self::OrderId),
            b"click_id" => Some(Self::ClickId),
            b"postback_token" => Some(Self::PostbackToken),
            b"ip" => Some(Self::Ip),
            b"user_agent" => Some(Self::UserAgent),
            b"converted_at" => Some(Self::ConvertedAt),
            _ => None,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Currency => "currency",
            Self::OrderId => "order_id",
            Self::ClickId => "click_id",
            Self::PostbackToken => "postback_token",
            Self::Ip => "ip",
            Self::UserAgent => "user_agent",
            Self::ConvertedAt => "converted_at",
        }
    }

    /// The error of a value that it can't have.
    pub(super) fn wrong(self, message: impl Into<Cow<'static, str>>) -> ApiError {
        let code = match self {
            Self::Value => ErrorCode::InvalidValue,
            Self::Currency => ErrorCode::InvalidCurrency,
            Self::OrderId => ErrorCode::InvalidOrderId,
            Self::ClickId => ErrorCode::InvalidClickId,
            Self::ConvertedAt => ErrorCode::InvalidTime,
            Self::PostbackToken | Self::Ip | Self::UserAgent => ErrorCode::InvalidField,
        };
        ApiError::new(code).because(message).at(self.name())
    }
}

impl<'a> RawHit<'a> {
    /// The place of a field.
    pub(super) fn slot(&mut self, field: Field) -> &mut Option<Cow<'a, str>> {
        match field {
            Field::Value => &mut self.value,
            Field::Currency => &mut self.currency,
            Field::OrderId => &mut self.order_id,
            Field::ClickId => &mut self.click_id,
            Field::PostbackToken => &mut self.postback_token,
            Field::Ip => &mut self.ip,
            Field::UserAgent => &mut self.user_agent,
            Field::ConvertedAt => &mut self.converted_at,
        }
    }

    /// What the fields mean. Blank text is an absent field.
    pub(super) fn read(&self) -> Result<Fields, ApiError> {
        Ok(Fields {
            value: expanded(Field::Value, self.value.as_deref())?
                .map(|text| Money::parse(text).map_err(|error| Field::Value.wrong(sentence("value", &error))))
                .transpose()?,
            currency: expanded(Field::Currency, self.currency.as_deref())?
                .map(|text| {
                    Currency::parse(text).map_err(|error| Field::Currency.wrong(sentence("currency", &error)))
                })
                .transpose()?,
            order_id: match expanded(Field::OrderId, self.order_id.as_deref())? {
                None => None,
                Some(text) => OrderId::parse(text)
                    .map_err(|error| Field::OrderId.wrong(sentence("order_id", &error)))?,
            },
            click_id: expanded(Field::ClickId, self.click_id.as_deref())?.map(click_id).transpose()?,
        })
    }

    /// The visitor's address and user agent, and when it converted. Only those who are trusted may report them.
    pub(super) fn reported(&self, now: UnixMillis, days_back_max: u32) -> Result<Reported, ApiError> {
        let (ip, time) =
            (filled(self.ip.as_deref()), expanded(Field::ConvertedAt, self.converted_at.as_deref())?);
        let name = Field::ConvertedAt.name();
        Ok(Reported {
            ip: ip.map(|text| fields::address(Field::Ip.name(), text)).transpose()?,
            user_agent: filled(self.user_agent.as_deref()).map(fields::user_agent),
            converted_at: time.map(|text| fields::time(name, text, now, days_back_max)).transpose()?,
        })
    }
}

/// The text, unless the sender forgot to put something in its place.
fn expanded(field: Field, text: Option<&str>) -> Result<Option<&str>, ApiError> {
    fields::expanded(field.name(), text)
}

fn click_id(text: &str) -> Result<ClickId, ApiError> {
    fields::click_id(text).ok_or_else(|| Field::ClickId.wrong(ErrorCode::InvalidClickId.message()))
}

fn sentence(field: &str, error: &impl std::fmt::Display) -> String {
    format!("`{field}`: {error}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::INTEGER_MAX;

    fn hit(value: &str, currency: &str, order_id: &str, click_id: &str) -> Result<Fields, ApiError> {
        let text = |text: &str| Some(Cow::Owned(text.to_owned()));
        RawHit {
            value: text(value),
            currency: text(currency),
            order_id: text(order_id),
            click_id: text(click_id),
            ..RawHit::default()
        }
        .read()
    }

    #[test]
    fn fields_are_read_exactly() {
        let fields = hit("99.990001", " eur", " A-1 ", "9007199254740991").expect("good");
        assert_eq!(fields.value.map(Money::micros), Some(99_990_001));
        assert_eq!(fields.currency.map(|currency| currency.to_string()).as_deref(), Some("EUR"));
        assert_eq!(fields.order_id.as_ref().map(OrderId::as_str), Some("A-1"));
        assert_eq!(fields.click_id, Some(ClickId(INTEGER_MAX)));
    }

    #[test]
    fn blank_is_absent() {
        let nothing = Fields { value: None, currency: None, order_id: None, click_id: None };
        assert_eq!(hit("", " ", "", "  "), Ok(nothing));
    }

    #[test]
    fn every_field_names_itself_when_it_is_wrong() {
        let failure = |result: Result<Fields, ApiError>| {
            let error = result.expect_err("wrong");
            (error.code.as_str(), error.field.into_owned())
        };
        assert_eq!(failure(hit("-1", "", "", "")), ("invalid_value", "value".into()));
        assert_eq!(failure(hit("1,5", "", "", "")), ("invalid_value", "value".into()));
        assert_eq!(failure(hit("", "BITCOIN", "", "")), ("invalid_currency", "currency".into()));
        assert_eq!(failure(hit("", "", "a\u{0}b", "")), ("invalid_order_id", "order_id".into()));
        for wrong in ["9007199254740992", "-1", "+1", "1.0", "1e3", "x", "99999999999999999999"] {
            assert_eq!(failure(hit("", "", "", wrong)), ("invalid_click_id", "click_id".into()), "{wrong}");
        }
        assert_eq!(failure(hit("", "", "{order_id}", "")), ("unexpanded_macro", "order_id".into()));
        assert_eq!(failure(hit("", "", "", "%CLICKID%")), ("unexpanded_macro", "click_id".into()));
        assert_eq!(failure(hit("{payout}", "", "", "")), ("unexpanded_macro", "value".into()));
    }
}
