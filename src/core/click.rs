//! Clicks: visits through a tracked link, ours or reported by whoever redirected the visitor.

use std::net::IpAddr;

use super::{AccountId, Campaign, ClickId, LinkId, OrderKey, UnixMillis};

/// How many free `sub` values a click has.
pub const SUBS: usize = 5;

/// How a click was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClickSource {
    /// By the redirect of one of our links.
    Redirect,
    /// Reported by the shortener or ad server that redirected the visitor.
    Api,
}

impl ClickSource {
    /// The name in ClickHouse and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Api => "api",
        }
    }
}

/// What came through the link. Everything but a human is recorded and redirected, and left out of rates and matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// A person, as far as can be told.
    Human,
    /// A robot that says so: crawlers, monitors, link previews.
    Bot,
    /// A browser that looks ahead (`Sec-Purpose`, `Purpose`), or a HEAD request.
    Prefetch,
}

impl Traffic {
    /// The name in ClickHouse and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Bot => "bot",
            Self::Prefetch => "prefetch",
        }
    }
}

/// One click, parsed and accepted: nothing checks it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Click {
    /// Its number: issued, or the caller's.
    pub id: ClickId,
    /// Whose it is.
    pub account_id: AccountId,
    /// The link; none: a click from elsewhere that names none.
    pub link_id: Option<LinkId>,
    /// Makes the caller's number unique within the account; none: the number was issued here and can't come twice.
    pub key: Option<OrderKey>,
    /// When it happened.
    pub clicked_at: UnixMillis,
    /// When it was accepted.
    pub received_at: UnixMillis,
    /// How it was recorded.
    pub source: ClickSource,
    /// Who or what clicked.
    pub traffic: Traffic,
    /// Where the visitor came from.
    pub campaign: Campaign,
    /// The A/B variant that was shown; empty: none.
    pub variant: String,
    /// Free values of the caller; empty: not given.
    pub subs: [String; SUBS],
    /// The visitor's address as privacy allows it to be kept (truncated by default).
    pub ip: Option<IpAddr>,
    /// The visitor's user agent, at most 512 bytes.
    pub user_agent: String,
    /// Keyed hash of account, full address and user agent under the key of the epoch of `clicked_at`. 0: unknown.
    pub visitor_key: u64,
    /// The address is private or shared by a carrier: it names no visitor, so the click is never matched by it.
    pub private_address: bool,
    /// Accepted without knowing whether the number is new (`202`): the shipper decides before it counts.
    pub unverified: bool,
}

impl Click {
    /// Whether a conversion without a click id may be matched to it.
    #[must_use]
    pub fn is_matchable(&self) -> bool {
        self.traffic == Traffic::Human && self.visitor_key != 0 && !self.private_address
    }
}
