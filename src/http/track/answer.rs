//! What a hit is answered: JSON for servers, the pixel for browsers.

use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use serde::Serialize;

use super::{
    convert::{Accepted, Verdict},
    notes::{Notes, NotesJson},
};
use crate::{
    core::ConversionId,
    http::{
        response::{self, Answer, whole_seconds},
        volume,
    },
};

/// A transparent GIF of one pixel: 43 bytes, the smallest that every browser shows.
pub(super) const GIF: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

const CONVERSION_STATUS: HeaderName = HeaderName::from_static("x-conversion-status");
const IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-ignored-fields");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, X-Conversion-Status, X-Ignored-Fields",
);
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");
/// What the answer depends on: whose page asks, and how.
const VARY: HeaderValue = HeaderValue::from_static("Origin");
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

/// Looked at, not counted: `HEAD` and prefetches.
pub(super) const IGNORED: &str = "ignored";

/// The verdict with its own status, as JSON.
pub(super) fn json(verdict: &Verdict) -> Answer {
    let answer = match &verdict.result {
        Ok(accepted) => {
            let status = status(*accepted);
            if verdict.notes.is_empty() {
                response::json(status, tracked(*accepted))
            } else {
                response::data(status, &TrackedJson::new(*accepted, &verdict.notes))
            }
        }
        Err(error) => response::error(error),
    };
    with_notes(answer, verdict)
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
    with_notes(answer, verdict)
}

/// Where the caller stands, and what was not understood.
fn with_notes(mut answer: Answer, verdict: &Verdict) -> Answer {
    if let Some(standing) = verdict.standing {
        volume::tell(&mut answer, standing);
    }
    if let Some(names) = verdict.notes.ignored_header() {
        answer.headers_mut().insert(IGNORED_FIELDS, names);
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

/// The answer to a browser that asks before it sends. The headers that it asks for are allowed, whatever they are: tracing
/// scripts add their own to every request of a page.
pub(super) fn preflight(asked: &HeaderMap) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers
        .insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, OPTIONS, POST"));
    let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        wanted.unwrap_or(HeaderValue::from_static("Accept, Content-Type, Idempotency-Key")),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    allow_origin(headers, asked);
    headers.insert(header::VARY, PREFLIGHT_VARY);
    answer
}

/// Lets scripts of any page read the answer: a token is made for public pages. The origin is named, since a browser that
/// sends credentials along, as `sendBeacon` does, takes no `*` for an answer. No cookie means anything here.
pub(super) fn with_cors(mut answer: Answer, asked: &HeaderMap) -> Answer {
    let headers = answer.headers_mut();
    allow_origin(headers, asked);
    // Servers have no use for it, and they send most hits.
    if asked.contains_key(header::ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    answer
}

fn allow_origin(headers: &mut HeaderMap, asked: &HeaderMap) {
    let origin = asked.get(header::ORIGIN).cloned();
    if origin.is_some() {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.unwrap_or(ANY_ORIGIN));
    headers.insert(header::VARY, VARY);
}

/// What an acknowledged conversion's caller is told.
#[derive(Debug, Serialize)]
pub(super) struct TrackedJson {
    conversion_id: String,
    /// `null`: not known yet.
    duplicate: Option<bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    conflict: bool,
    #[serde(flatten)]
    notes: NotesJson,
}

impl TrackedJson {
    pub(super) fn new(accepted: Accepted, notes: &Notes) -> Self {
        let (id, duplicate, conflict) = match accepted {
            Accepted::New(id) => (id, Some(false), false),
            Accepted::Duplicate { original, conflict } => (original, Some(true), conflict),
            Accepted::Unverified(id) => (id, None, false),
        };
        Self { conversion_id: id.to_string(), duplicate, conflict, notes: notes.into() }
    }
}

/// The status of what was acknowledged.
pub(super) fn status(accepted: Accepted) -> StatusCode {
    match accepted {
        Accepted::New(_) => StatusCode::CREATED,
        Accepted::Duplicate { .. } => StatusCode::OK,
        Accepted::Unverified(_) => StatusCode::ACCEPTED,
    }
}

/// `{"success":true,"data":{"conversion_id":"…","duplicate":…}}`, in one allocation of its exact size: what
/// [`TrackedJson`] without notes reads as.
fn tracked(accepted: Accepted) -> Vec<u8> {
    const START: &[u8] = br#"{"success":true,"data":{"conversion_id":""#;
    const MIDDLE: &[u8] = br#"","duplicate":"#;
    const END: &[u8] = b"}}";
    let (id, duplicate): (ConversionId, &[u8]) = match accepted {
        Accepted::New(id) => (id, b"false"),
        Accepted::Duplicate { original, conflict: false } => (original, b"true"),
        Accepted::Duplicate { original, conflict: true } => (original, b"true,\"conflict\":true"),
        Accepted::Unverified(id) => (id, b"null"),
    };
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = id.0.as_hyphenated().encode_lower(&mut text);
    let mut body = Vec::with_capacity(START.len() + id.len() + MIDDLE.len() + duplicate.len() + END.len());
    for part in [START, id.as_bytes(), MIDDLE, duplicate, END] {
        body.extend_from_slice(part);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracked_conversion_reads_as_documented() {
        let id = ConversionId(uuid::Uuid::from_u128(7));
        let body = tracked(Accepted::New(id));
        assert_eq!(body.len(), body.capacity());
        assert_eq!(
            String::from_utf8(body).expect("text"),
            r#"{"success":true,"data":{"conversion_id":"00000000-0000-0000-0000-000000000007","duplicate":false}}"#
        );
    }

    #[test]
    fn both_ways_to_write_it_read_the_same() {
        let id = ConversionId(uuid::Uuid::from_u128(7));
        for accepted in [
            Accepted::New(id),
            Accepted::Duplicate { original: id, conflict: false },
            Accepted::Duplicate { original: id, conflict: true },
            Accepted::Unverified(id),
        ] {
            let data = TrackedJson::new(accepted, &Notes::default());
            let whole = serde_json::json!({"success": true, "data": data});
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&tracked(accepted)).expect("JSON"), whole);
        }
    }
}
