//! A click's bytes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::DecodeError;
use crate::core::{
    AccountId, Campaign, Click, ClickId, ClickSource, LinkId, OrderKey, SUBS, Traffic, UnixMillis,
};

#[derive(Serialize, Deserialize)]
pub(super) struct ClickV1<'a> {
    id: u64,
    account_id: u32,
    link_id: Option<u32>,
    key: Option<u128>,
    received_at_ms: i64,
    /// Before `received_at_ms`.
    clicked_before_ms: i64,
    source: u8,
    traffic: u8,
    /// Source, medium, campaign, term, content.
    #[serde(borrow)]
    campaign: [&'a str; 5],
    variant: &'a str,
    #[serde(borrow)]
    subs: [&'a str; SUBS],
    ip: Option<IpAddr>,
    user_agent: &'a str,
    visitor_key: u64,
    private_address: bool,
    unverified: bool,
}

impl<'a> From<&'a Click> for ClickV1<'a> {
    fn from(from: &'a Click) -> Self {
        let Campaign { source, medium, campaign, term, content } = &from.campaign;
        Self {
            id: from.id.0,
            account_id: from.account_id.0,
            link_id: from.link_id.map(|link| link.0),
            key: from.key.map(|key| key.0),
            received_at_ms: from.received_at.0,
            clicked_before_ms: from.received_at.0.wrapping_sub(from.clicked_at.0),
            source: match from.source {
                ClickSource::Redirect => 1,
                ClickSource::Api => 2,
            },
            traffic: match from.traffic {
                Traffic::Human => 1,
                Traffic::Bot => 2,
                Traffic::Prefetch => 3,
            },
            campaign: [source, medium, campaign, term, content],
            variant: &from.variant,
            subs: from.subs.each_ref().map(String::as_str),
            ip: from.ip,
            user_agent: &from.user_agent,
            visitor_key: from.visitor_key,
            private_address: from.private_address,
            unverified: from.unverified,
        }
    }
}

impl ClickV1<'_> {
    pub(super) fn read(self) -> Result<Click, DecodeError> {
        let [source, medium, campaign, term, content] = self.campaign.map(str::to_owned);
        Ok(Click {
            id: ClickId(self.id),
            account_id: AccountId(self.account_id),
            link_id: self.link_id.map(LinkId),
            key: self.key.map(OrderKey),
            clicked_at: UnixMillis(self.received_at_ms.wrapping_sub(self.clicked_before_ms)),
            received_at: UnixMillis(self.received_at_ms),
            source: match self.source {
                1 => ClickSource::Redirect,
                2 => ClickSource::Api,
                _ => return Err(DecodeError::Malformed),
            },
            traffic: match self.traffic {
                1 => Traffic::Human,
                2 => Traffic::Bot,
                3 => Traffic::Prefetch,
                _ => return Err(DecodeError::Malformed),
            },
            campaign: Campaign { source, medium, campaign, term, content },
            variant: self.variant.to_owned(),
            subs: self.subs.map(str::to_owned),
            ip: self.ip,
            user_agent: self.user_agent.to_owned(),
            visitor_key: self.visitor_key,
            private_address: self.private_address,
            unverified: self.unverified,
        })
    }
}
