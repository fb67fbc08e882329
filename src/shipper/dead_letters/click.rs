//! A click in a dead letter.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::text::{hex, key_of, one_of};
use crate::core::{AccountId, Campaign, Click, ClickId, ClickSource, LinkId, SUBS, Traffic, UnixMillis};

#[derive(Serialize, Deserialize)]
pub(super) struct ClickJson {
    pub(super) click_id: u64,
    account_id: u32,
    link_id: Option<u32>,
    /// Hexadecimal; empty: the number was issued here.
    click_key: String,
    clicked_at_ms: i64,
    received_at_ms: i64,
    source: String,
    traffic: String,
    utm_source: String,
    utm_medium: String,
    utm_campaign: String,
    utm_term: String,
    utm_content: String,
    variant: String,
    subs: [String; SUBS],
    ip: Option<IpAddr>,
    user_agent: String,
    visitor_key: u64,
    private_address: bool,
}

impl From<&Click> for ClickJson {
    fn from(from: &Click) -> Self {
        let Campaign { source, medium, campaign, term, content } = from.campaign.clone();
        Self {
            click_id: from.id.0,
            account_id: from.account_id.0,
            link_id: from.link_id.map(|link| link.0),
            click_key: hex(from.key),
            clicked_at_ms: from.clicked_at.0,
            received_at_ms: from.received_at.0,
            source: from.source.as_str().to_owned(),
            traffic: from.traffic.as_str().to_owned(),
            utm_source: source,
            utm_medium: medium,
            utm_campaign: campaign,
            utm_term: term,
            utm_content: content,
            variant: from.variant.clone(),
            subs: from.subs.clone(),
            ip: from.ip,
            user_agent: from.user_agent.clone(),
            visitor_key: from.visitor_key,
            private_address: from.private_address,
        }
    }
}

impl ClickJson {
    pub(super) fn read(self) -> Result<Click, String> {
        let sources = [ClickSource::Redirect, ClickSource::Api];
        let traffic = [Traffic::Human, Traffic::Bot, Traffic::Prefetch];
        Ok(Click {
            id: ClickId(self.click_id),
            account_id: AccountId(self.account_id),
            link_id: self.link_id.map(LinkId),
            key: key_of("click_key", &self.click_key)?,
            clicked_at: UnixMillis(self.clicked_at_ms),
            received_at: UnixMillis(self.received_at_ms),
            source: one_of("source", &self.source, &sources, ClickSource::as_str)?,
            traffic: one_of("traffic", &self.traffic, &traffic, Traffic::as_str)?,
            campaign: Campaign {
                source: self.utm_source,
                medium: self.utm_medium,
                campaign: self.utm_campaign,
                term: self.utm_term,
                content: self.utm_content,
            },
            variant: self.variant,
            subs: self.subs,
            ip: self.ip,
            user_agent: self.user_agent,
            visitor_key: self.visitor_key,
            private_address: self.private_address,
            unverified: false,
        })
    }
}
