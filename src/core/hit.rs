//! What the daemon records: conversions, clicks, adjustments, and what it refused.

use std::net::IpAddr;

use super::{
    AccountId, Adjustment, Click, ClickId, ConversionId, Currency, DedupScope, GoalId, Kind, Money, OrderId,
    OrderKey, UnixMillis,
};

/// How a conversion was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Server to server with the goal's token.
    Postback,
    /// The pixel, or an ad network's GET.
    Pixel,
    /// With a Bearer key.
    Api,
}

impl Source {
    /// The name in ClickHouse and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postback => "postback",
            Self::Pixel => "pixel",
            Self::Api => "api",
        }
    }
}

/// Under which keys the visitor of a conversion without a click id is looked for among the clicks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// The visitor's keys of every epoch that the attribution window touches, newest first; never empty.
    Keys(Vec<u64>),
    /// Under none: the address is private or shared by a carrier.
    PrivateAddress,
    /// Under none: the address or the user agent is not known, or is that of a server.
    #[default]
    Unknown,
}

/// One completion of a goal, parsed and accepted: nothing checks it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Its public name.
    pub id: ConversionId,
    /// Whose it is.
    pub account_id: AccountId,
    /// What was completed.
    pub goal_id: GoalId,
    /// The caller's order id, if any.
    pub order_id: Option<OrderId>,
    /// The key that makes it unique, from the order id or the idempotency key; none: never deduplicated.
    pub key: Option<(OrderKey, DedupScope)>,
    /// Its value.
    pub value: Money,
    /// The value's currency.
    pub currency: Currency,
    /// When it was accepted.
    pub received_at: UnixMillis,
    /// When it happened.
    pub converted_at: UnixMillis,
    /// The goal's attribution window when it was accepted, in seconds.
    pub window_seconds: u32,
    /// How it was reported.
    pub source: Source,
    /// The click that the caller names; attribution starts from it.
    pub click_id: Option<ClickId>,
    /// The visitor's address as privacy allows it to be kept (truncated by default).
    pub ip: Option<IpAddr>,
    /// The visitor's user agent, at most 512 bytes.
    pub user_agent: String,
    /// Keyed hash of account, full address and user agent under the key of the epoch of `converted_at`: counts
    /// visitors. 0: unknown.
    pub visitor_key: u64,
    /// How it may be matched to clicks.
    pub matching: Matching,
    /// Accepted without knowing whether the key is new (`202`): the shipper decides before it counts.
    pub unverified: bool,
}

/// A hit of a known goal that was not counted: refused, or a duplicate. For people who ask why nothing arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose goal it was.
    pub account_id: AccountId,
    /// The goal that the token names.
    pub goal_id: GoalId,
    /// When it came.
    pub received_at: UnixMillis,
    /// The error's stable code, or `duplicate`.
    pub code: String,
    /// The field at fault, or empty.
    pub field: String,
    /// A plain sentence.
    pub message: String,
    /// The order id, where one could be read. Of a duplicate it is that of the original: nothing is stored, so that an
    /// order which was erased does not come back with its next report.
    pub order_id: String,
    /// The id that a late duplicate was given when it was accepted (`202`); nil for all others.
    pub conversion_id: Option<ConversionId>,
    /// For a duplicate: the conversion that counted.
    pub original_id: Option<ConversionId>,
    /// How it came.
    pub source: Source,
    /// A summary of what came, which begins with [`REQUEST_SUMMARY_START`], or nothing. Older versions of tally kept the
    /// start of the body here.
    pub request: String,
}

/// The code of a refusal that is a duplicate.
pub const DUPLICATE: &str = "duplicate";

/// How the summary of a request begins.
pub const REQUEST_SUMMARY_START: &str = "{\"body_bytes\":";

/// What the refusal of a duplicate says whose value or currency is not the first one's.
pub const CONFLICT_MESSAGE: &str =
    "Reported before, with another value or currency; the first report counts.";

/// The field that the refusal of a click, accepted before it was known to be a duplicate, names.
pub const CLICK_ID_FIELD: &str = "click_id";

impl Refusal {
    /// Whether the hit named that click. In a summary a value stands in quotes, and holds none.
    #[must_use]
    pub fn names_click(&self, click: ClickId) -> bool {
        self.request.contains(&format!("\"click_id\":\"{}\"", click.0))
    }

    /// The refusal as it may be stored: with a summary of the request, and nothing that an older version kept word for
    /// word; of a duplicate without the order id.
    #[must_use]
    pub fn to_be_stored(mut self) -> Self {
        if self.code == DUPLICATE {
            self.order_id.clear();
        }
        if !self.request.starts_with(REQUEST_SUMMARY_START) {
            self.request.clear();
        }
        self
    }

    /// Of a record that was acknowledged and does not count: what it was. Clicks and adjustments belong to no goal.
    #[must_use]
    pub fn late_kind(&self) -> Option<Kind> {
        self.conversion_id?;
        Some(match (self.goal_id, &*self.field) {
            (GoalId(0), CLICK_ID_FIELD) => Kind::Click,
            (GoalId(0), _) => Kind::Adjustment,
            _ => Kind::Conversion,
        })
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// To be counted.
    Conversion(Conversion),
    /// To be counted and matched.
    Click(Click),
    /// To be applied to a conversion.
    Adjustment(Adjustment),
    /// To be readable.
    Refusal(Refusal),
}

impl Record {
    /// When it came: the month of its batch.
    #[must_use]
    pub fn received_at(&self) -> UnixMillis {
        match self {
            Self::Conversion(conversion) => conversion.received_at,
            Self::Click(click) => click.received_at,
            Self::Adjustment(adjustment) => adjustment.received_at,
            Self::Refusal(refusal) => refusal.received_at,
        }
    }

    /// What was acknowledged; none: a refused hit.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Conversion(_) => Some(Kind::Conversion),
            Self::Click(_) => Some(Kind::Click),
            Self::Adjustment(_) => Some(Kind::Adjustment),
            Self::Refusal(_) => None,
        }
    }
}
