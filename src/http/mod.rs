//! HTTP: routes, decoders, the table of errors, answers. Knows nothing of the log or of SQL.
//!
//! [`handle`] answers one request of the public listener and [`Ops::handle`] one of the operators'; who accepts
//! connections calls them.

mod accounts;
mod adjustments;
mod analytics;
mod body;
mod body_budget;
mod bulk;
mod clicks;
mod client;
mod connections;
mod conversions;
pub mod error;
mod exports;
mod fields;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gated;
mod goals;
mod ignored_fields;
mod input;
mod json;
mod links;
mod manage;
mod network;
mod openapi;
mod ops;
mod page;
mod pause;
mod pipe;
mod placeholder;
mod postbacks;
mod readiness;
mod redirect;
mod report;
mod response;
mod router;
pub mod server;
mod services;
mod serving;
mod strain;
#[cfg(test)]
mod tests;
mod times;
mod track;
mod volume;

use std::{net::IpAddr, sync::Arc};

use body::RequestBody;
pub use body_budget::BodyBudget;
use body_budget::{Caller, FREE_BYTES};
use bytes::Bytes;
pub use connections::Place;
pub use exports::{Export, ExportError, Exports};
use hyper::{Request, StatusCode, body::Body, http::request::Parts};
pub use ignored_fields::IgnoredFields;
pub use ops::Ops;
pub use pipe::{BrokenOff, Gone, PipeReader, PipeWriter, pipe};
pub use postbacks::{PostbackError, Postbacks};
pub use readiness::{Degraded, NotReady, Readiness};
pub use report::DatabaseSlots;
pub use response::{Answer, AnswerBody};
use router::{Route, route};
pub use services::{Limits, Reports, Services, Submit};
pub use strain::Strain;
pub use volume::Volume;

use self::error::{ApiError, ErrorCode};
use crate::{core::ExportKind, intake::Gate, telemetry::RequestClass};

/// Where a request came in.
pub struct Connection<G = Gate> {
    /// The other end.
    pub peer: IpAddr,
    /// What its answers wait for.
    pub gate: G,
    /// What it is at.
    pub place: Arc<Place>,
}

/// Answers one request of the public listener. The answer may leave when the connection's gate is open.
pub async fn handle<I, R, B>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    request: Request<B>,
) -> Answer
where
    I: Submit,
    R: Reports,
    B: Body<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    let caller = Caller {
        budget: &services.body_budget,
        catalog: &services.catalog,
        head: &head,
        peer: connection.peer,
        trusted: &services.limits.trusted_proxies,
    };
    let mut body = RequestBody::new(body, &connection.place, caller);
    let (mut answer, is_sound) = match framing::check(head.version, &head.headers) {
        Ok(()) => (dispatch(services, connection, &head, &mut body).await, true),
        Err(error) => {
            services.metrics.requested(RequestClass::Other);
            (response::error(&error), false)
        }
    };
    // Where the next request would begin is not known.
    if !is_sound || !body.is_over().await {
        response::close(&mut answer);
    }
    match body.into_charge() {
        Some(charge) if answer.body().size_hint().lower() > FREE_BYTES as u64 => {
            answer.map(|body| body.charged(charge))
        }
        _ => answer,
    }
}

/// Finds the handler, and calls it.
async fn dispatch<I, R, B>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Answer
where
    I: Submit,
    R: Reports,
    B: Body<Data = Bytes> + Unpin,
{
    let route = match route(&head.method, head.uri.path()) {
        Ok(route) => route,
        Err(error) => {
            services.metrics.requested(RequestClass::Other);
            return response::error(&error);
        }
    };
    let class = class(&route);
    services.metrics.requested(class);
    if class == RequestClass::Api
        && let Err(refused) = volume::take_call(services, &head.headers)
    {
        return *refused;
    }
    match route {
        Route::Redirect(slug) => redirect::visit(services, connection, slug, head).await,
        Route::Postback(token) => track::postback(services, connection, token, head, body).await,
        Route::Pixel(token) => track::pixel(services, connection, token, head).await,
        Route::PixelHead(_) => track::head(services, head),
        Route::Preflight(_) => track::preflight(head),
        Route::Track => track::with_key(services, connection, head, body).await,
        Route::OpenApi => openapi::serve(head),
        Route::Root => response::data(StatusCode::OK, &ABOUT),
        // On the heap, so that a hit's future is not as large as that of the largest report.
        route => Box::pin(call_api(services, connection, route, head, body))
            .await
            .unwrap_or_else(|error| response::error(&error)),
    }
}

