//! A link as callers write it: `{"link":{…}}`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    catalog::{LinkDraft, LinkPatch},
    core::{Campaign, Destination, LABEL_BYTES_MAX, SLUG_BYTES_MAX, Variant, is_slug, label},
    http::{
        error::{ApiError, ErrorCode},
        input, json,
    },
};

const FIELDS: [&str; 10] = [
    "name",
    "slug",
    "destination_url",
    "variants",
    "append_click_id",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_term",
    "utm_content",
];
const VARIANTS_MAX: usize = 10;
const WEIGHT_MAX: u16 = 1000;

/// A link to be made: a name and a destination are needed, all else has a default.
pub(super) fn draft(text: &str) -> Result<LinkDraft, ApiError> {
    let (fields, slug) = read(text)?;
    Ok(LinkDraft {
        name: input::required("name", fields.name)?,
        slug,
        destination: input::required("destination_url", fields.destination)?,
        variants: fields.variants.unwrap_or_default(),
        append_click_id: fields.append_click_id.unwrap_or_default(),
        campaign: Campaign {
            source: fields.utm_source.unwrap_or_default(),
            medium: fields.utm_medium.unwrap_or_default(),
            campaign: fields.utm_campaign.unwrap_or_default(),
            term: fields.utm_term.unwrap_or_default(),
            content: fields.utm_content.unwrap_or_default(),
        },
    })
}

/// What to change of a link.
pub(super) fn patch(text: &str) -> Result<LinkPatch, ApiError> {
    match read(text)? {
        (patch, None) => Ok(patch),
        (_, Some(_)) => {
            Err(input::wrong("slug", "`slug` can't be changed: visitors have it. Make another link."))
        }
    }
}

/// All fields, and the slug; `null`: none is given.
fn read(text: &str) -> Result<(LinkPatch, Option<String>), ApiError> {
    let (mut patch, mut slug) = (LinkPatch::default(), None);
    for (field, raw) in input::fields(text, "link")? {
        match field.as_ref() {
            "name" => patch.name = Some(input::name(raw)?),
            "slug" => slug = self::slug(raw)?,
            "destination_url" => patch.destination = Some(destination("destination_url", raw)?),
            "variants" => patch.variants = Some(variants(raw)?),
            "append_click_id" => patch.append_click_id = Some(input::flag("append_click_id", raw)?),
            "utm_source" => patch.utm_source = Some(utm("utm_source", raw)?),
            "utm_medium" => patch.utm_medium = Some(utm("utm_medium", raw)?),
            "utm_campaign" => patch.utm_campaign = Some(utm("utm_campaign", raw)?),
            "utm_term" => patch.utm_term = Some(utm("utm_term", raw)?),
            "utm_content" => patch.utm_content = Some(utm("utm_content", raw)?),
            _ => return Err(input::unknown(&field, &FIELDS)),
        }
    }
    Ok((patch, slug))
}

fn slug(raw: &RawValue) -> Result<Option<String>, ApiError> {
    let slug = input::read::<Option<String>>(raw).filter(|slug| slug.as_deref().is_none_or(is_slug));
    slug.ok_or_else(|| {
        input::wrong("slug", format!("`slug` is 1 to {SLUG_BYTES_MAX} of A-Z, a-z, 0-9, `_` and `-`."))
    })
}

fn destination(field: impl Into<Cow<'static, str>>, raw: &RawValue) -> Result<Destination, ApiError> {
    let field = field.into();
    let refused = |why: String| {
        let message = format!("`{field}` is an https:// or http:// URL with a host: {why}.");
        ApiError::new(ErrorCode::InvalidField).because(message).at(field.clone())
    };
    let text: String = input::read(raw).ok_or_else(|| refused("it is not text".into()))?;
    Destination::parse(&text).map_err(|error| refused(error.to_string()))
}

