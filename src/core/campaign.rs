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

/// A UTM parameter or a variant as it is kept: trimmed, cut at [`LABEL_BYTES_MAX`], without control characters, quotes,
/// backslashes, and what turns the direction of writing. They come from public URLs, so nothing is refused because of
/// one; and dashboards put them into lists to choose from, whose choices are put into SQL between quotes.
#[must_use]
pub fn label(text: &str) -> String {
    kept(text, |c| !is_unseen(c) && !matches!(c, '\'' | '"' | '`' | '\\'))
}

/// A free value of the caller (`sub1` …) as it is kept: nobody chooses by it, and it is handed back as it came, but for
/// control characters and its length.
#[must_use]
pub fn free_value(text: &str) -> String {
    kept(text, |c| !is_unseen(c))
}

fn kept(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut kept: String = text.chars().filter(|c| keep(*c)).collect();
    kept.drain(..kept.len() - kept.trim_start().len());
    kept.truncate(kept.floor_char_boundary(LABEL_BYTES_MAX));
    kept.truncate(kept.trim_end().len());
    kept
}

/// Control characters, ends of lines, and marks of direction, by which a text shows as another one.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_bounded_and_clean() {
        assert_eq!(label("  face\u{0}book\n "), "facebook");
        assert_eq!(label(&"ä".repeat(100)).len(), 128);
        assert_eq!(label(" '; DROP TABLE clicks; -- \\ \u{202e}\"x`"), "; DROP TABLE clicks; --  x");
        assert_eq!(free_value("{\"id\": 'a\\b'}\n"), "{\"id\": 'a\\b'}");
    }

    proptest! {
        /// What is kept is kept again as it is: a link's own default says what its statistics will.
        #[test]
        fn a_label_is_a_label(text in any::<String>(), padding in 0usize..140) {
            let once = label(&format!("{}{text}", " x".repeat(padding)));
            prop_assert!(once.len() <= LABEL_BYTES_MAX && !once.contains(['\'', '"', '`', '\\']), "{once:?}");
            prop_assert_eq!(label(&once), once);
        }
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
