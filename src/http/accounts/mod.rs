//! Accounts and their keys, for whoever runs the daemon: with the first key only.

mod dto;
mod input;

use bytes::Bytes;
use dto::{AccountJson, KeyJson};
use hyper::{StatusCode, body::Body, http::request::Parts};

use super::{
    body::RequestBody,
    client,
    error::{ApiError, ErrorCode},
    json,
    manage::{change_catalog, json_body},
    page::Parameters,
    response::{self, Answer},
    services::Services,
};
use crate::core::AccountId;

/// `GET /api/v1/accounts`.
pub(super) fn list<I, R>(services: &Services<I, R>, head: &Parts) -> Result<Answer, ApiError> {
    let snapshot = services.catalog.snapshot();
    client::operator(&snapshot, &head.headers)?;
    let page = Parameters::read(head.uri.query(), &["page", "per_page"])?.page()?;
    let total = snapshot.accounts().count() as u64;
    let accounts: Vec<_> =
        snapshot.accounts().skip(page.skip()).take(page.size as usize).map(AccountJson::from).collect();
    Ok(response::list(&accounts, page, total))
}

/// `GET /api/v1/accounts/{id}`: with its keys, revoked ones among them, but not their secrets.
pub(super) fn read<I, R>(services: &Services<I, R>, id: &str, head: &Parts) -> Result<Answer, ApiError> {
    let snapshot = services.catalog.snapshot();
    client::operator(&snapshot, &head.headers)?;
    let account = snapshot.account(account_id(id)?).ok_or(ErrorCode::AccountNotFound)?;
    let account = AccountJson::from(account).with_keys(snapshot.keys(account.id));
    Ok(response::data(StatusCode::OK, &account))
}

/// `POST /api/v1/accounts`: answers the account's first key, which is shown this once.
pub(super) async fn create<I, R, B>(
    services: &Services<I, R>,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    client::operator(&services.catalog.snapshot(), &head.headers)?;
    let body = json_body(services, head, body).await?;
    let draft = input::draft(json::text(&body)?)?;
    let now = services.clock.now();
    let (account, secret) =
        change_catalog(services, move |catalog| catalog.create_account(draft, now)).await?;
    Ok(response::data(StatusCode::CREATED, &AccountJson::from(&account).with_secret(secret.expose())))
}

/// `PATCH /api/v1/accounts/{id}`: in force from the next request on.
pub(super) async fn change<I, R, B>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    client::operator(&services.catalog.snapshot(), &head.headers)?;
    let id = account_id(id)?;
    let body = json_body(services, head, body).await?;
    let patch = input::patch(json::text(&body)?)?;
    let account = change_catalog(services, move |catalog| catalog.change_account(id, patch)).await?;
    Ok(response::data(StatusCode::OK, &AccountJson::from(&account)))
}

/// `POST /api/v1/accounts/{id}/keys`: answers the key, which is shown this once.
pub(super) async fn create_key<I, R, B>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    client::operator(&services.catalog.snapshot(), &head.headers)?;
    let id = account_id(id)?;
    let body = json_body(services, head, body).await?;
    let name = input::key(json::text(&body)?)?;
    let now = services.clock.now();
    let (key, secret) = change_catalog(services, move |catalog| catalog.create_key(id, name, now)).await?;
    Ok(response::data(StatusCode::CREATED, &KeyJson::new(&key, Some(secret.expose()))))
}

/// `DELETE /api/v1/accounts/{id}/keys/{key_id}`: the key opens nothing from the next request on.
pub(super) async fn revoke_key<I, R>(
    services: &Services<I, R>,
    (id, key): (&str, &str),
    head: &Parts,
) -> Result<Answer, ApiError> {
    client::operator(&services.catalog.snapshot(), &head.headers)?;
    let id = account_id(id)?;
    let key = key.parse().map_err(|_| ErrorCode::KeyNotFound)?;
    let key = change_catalog(services, move |catalog| catalog.revoke_key(id, key)).await?;
    Ok(response::data(StatusCode::OK, &KeyJson::new(&key, None)))
}

/// `POST /api/v1/accounts/{id}/keys/{key_id}/rotate`: the key has another secret from the next request on, which is shown
/// this once. The data folder's `api-key` follows the first key.
pub(super) async fn rotate_key<I, R>(
    services: &Services<I, R>,
    (id, key): (&str, &str),
    head: &Parts,
) -> Result<Answer, ApiError> {
    client::operator(&services.catalog.snapshot(), &head.headers)?;
    let id = account_id(id)?;
    let key = key.parse().map_err(|_| ErrorCode::KeyNotFound)?;
    let (key, secret) = change_catalog(services, move |catalog| catalog.rotate_key(id, key)).await?;
    Ok(response::data(StatusCode::OK, &KeyJson::new(&key, Some(secret.expose()))))
}

fn account_id(text: &str) -> Result<AccountId, ApiError> {
    text.parse().map(AccountId).map_err(|_| ErrorCode::AccountNotFound.into())
}
