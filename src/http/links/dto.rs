//! A link as the API writes it: exactly these keys.

use serde::Serialize;

use crate::{
    core::{Destination, Link, Variant},
    http::times,
};

/// A link in an answer.
#[derive(Serialize)]
pub(super) struct LinkJson<'a> {
    id: u32,
    name: &'a str,
    slug: &'a str,
    tracking_url: String,
    destination_url: &'a str,
    variants: Vec<VariantJson<'a>>,
    append_click_id: bool,
    utm_source: Option<&'a str>,
    utm_medium: Option<&'a str>,
    utm_campaign: Option<&'a str>,
    utm_term: Option<&'a str>,
    utm_content: Option<&'a str>,
    created_at: String,
}

#[derive(Serialize)]
struct VariantJson<'a> {
    name: &'a str,
    weight: u16,
    destination_url: Option<&'a str>,
}

impl<'a> LinkJson<'a> {
    /// The link as it is called at `base`: scheme, host and port.
    pub(super) fn new(link: &'a Link, base: &str) -> Self {
        let filled = |text: &'a str| (!text.is_empty()).then_some(text);
        Self {
            id: link.id.0,
            name: &link.name,
            slug: &link.slug,
            tracking_url: format!("{base}/r/{}", link.slug),
            destination_url: link.destination.as_str(),
            variants: link.variants.iter().map(VariantJson::from).collect(),
            append_click_id: link.append_click_id,
            utm_source: filled(&link.campaign.source),
            utm_medium: filled(&link.campaign.medium),
            utm_campaign: filled(&link.campaign.campaign),
            utm_term: filled(&link.campaign.term),
            utm_content: filled(&link.campaign.content),
            created_at: times::utc(link.created_at),
        }
    }
}

impl<'a> From<&'a Variant> for VariantJson<'a> {
    fn from(variant: &'a Variant) -> Self {
        let own = variant.destination.as_ref().map(Destination::as_str);
        Self { name: &variant.name, weight: variant.weight, destination_url: own }
    }
}
