//! Where parts that don't know each other meet: what HTTP, deduplication and the catalog ask of ClickHouse.

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
    async fn conversion_report(&self, query: ConversionQuery) -> Result<ConversionReport, ReportError> {
        self.0.conversion_report(&query).await.map_err(|failure| report_error(&failure))
    }

    async fn funnel(&self, query: FunnelQuery) -> Result<Vec<FunnelStep>, ReportError> {
        self.0.funnel(&query).await.map_err(|failure| report_error(&failure))
    }

    async fn variants(&self, query: VariantQuery) -> Result<VariantReport, ReportError> {
        self.0.variants(&query).await.map_err(|failure| report_error(&failure))
    }

    async fn health(&self, query: HealthQuery) -> Result<HealthReport, ReportError> {
        self.0.health(&query).await.map_err(|failure| report_error(&failure))
    }

    async fn refusals(&self, query: RefusalQuery) -> Result<RefusalPage, ReportError> {
        self.0.refusals(&query).await.map_err(|failure| report_error(&failure))
    }

    async fn conversion(
        &self,
        account_id: AccountId,
        id: ConversionId,
    ) -> Result<ConversionLookup, ReportError> {
        self.0.conversion(account_id, id).await.map_err(|failure| report_error(&failure))
    }

    async fn candidates(&self, of: &StoredConversion) -> Result<Candidates, ReportError> {
        self.0.candidates(of).await.map_err(|failure| report_error(&failure))
    }
}

pub(super) fn report_error(failure: &Failure) -> ReportError {
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