fn utm(field: &'static str, raw: &RawValue) -> Result<String, ApiError> {
    let text = input::read::<Option<String>>(raw).map(Option::unwrap_or_default);
    text.filter(|text| label(text) == text.trim()).map(|text| text.trim().to_owned()).ok_or_else(|| {
        let message =
            format!("`{field}` is text of at most {LABEL_BYTES_MAX} bytes without control characters, quotes and backslashes.");
        input::wrong(field, message)
    })
}

fn variants(raw: &RawValue) -> Result<Vec<Variant>, ApiError> {
    let list = input::read::<Option<Vec<&RawValue>>>(raw).map(Option::unwrap_or_default);
    let list = list.filter(|list| list.len() <= VARIANTS_MAX).ok_or_else(|| {
        input::wrong("variants", format!("`variants` is a list of at most {VARIANTS_MAX} objects."))
    })?;
    let mut variants: Vec<Variant> = Vec::with_capacity(list.len());
    for (index, raw) in list.into_iter().enumerate() {
        let variant = variant(index, raw)?;
        if variants.iter().any(|other| other.name == variant.name) {
            return Err(wrong_at(index, "name", "is unique among the variants of a link"));
        }
        variants.push(variant);
    }
    if variants.is_empty() || variants.iter().any(|variant| variant.weight > 0) {
        Ok(variants)
    } else {
        Err(input::wrong("variants", "`variants` need a weight above 0 somewhere, or none is ever shown."))
    }
}

fn variant(index: usize, raw: &RawValue) -> Result<Variant, ApiError> {
    if !raw.get().starts_with('{') {
        let message = "Each of `variants` is an object with `name`, `weight` and `destination_url`.";
        return Err(input::wrong("variants", message));
    }
    let (mut name, mut weight, mut own) = (None, 1, None);
    for (field, raw) in json::object(raw.get())? {
        match field.as_ref() {
            "name" => {
                let text = input::read::<String>(raw).map(|text| text.trim().to_owned());
                let text = text.filter(|text| !text.is_empty() && label(text) == *text);
                let what = format!(
                    "is text of 1 to {LABEL_BYTES_MAX} bytes without control characters, quotes and backslashes"
                );
                name = Some(text.ok_or_else(|| wrong_at(index, "name", &what))?);
            }
            "weight" => {
                let number = input::read::<u16>(raw).filter(|number| *number <= WEIGHT_MAX);
                let what = format!("is a whole number from 0 to {WEIGHT_MAX}");
                weight = number.ok_or_else(|| wrong_at(index, "weight", &what))?;
            }
            "destination_url" => {
                own = match raw.get() {
                    "null" => None,
                    _ => Some(destination(format!("variants[{index}].destination_url"), raw)?),
                };
            }
            _ => return Err(input::unknown(&field, &["name", "weight", "destination_url"])),
        }
    }
    let name = name.ok_or_else(|| {
        let field = format!("variants[{index}].name");
        ApiError::new(ErrorCode::MissingField).because(format!("`{field}` is missing.")).at(field)
    })?;
    Ok(Variant { name, weight, destination: own })
}

