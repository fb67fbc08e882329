//! Where a visitor came from, in the marketer's own words: the five UTM parameters.

/// Longest value of a UTM parameter, a variant or a `sub` that is kept, in bytes.
pub const LABEL_BYTES_MAX: usize = 128;

/// The UTM parameters of a click; empty: not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Campaign {
    /// `utm_source`: the site or network.
    pub source: String,
    /// `utm_medium`: the kind of traffic, such as `cpc` or `email`.
    pub medium: String,
    /// `utm_campaign`: the campaign's name.
    pub campaign: String,
    /// `utm_term`: the keyword.
    pub term: String,
    /// `utm_content`: which of several ads.
    pub content: String,
}

/// A label as it is kept: trimmed, without control characters, cut at [`LABEL_BYTES_MAX`]. Labels come from public URLs,
/// so nothing is refused because of one.
#[must_use]
pub fn label(text: &str) -> String {
    let mut label: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    label.truncate(label.floor_char_boundary(LABEL_BYTES_MAX));
    label
}

impl Campaign {
    /// This campaign, with what it does not say taken from `defaults`.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        let or = |own: String, default: &str| if own.is_empty() { default.to_owned() } else { own };
        Self {
            source: or(self.source, &defaults.source),
            medium: or(self.medium, &defaults.medium),
            campaign: or(self.campaign, &defaults.campaign),
            term: or(self.term, &defaults.term),
            content: or(self.content, &defaults.content),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_clean() {
        assert_eq!(label("  face\u{0}book\n "), "facebook");
        assert_eq!(label(&"ä".repeat(100)).len(), 128);
    }

    #[test]
    fn defaults_fill_what_is_not_said() {
        let own = Campaign { source: "mail".into(), ..Campaign::default() };
        let defaults = Campaign { source: "x".into(), medium: "cpc".into(), ..Campaign::default() };
        assert_eq!(
            own.or(&defaults),
            Campaign { source: "mail".into(), medium: "cpc".into(), ..Campaign::default() }
        );
    }
}
