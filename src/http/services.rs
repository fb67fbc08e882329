//! What the handlers work with. Intake and reports are type parameters: no call of theirs goes through a table.

use std::{num::NonZeroU32, sync::Arc};

use ipnet::IpNet;

use crate::{
    catalog::Catalog,
    clock::Clock,
    config::Config,
    core::{
        AccountId, ConversionId, ConversionLookup, ConversionQuery, ConversionReport, Refusal, RefusalPage,
        RefusalQuery, ReportError,
    },
    intake::{Gate, Intake, Outcome, Submission},
    rate_limit::RateLimits,
    telemetry::Metrics,
};

/// Takes the hits of one connection.
pub trait Submit: Sync {
    /// Decides about a hit. What it promises holds once the answer leaves.
    fn submit(&self, submission: Submission) -> impl Future<Output = Outcome> + Send;

    /// Keeps a refused hit or a duplicate for people to read; nobody waits for it. False: there was no room.
    fn refuse(&self, refusal: Refusal) -> bool;
}

/// A worker's intake with the gate at which the answers of one connection wait for their records.
#[derive(Clone, Copy)]
pub struct AtGate<'a> {
    /// The worker's.
    pub intake: &'a Intake,
    /// The connection's.
    pub gate: &'a Gate,
}

impl Submit for AtGate<'_> {
    async fn submit(&self, submission: Submission) -> Outcome {
        self.intake.submit(submission, self.gate).await
    }

    fn refuse(&self, refusal: Refusal) -> bool {
        self.intake.refuse(refusal)
    }
}

/// Answers questions from the database.
pub trait Reports: Send + Sync + 'static {
    /// The conversions of a period.
    fn conversion_report(
        &self,
        query: ConversionQuery,
    ) -> impl Future<Output = Result<ConversionReport, ReportError>> + Send;

    /// Refused hits and duplicates, newest first.
    fn refusals(&self, query: RefusalQuery) -> impl Future<Output = Result<RefusalPage, ReportError>> + Send;

    /// What became of a conversion id of this account.
    fn conversion(
        &self,
        account_id: AccountId,
        id: ConversionId,
    ) -> impl Future<Output = Result<ConversionLookup, ReportError>> + Send;
}

/// What handlers share, whichever worker they run on.
pub struct Services<R> {
    /// Accounts, keys and goals.
    pub catalog: Arc<Catalog>,
    /// Where numbers come from.
    pub reports: R,
    /// The buckets of tokens.
    pub rate_limits: RateLimits,
    /// The buckets of what is recorded of refused hits: 1,000 a minute and goal.
    pub refusal_limits: RateLimits,
    /// Handles of what is counted.
    pub metrics: Metrics,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// The part of the configuration that requests meet.
    pub limits: Limits,
}

/// The part of the configuration that requests meet.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body.
    pub body_bytes_max: usize,
    /// Hits a minute per token, unless the account has its own number; `None`: no limit.
    pub rate_limit_per_minute: Option<NonZeroU32>,
    /// Who may say on whose behalf they call.
    pub trusted_proxies: Vec<IpNet>,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            body_bytes_max: config.body_bytes_max,
            rate_limit_per_minute: config.rate_limit_per_minute,
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }
}
