//! `GET /openapi.json`: what every other module here takes and answers, as `OpenAPI` 3.1.
//!
//! Each topic has a file beside this one, a tag of the document: its paths and its schemas, as `OpenAPI` writes them, but for
//! what is the same everywhere, which [`assemble`] puts in. The document is held to the daemon, not derived from it:
//! every route is in it and nothing else, every answer that a test of this module gets must be one that it describes, down
//! to the last field, and its enums are those of the code (`tests/described.rs`, `tests/openapi.rs`); what it says of
//! requests is tried on a running daemon (`tests/openapi.rs` of the crate).

mod assemble;

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};
use sha2::{Digest as _, Sha256};

use super::response::{self, Answer};

/// How long a copy may be used without asking. The document changes with the daemon's version alone.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// Viewers run in pages of other hosts.
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The topics, in the order of the document.
const TOPICS: [&str; 11] = [
    include_str!("tracking.json"),
    include_str!("redirect.json"),
    include_str!("links.json"),
    include_str!("clicks.json"),
    include_str!("goals.json"),
    include_str!("conversions.json"),
    include_str!("postbacks.json"),
    include_str!("analytics.json"),
    include_str!("exports.json"),
    include_str!("accounts.json"),
    include_str!("service.json"),
];

/// The document, with its name in caches.
struct Document {
    body: Bytes,
    etag: HeaderValue,
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let body =
        Bytes::from(assemble::document(include_str!("document.json"), include_str!("shared.json"), &TOPICS));
    let digest = Sha256::digest(&body);
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest));
    Document { body, etag: HeaderValue::from_str(&etag).expect("plain letters in quotes") }
});

/// Answers the document, or that the caller has it.
pub(super) fn serve(head: &Parts) -> Answer {
    let Document { body, etag } = &*DOCUMENT;
    let mut answer = if has(&head.headers, etag) {
        response::empty(StatusCode::NOT_MODIFIED)
    } else {
        response::with_body(StatusCode::OK, JSON, body.clone())
    };
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, etag.clone());
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
    answer
}

/// Whether `If-None-Match` names it. A proxy that compressed it calls it weak.
fn has(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let named = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    named
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|name| name == "*" || name.strip_prefix("W/").unwrap_or(name).as_bytes() == etag.as_bytes())
}

/// The document, for the tests that hold the daemon to it.
#[cfg(test)]
pub(super) fn document() -> serde_json::Value {
    serde_json::from_slice(&DOCUMENT.body).expect("JSON")
}
