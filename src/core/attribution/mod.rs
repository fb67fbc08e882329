//! Attribution: which click earned a conversion. The decision's terms; what decides is a pure function over them
//! ([`decide`]), and so is what explains it ([`explain`]).

mod decide;
#[cfg(test)]
mod tests;

pub use self::decide::{Candidate, ClickLabels, Model, Question, Verdict, decide, explain};
use super::{Campaign, ClickId, LinkId, UnixMillis};

/// Clicks of one visitor that a decision looks at, the newest of them: beyond that many, one more decides nothing that a
/// person would notice, and a robot that passes for a person must not slow everybody down.
pub const CANDIDATES_MAX: u16 = 1000;

/// A run of attribution over history. 0: the decisions made as conversions came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u32);

/// How the click was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The caller named it.
    ClickId,
    /// Same address and user agent.
    IpUserAgent,
}

impl Method {
    /// The name in ClickHouse and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClickId => "click_id",
            Self::IpUserAgent => "ip_user_agent",
        }
    }
}

/// Why no click earned a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unattributed {
    /// The click that was named is not known to the account. It is never guessed instead.
    ClickNotFound,
    /// There are clicks, none of them in the window, and one is older than it.
    OutsideWindow,
    /// There are clicks, all of them after the conversion.
    AfterConversion,
    /// No click of this visitor is known.
    NoCandidate,
    /// The visitor's address is private or shared by a carrier, and names nobody.
    PrivateAddress,
    /// Neither a click nor a visitor's address and user agent are known.
    NoVisitor,
}

impl Unattributed {
    /// Every reason, in the order of its number in ClickHouse, from 1.
    pub const ALL: [Self; 6] = [
        Self::ClickNotFound,
        Self::OutsideWindow,
        Self::AfterConversion,
        Self::NoCandidate,
        Self::PrivateAddress,
        Self::NoVisitor,
    ];

    /// The name in ClickHouse and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClickNotFound => "click_not_found",
            Self::OutsideWindow => "outside_window",
            Self::AfterConversion => "click_after_conversion",
            Self::NoCandidate => "no_candidate",
            Self::PrivateAddress => "private_address",
            Self::NoVisitor => "no_visitor",
        }
    }
}

/// What a conversion owes to a click. The campaign is copied, so that it stays what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earned {
    /// How the click was found.
    pub method: Method,
    /// The click.
    pub click_id: ClickId,
    /// Its link, if it had one.
    pub link_id: Option<LinkId>,
    /// When it happened.
    pub clicked_at: UnixMillis,
    /// Whole seconds from the click to the conversion: the difference of both times' seconds.
    pub seconds_to_convert: u32,
    /// Its campaign.
    pub campaign: Campaign,
    /// Its variant.
    pub variant: String,
    /// Whether statistics name its campaign and variant, rather than `(other)`.
    pub labelled: bool,
}

/// The decision about one conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// The click that earned it, or why none did.
    pub outcome: Result<Earned, Unattributed>,
    /// How many clicks could have: the one that was named, or those of this visitor in the window, of which at most
    /// [`CANDIDATES_MAX`] are counted.
    pub candidates: u16,
}
