//! From what a person writes to a destination.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use super::{DESTINATION_BYTES_MAX, Destination, MACROS};

/// Most macros in one destination: with it, a destination stays bounded whatever a visitor brings.
const MACROS_MAX: usize = 16;
/// What is percent-encoded behind the host, beside what is not ASCII. A percent sign stands for itself.
const UNSAFE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'|');

/// Why a destination is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Too long to be sent in a header everywhere.
    #[error("it has more than {DESTINATION_BYTES_MAX} bytes")]
    TooLong,
    /// A line break or the like, which people don't mean and headers can't hold.
    #[error("it has a control character in it")]
    Control,
    /// Another scheme, or none.
    #[error("it does not begin with https:// or http://")]
    Scheme,
    /// No host, or not one.
    #[error("it has no host that could be called")]
    Host,
    /// A macro where it would let visitors choose the site.
    #[error("its scheme and host can't hold macros")]
    MacroInHost,
    /// A name and a password in front of the host.
    #[error("it has credentials in it")]
    Credentials,
    /// A macro that is not known, which would go out unexpanded.
    #[error("`{0}` is not a macro; there are {known}, and a brace itself is written %7B or %7D", known = known())]
    UnknownMacro(String),
    /// More macros than anybody needs.
    #[error("it has more than {MACROS_MAX} macros")]
    TooManyMacros,
}

fn known() -> String {
    MACROS.map(|name| format!("{{{name}}}")).join(", ")
}

impl Destination {
    /// Reads a destination. What it says afterwards it says again: parsing is idempotent.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        let text = text.trim();
        if text.len() > DESTINATION_BYTES_MAX {
            return Err(DestinationError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(DestinationError::Control);
        }
        let (scheme, rest) = ["https", "http"]
            .into_iter()
            .find_map(|scheme| {
                let (start, rest) = text.split_at_checked(scheme.len())?;
                Some((scheme, rest.strip_prefix("://")?)).filter(|_| start.eq_ignore_ascii_case(scheme))
            })
            .ok_or(DestinationError::Scheme)?;
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let origin = origin(scheme, authority)?;
        check_macros(rest)?;
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let written = format!("{origin}{slash}{}", utf8_percent_encode(rest, UNSAFE));
        if written.len() > DESTINATION_BYTES_MAX {
            return Err(DestinationError::TooLong);
        }
        Ok(Self(written))
    }
}

/// Scheme, host and port as browsers write them.
fn origin(scheme: &str, authority: &str) -> Result<String, DestinationError> {
    if authority.contains(['{', '}']) {
        return Err(DestinationError::MacroInHost);
    }
    if authority.contains('@') {
        return Err(DestinationError::Credentials);
    }
    let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| DestinationError::Host)?;
    let origin = url.as_str().strip_suffix('/').unwrap_or_default();
    let whole = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if whole && url.has_host() { Ok(origin.to_owned()) } else { Err(DestinationError::Host) }
}

/// Every brace belongs to a macro that is known.
fn check_macros(text: &str) -> Result<(), DestinationError> {
    let unknown = |text: &str| DestinationError::UnknownMacro(text.chars().take(40).collect());
    let (mut rest, mut count) = (text, 0);
    while let Some(at) = rest.find(['{', '}']) {
        let from = &rest[at..];
        let end = from.find('}').map_or(from.len(), |end| end + 1);
        let name = from[..end].strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        if !name.is_some_and(|name| MACROS.contains(&name)) {
            return Err(unknown(&from[..end]));
        }
        count += 1;
        rest = &from[end..];
    }
    if count > MACROS_MAX { Err(DestinationError::TooManyMacros) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, DestinationError> {
        Destination::parse(text).map(|destination| destination.as_str().to_owned())
    }

    #[test]
    fn destinations_are_written_as_they_are_sent() {
        for (text, written) in [
            ("https://shop.example/?cid={click_id}", "https://shop.example/?cid={click_id}"),
            (" HTTPS://Shop.Example ", "https://shop.example/"),
            ("http://shop.example:80?x", "http://shop.example/?x"),
            ("http://shop.example:8080#top", "http://shop.example:8080/#top"),
            ("https://müller.example/größe?q=a b", "https://xn--mller-kva.example/gr%C3%B6%C3%9Fe?q=a%20b"),
            ("https://shop.example/a%20b/{sub1}?x=%", "https://shop.example/a%20b/{sub1}?x=%"),
            ("http://[2001:db8::1]:81/", "http://[2001:db8::1]:81/"),
            ("https://shop.example/?q=\"<>|", "https://shop.example/?q=%22%3C%3E%7C"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(written), "{text}");
            assert_eq!(parse(written).as_deref(), Ok(written), "{text}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let unknown = |text: &str| DestinationError::UnknownMacro(text.into());
        for (text, error) in [
            ("", DestinationError::Scheme),
            ("/path", DestinationError::Scheme),
            ("//shop.example/", DestinationError::Scheme),
            ("javascript:alert(1)", DestinationError::Scheme),
            ("ftp://shop.example/", DestinationError::Scheme),
            ("{sub1}://shop.example/", DestinationError::Scheme),
            ("https:shop.example", DestinationError::Scheme),
            ("https://", DestinationError::Host),
            ("https:///path", DestinationError::Host),
            ("https://a b/", DestinationError::Host),
            ("https://shop.example:99999/", DestinationError::Host),
            ("https://{sub1}/", DestinationError::MacroInHost),
            ("https://shop.example:{sub1}/", DestinationError::MacroInHost),
            ("https://shop.example{sub1}/", DestinationError::MacroInHost),
            ("https://u:p@shop.example/", DestinationError::Credentials),
            ("https://shop.example@evil.example/", DestinationError::Credentials),
            ("https://shop.example/\r\nSet-Cookie: a=b", DestinationError::Control),
            ("https://shop.example/?c={clickid}", unknown("{clickid}")),
            ("https://shop.example/?c={CLICK_ID}", unknown("{CLICK_ID}")),
            ("https://shop.example/?c={{click_id}}", unknown("{{click_id}")),
            ("https://shop.example/?c=}", unknown("}")),
            ("https://shop.example/?c={", unknown("{")),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(
            parse(&format!("https://a.example/{}", "{sub1}".repeat(17))),
            Err(DestinationError::TooManyMacros)
        );
        assert_eq!(parse(&format!("https://a.example/{}", "x".repeat(2048))), Err(DestinationError::TooLong));
        assert_eq!(parse(&format!("https://a.example/{}", "ä".repeat(900))), Err(DestinationError::TooLong));
    }

    #[test]
    fn a_backslash_does_not_hide_the_host() {
        // Browsers read it as a slash: the host is what stands before it.
        assert_eq!(
            parse("https://shop.example\\@evil.example/").as_deref(),
            Ok("https://shop.example/%5C@evil.example/")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_answered_and_what_is_taken_is_a_url(text in "(https?://)?[a-z.@:{}/\\\\?#%&= ä\"-]{0,60}") {
            if let Ok(written) = parse(&text) {
                prop_assert!(written.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(Url::parse(&written).is_ok_and(|url| url.has_host()));
                prop_assert_eq!(parse(&written), Ok(written));
            }
        }
    }
}
