//! `POST /api/v1/conversions/batch`: many conversions, one a line, durable together.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use hyper::{body::Body, http::request::Parts};

use super::{
    answer::{self, TrackedJson},
    convert::{Accepted, Hit},
    notes::Notes,
    payload::Payload,
};
use crate::{
    catalog::Target,
    core::{AccountId, GoalId, Source, UnixMillis},
    http::{
        Connection,
        body::{self, RequestBody},
        bulk::{self, Line, LineResult, Results},
        client,
        error::ApiError,
        response::Answer,
        services::{Services, Submit},
    },
    intake::{Outcome, Submission},
};

/// What is the same for all lines.
struct Batch<'a, G> {
    connection: &'a Connection<G>,
    account: AccountId,
    received_at: UnixMillis,
    /// `Idempotency-Key`: with a line's number, the key of a line without an order id.
    idempotency_key: Option<String>,
}

/// Up to 10,000 lines, each as the body of `POST /api/v1/conversions/track`. A request counts once against the limit of
/// each goal in it.
pub(in crate::http) async fn create<I: Submit, R, B>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    // The key first: nobody else may send so much.
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let idempotency_key = super::idempotency_key(&head.headers)?;
    let body = body::read_bulk(body, bulk::BODY_BYTES_MAX).await?;
    let received_at = services.clock.now();
    let batch = Batch { connection, account, received_at, idempotency_key };
    services.convert_all(&batch, &bulk::lines(&body)?).await
}

impl<I: Submit, R> Services<I, R> {
    async fn convert_all(&self, batch: &Batch<'_, I::Gate>, lines: &[Line<'_>]) -> Result<Answer, ApiError> {
        let mut submissions = Vec::with_capacity(lines.len());
        let mut targets = Vec::with_capacity(lines.len());
        let mut limits = HashMap::new();
        for (at, line) in lines.iter().enumerate() {
            targets.push(self.read_line(batch, line, &mut limits).map(|(target, submission, notes)| {
                submissions.push(submission);
                (target, notes)
            }));
            bulk::breathe(at).await;
        }
        let mut outcomes = self.intake.submit_all(submissions, &batch.connection.gate).await.into_iter();
        let mut results = Results::with_capacity(lines.len());
        for ((at, line), target) in lines.iter().enumerate().zip(targets) {
            let result = match target {
                Err(error) => LineResult::Refused(error),
                Ok((target, notes)) => {
                    let outcome = outcomes.next().unwrap_or(Outcome::Unavailable);
                    // Nothing was kept of any line: that is the answer to all of them.
                    result_of(self.conclude(target, &hit_of(batch, line), outcome)?, &notes)
                }
            };
            results.push(line.number, result);
            bulk::breathe(at).await;
        }
        Ok(results.answer())
    }

    /// The line's goal and its conversion, or why it is refused, which is kept where the goal is known.
    fn read_line(
        &self,
        batch: &Batch<'_, I::Gate>,
        line: &Line<'_>,
        limits: &mut HashMap<GoalId, Result<(), ApiError>>,
    ) -> Result<(Target, Submission, Notes), ApiError> {
        let hit = hit_of(batch, line);
        let found = hit.payload.decode().and_then(|raw| Ok((self.own_target(batch.account, &raw)?, raw)));
        let (target, raw) = found.inspect_err(|error| {
            // It is counted; the answer is the line's.
            let _ = self.refuse_unknown(error.clone());
        })?;
        let limited = limits
            .entry(target.goal_id)
            .or_insert_with(|| self.take_from_limit(target).map(|_| ()).map_err(|(_, error)| error));
        limited.clone().inspect_err(|error| self.refuse(target, &hit, "", error))?;
        match self.read(target, &hit, Some(raw)) {
            Ok((submission, notes)) => {
                let key = batch.idempotency_key.as_ref();
                let idempotency_key = key.map(|key| format!("{key}\n{}", line.number));
                Ok((target, Submission { idempotency_key, ..submission }, notes))
            }
            Err(refused) => {
                self.refuse(target, &hit, &refused.order_id, &refused.error);
                Err(refused.error)
            }
        }
    }
}

fn hit_of<'a, G>(batch: &Batch<'_, G>, line: &Line<'a>) -> Hit<'a> {
    Hit {
        source: Source::Api,
        received_at: batch.received_at,
        payload: Payload { query: None, content_type: Some("application/json"), body: line.bytes },
        // One for all lines would make one conversion of them.
        idempotency_key: None,
        ip: batch.connection.peer,
        user_agent: Cow::Borrowed(""),
        is_image: false,
    }
}

fn result_of(accepted: Accepted, notes: &Notes) -> LineResult<TrackedJson> {
    let tracked = TrackedJson::new(accepted, notes);
    match accepted {
        Accepted::New(_) | Accepted::Unverified(_) => LineResult::Accepted(answer::status(accepted), tracked),
        Accepted::Duplicate { .. } => LineResult::Duplicate(tracked),
    }
}
