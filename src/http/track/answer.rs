//! What a hit is answered: JSON for servers, the pixel for browsers.

use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::convert::{Accepted, Verdict};
use crate::{
    core::ConversionId,
    http::response::{self, Answer, whole_seconds},
    rate_limit::Standing,
};

/// A transparent GIF of one pixel: 43 bytes, the smallest that every browser shows.
pub(super) const GIF: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const CONVERSION_STATUS: HeaderName = HeaderName::from_static("x-conversion-status");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, X-Conversion-Status",
);
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");

/// Looked at, not counted: `HEAD` and prefetches.
pub(super) const IGNORED: &str = "ignored";

/// The verdict with its own status, as JSON.
pub(super) fn json(verdict: &Verdict) -> Answer {
    let mut answer = match &verdict.result {
        Ok(Accepted::New(id)) => response::json(StatusCode::CREATED, tracked(*id, b"false")),
        Ok(Accepted::Duplicate { original, conflict: false }) => {
            response::json(StatusCode::OK, tracked(*original, b"true"))
        }
        Ok(Accepted::Duplicate { original, conflict: true }) => {
            response::json(StatusCode::OK, tracked(*original, b"true,\"conflict\":true"))
        }
        Ok(Accepted::Unverified(id)) => response::json(StatusCode::ACCEPTED, tracked(*id, b"null")),
        Err(error) => response::error(error),
    };
    if let Some(standing) = verdict.standing {
        limits(&mut answer, standing);
    }
    answer
}

/// The pixel, whatever the verdict: a broken image on a merchant's page helps nobody.
pub(super) fn pixel(verdict: &Verdict) -> Answer {
    let mut answer = bare_pixel(match &verdict.result {
        Ok(Accepted::New(_)) => "new",
        Ok(Accepted::Duplicate { .. }) => "duplicate",
        Ok(Accepted::Unverified(_)) => "unverified",
        Err(error) => error.code.as_str(),
    });
    if let Err(error) = &verdict.result
        && let Some(after) = error.retry_after
    {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if let Some(standing) = verdict.standing {
        limits(&mut answer, standing);
    }
    answer
}

/// The pixel with this status in its header.
pub(super) fn bare_pixel(status: &'static str) -> Answer {
    let gif = HeaderValue::from_static("image/gif");
    let mut answer = response::with_body(StatusCode::OK, gif, bytes::Bytes::from_static(GIF));
    answer.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    answer.headers_mut().insert(CONVERSION_STATUS, HeaderValue::from_static(status));
    answer
}

/// The answer to a browser that asks before it sends.
pub(super) fn preflight() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, OPTIONS, POST"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Accept, Content-Type, Idempotency-Key"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
    answer
}

/// Lets scripts of any page read the answer: a token is made for public pages, and no cookie is involved.
pub(super) fn with_cors(mut answer: Answer, asked: &HeaderMap) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
    // Servers have no use for it, and they send most hits.
    if asked.contains_key(header::ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    answer
}

/// `{"success":true,"data":{"conversion_id":"…","duplicate":…}}`, in one allocation of its exact size.
fn tracked(id: ConversionId, duplicate: &[u8]) -> Vec<u8> {
    const START: &[u8] = br#"{"success":true,"data":{"conversion_id":""#;
    const MIDDLE: &[u8] = br#"","duplicate":"#;
    const END: &[u8] = b"}}";
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = id.0.as_hyphenated().encode_lower(&mut text);
    let mut body = Vec::with_capacity(START.len() + id.len() + MIDDLE.len() + duplicate.len() + END.len());
    for part in [START, id.as_bytes(), MIDDLE, duplicate, END] {
        body.extend_from_slice(part);
    }
    body
}

fn limits(answer: &mut Answer, standing: Standing) {
    let headers = answer.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(standing.limit));
    headers.insert(REMAINING, HeaderValue::from(standing.remaining));
    headers.insert(RESET, HeaderValue::from(standing.reset_seconds));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracked_conversion_reads_as_documented() {
        let id = ConversionId(uuid::Uuid::from_u128(7));
        let body = tracked(id, b"false");
        assert_eq!(body.len(), body.capacity());
        assert_eq!(
            String::from_utf8(body).expect("text"),
            r#"{"success":true,"data":{"conversion_id":"00000000-0000-0000-0000-000000000007","duplicate":false}}"#
        );
    }
}
