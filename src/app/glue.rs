//! Where parts that don't know each other meet: what HTTP, deduplication and the catalog ask of ClickHouse.

use std::time::Duration;

use crate::{
    catalog::{CatalogCopy, CopyError},
    clickhouse::{Database, Failure, KeyQuery},
    core::{
        AccountId, Candidates, CatalogRows, ClickId, ConversionId, ConversionLookup, ConversionQuery,
        ConversionReport, FunnelQuery, FunnelStep, HealthQuery, HealthReport, Refusal, RefusalPage,
        RefusalQuery, ReportError, StoredConversion, UnixMillis, VariantQuery, VariantReport,
    },
    dedup::{KeyRef, KeySource, KnownKey, LookupUnavailable},
    http::{Reports, Submit},
    intake::{
        AdjustOutcome, AdjustmentSubmission, ClickOutcome, ClickSubmission, Gate, Intake, Outcome, Submission,
    },
    report_slots::ReportPermit,
};

/// A database as the other parts see it.
#[derive(Clone)]
pub(super) struct Glue(pub(super) Database);

impl KeySource for Glue {
    async fn known_keys(
        &self,
        keys: &[KeyRef],
        now: UnixMillis,
    ) -> Result<Vec<Option<KnownKey>>, LookupUnavailable> {
        let query = |key: &KeyRef| KeyQuery { goal_id: key.goal, key: key.key, scope: key.scope, at: now };
        let queries: Vec<KeyQuery> = keys.iter().map(query).collect();
        let known = self.0.lookup_keys_at(&queries).await.map_err(|failure| {
            tracing::debug!(%failure, "a look-up of order keys failed");
            LookupUnavailable
        })?;
        let convert = |known: crate::clickhouse::KnownKey| KnownKey {
            id: known.conversion_id,
            value: known.value,
            currency: known.currency,
            received_at: known.received_at,
        };
        Ok(known.into_iter().map(|known| known.map(convert)).collect())
    }
}

impl CatalogCopy for Glue {
    async fn push(&self, rows: CatalogRows) -> Result<(), CopyError> {
        self.0.save_catalog(&rows).await.map_err(|failure| CopyError(failure.to_string()))
    }

    async fn load(&self) -> Result<Option<CatalogRows>, CopyError> {
        let rows = self.0.load_catalog().await.map_err(|failure| CopyError(failure.to_string()))?;
        Ok(Some(rows).filter(|rows| !rows.accounts.is_empty()))
    }
}

impl Reports for Glue {
    async fn conversion_report(
        &self,
        permit: &ReportPermit,
        query: ConversionQuery,
    ) -> Result<ConversionReport, ReportError> {
        ask(permit, self.0.conversion_report(&query)).await
    }

    async fn funnel(
        &self,
        permit: &ReportPermit,
        query: FunnelQuery,
    ) -> Result<Vec<FunnelStep>, ReportError> {
        ask(permit, self.0.funnel(&query)).await
    }

    async fn variants(
        &self,
        permit: &ReportPermit,
        query: VariantQuery,
    ) -> Result<VariantReport, ReportError> {
        ask(permit, self.0.variants(&query)).await
    }

    async fn health(&self, permit: &ReportPermit, query: HealthQuery) -> Result<HealthReport, ReportError> {
        ask(permit, self.0.health(&query)).await
    }

    async fn refusals(&self, permit: &ReportPermit, query: RefusalQuery) -> Result<RefusalPage, ReportError> {
        ask(permit, self.0.refusals(&query)).await
    }

    async fn conversion(
        &self,
        permit: &ReportPermit,
        account_id: AccountId,
        id: ConversionId,
    ) -> Result<ConversionLookup, ReportError> {
        ask(permit, self.0.conversion(account_id, id)).await
    }

    async fn candidates(
        &self,
        permit: &ReportPermit,
        of: &StoredConversion,
    ) -> Result<Candidates, ReportError> {
        ask(permit, self.0.candidates(of)).await
    }
}

/// How long one report may take, all of its statements together.
const REPORT_WITHIN: Duration = Duration::from_secs(30);

/// Asks the database on behalf of an account.
pub(super) async fn ask<T>(
    permit: &ReportPermit,
    question: impl Future<Output = Result<T, Failure>>,
) -> Result<T, ReportError> {
    ask_within(REPORT_WITHIN, permit, question).await
}

pub(super) async fn ask_within<T>(
    time_max: Duration,
    permit: &ReportPermit,
    question: impl Future<Output = Result<T, Failure>>,
) -> Result<T, ReportError> {
    let answer = permit.run(time_max, question).await;
    let outcome = answer
        .map_or(Err(ReportError::TooExpensive), |answer| answer.map_err(|failure| report_error(&failure)));
    if outcome.as_ref().is_err_and(|error| *error == ReportError::TooExpensive) {
        metrics::counter!("tally_reports_refused_total", "reason" => "too_expensive").increment(1);
    }
    outcome
}

fn report_error(failure: &Failure) -> ReportError {
    if failure.is_over_limit() {
        tracing::info!(%failure, "a report takes more than one may");
        return ReportError::TooExpensive;
    }
    match failure {
        Failure::Retry { .. } | Failure::Unknown { .. } => {
            tracing::info!(%failure, "a report could not be had");
            ReportError::Unavailable
        }
        Failure::Reject { .. } => {
            tracing::error!(%failure, "ClickHouse refused a report");
            ReportError::Refused
        }
    }
}

impl Submit for Intake {
    type Gate = Gate;

    async fn submit(&self, submission: Submission, gate: &Gate) -> Outcome {
        Self::submit(self, submission, gate).await
    }

    async fn submit_all(&self, submissions: Vec<Submission>, gate: &Gate) -> Vec<Outcome> {
        Self::submit_all(self, submissions, gate).await
    }

    fn issue_click_id(&self, account: AccountId, now: UnixMillis) -> ClickId {
        Self::issue_click_id(self, account, now)
    }

    fn visit(&self, click: ClickSubmission, id: ClickId) -> impl Future<Output = bool> + Send + 'static {
        Self::visit(self, click, id)
    }

    async fn click(&self, click: ClickSubmission, gate: &Gate) -> ClickOutcome {
        Self::click(self, click, gate).await
    }

    async fn clicks(&self, clicks: Vec<ClickSubmission>, gate: &Gate) -> Vec<ClickOutcome> {
        Self::clicks(self, clicks, gate).await
    }

    async fn adjust(&self, adjustment: AdjustmentSubmission, gate: &Gate) -> AdjustOutcome {
        Self::adjust(self, adjustment, gate).await
    }

    fn refuse(&self, refusal: Refusal) -> bool {
        Self::refuse(self, refusal)
    }
}
