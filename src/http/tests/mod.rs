//! Whole requests against in-memory bodies, with an intake and reports that say what the test wants.

mod accounts;
mod adjustments;
mod analytics;
mod api;
mod batch;
mod clicks;
mod described;
mod exports;
mod links;
mod openapi;
mod pixel;
mod plans;
mod postback;
mod postbacks;
mod volume;
mod wire;

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request};
use parking_lot::Mutex;
use serde_json::Value;

use super::{BodyBudget, Connection, DatabaseSlots, Limits, Reports, Services, Submit, handle};
use crate::{
    catalog::{Catalog, GoalDraft},
    clock::Clock,
    core::{
        AccountId, AdjustmentId, Candidates, ClickId, ConversionId, ConversionLookup, ConversionQuery,
        ConversionReport, Currency, FunnelQuery, FunnelStep, Goal, GoalType, HealthQuery, HealthReport,
        Money, Refusal, RefusalPage, RefusalQuery, ReportError, StoredConversion, UnixMillis, VariantQuery,
        VariantReport,
    },
    intake::{
        AdjustOutcome, AdjustmentSubmission, ClickOutcome, ClickSubmission, Outcome, Sameness, Submission,
    },
    report_slots::ReportPermit,
};

/// 2026-01-21T12:00:00Z.
const NOW: UnixMillis = UnixMillis(1_768_996_800_000);
const ID: ConversionId = ConversionId(uuid::Uuid::from_u128(7));

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        NOW
    }
}

/// Answers every hit with the same outcome, and remembers.
struct Intake {
    outcome: Mutex<Outcome>,
    submitted: Mutex<Vec<Submission>>,
    click_outcome: Mutex<ClickOutcome>,
    clicked: Mutex<Vec<ClickSubmission>>,
    /// `None`: the log never says.
    visit_outcome: Mutex<Option<bool>>,
    adjust_outcome: Mutex<AdjustOutcome>,
    adjusted: Mutex<Vec<AdjustmentSubmission>>,
    refused: Mutex<Vec<Refusal>>,
}

impl Submit for Intake {
    type Gate = ();

    async fn submit(&self, submission: Submission, (): &()) -> Outcome {
        self.submitted.lock().push(submission);
        *self.outcome.lock()
    }

    async fn submit_all(&self, submissions: Vec<Submission>, (): &()) -> Vec<Outcome> {
        let outcomes = vec![*self.outcome.lock(); submissions.len()];
        self.submitted.lock().extend(submissions);
        outcomes
    }

    fn issue_click_id(&self, _: AccountId, _: UnixMillis) -> ClickId {
        ClickId(789)
    }

    fn visit(&self, click: ClickSubmission, _: ClickId) -> impl Future<Output = bool> + Send + 'static {
        self.clicked.lock().push(click);
        let outcome = *self.visit_outcome.lock();
        async move {
            match outcome {
                Some(recorded) => recorded,
                None => std::future::pending().await,
            }
        }
    }

    async fn click(&self, click: ClickSubmission, (): &()) -> ClickOutcome {
        self.clicked.lock().push(click);
        *self.click_outcome.lock()
    }

    async fn clicks(&self, clicks: Vec<ClickSubmission>, (): &()) -> Vec<ClickOutcome> {
        let outcomes = vec![*self.click_outcome.lock(); clicks.len()];
        self.clicked.lock().extend(clicks);
        outcomes
    }

    async fn adjust(&self, adjustment: AdjustmentSubmission, (): &()) -> AdjustOutcome {
        self.adjusted.lock().push(adjustment);
        *self.adjust_outcome.lock()
    }

    fn refuse(&self, refusal: Refusal) -> bool {
        self.refused.lock().push(refusal);
        true
    }
}

/// Answers what the test put there; nothing: the database is down.
#[derive(Default)]
struct Answers {
    report: Mutex<Option<ConversionReport>>,
    funnel: Mutex<Option<Vec<FunnelStep>>>,
    variants: Mutex<Option<VariantReport>>,
    health: Mutex<Option<HealthReport>>,
    refusals: Mutex<Option<RefusalPage>>,
    conversion: Mutex<Option<ConversionLookup>>,
    candidates: Mutex<Option<Candidates>>,
    asked: Mutex<Vec<String>>,
}

impl Reports for Answers {
    async fn conversion_report(
        &self,
        _: &ReportPermit,
        query: ConversionQuery,
    ) -> Result<ConversionReport, ReportError> {
        self.asked.lock().push(format!("{query:?}"));
        self.report.lock().clone().ok_or(ReportError::Unavailable)
    }

    async fn funnel(&self, _: &ReportPermit, query: FunnelQuery) -> Result<Vec<FunnelStep>, ReportError> {
        self.asked.lock().push(format!("{query:?}"));
        self.funnel.lock().clone().ok_or(ReportError::Unavailable)
    }

    async fn variants(&self, _: &ReportPermit, query: VariantQuery) -> Result<VariantReport, ReportError> {
        self.asked.lock().push(format!("{query:?}"));
        self.variants.lock().clone().ok_or(ReportError::Unavailable)
    }

