//! Tracking: the three ways in which a conversion is reported.
//!
//! Fields that are not known are ignored and named in the answer, since ad networks add their own; of a repeated one the
//! last counts. What has none of the fields that tell of a sale is somebody else's call, and refused.

mod answer;
mod batch;
pub(super) mod browser;
mod convert;
mod decimal;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod json;
mod notes;
mod payload;
mod raw_hit;
mod summary;
mod unknown;

use std::{borrow::Cow, net::IpAddr};

pub(super) use batch::create as batch;

use bytes::Bytes;
use convert::Hit;
use hyper::{
    HeaderMap,
    body::Body,
    header::{self, HeaderName},
    http::request::Parts,
};
use payload::Payload;
use raw_hit::RawHit;

use super::{
    Connection,
    body::{self, RequestBody},
    client,
    error::{ApiError, ErrorCode},
    response::Answer,
    services::{Services, Submit},
};
use crate::{
    catalog::Target,
    core::{AccountId, Source, is_crawler},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `POST /api/conversions/track/{token}`.
pub(super) async fn postback<I: Submit, R, B>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    token: &str,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
{
    // Copied out of the snapshot, which must not be held while the body is read and the log is written.
    let target = services.catalog.snapshot().target(token);
    let verdict = match target {
        None => services.refuse_unknown(ErrorCode::UnknownToken),
        Some(target) => match body::read(body, services.limits.body_bytes_max).await {
            Err(error) => services.refuse_unknown(error),
            Ok(body) => {
                let content_type = text(&head.headers, &header::CONTENT_TYPE);
                let payload = Payload { query: head.uri.query(), content_type, body: &body };
                let hit = services.hit(Source::Postback, connection.peer, &head.headers, payload);
                services.convert(connection, target, hit, None).await
            }
        },
    };
    answer::with_cors(answer::json(&verdict), &head.headers)
}

/// `GET /api/conversions/track/{token}`: the pixel, or an ad network's server.
pub(super) async fn pixel<I: Submit, R>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    token: &str,
    head: &Parts,
) -> Answer {
    let headers = &head.headers;
    if browser::is_looking_ahead(headers) {
        return look(services, head, "prefetch");
    }
    if is_crawler(&user_agent(headers)) {
        return look(services, head, "crawler");
    }
    let is_image = browser::asks_for_image(headers);
    let target = services.catalog.snapshot().target(token);
    let verdict = match target {
        None => services.refuse_unknown(ErrorCode::UnknownToken),
        Some(target) => {
            let payload = Payload { query: head.uri.query(), ..Payload::default() };
            let hit = Hit { is_image, ..services.hit(Source::Pixel, connection.peer, headers, payload) };
            services.convert(connection, target, hit, None).await
        }
    };
    // Who asks for no image is a server, which must know of what was not taken.
    let is_told = verdict.result.is_err() && !is_image;
    let answer = if is_told || browser::prefers_json(headers) {
        answer::json(&verdict)
    } else {
        answer::pixel(&verdict)
    };
    answer::with_cors(answer, headers)
}

/// `HEAD /api/conversions/track/{token}`: what `GET` would say, without converting.
pub(super) fn head<I, R>(services: &Services<I, R>, head: &Parts) -> Answer {
    look(services, head, "head")
}

/// `OPTIONS /api/conversions/track/{token}`.
pub(super) fn preflight(head: &Parts) -> Answer {
    answer::preflight(&head.headers)
}

/// The pixel for who only looks.
fn look<I, R>(services: &Services<I, R>, head: &Parts, reason: &'static str) -> Answer {
    services.metrics.looked_at(reason);
    answer::with_cors(answer::bare_pixel(answer::IGNORED), &head.headers)
}

/// `POST /api/v1/conversions/track`: with a key, and the token in the body. A goal of another account is as unknown
/// as one that is not there.
pub(super) async fn with_key<I: Submit, R, B>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
{
    // The key first: what nobody answers for is not read.
    let account = client::account(&services.catalog.snapshot(), &head.headers);
    let read = match account {
        Err(error) => Err(error),
        Ok(account) => body::read(body, services.limits.body_bytes_max).await.map(|body| (account, body)),
    };
    let verdict = match read {
        Err(error) => services.refuse_unknown(error),
        Ok((account, body)) => {
            let payload = Payload {
                query: head.uri.query(),
                content_type: text(&head.headers, &header::CONTENT_TYPE),
                body: &body,
            };
            let found = payload.decode().and_then(|raw| Ok((services.own_target(account, &raw)?, raw)));
            match found {
                Err(error) => services.refuse_unknown(error),
                Ok((target, raw)) => {
                    let hit = services.hit(Source::Api, connection.peer, &head.headers, payload);
                    services.convert(connection, target, hit, Some(raw)).await
                }
            }
        }
    };
    answer::json(&verdict)
}

impl<I: Submit, R> Services<I, R> {
    /// The account's goal that the hit names.
    fn own_target(&self, account: AccountId, raw: &RawHit<'_>) -> Result<Target, ApiError> {
        let token = raw.postback_token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| {
            ApiError::new(ErrorCode::MissingField)
                .because("`postback_token` is missing.")
                .at("postback_token")
        })?;
        let target = self.catalog.snapshot().target(token);
        let own = target.filter(|target| target.account_id == account);
        own.ok_or_else(|| ApiError::new(ErrorCode::UnknownToken).at("postback_token"))
    }

    fn hit<'a>(&self, source: Source, peer: IpAddr, headers: &'a HeaderMap, payload: Payload<'a>) -> Hit<'a> {
        Hit {
            source,
            received_at: self.clock.now(),
            payload,
            // A browser repeats a GET as it likes, so a key on one would be nobody's promise.
            idempotency_key: match source {
                Source::Pixel => None,
                // Bytes that are not text are no key: blank is refused.
                Source::Postback | Source::Api => {
                    headers.get(IDEMPOTENCY_KEY).map(|value| value.to_str().unwrap_or_default())
                }
            },
            ip: client::address(peer, headers, &self.limits.trusted_proxies),
            user_agent: user_agent(headers),
            is_image: false,
        }
    }
}

/// The caller's `Idempotency-Key`, for the other calls that take one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let key = headers.get(IDEMPOTENCY_KEY).map(|value| value.to_str().unwrap_or_default());
    key.map(convert::idempotency_key).transpose()
}

/// The caller's user agent. Bytes that are not text are kept as far as they can be: some browsers name their device in
/// another encoding, and their visitors are people all the same.
pub(in crate::http) fn user_agent(headers: &HeaderMap) -> Cow<'_, str> {
    headers
        .get(header::USER_AGENT)
        .map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
