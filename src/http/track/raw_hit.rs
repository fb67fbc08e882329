//! A hit's fields as text, whatever they came in, and what they mean.

use std::{borrow::Cow, net::IpAddr};

use super::{notes::Warning, unknown::UnknownNames};
use crate::{
    core::{ClickId, Currency, Money, OrderId, UnixMillis},
    http::{
        error::{ApiError, ErrorCode},
        fields::{self, Given},
    },
};

/// The fields that a hit may have, as text, and the names of what else came.
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
    /// What is not understood is named to the caller.
    pub(super) unknown: UnknownNames<'a>,
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
    /// What was understood otherwise than it was written.
    pub(super) warnings: Vec<Warning>,
}

/// The visitor and the time, as a merchant's server reports them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) ip: Option<IpAddr>,
    pub(super) user_agent: Option<String>,
    pub(super) converted_at: Option<UnixMillis>,
}

impl Field {
    /// Every field.
    pub(super) const ALL: [Self; 8] = [
        Self::Value,
        Self::Currency,
        Self::OrderId,
        Self::ClickId,
        Self::PostbackToken,
        Self::Ip,
        Self::UserAgent,
        Self::ConvertedAt,
    ];

    /// The field of that name. Case does not matter, nor does what is left of an `&amp;` that was not decoded.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let exact = match name {
            b"value" => Some(Self::Value),
            b"currency" => Some(Self::Currency),
            b"order_id" => Some(Self::OrderId),
            b"click_id" => Some(Self::ClickId),
            b"postback_token" => Some(Self::PostbackToken),
            b"ip" => Some(Self::Ip),
            b"user_agent" => Some(Self::UserAgent),
            b"converted_at" => Some(Self::ConvertedAt),
            _ => None,
        };
        exact.or_else(|| {
            let name = bare_name(name);
            Self::ALL.into_iter().find(|field| name.eq_ignore_ascii_case(field.name().as_bytes()))
        })
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

/// A name without blanks around it and `amp;` before it: a link in HTML is at times sent as it was written there.
pub(super) fn bare_name(name: &[u8]) -> &[u8] {
    let mut name = name.trim_ascii();
    while let Some((start, rest)) = name.split_at_checked(4) {
        if !start.eq_ignore_ascii_case(b"amp;") {
            break;
        }
        name = rest;
    }
    name
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

    /// Whether what came is somebody else's: unknown names, and none of the three by which a sale is told. A webhook
    /// of a shop's or a payment provider's would count once for each of its retries.
    pub(super) fn is_foreign(&self) -> bool {
        !self.unknown.is_empty() && self.value.is_none() && self.order_id.is_none() && self.click_id.is_none()
    }

    /// What the fields mean. Blank text is an absent field, and so is what scripts write for 'nothing'; a click id that
    /// can't be one never costs the sale.
    pub(super) fn read(&self) -> Result<Fields, ApiError> {
        let mut warnings = Vec::new();
        let value = present(Field::Value, self.value.as_deref(), &mut warnings)?
            .map(|text| Money::parse(text).map_err(|error| Field::Value.wrong(sentence("value", &error))))
            .transpose()?;
        let currency = present(Field::Currency, self.currency.as_deref(), &mut warnings)?
            .map(|text| {
                Currency::parse(text).map_err(|error| Field::Currency.wrong(sentence("currency", &error)))
            })
            .transpose()?;
        let order_id = match present(Field::OrderId, self.order_id.as_deref(), &mut warnings)? {
            None => None,
            Some(text) => {
                OrderId::parse(text).map_err(|error| Field::OrderId.wrong(sentence("order_id", &error)))?
            }
        };
        let click_id = present(Field::ClickId, self.click_id.as_deref(), &mut warnings)?.map(|text| {
            fields::click_id(text).unwrap_or_else(|| {
                warnings.push(Warning::UnusableClickId);
                ClickId::UNUSABLE
            })
        });
        Ok(Fields { value, currency, order_id, click_id, warnings })
    }

    /// The visitor's address and user agent, and when it converted. Only those who are trusted may report them.
    pub(super) fn reported(&self, now: UnixMillis, days_back_max: u32) -> Result<Reported, ApiError> {
        let expanded = |field: Field, text| fields::expanded(field.name(), text);
        let ip = expanded(Field::Ip, self.ip.as_deref())?;
        let time = expanded(Field::ConvertedAt, self.converted_at.as_deref())?;
        let name = Field::ConvertedAt.name();
        Ok(Reported {
            ip: ip.map(|text| fields::address(Field::Ip.name(), text)).transpose()?,
            user_agent: expanded(Field::UserAgent, self.user_agent.as_deref())?.map(fields::user_agent),
            converted_at: time.map(|text| fields::time(name, text, now, days_back_max)).transpose()?,
        })
    }

    /// The fields that only those may send who are trusted with them, as far as they came.
    pub(super) fn trusted_fields(&self) -> impl Iterator<Item = &'static str> {
        [
            (Field::Ip, self.ip.is_some()),
            (Field::UserAgent, self.user_agent.is_some()),
            (Field::ConvertedAt, self.converted_at.is_some()),
        ]
        .into_iter()
        .filter(|(_, came)| *came)
        .map(|(field, _)| field.name())
    }
}