    async fn health(&self, _: &ReportPermit, query: HealthQuery) -> Result<HealthReport, ReportError> {
        self.asked.lock().push(format!("{query:?}"));
        self.health.lock().clone().ok_or(ReportError::Unavailable)
    }

    async fn refusals(&self, _: &ReportPermit, query: RefusalQuery) -> Result<RefusalPage, ReportError> {
        self.asked.lock().push(format!("{query:?}"));
        self.refusals.lock().clone().ok_or(ReportError::Unavailable)
    }

    async fn conversion(
        &self,
        _: &ReportPermit,
        account: AccountId,
        id: ConversionId,
    ) -> Result<ConversionLookup, ReportError> {
        self.asked.lock().push(format!("{account:?} {id:?}"));
        self.conversion.lock().clone().ok_or(ReportError::Unavailable)
    }

    async fn candidates(&self, _: &ReportPermit, _: &StoredConversion) -> Result<Candidates, ReportError> {
        self.candidates.lock().clone().ok_or(ReportError::Unavailable)
    }
}

/// A daemon without its edges.
struct Fixture {
    services: Services<Intake, Answers>,
    files: Arc<exports::Files>,
    key: String,
    goal: Goal,
    _folder: tempfile::TempDir,
}

/// What came back.
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    fn code(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().expect("a code").to_owned())
    }
}

impl Fixture {
    fn new() -> Self {
        Self::with_catalog(|_| {})
    }

    /// With the catalog changed before the first call.
    fn with_catalog(edit: impl FnOnce(&Catalog)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = Catalog::open(folder.path(), &Still, None).expect("opened");
        let draft = GoalDraft {
            name: "Sales".into(),
            goal_type: GoalType::Purchase,
            value: Money::parse("99").ok(),
            currency: Currency::parse("EUR").ok(),
            attribution_window_days: 30,
            postback_url: None,
            postback_method: crate::core::webhook::PostbackMethod::Post,
            trust_client_fields: false,
        };
        let goal = opened.catalog.create_goal(AccountId(1), draft, NOW).expect("made");
        let catalog = opened.catalog;
        edit(&catalog);
        let intake = Intake {
            outcome: Mutex::new(Outcome::New(ID)),
            submitted: Mutex::default(),
            click_outcome: Mutex::new(ClickOutcome::New(ClickId(789))),
            clicked: Mutex::default(),
            visit_outcome: Mutex::new(Some(true)),
            adjust_outcome: Mutex::new(AdjustOutcome::New(AdjustmentId(ID.0))),
            adjusted: Mutex::default(),
            refused: Mutex::default(),
        };
        let files = Arc::new(exports::Files::default());
        Self {
            services: Services {
                catalog: Arc::new(catalog),
                intake,
                reports: Answers::default(),
                database_slots: DatabaseSlots::new(2),
                postbacks: Arc::new(postbacks::Told),
                exports: files.clone(),
                rate_limits: Arc::default(),
                volume: Arc::default(),
                ignored_fields: Arc::default(),
                body_budget: Arc::new(BodyBudget::new(64 << 10)),
                metrics: Arc::default(),
                clock: Arc::new(Still),
                limits: Limits {
                    body_bytes_max: 64 << 10,
                    rate_limit_per_minute: None,
                    click_rate_limit_per_minute: None,
                    api_rate_limit_per_minute: None,
                    trusted_proxies: Vec::new(),
                    click_retention_days: 400,
                    settle_seconds: 5,
                },
            },
            files,
            key: opened.first_key.expect("a first start").expose().to_owned(),
            goal,
            _folder: folder,
        }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        let has_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        for (name, value) in headers.iter().chain((!has_host).then_some(&("host", "t"))) {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        let peer: IpAddr = "203.0.113.9".parse().expect("an address");
        let (parts, body) =
            handle(&self.services, &Connection { peer, gate: (), place: Arc::default() }, request)
                .await
                .into_parts();
        let body = body.collect().await.expect("in memory").to_bytes();
        let got = Got { status: parts.status.as_u16(), headers: parts.headers, body };
        described::check(method, path, &got);
        got
    }

    /// With the key.
    async fn call(&self, method: &str, path: &str, body: &str) -> Got {
        let bearer = format!("Bearer {}", self.key);
        self.send(method, path, &[("authorization", bearer.as_str())], body).await
    }

    fn token_path(&self) -> String {
        format!("/api/conversions/track/{}", self.goal.postback_token.0)
    }

    /// To the goal's token.
    async fn track(&self, method: &str, query: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let path =
            if query.is_empty() { self.token_path() } else { format!("{}?{query}", self.token_path()) };
        self.send(method, &path, headers, body).await
    }

    fn outcome(&self, outcome: Outcome) {
        *self.services.intake.outcome.lock() = outcome;
    }

    fn submitted(&self) -> Vec<Submission> {
        self.services.intake.submitted.lock().clone()
    }

    fn clicked(&self) -> Vec<ClickSubmission> {
        self.services.intake.clicked.lock().clone()
    }

    fn refused(&self) -> Vec<Refusal> {
        self.services.intake.refused.lock().clone()
    }
}

const SOON: Duration = Duration::from_millis(1500);
