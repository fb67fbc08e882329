//! Links: create, list, read, change, delete. What visitors of them meet is in [`super::redirect`].

mod dto;
mod input;

use bytes::Bytes;
use dto::LinkJson;
use hyper::{StatusCode, body::Body, http::request::Parts};

use super::{
    Connection,
    body::RequestBody,
    client,
    error::{ApiError, ErrorCode},
    json,
    manage::{change_catalog, json_body},
    page::Parameters,
    response::{self, Answer},
    services::Services,
};
use crate::core::{AccountId, Link, LinkId};

/// `GET /api/v1/links`.
pub(super) fn list<I, R, G>(
    services: &Services<I, R>,
    connection: &Connection<G>,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let snapshot = services.catalog.snapshot();
    let account = client::account(&snapshot, &head.headers)?;
    let page = Parameters::read(head.uri.query(), &["page", "per_page"])?.page()?;
    let total = snapshot.links(account).count() as u64;
    let base = base(services, connection, head);
    let links = snapshot.links(account).skip(page.skip()).take(page.size as usize);
    let links: Vec<_> = links.map(|link| LinkJson::new(link, &base)).collect();
    Ok(response::list(&links, page, total))
}

/// `GET /api/v1/links/{id}`.
pub(super) fn read<I, R, G>(
    services: &Services<I, R>,
    connection: &Connection<G>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let snapshot = services.catalog.snapshot();
    let account = client::account(&snapshot, &head.headers)?;
    let link = snapshot.link(account, link_id(id)?).ok_or(ErrorCode::LinkNotFound)?;
    let base = base(services, connection, head);
    Ok(response::data(StatusCode::OK, &LinkJson::new(link, &base)))
}

/// `POST /api/v1/links`.
pub(super) async fn create<I, R, G, B>(
    services: &Services<I, R>,
    connection: &Connection<G>,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let body = json_body(services, head, body).await?;
    let draft = input::draft(json::text(&body)?)?;
    let now = services.clock.now();
    let link = change_catalog(services, move |catalog| catalog.create_link(account, draft, now)).await?;
    Ok(answer(StatusCode::CREATED, services, connection, head, &link))
}

/// `PATCH /api/v1/links/{id}`: what is not named stays; `null` takes away what may be absent.
pub(super) async fn change<I, R, G, B>(
    services: &Services<I, R>,
    connection: &Connection<G>,
    id: &str,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (account, id) = caller(services, id, head)?;
    let body = json_body(services, head, body).await?;
    let patch = input::patch(json::text(&body)?)?;
    let link = change_catalog(services, move |catalog| catalog.change_link(account, id, patch)).await?;
    Ok(answer(StatusCode::OK, services, connection, head, &link))
}

/// `DELETE /api/v1/links/{id}`: answers the link as it was.
pub(super) async fn delete<I, R, G>(
    services: &Services<I, R>,
    connection: &Connection<G>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let (account, id) = caller(services, id, head)?;
    let link = change_catalog(services, move |catalog| catalog.delete_link(account, id)).await?;
    Ok(answer(StatusCode::OK, services, connection, head, &link))
}

fn caller<I, R>(services: &Services<I, R>, id: &str, head: &Parts) -> Result<(AccountId, LinkId), ApiError> {
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    Ok((account, link_id(id)?))
}

fn answer<I, R, G>(
    status: StatusCode,
    services: &Services<I, R>,
    connection: &Connection<G>,
    head: &Parts,
    link: &Link,
) -> Answer {
    response::data(status, &LinkJson::new(link, &base(services, connection, head)))
}

/// Where visitors reach this daemon, as far as the caller's own request shows it.
fn base<I, R, G>(services: &Services<I, R>, connection: &Connection<G>, head: &Parts) -> String {
    client::base_url(connection.peer, head, &services.limits.trusted_proxies)
}

fn link_id(text: &str) -> Result<LinkId, ApiError> {
    text.parse().map(LinkId).map_err(|_| ErrorCode::LinkNotFound.into())
}
