//! What a hit costs between hyper's request and its answer, without the log: routing, decoding, catalog, answer.

use std::{hint::black_box, net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use http_body_util::Full;
use hyper::Request;
use tally::{
    catalog::{Catalog, GoalDraft},
    clock::SystemClock,
    config::Config,
    core::{
        AccountId, BatchId, Candidates, ClickId, ConversionId, ConversionLookup, ConversionQuery,
        ConversionReport, ExportFormat, ExportKey, ExportQuery, ExportRow, FunnelQuery, FunnelStep, Goal,
        GoalType, HealthQuery, HealthReport, Refusal, RefusalPage, RefusalQuery, ReportError,
        StoredConversion, UnixMillis, VariantQuery, VariantReport,
        webhook::{Backfill, BackfillQuery, DeliveryId, DeliveryPage, DeliveryQuery, TestAnswer},
    },
    http::{
        BodyBudget, Connection, DatabaseSlots, Export, ExportError, Exports, Limits, PostbackError,
        Postbacks, Reports, Services, Submit, handle,
    },
    intake::{AdjustOutcome, AdjustmentSubmission, ClickOutcome, ClickSubmission, Outcome, Submission},
    report_slots::ReportPermit,
};

struct Nowhere;

impl Submit for Nowhere {
    type Gate = ();

    async fn submit(&self, submission: Submission, (): &()) -> Outcome {
        black_box(&submission);
        Outcome::New(ConversionId(uuid::Uuid::from_u128(7)))
    }

    async fn submit_all(&self, submissions: Vec<Submission>, (): &()) -> Vec<Outcome> {
        vec![Outcome::Unavailable; submissions.len()]
    }

    fn issue_click_id(&self, _: AccountId, _: UnixMillis) -> ClickId {
        ClickId(789)
    }

    fn visit(&self, click: ClickSubmission, _: ClickId) -> impl Future<Output = bool> + Send + 'static {
        black_box(&click);
        std::future::ready(true)
    }

    async fn click(&self, click: ClickSubmission, (): &()) -> ClickOutcome {
        black_box(&click);
        ClickOutcome::Unavailable
    }

    async fn clicks(&self, clicks: Vec<ClickSubmission>, (): &()) -> Vec<ClickOutcome> {
        vec![ClickOutcome::Unavailable; clicks.len()]
    }

    async fn adjust(&self, adjustment: AdjustmentSubmission, (): &()) -> AdjustOutcome {
        black_box(&adjustment);
        AdjustOutcome::Unavailable
    }

    fn refuse(&self, refusal: Refusal) -> bool {
        black_box(&refusal);
        true
    }
}

impl Reports for Nowhere {
    async fn conversion_report(
        &self,
        _: &ReportPermit,
        _: ConversionQuery,
    ) -> Result<ConversionReport, ReportError> {
        Err(ReportError::Unavailable)
    }

    async fn funnel(&self, _: &ReportPermit, _: FunnelQuery) -> Result<Vec<FunnelStep>, ReportError> {
        Err(ReportError::Unavailable)
    }

    async fn variants(&self, _: &ReportPermit, _: VariantQuery) -> Result<VariantReport, ReportError> {
        Err(ReportError::Unavailable)
    }

    async fn health(&self, _: &ReportPermit, _: HealthQuery) -> Result<HealthReport, ReportError> {
        Err(ReportError::Unavailable)
    }

    async fn refusals(&self, _: &ReportPermit, _: RefusalQuery) -> Result<RefusalPage, ReportError> {
        Err(ReportError::Unavailable)
    }

    async fn conversion(
        &self,
        _: &ReportPermit,
        _: AccountId,
        _: ConversionId,
    ) -> Result<ConversionLookup, ReportError> {
        Err(ReportError::Unavailable)
    }

    async fn candidates(&self, _: &ReportPermit, _: &StoredConversion) -> Result<Candidates, ReportError> {
        Err(ReportError::Unavailable)
    }
}

impl Exports for Nowhere {
    fn settled(&self) -> BatchId {
        BatchId(0)
    }

    fn position(
        &self,
        _: ReportPermit,
        _: AccountId,
        _: ExportRow,
    ) -> BoxFuture<'_, Result<Option<ExportKey>, ReportError>> {
        ready(Err(ReportError::Unavailable)).boxed()
    }

    fn start(
        &self,
        _: ReportPermit,
        _: ExportQuery,
        _: ExportFormat,
        _: Option<u64>,
    ) -> BoxFuture<'_, Result<Export, ExportError>> {
        ready(Err(ExportError::Busy)).boxed()
    }
}

