//! Where a link leads: checked once, so that whatever a visitor brings along can only end up behind the host.

mod location;
mod parse;

pub use location::{Visit, labels};
pub use parse::DestinationError;

/// Longest destination, in bytes.
pub const DESTINATION_BYTES_MAX: usize = 2048;

/// What a visit may put into a destination, in braces.
pub(super) const MACROS: [&str; 14] = [
    "click_id",
    "link_id",
    "slug",
    "variant",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_term",
    "utm_content",
    "sub1",
    "sub2",
    "sub3",
    "sub4",
    "sub5",
];

/// An `http` or `https` URL in plain ASCII, in the spelling in which it is sent: the host in its Punycode, macros where
/// the path, the query or the fragment have them, every other brace percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination(String);

impl Destination {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
