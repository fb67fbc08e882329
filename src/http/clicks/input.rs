//! A reported click's fields, from JSON.
//!
//! Fields that are not known are ignored, as those of a conversion are; of a repeated one the last counts.

use std::{borrow::Cow, net::IpAddr};

use serde_json::value::RawValue;

use crate::{
    core::{Campaign, ClickId, LinkId, SUBS, UnixMillis, free_value, label},
    http::{
        error::{ApiError, ErrorCode},
        fields, json,
    },
};

/// What a caller says about a click; what it leaves out is decided later.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClickInput {
    pub(super) click_id: Option<ClickId>,
    pub(super) link_id: Option<LinkId>,
    pub(super) ip: Option<IpAddr>,
    pub(super) user_agent: String,
    pub(super) clicked_at: Option<UnixMillis>,
    pub(super) campaign: Campaign,
    pub(super) variant: String,
    pub(super) subs: [String; SUBS],
}

/// The names of the single `sub` fields.
const SUB_NAMES: [&str; SUBS] = ["sub1", "sub2", "sub3", "sub4", "sub5"];

/// Reads one JSON object.
pub(super) fn read(body: &[u8], now: UnixMillis, days_back_max: u32) -> Result<ClickInput, ApiError> {
    let mut input = ClickInput::default();
    let campaign = &mut input.campaign;
    let mut subs = None;
    for (name, raw) in json::object(json::text(body)?)? {
        match name.as_ref() {
            "click_id" => input.click_id = click_id(raw)?,
            "link_id" => input.link_id = expanded("link_id", raw, link_id)?,
            "ip" => input.ip = expanded("ip", raw, |text| fields::address("ip", text))?,
            "user_agent" => {
                let text = scalar("user_agent", raw)?;
                input.user_agent =
                    fields::filled(text.as_deref()).map(fields::user_agent).unwrap_or_default();
            }
            "clicked_at" => {
                let time = |text: &str| fields::time("clicked_at", text, now, days_back_max);
                input.clicked_at = expanded("clicked_at", raw, time)?;
            }
            "utm_source" => campaign.source = text("utm_source", raw)?,
            "utm_medium" => campaign.medium = text("utm_medium", raw)?,
            "utm_campaign" => campaign.campaign = text("utm_campaign", raw)?,
            "utm_term" => campaign.term = text("utm_term", raw)?,
            "utm_content" => campaign.content = text("utm_content", raw)?,
            "variant" => input.variant = text("variant", raw)?,
            "sub" => subs = Some(raw),
            other => {
                if let Some(place) = SUB_NAMES.iter().position(|name| *name == other) {
                    input.subs[place] = sub(SUB_NAMES[place], raw)?;
                }
            }
        }
    }
    if let Some(raw) = subs {
        read_subs(raw, &mut input.subs)?;
    }
    Ok(input)
}

/// A string's or a number's text; `null` is an absent field.
fn scalar<'a>(name: &'static str, raw: &'a RawValue) -> Result<Option<Cow<'a, str>>, ApiError> {
    json::scalar(raw).map_err(|_| wrong(name, format!("`{name}` is a string or a number.")))
}

/// A label, as it is kept.
fn text(name: &'static str, raw: &RawValue) -> Result<String, ApiError> {
    Ok(scalar(name, raw)?.map(|text| label(&text)).unwrap_or_default())
}

/// A free value, as it is kept.
fn sub(name: &'static str, raw: &RawValue) -> Result<String, ApiError> {
    Ok(scalar(name, raw)?.map(|text| free_value(&text)).unwrap_or_default())
}

/// A text that means something.
fn expanded<T>(
    name: &'static str,
    raw: &RawValue,
    read: impl FnOnce(&str) -> Result<T, ApiError>,
) -> Result<Option<T>, ApiError> {
    let text = scalar(name, raw)?;
    fields::expanded(name, text.as_deref())?.map(read).transpose()
}

/// 0 stands for 'no click' in the database, so no click has that number.
fn click_id(raw: &RawValue) -> Result<Option<ClickId>, ApiError> {
    let wrong = || {
        ApiError::new(ErrorCode::InvalidClickId)
            .because("The click id is not a whole number from 1 to 2^53 - 1.")
            .at("click_id")
    };
    let text = json::scalar(raw).map_err(|_| wrong())?;
    fields::expanded("click_id", text.as_deref())?
        .map(|text| fields::click_id(text).filter(|id| id.0 > 0).ok_or_else(wrong))
        .transpose()
}

fn link_id(text: &str) -> Result<LinkId, ApiError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that no link can have is one that no link has.
    let id = text.parse().ok().filter(|id| digits && *id > 0).map(LinkId);
    id.ok_or_else(|| ApiError::new(ErrorCode::UnknownLink).at("link_id"))
}

/// `"sub": ["a", "b"]`: the values that no field of their own names.
fn read_subs(raw: &RawValue, subs: &mut [String; SUBS]) -> Result<(), ApiError> {
    let wrong = || wrong("sub", format!("`sub` is a list of at most {SUBS} strings or numbers."));
    if raw.get() == "null" {
        return Ok(());
    }
    let values: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    if values.len() > SUBS {
        return Err(wrong());
    }
    for (sub, raw) in subs.iter_mut().zip(values) {
        let value = json::scalar(raw).map_err(|_| wrong())?;
        if sub.is_empty() {
            *sub = value.map(|text| free_value(&text)).unwrap_or_default();
        }
    }
    Ok(())
}