impl Postbacks for Nowhere {
    fn vet(&self, _: String) -> BoxFuture<'_, Result<(), String>> {
        ready(Ok(())).boxed()
    }

    fn test(&self, _: Goal) -> BoxFuture<'_, Result<TestAnswer, PostbackError>> {
        ready(Err(PostbackError::Full)).boxed()
    }

    fn deliveries(
        &self,
        _: ReportPermit,
        _: DeliveryQuery,
    ) -> BoxFuture<'_, Result<DeliveryPage, ReportError>> {
        ready(Err(ReportError::Unavailable)).boxed()
    }

    fn replay(
        &self,
        _: ReportPermit,
        _: AccountId,
        _: DeliveryId,
    ) -> BoxFuture<'_, Result<ConversionId, PostbackError>> {
        ready(Err(PostbackError::Full)).boxed()
    }

    fn backfill(&self, _: ReportPermit, _: BackfillQuery) -> BoxFuture<'_, Result<Backfill, PostbackError>> {
        ready(Err(PostbackError::Full)).boxed()
    }
}

fn track(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = Catalog::open(folder.path(), &SystemClock, None).expect("opened").catalog;
    let draft = GoalDraft {
        name: "Sales".into(),
        goal_type: GoalType::Purchase,
        value: None,
        currency: None,
        attribution_window_days: 30,
        postback_url: None,
        postback_method: tally::core::webhook::PostbackMethod::Post,
        trust_client_fields: false,
    };
    let goal = catalog.create_goal(AccountId(1), draft, UnixMillis(0)).expect("made");
    let mut services = Services {
        catalog: Arc::new(catalog),
        intake: Nowhere,
        reports: Nowhere,
        database_slots: DatabaseSlots::new(2),
        postbacks: Arc::new(Nowhere),
        exports: Arc::new(Nowhere),
        rate_limits: Arc::default(),
        volume: Arc::default(),
        ignored_fields: Arc::default(),
        body_budget: Arc::new(BodyBudget::new(64 << 10)),
        metrics: Arc::default(),
        clock: Arc::new(SystemClock),
        limits: Limits { rate_limit_per_minute: None, ..Limits::from(&Config::default()) },
    };
    let connection = Connection { peer: Ipv4Addr::LOCALHOST.into(), gate: (), place: Arc::default() };
    let path = format!("/api/conversions/track/{}", goal.postback_token.0);
    let body =
        Bytes::from_static(br#"{"value":99.99,"currency":"USD","order_id":"ORDER-12345","click_id":789}"#);
    let form = Bytes::from_static(b"value=99.99&currency=USD&order_id=ORDER-12345&click_id=789");
    let request = |method: &str, path: &str, kind: &str, body: &Bytes| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:8080")
            .header("user-agent", "shop/1.0")
            .header("content-type", kind)
            .header("content-length", body.len())
            .body(Full::new(body.clone()))
            .expect("a request")
    };
    let run = |services: &Services<Nowhere, Nowhere>, request| {
        handle(services, &connection, request).now_or_never().expect("nothing to wait for")
    };
    let pixel = format!("{path}?value=99.99&currency=USD&order_id=ORDER-12345&click_id=789");
    let empty = Bytes::new();
    let mut group = criterion.benchmark_group("track");
    group.bench_function("json", |bencher| {
        let setup = || request("POST", &path, "application/json", &body);
        bencher.iter_batched(setup, |request| run(&services, request), BatchSize::SmallInput);
    });
    group.bench_function("form", |bencher| {
        let setup = || request("POST", &path, "application/x-www-form-urlencoded", &form);
        bencher.iter_batched(setup, |request| run(&services, request), BatchSize::SmallInput);
    });
    group.bench_function("pixel", |bencher| {
        let setup = || request("GET", &pixel, "text/plain", &empty);
        bencher.iter_batched(setup, |request| run(&services, request), BatchSize::SmallInput);
    });
    group.bench_function("unknown token", |bencher| {
        let setup = || request("POST", "/api/conversions/track/nobody", "application/json", &body);
        bencher.iter_batched(setup, |request| run(&services, request), BatchSize::SmallInput);
    });
    services.limits.rate_limit_per_minute = std::num::NonZeroU32::new(u32::MAX);
    group.bench_function("json, with a rate limit", |bencher| {
        let setup = || request("POST", &path, "application/json", &body);
        bencher.iter_batched(setup, |request| run(&services, request), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, track);
criterion_main!(benches);
