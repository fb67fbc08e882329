//! Links: what visitors click.

use super::{AccountId, Campaign, LinkId, UnixMillis};

/// One of several things that a link may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name, such as `B`; unique within the link.
    pub name: String,
    /// How often it is shown, against the sum of all weights; 0: never.
    pub weight: u16,
    /// Where it leads; none: to the link's own destination.
    pub destination_url: Option<String>,
}

/// A link as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, unique over all accounts.
    pub id: LinkId,
    /// Whose it is.
    pub account_id: AccountId,
    /// Shown to people; 1 to 200 characters.
    pub name: String,
    /// Its name in `/r/{slug}`, unique over all accounts.
    pub slug: String,
    /// Where it leads, macros such as `{click_id}` in it.
    pub destination_url: String,
    /// What is shown in turn; empty: the destination alone.
    pub variants: Vec<Variant>,
    /// Whether `click_id` is appended to the destination's query.
    pub append_click_id: bool,
    /// What a visit's own UTM parameters leave open.
    pub campaign: Campaign,
    /// When it was created.
    pub created_at: UnixMillis,
}
