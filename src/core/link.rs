//! Links: what visitors click.

use super::{AccountId, Campaign, Destination, LinkId, UnixMillis};

/// One of several things that a link may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name, such as `B`; unique within the link.
    pub name: String,
    /// How often it is shown, against the sum of all weights; 0: never.
    pub weight: u16,
    /// Where it leads; none: to the link's own destination.
    pub destination: Option<Destination>,
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
    pub destination: Destination,
    /// What is shown in turn; empty: the destination alone.
    pub variants: Vec<Variant>,
    /// Whether `click_id` is appended to the destination's query.
    pub append_click_id: bool,
    /// What a visit's own UTM parameters leave open.
    pub campaign: Campaign,
    /// When it was created.
    pub created_at: UnixMillis,
}

/// Longest slug, in bytes.
pub const SLUG_BYTES_MAX: usize = 64;

/// Whether the text can be a slug: nothing in it needs escaping, or ends where people paste it.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=SLUG_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

impl Link {
    /// The variant for a visitor, by a number that is the visitor's own: the same one at every visit for as long as the
    /// variants stay as they are, and over all visitors each as often as its weight says. None: there are no variants.
    #[must_use]
    pub fn variant_for(&self, visitor: u64) -> Option<&Variant> {
        let total: u64 = self.variants.iter().map(|variant| u64::from(variant.weight)).sum();
        let mut at = visitor.checked_rem(total)?;
        self.variants.iter().find(|variant| {
            let weight = u64::from(variant.weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(weights: &[u16]) -> Link {
        let variant =
            |(name, weight): (char, &u16)| Variant { name: name.into(), weight: *weight, destination: None };
        Link {
            id: LinkId(1),
            account_id: AccountId(1),
            name: "n".into(),
            slug: "s".into(),
            destination: Destination::parse("https://a.example/").expect("a destination"),
            variants: ('A'..).zip(weights).map(variant).collect(),
            append_click_id: false,
            campaign: Campaign::default(),
            created_at: UnixMillis(0),
        }
    }

    #[test]
    fn each_variant_is_shown_as_often_as_its_weight_says() {
        let shown = |weights: &[u16], visitors: u64| {
            let link = link(weights);
            let names = (0..visitors).filter_map(|visitor| link.variant_for(visitor));
            names.map(|variant| variant.name.as_str()).collect::<String>()
        };
        assert_eq!(shown(&[1, 2, 0, 1], 8), "ABBDABBD");
        assert_eq!(shown(&[0, 1000], 3), "BBB");
        assert_eq!(shown(&[], 3), "");
        assert_eq!(shown(&[0, 0], 3), "", "none has a weight");
    }

    #[test]
    fn slugs_need_no_escaping() {
        for slug in ["w", "Winter_2026-B", &"x".repeat(64)] {
            assert!(is_slug(slug), "{slug}");
        }
        for slug in ["", "a/b", "a b", "ä", "a.b", "a%20", &"x".repeat(65)] {
            assert!(!is_slug(slug), "{slug}");
        }
    }
}
