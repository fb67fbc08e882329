//! How the values of settings are read: `None` is 'not what is expected', and the table says what is.

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, str::FromStr};

use hyper::Uri;
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

/// A path; not empty.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// A path that means the same file in every folder.
pub(super) fn absolute_path(text: &str) -> Option<PathBuf> {
    path(text).filter(|path| path.is_absolute())
}

/// A whole number inside a range.
pub(super) fn within<T: FromStr + PartialOrd>(text: &str, range: RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|number| range.contains(number))
}

/// A number of bytes: `65536`, `64KiB`, `8 GiB`.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let shift = match text[digits..].trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Networks and addresses, separated by commas.
pub(super) fn networks(text: &str) -> Option<Vec<IpNet>> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<IpNet>().ok().or_else(|| part.parse::<IpAddr>().ok().map(IpNet::from)))
        .collect()
}

/// An `http://` URL with a host, as it was written.
pub(super) fn http_url(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let fits = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    fits.then(|| text.to_owned())
}

/// Whether a URL has a password in it, where users are named or as a parameter.
pub(super) fn has_password(url: &str) -> bool {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let login = address.rsplit_once('@').map(|(before, _)| before.rsplit('/').next().unwrap_or_default());
    let named =
        login.and_then(|login| login.split_once(':')).is_some_and(|(_, password)| !password.is_empty());
    let parameter = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| name == "password");
    named || query.split('&').any(parameter)
}

/// A level or directives. ASCII only: `EnvFilter` cuts other text in the middle of a character, and panics.
pub(super) fn log_level(text: &str) -> Option<String> {
    (text.is_ascii() && !text.trim().is_empty() && EnvFilter::try_new(text).is_ok()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("65536"), Some(65_536));
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size(" 8 GiB "), Some(8 << 30));
        for wrong in ["", "KiB", "64KB", "-1", "1.5GiB", "99999999999TiB"] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn networks_may_be_single_addresses() {
        assert_eq!(networks("").map(|nets| nets.len()), Some(0));
        assert_eq!(networks("10.0.0.0/8, ::1").map(|nets| nets.len()), Some(2));
        assert_eq!(networks("10.0.0.0/33"), None);
        assert_eq!(networks("localhost"), None);
    }

    #[test]
    fn urls_are_plain_http_with_a_host() {
        assert!(http_url("http://user:secret@localhost:8123/?database=tally").is_some());
        for wrong in ["", "localhost:8123", "ftp://x/", "https://x/", "http://", "/path"] {
            assert_eq!(http_url(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn levels_are_checked() {
        assert!(log_level("info,tally::wal=debug").is_some());
        assert!(log_level("").is_none());
        assert!(log_level("tally=loudly").is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,60}") {
            let _ = (size(&text), networks(&text), http_url(&text), log_level(&text));
        }
    }
}