/// The field's text, unless it is blank or stands for 'nothing'. `NaN` is a value that went wrong, not an absent one.
fn present<'t>(
    field: Field,
    text: Option<&'t str>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<&'t str>, ApiError> {
    match fields::given(field.name(), text)? {
        Given::Text(text) => Ok(Some(text)),
        Given::Nothing(text) if field == Field::Value && text.eq_ignore_ascii_case("nan") => Ok(Some(text)),
        Given::Nothing(_) => {
            warnings.push(Warning::Placeholder(field));
            Ok(None)
        }
        Given::Absent => Ok(None),
    }
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
    fn names_match_without_case_and_with_what_is_left_of_an_ampersand() {
        for (name, field) in [
            ("value", Field::Value),
            ("VALUE", Field::Value),
            ("Order_Id", Field::OrderId),
            ("amp;currency", Field::Currency),
            ("amp;amp;CLICK_ID", Field::ClickId),
        ] {
            assert_eq!(Field::of(name.as_bytes()), Some(field), "{name}");
        }
        for name in ["", "amp;", "values", "order-id", "payout"] {
            assert_eq!(Field::of(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn fields_are_read_exactly() {
        let fields = hit("99.990001", " eur", " A-1 ", "9007199254740991").expect("good");
        assert_eq!(fields.value.map(Money::micros), Some(99_990_001));
        assert_eq!(fields.currency.map(|currency| currency.to_string()).as_deref(), Some("EUR"));
        assert_eq!(fields.order_id.as_ref().map(OrderId::as_str), Some("A-1"));
        assert_eq!(fields.click_id, Some(ClickId(INTEGER_MAX)));
        assert_eq!(fields.warnings, []);
    }

    #[test]
    fn blank_is_absent() {
        let nothing =
            Fields { value: None, currency: None, order_id: None, click_id: None, warnings: Vec::new() };
        assert_eq!(hit("", " ", "", "  "), Ok(nothing));
    }

    #[test]
    fn what_scripts_write_for_nothing_is_absent_and_told() {
        let fields = hit("undefined", "null", "NaN", "None").expect("counts");
        let absent = (fields.value, fields.currency, fields.order_id, fields.click_id);
        assert_eq!(absent, (None, None, None, None));
        let placeholders = [Field::Value, Field::Currency, Field::OrderId, Field::ClickId];
        assert_eq!(fields.warnings, placeholders.map(Warning::Placeholder));
    }

    #[test]
    fn a_click_id_that_can_not_be_one_never_costs_the_sale() {
        for wrong in
            ["9007199254740992", "-1", "+1", "1.5", "1e3", "x", "EAIaIQobChMI", "99999999999999999999"]
        {
            let fields = hit("1", "", "A-1", wrong).expect("counts");
            assert_eq!(fields.click_id, Some(ClickId::UNUSABLE), "{wrong}");
            assert_eq!(fields.warnings, [Warning::UnusableClickId], "{wrong}");
        }
    }

    #[test]
    fn every_field_names_itself_when_it_is_wrong() {
        let failure = |result: Result<Fields, ApiError>| {
            let error = result.expect_err("wrong");
            (error.code.as_str(), error.field.into_owned())
        };
        assert_eq!(failure(hit("-1", "", "", "")), ("invalid_value", "value".into()));
        assert_eq!(failure(hit("1,5", "", "", "")), ("invalid_value", "value".into()));
        assert_eq!(failure(hit("NaN", "", "", "")), ("invalid_value", "value".into()));
        assert_eq!(failure(hit("Infinity", "", "", "")), ("invalid_value", "value".into()));
        assert_eq!(failure(hit("", "BITCOIN", "", "")), ("invalid_currency", "currency".into()));
        assert_eq!(failure(hit("", "", "a\u{0}b", "")), ("invalid_order_id", "order_id".into()));
        assert_eq!(failure(hit("", "", "{order_id}", "")), ("unexpanded_macro", "order_id".into()));
        assert_eq!(failure(hit("", "", "#s1#", "")), ("unexpanded_macro", "order_id".into()));
        assert_eq!(failure(hit("", "", "TRANSACTION_ID", "")), ("unexpanded_macro", "order_id".into()));
        assert_eq!(failure(hit("", "", "", "%CLICKID%")), ("unexpanded_macro", "click_id".into()));
        assert_eq!(failure(hit("{payout}", "", "", "")), ("unexpanded_macro", "value".into()));
    }

    #[test]
    fn other_names_alone_are_somebody_elses() {
        let mut raw = RawHit::default();
        assert!(!raw.is_foreign(), "nothing at all has the goal's defaults");
        raw.unknown.note(b"payout");
        assert!(raw.is_foreign());
        raw.currency = Some("EUR".into());
        assert!(raw.is_foreign(), "a currency alone says nothing of a sale");
        raw.order_id = Some("".into());
        assert!(!raw.is_foreign(), "the field is there, though it is blank");
    }
}