fn wrong_at(index: usize, field: &str, what: &str) -> ApiError {
    let field = format!("variants[{index}].{field}");
    ApiError::new(ErrorCode::InvalidField).because(format!("`{field}` {what}.")).at(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_body_is_read() {
        let draft = draft(
            r#"{"link":{"name":" Winter ","destination_url":"https://shop.example/?cid={click_id}","slug":"winter",
            "variants":[{"name":"A","weight":3},{"name":"B","destination_url":"https://b.example/"}],
            "append_click_id":true,"utm_source":"mail","utm_term":null}}"#,
        )
        .expect("good");
        assert_eq!((draft.name.as_str(), draft.slug.as_deref()), ("Winter", Some("winter")));
        assert_eq!(draft.destination.as_str(), "https://shop.example/?cid={click_id}");
        let variants: Vec<_> = draft
            .variants
            .iter()
            .map(|variant| {
                let own = variant.destination.as_ref().map(Destination::as_str);
                (variant.name.as_str(), variant.weight, own)
            })
            .collect();
        assert_eq!(variants, [("A", 3, None), ("B", 1, Some("https://b.example/"))]);
        assert!(draft.append_click_id);
        assert_eq!((draft.campaign.source.as_str(), draft.campaign.term.as_str()), ("mail", ""));
    }

    #[test]
    fn a_patch_names_what_it_changes() {
        let patch = patch(r#"{"link":{"variants":null,"utm_source":null}}"#).expect("good");
        let expected =
            LinkPatch { variants: Some(Vec::new()), utm_source: Some(String::new()), ..LinkPatch::default() };
        assert_eq!(patch, expected);
        let error = super::patch(r#"{"link":{"slug":"other"}}"#).expect_err("a slug stays");
        assert_eq!((error.code, error.field.as_ref()), (ErrorCode::InvalidField, "slug"));
    }

    #[test]
    fn every_mistake_names_its_field() {
        let good = r#""name":"n","destination_url":"https://a.example/""#;
        let long = "x".repeat(129);
        let eleven = [r#"{"name":"x"}"#; 11].join(",");
        for (fields, field, code) in [
            (String::new(), "name", ErrorCode::MissingField),
            (r#""name":"n""#.into(), "destination_url", ErrorCode::MissingField),
            (format!(r#"{good},"url":1"#), "url", ErrorCode::UnknownField),
            (r#""name":"n","destination_url":"/x""#.into(), "destination_url", ErrorCode::InvalidField),
            (
                r#""name":"n","destination_url":"https://{sub1}/""#.into(),
                "destination_url",
                ErrorCode::InvalidField,
            ),
            (format!(r#"{good},"destination_url":7"#), "destination_url", ErrorCode::InvalidField),
            (format!(r#"{good},"slug":"a/b""#), "slug", ErrorCode::InvalidField),
            (format!(r#"{good},"slug":"""#), "slug", ErrorCode::InvalidField),
            (format!(r#"{good},"append_click_id":"yes""#), "append_click_id", ErrorCode::InvalidField),
            (format!(r#"{good},"utm_source":"{long}""#), "utm_source", ErrorCode::InvalidField),
            (format!(r#"{good},"utm_term":3"#), "utm_term", ErrorCode::InvalidField),
            (format!(r#"{good},"variants":{{}}"#), "variants", ErrorCode::InvalidField),
            (format!(r#"{good},"variants":["A"]"#), "variants", ErrorCode::InvalidField),
            (format!(r#"{good},"variants":[{eleven}]"#), "variants", ErrorCode::InvalidField),
            (format!(r#"{good},"variants":[{{}}]"#), "variants[0].name", ErrorCode::MissingField),
            (format!(r#"{good},"variants":[{{"name":" "}}]"#), "variants[0].name", ErrorCode::InvalidField),
            (
                format!(r#"{good},"variants":[{{"name":"A"}},{{"name":" A "}}]"#),
                "variants[1].name",
                ErrorCode::InvalidField,
            ),
            (
                format!(r#"{good},"variants":[{{"name":"A","weight":1001}}]"#),
                "variants[0].weight",
                ErrorCode::InvalidField,
            ),
            (
                format!(r#"{good},"variants":[{{"name":"A","weight":0}}]"#),
                "variants",
                ErrorCode::InvalidField,
            ),
            (
                format!(r#"{good},"variants":[{{"name":"A","destination_url":"x"}}]"#),
                "variants[0].destination_url",
                ErrorCode::InvalidField,
            ),
            (format!(r#"{good},"variants":[{{"name":"A","url":"x"}}]"#), "url", ErrorCode::UnknownField),
        ] {
            let body = format!(r#"{{"link":{{{fields}}}}}"#);
            let error = draft(&body).expect_err(&body);
            assert_eq!((error.code, error.field.as_ref()), (code, field), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,120}") {
            let json = serde_json::json!(text);
            let _ = draft(&text);
            let _ = draft(&format!(r#"{{"link":{{"name":"n","destination_url":{json},"variants":[{text}]}}}}"#));
        }
    }
}