fn wrong(name: &'static str, message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidField).because(message).at(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-01T12:00:00Z.
    const NOW: UnixMillis = UnixMillis(1_793_534_400_000);

    fn of(text: &str) -> Result<ClickInput, ApiError> {
        read(text.as_bytes(), NOW, 400)
    }

    #[test]
    fn every_field_is_read() {
        let click = of(
            r#"{"click_id":"9007199254740991","link_id":1,"ip":"::ffff:203.0.113.7","user_agent":" UA/1 ",
                "clicked_at":"2026-11-01T11:00:00Z","utm_source":" facebook ","utm_medium":"cpc",
                "utm_campaign":"winter_sale","utm_term":7,"utm_content":"a\u0000b","variant":"B","sub1":"one",
                "sub":["x",2,null],"sub5":"five","x":{"y":[1]}}"#,
        );
        let text = str::to_owned;
        let expected = ClickInput {
            click_id: Some(ClickId((1 << 53) - 1)),
            link_id: Some(LinkId(1)),
            ip: "203.0.113.7".parse().ok(),
            user_agent: text("UA/1"),
            clicked_at: Some(NOW.plus(-3_600_000)),
            campaign: Campaign {
                source: text("facebook"),
                medium: text("cpc"),
                campaign: text("winter_sale"),
                term: text("7"),
                content: text("ab"),
            },
            variant: text("B"),
            subs: [text("one"), text("2"), text(""), text(""), text("five")],
        };
        assert_eq!(click, Ok(expected));
    }

    #[test]
    fn what_is_left_out_or_null_is_absent() {
        assert_eq!(of("{}"), Ok(ClickInput::default()));
        let nulls =
            r#"{"click_id":null,"link_id":null,"ip":" ","clicked_at":"","utm_source":null,"sub":null}"#;
        assert_eq!(of(nulls), Ok(ClickInput::default()));
    }

    #[test]
    fn every_field_names_itself_when_it_is_wrong() {
        for (text, code, field) in [
            (r#"{"click_id":0}"#, "invalid_click_id", "click_id"),
            (r#"{"click_id":-1}"#, "invalid_click_id", "click_id"),
            (r#"{"click_id":1.5}"#, "invalid_click_id", "click_id"),
            (r#"{"click_id":9007199254740992}"#, "invalid_click_id", "click_id"),
            (r#"{"click_id":true}"#, "invalid_click_id", "click_id"),
            (r#"{"click_id":"{clickid}"}"#, "unexpanded_macro", "click_id"),
            (r#"{"click_id":"%CLICKID%"}"#, "unexpanded_macro", "click_id"),
            (r#"{"link_id":0}"#, "unknown_link", "link_id"),
            (r#"{"link_id":"x"}"#, "unknown_link", "link_id"),
            (r#"{"link_id":99999999999}"#, "unknown_link", "link_id"),
            (r#"{"link_id":[1]}"#, "invalid_field", "link_id"),
            (r#"{"ip":"203.0.113"}"#, "invalid_field", "ip"),
            (r#"{"ip":"{ip}"}"#, "unexpanded_macro", "ip"),
            (r#"{"user_agent":{}}"#, "invalid_field", "user_agent"),
            (r#"{"clicked_at":"now"}"#, "invalid_time", "clicked_at"),
            (r#"{"clicked_at":1793534400}"#, "invalid_time", "clicked_at"),
            (r#"{"clicked_at":"2026-11-01T12:02:00Z"}"#, "invalid_time", "clicked_at"),
            (r#"{"utm_source":["a"]}"#, "invalid_field", "utm_source"),
            (r#"{"sub":"a"}"#, "invalid_field", "sub"),
            (r#"{"sub":["1","2","3","4","5","6"]}"#, "invalid_field", "sub"),
            (r#"{"sub":[{}]}"#, "invalid_field", "sub"),
            (r#"{"sub3":true}"#, "invalid_field", "sub3"),
            ("[]", "invalid_json", ""),
            ("{", "invalid_json", ""),
        ] {
            let error = of(text).expect_err("refused");
            assert_eq!((error.code.as_str(), error.field.as_ref()), (code, field), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, NOW, 400);
        }

        #[test]
        fn any_values_are_answered(
            name in "(click_id|link_id|ip|user_agent|clicked_at|utm_source|variant|sub|sub1)",
            value in "(null|true|-?[0-9]{1,20}|\"[^\"\\\\\u{0}-\u{1f}]{0,300}\"|\\[(\"a\",){0,6}1\\]|\\{\\})",
        ) {
            if let Ok(click) = of(&format!("{{\"{name}\":{value}}}")) {
                prop_assert!(click.user_agent.len() <= 512 && click.variant.len() <= 128);
                prop_assert!(click.subs.iter().all(|sub| sub.len() <= 128));
            }
        }
    }
}
