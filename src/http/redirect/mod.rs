//! `GET /r/{slug}`: a visit through a link. The visitor comes first: whatever becomes of the record, there is a redirect.

mod traffic;

use std::{borrow::Cow, net::IpAddr, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::{
    Connection, client,
    error::{ApiError, ErrorCode},
    response::{self, Answer},
    services::{Services, Submit},
    track::{self, browser},
};
use crate::{
    core::{Campaign, ClickSource, SUBS, Visit, labels},
    intake::ClickSubmission,
};

/// How long a visitor waits for the click to be durable, so that a conversion can't overtake it. A healthy disk needs a
/// few milliseconds; past this the visitor goes on, and the click may still be recorded.
const RECORDED_WITHIN: Duration = Duration::from_millis(250);
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// The destination learns which site the visitor came from, and not which page.
const REFERRER_POLICY: HeaderValue = HeaderValue::from_static("strict-origin-when-cross-origin");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NOT_FOUND_PAGE: &[u8] =
    b"<!doctype html><html lang=\"en\"><title>Not found</title><p>This link leads nowhere.</p></html>\n";

/// `GET` or `HEAD /r/{slug}`.
pub(super) async fn visit<I: Submit, R>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    slug: &str,
    head: &Parts,
) -> Answer {
    let ip = client::address(connection.peer, &head.headers, &services.limits.trusted_proxies);
    let Some((location, click)) = services.follow(slug, ip, head) else { return nowhere(&head.headers) };
    if let Some((click, id)) = click {
        if services.volume.takes_click(click.account_id, services.limits.click_rate_limit_per_minute) {
            // What is not recorded, or not in time, is counted where it is lost.
            let _ = timeout(RECORDED_WITHIN, services.intake.visit(click, id)).await;
        } else {
            services.metrics.clicks_rate_limited.increment(1);
        }
    }
    redirect(&location)
}

impl<I: Submit, R> Services<I, R> {
    /// Where the visitor goes, and the click that is to be recorded with its number: none where the account's plan
    /// does not include tracking.
    fn follow(
        &self,
        slug: &str,
        ip: IpAddr,
        head: &Parts,
    ) -> Option<(String, Option<(ClickSubmission, crate::core::ClickId)>)> {
        let snapshot = self.catalog.snapshot();
        let link = snapshot.link_by_slug(&plain_slug(slug))?;
        let agent = &*track::user_agent(&head.headers);
        let now = self.clock.now();
        let id = self.intake.issue_click_id(link.account_id, now);
        let query = head.uri.query().unwrap_or_default();
        let (campaign, subs): (Campaign, [String; SUBS]) = labels(query);
        let campaign = campaign.or(&link.campaign);
        let shown = link.variant_for(traffic::visitor(link.id, ip, agent));
        let variant = shown.map_or("", |variant| variant.name.as_str());
        let destination = shown.and_then(|variant| variant.destination.as_ref()).unwrap_or(&link.destination);
        let location = destination.location(&Visit {
            link,
            click_id: id,
            variant,
            campaign: &campaign,
            subs: &subs,
            query,
        });
        let tracks = snapshot.account(link.account_id).is_some_and(|it| it.plan.allows_tracking().is_ok());
        let click = tracks.then(|| ClickSubmission {
            account_id: link.account_id,
            link_id: Some(link.id),
            click_id: None,
            clicked_at: now,
            received_at: now,
            source: ClickSource::Redirect,
            traffic: traffic::of(&head.method, &head.headers, agent),
            campaign,
            variant: variant.to_owned(),
            subs,
            ip: Some(ip),
            user_agent: agent.to_owned(),
        });
        Some((location, click.map(|click| (click, id))))
    }
}

/// The slug as its owner wrote it: without percent-encoding, and without what the text around a link left at its end.
fn plain_slug(slug: &str) -> Cow<'_, str> {
    let is_around = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_');
    match percent_decode_str(slug).decode_utf8_lossy() {
        Cow::Borrowed(slug) => Cow::Borrowed(slug.trim_matches(is_around)),
        Cow::Owned(slug) => Cow::Owned(slug.trim_matches(is_around).to_owned()),
    }
}

fn redirect(location: &str) -> Answer {
    // A destination is ASCII, and all that is put into it is percent-encoded.
    let Ok(location) = HeaderValue::from_str(location) else {
        return response::error(&ErrorCode::Internal.into());
    };
    let mut answer = response::empty(StatusCode::FOUND);
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::REFERRER_POLICY, REFERRER_POLICY);
    answer
}

/// A slug that no link has: a page for people, JSON for who asks for it.
fn nowhere(headers: &HeaderMap) -> Answer {
    let mut answer = if browser::prefers_json(headers) {
        response::error(&ApiError::new(ErrorCode::LinkNotFound).at("slug"))
    } else {
        response::with_body(StatusCode::NOT_FOUND, HTML, Bytes::from_static(NOT_FOUND_PAGE))
    };
    answer.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    answer
}