/// Calls the handler of the API.
async fn call_api<I, R, B>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    route: Route<'_>,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    I: Submit,
    R: Reports,
    B: Body<Data = Bytes> + Unpin,
{
    match route {
        Route::Redirect(_)
        | Route::Postback(_)
        | Route::Pixel(_)
        | Route::PixelHead(_)
        | Route::Preflight(_)
        | Route::Track
        | Route::OpenApi
        | Route::Root => Err(ErrorCode::NotFound.into()),
        Route::TrackBatch => track::batch(services, connection, head, body).await,
        Route::ReportClicks => clicks::create(services, connection, head, body).await,
        Route::ListGoals => goals::list(services, head),
        Route::CreateGoal => goals::create(services, head, body).await,
        Route::ReadGoal(id) => goals::read(services, id, head),
        Route::ChangeGoal(id) => goals::change(services, id, head, body).await,
        Route::DeleteGoal(id) => goals::delete(services, id, head).await,
        Route::RotatePostbackSecret(id) => goals::rotate_postback_secret(services, id, head).await,
        Route::TestPostback(id) => postbacks::test(services, id, head).await,
        Route::Backfill(id) => postbacks::backfill(services, id, head, body).await,
        Route::Deliveries => postbacks::list(services, head).await,
        Route::Replay(id) => postbacks::replay(services, id, head).await,
        Route::RotateToken(id) => goals::rotate_token(services, id, head).await,
        Route::ListLinks => links::list(services, connection, head),
        Route::CreateLink => links::create(services, connection, head, body).await,
        Route::ReadLink(id) => links::read(services, connection, id, head),
        Route::ChangeLink(id) => links::change(services, connection, id, head, body).await,
        Route::DeleteLink(id) => links::delete(services, connection, id, head).await,
        Route::ListAccounts => accounts::list(services, head),
        Route::CreateAccount => accounts::create(services, head, body).await,
        Route::ReadAccount(id) => accounts::read(services, id, head),
        Route::ChangeAccount(id) => accounts::change(services, id, head, body).await,
        Route::CreateKey(id) => accounts::create_key(services, id, head, body).await,
        Route::RevokeKey(id, key) => accounts::revoke_key(services, (id, key), head).await,
        Route::RotateKey(id, key) => accounts::rotate_key(services, (id, key), head).await,
        Route::Rejections => conversions::rejections(services, head).await,
        Route::Conversion(id) => conversions::read(services, id, head).await,
        Route::Adjust(id) => adjustments::create(services, connection, id, head, body).await,
        Route::Adjustments(id) => adjustments::list(services, id, head).await,
        Route::ExportConversions => exports::read(services, ExportKind::Conversions, head).await,
        Route::ExportClicks => exports::read(services, ExportKind::Clicks, head).await,
        Route::ConversionReport => analytics::conversions(services, head).await,
        Route::FunnelReport => analytics::funnel(services, head).await,
        Route::VariantReport => analytics::variants(services, head).await,
        Route::HealthReport => analytics::health(services, head).await,
    }
}

/// What stands at `/`.
#[derive(serde::Serialize)]
struct About {
    name: &'static str,
    version: &'static str,
    what: &'static str,
    track: &'static str,
    api: &'static str,
}

const ABOUT: About = About {
    name: "tally",
    version: env!("CARGO_PKG_VERSION"),
    what: "Conversion tracking: every acknowledged hit, exactly once. /openapi.json describes every call.",
    track: "POST or GET /api/conversions/track/{token}",
    api: "/api/v1 with `Authorization: Bearer tally_…`",
};

fn class(route: &Route<'_>) -> RequestClass {
    match route {
        Route::Postback(_) | Route::Track | Route::TrackBatch | Route::ReportClicks => RequestClass::Track,
        Route::Pixel(_) | Route::PixelHead(_) | Route::Preflight(_) => RequestClass::Pixel,
        Route::Redirect(_) => RequestClass::Redirect,
        Route::Root | Route::OpenApi => RequestClass::Other,
        _ => RequestClass::Api,
    }
}
