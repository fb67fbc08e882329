//! What the handlers work with. Intake and reports are type parameters: no call of theirs goes through a table.

use std::{num::NonZeroU32, sync::Arc};

use ipnet::IpNet;

use crate::{
    catalog::Catalog,
    clock::Clock,
    config::Config,
    core::{
        AccountId, Candidates, ClickId, ConversionId, ConversionLookup, ConversionQuery, ConversionReport,
        FunnelQuery, FunnelStep, HealthQuery, HealthReport, Refusal, RefusalPage, RefusalQuery, ReportError,
        StoredConversion, UnixMillis, VariantQuery, VariantReport,
    },
    http::{
        IgnoredFields, body_budget::BodyBudget, exports::Exports, postbacks::Postbacks,
        report::DatabaseSlots, volume::Volume,
    },
    intake::{AdjustOutcome, AdjustmentSubmission, ClickOutcome, ClickSubmission, Outcome, Submission},
    rate_limit::RateLimits,
    report_slots::ReportPermit,
    telemetry::Metrics,
};

/// Takes hits: durable before their answers leave.
pub trait Submit: Send + Sync + 'static {
    /// What the answers of one connection wait for.
    type Gate: Send + Sync;

    /// Decides about a hit. The outcome holds when the gate opens.
    fn submit(&self, submission: Submission, gate: &Self::Gate) -> impl Future<Output = Outcome> + Send;

    /// Decides about many hits, and makes those that count durable together: all of them, or none. The outcomes stand
    /// in the order of the hits; where nothing was kept, each says so.
    fn submit_all(
        &self,
        submissions: Vec<Submission>,
        gate: &Self::Gate,
    ) -> impl Future<Output = Vec<Outcome>> + Send;

    /// A number for a click that was never given out before and never will be again, nor has the account reported a click
    /// by it. Never fails, never waits.
    fn issue_click_id(&self, account: AccountId, now: UnixMillis) -> ClickId;

    /// Records a visit through a link under the number that was issued for it, whatever `click_id` says. The record is
    /// taken at once, before the first poll. True: it is durable; false: it is lost, which is counted here. Dropping
    /// the future loses the answer, not the click.
    fn visit(&self, click: ClickSubmission, id: ClickId) -> impl Future<Output = bool> + Send + 'static;

    /// Decides about a reported click. The outcome holds when the gate opens.
    fn click(&self, click: ClickSubmission, gate: &Self::Gate) -> impl Future<Output = ClickOutcome> + Send;

    /// Decides about many reported clicks, as [`Self::submit_all`] does about hits.
    fn clicks(
        &self,
        clicks: Vec<ClickSubmission>,
        gate: &Self::Gate,
    ) -> impl Future<Output = Vec<ClickOutcome>> + Send;

    /// Decides about an adjustment. The outcome holds when the gate opens.
    fn adjust(
        &self,
        adjustment: AdjustmentSubmission,
        gate: &Self::Gate,
    ) -> impl Future<Output = AdjustOutcome> + Send;

    /// Keeps a refused hit or a duplicate for people to read; nobody waits for it. False: there was no room.
    fn refuse(&self, refusal: Refusal) -> bool;
}

/// Answers questions from the database. Each takes the permit of the caller's account, so that none is asked without
/// its turn.
pub trait Reports: Send + Sync + 'static {
    /// The conversions of a period.
    fn conversion_report(
        &self,
        permit: &ReportPermit,
        query: ConversionQuery,
    ) -> impl Future<Output = Result<ConversionReport, ReportError>> + Send;

    /// How visitors went through goals, step by step.
    fn funnel(
        &self,
        permit: &ReportPermit,
        query: FunnelQuery,
    ) -> impl Future<Output = Result<Vec<FunnelStep>, ReportError>> + Send;

    /// What was counted of a link's variants.
    fn variants(
        &self,
        permit: &ReportPermit,
        query: VariantQuery,
    ) -> impl Future<Output = Result<VariantReport, ReportError>> + Send;

    /// What came, what was refused and why.
    fn health(
        &self,
        permit: &ReportPermit,
        query: HealthQuery,
    ) -> impl Future<Output = Result<HealthReport, ReportError>> + Send;

    /// Refused hits and duplicates, newest first.
    fn refusals(
        &self,
        permit: &ReportPermit,
        query: RefusalQuery,
    ) -> impl Future<Output = Result<RefusalPage, ReportError>> + Send;

    /// What became of a conversion id of this account.
    fn conversion(
        &self,
        permit: &ReportPermit,
        account_id: AccountId,
        id: ConversionId,
    ) -> impl Future<Output = Result<ConversionLookup, ReportError>> + Send;

    /// The clicks that a conversion could have met.
    fn candidates(
        &self,
        permit: &ReportPermit,
        of: &StoredConversion,
    ) -> impl Future<Output = Result<Candidates, ReportError>> + Send;
}

/// Everything that the handlers of one worker use; all but the intake is shared by the workers.
pub struct Services<I, R> {
    /// Accounts, keys and goals.
    pub catalog: Arc<Catalog>,
    /// Where hits go.
    pub intake: I,
    /// Where numbers come from.
    pub reports: R,
    /// Whose turn it is to ask for numbers.
    pub database_slots: DatabaseSlots,
    /// Where owners are told of conversions.
    pub postbacks: Arc<dyn Postbacks>,
    /// Where files of rows come from.
    pub exports: Arc<dyn Exports>,
    /// The limits of tokens.
    pub rate_limits: Arc<RateLimits>,
    /// Bounds on what an account is made to write and ask.
    pub volume: Arc<Volume>,
    /// Names that came with hits and mean nothing here.
    pub ignored_fields: Arc<IgnoredFields>,
    /// The memory for bodies.
    pub body_budget: Arc<BodyBudget>,
    /// Handles of what is counted.
    pub metrics: Arc<Metrics>,
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
    /// Visits a minute through an account's links that are recorded; `None`: all.
    pub click_rate_limit_per_minute: Option<NonZeroU32>,
    /// Calls a minute of the API by an account; `None`: no limit.
    pub api_rate_limit_per_minute: Option<NonZeroU32>,
    /// Who may say on whose behalf they call.
    pub trusted_proxies: Vec<IpNet>,
    /// How far back, in days, a click or a conversion may lie that is reported.
    pub click_retention_days: u32,
    /// How long after a conversion a click may be accepted and still earn it, in seconds.
    pub settle_seconds: u16,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            body_bytes_max: config.body_bytes_max,
            rate_limit_per_minute: config.rate_limit_per_minute,
            click_rate_limit_per_minute: config.click_rate_limit_per_minute,
            api_rate_limit_per_minute: config.api_rate_limit_per_minute,
            trusted_proxies: config.trusted_proxies.clone(),
            click_retention_days: config.click_retention_days,
            settle_seconds: config.settle_seconds,
        }
    }
}
