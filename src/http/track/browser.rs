//! What a GET really is: a visit, a look ahead, or a server that reads JSON.

use hyper::{HeaderMap, header};

/// Headers by which browsers and proxies say that nobody asked for this yet.
const LOOKING_AHEAD: [&str; 3] = ["sec-purpose", "purpose", "x-moz"];

/// Whether this is a prefetch, a prerender or a preview: it must not convert.
pub(in crate::http) fn is_looking_ahead(headers: &HeaderMap) -> bool {
    LOOKING_AHEAD.iter().filter_map(|name| headers.get(*name)?.to_str().ok()).any(|value| {
        let value = value.to_ascii_lowercase();
        ["prefetch", "prerender", "preview"].iter().any(|purpose| value.contains(purpose))
    })
}

/// Whether an image is asked for: by what a browser says of the place it is for, or by the types that are taken.
pub(in crate::http) fn asks_for_image(headers: &HeaderMap) -> bool {
    let names = |name: &str, part: &str| {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            value
                .split(',')
                .any(|one| one.trim().get(..part.len()).is_some_and(|start| start.eq_ignore_ascii_case(part)))
        })
    };
    names("sec-fetch-dest", "image") || names("accept", "image/")
}

/// Whether the caller would rather have JSON than an image: it names JSON, and images no higher.
pub(in crate::http) fn prefers_json(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let (mut json, mut image, mut any) = (0, 0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
        match kind.as_str() {
            "application/json" | "application/*" => json = json.max(weight),
            "image/*" | "image/gif" => image = image.max(weight),
            "*/*" => any = any.max(weight),
            _ => {}
        }
    }
    json > 0 && json > image && json >= any
}

/// A weight as RFC 9110 writes it, 0 to 1 with three digits at most.
fn thousandths(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = format!("{fraction:0<3}");
    let digits = fraction.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    if whole == "1" { 1000 } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a value"));
        headers
    }

    #[test]
    fn browsers_that_look_ahead_are_recognised() {
        for (name, value) in [
            ("sec-purpose", "prefetch;prerender"),
            ("purpose", "Prefetch"),
            ("purpose", "preview"),
            ("x-moz", "prefetch"),
        ] {
            assert!(is_looking_ahead(&headers(name, value)), "{name}: {value}");
        }
        assert!(!is_looking_ahead(&HeaderMap::new()));
        assert!(!is_looking_ahead(&headers("purpose", "")));
    }

    #[test]
    fn who_asks_for_an_image_says_so() {
        for (name, value, asks) in [
            ("accept", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", true),
            ("accept", "text/html, Image/GIF", true),
            ("sec-fetch-dest", "image", true),
            ("accept", "*/*", false),
            ("accept", "application/json", false),
            ("sec-fetch-dest", "empty", false),
        ] {
            assert_eq!(asks_for_image(&headers(name, value)), asks, "{name}: {value}");
        }
        assert!(!asks_for_image(&HeaderMap::new()));
    }

    #[test]
    fn images_are_for_those_who_do_not_ask_for_json() {
        for (accept, json) in [
            ("application/json", true),
            ("application/json, text/plain, */*", true),
            ("Application/JSON;q=0.9, image/gif;q=0.1", true),
            ("image/avif,image/webp,image/*,*/*;q=0.8", false),
            ("*/*", false),
            ("text/html", false),
            ("application/json;q=0", false),
            ("image/gif, application/json", false),
            ("*/*, application/json;q=0.5", false),
        ] {
            assert_eq!(prefers_json(&headers("accept", accept)), json, "{accept}");
        }
        assert!(!prefers_json(&HeaderMap::new()));
    }
}
