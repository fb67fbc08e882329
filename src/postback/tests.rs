//! The courier against receivers that misbehave in every way, under a clock that the test turns.

mod measure;
mod neighbours;
mod receiver;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicI64, AtomicUsize},
    time::Duration,
};

use futures_util::future::BoxFuture;
use standardwebhooks::Webhook;

use self::receiver::{Receiver, Reply};
use super::*;
use crate::{
    catalog::{GoalDraft, GoalPatch},
    core::{AccountId, Conversion, GoalType, Matching, Source, Unattributed, webhook},
};

const ME: AccountId = AccountId(1);

/// A clock that stands unless it is turned.
#[derive(Clone)]
struct Turned(Arc<AtomicI64>);

impl Clock for Turned {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

/// Names resolve to these in turn; the last answer stays.
struct Rebinding(Arc<AtomicUsize>, &'static [&'static str]);

impl Resolve for Rebinding {
    fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let at = self.0.fetch_add(1, Ordering::SeqCst).min(self.1.len() - 1);
        let address = self.1[at].parse().expect("an address");
        Box::pin(async move { Ok(vec![address]) })
    }
}

struct Rig {
    postbacks: Arc<Postbacks>,
    catalog: Arc<Catalog>,
    clock: Turned,
    next_id: u128,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::resolving(&["127.0.0.1"])
    }

    fn resolving(names: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Receivers check that what they get is not old.
        let clock = Turned(Arc::new(AtomicI64::new(crate::clock::SystemClock.now().0)));
        let catalog = Arc::new(Catalog::open(folder.path(), &clock, None).expect("opened").catalog);
        let postbacks = open(&folder, &catalog, &clock, names, BatchId(0));
        Self { postbacks, catalog, clock, next_id: 0, folder }
    }

    fn goal(&self, url: &str) -> Goal {
        let draft = GoalDraft {
            name: "g".into(),
            goal_type: GoalType::Purchase,
            value: None,
            currency: None,
            attribution_window_days: 30,
            postback_url: Some(url.to_owned()),
            postback_method: webhook::PostbackMethod::Post,
            trust_client_fields: false,
        };
        self.catalog.create_goal(ME, draft, UnixMillis(1)).expect("made")
    }

    fn events(&mut self, goal: &Goal, count: u128) -> Vec<Event> {
        let first = self.next_id;
        self.next_id += count;
        (first..self.next_id)
            .map(|number| Event {
                conversion_id: ConversionId(uuid::Uuid::from_u128(number)),
                goal_id: goal.id,
                ..webhook::sample()
            })
            .collect()
    }

    fn queue(&mut self, goal: &Goal, count: u128) {
        let events = self.events(goal, count);
        self.postbacks.queue(events).expect("queued");
    }

    /// Starts the courier in this runtime.
    fn start(&self) -> tokio_util::sync::CancellationToken {
        let stop = tokio_util::sync::CancellationToken::new();
        tokio::spawn(deliver(self.postbacks.clone(), stop.clone()));
        stop
    }

    fn turn(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).expect("small");
        self.clock.0.fetch_add(millis, Ordering::SeqCst);
        self.postbacks.wake.notify_one();
    }

    fn waiting(&self) -> u64 {
        self.postbacks.outbox.len().expect("read")
    }

    fn log(&self) -> Vec<webhook::Delivery> {
        self.postbacks.outbox.log_lines(10_000).expect("read").lines
    }

    async fn logged(&self, lines: usize) {
        wait_for(|| self.log().len() >= lines).await;
    }
}

fn open(
    folder: &tempfile::TempDir,
    catalog: &Arc<Catalog>,
    clock: &Turned,
    names: &'static [&'static str],
    settled: BatchId,
) -> Arc<Postbacks> {
    let resolver = Rebinding(Arc::default(), names);
    let guard = Guard::new(&["127.0.0.0/8".parse().expect("a net")], resolver);
    let (catalog, clock) = (catalog.clone(), Arc::new(clock.clone()));
    Arc::new(Postbacks::open(folder.path(), catalog, clock, guard, settled).expect("opened"))
}

fn conversion(number: u128) -> Conversion {
    let event = webhook::sample();
    Conversion {
        id: ConversionId(uuid::Uuid::from_u128(1_000 + number)),
        account_id: ME,
        goal_id: event.goal_id,
        order_id: event.order_id,
        key: None,
        value: event.value,
        currency: event.currency,
        received_at: event.converted_at,
        converted_at: event.converted_at,
        window_seconds: 60,
        source: Source::Api,
        click_id: event.click_id,
        ip: None,
        user_agent: String::new(),
        visitor_key: 0,
        matching: Matching::Unknown,
        unverified: false,
    }
}

async fn wait_for(mut condition: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen within 30 s");
}

#[tokio::test]
async fn what_is_told_is_signed_and_arrives() {
    let mut rig = Rig::new();
    let receiver = Receiver::start(|_| Reply::Status(204)).await;
    let goal = rig.goal(&receiver.url());
    rig.queue(&goal, 300);
    rig.start();
    wait_for(|| rig.waiting() == 0).await;
    let requests = receiver.received();
    assert_eq!(requests.len(), 300);
    let webhook = Webhook::new(&goal.postback.secret.expect("a secret").expose()).expect("a secret");
    for request in &requests {
        assert_eq!(request.line, "POST /hook HTTP/1.1");
        webhook.verify(request.body.as_bytes(), &request.headers).expect("verified");
        let json: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
        assert_eq!(
            request.header("webhook-id"),
            format!("msg_{}", json["conversion_id"].as_str().expect("an id"))
        );
    }
    rig.logged(300).await;
    assert!(
        rig.log().iter().all(|line| line.attempt == 1 && line.status == Some(204) && line.error.is_empty())
    );
    assert_eq!(rig.postbacks.queued.lock().len(), 0, "nothing is counted as waiting");
}

#[tokio::test]
async fn a_failing_endpoint_is_tried_ten_times_under_one_name() {
    let mut rig = Rig::new();
    let receiver = Receiver::start(|_| Reply::Status(500)).await;
    let goal = rig.goal(&receiver.url());
    rig.queue(&goal, 1);
    rig.start();
    for attempt in 1..=usize::from(webhook::ATTEMPTS_MAX) {
        rig.logged(attempt).await;
        assert_eq!(receiver.received().len(), attempt, "not before it is due");
        rig.turn(Duration::from_hours(27));
    }
    wait_for(|| rig.waiting() == 0).await;
    let names: HashSet<_> = receiver.received().iter().map(|request| request.header("webhook-id")).collect();
    assert_eq!(names.len(), 1);
    let log = rig.log();
    assert_eq!(log.iter().map(|line| line.attempt).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    let pause = |line: &webhook::Delivery| (line.next_attempt_at.expect("another").0 - line.at.0) / 1000;
    assert!((5..=6).contains(&pause(&log[0])) && (300..=331).contains(&pause(&log[1])));
    assert!(log[9].next_attempt_at.is_none(), "given up");
}

#[tokio::test]
async fn whatever_is_answered_is_kept_for_people() {
    for (reply, status, error) in [
        (Reply::Redirect("https://169.254.169.254/latest/meta-data/"), Some(302), ""),
        (Reply::Status(404), Some(404), ""),
        (Reply::ResetInHead, None, "broken_answer"),
        (Reply::Reset, None, "broken_answer"),
        (Reply::EndlessHead, None, "broken_answer"),
        (Reply::ResetInBody, Some(200), "broken_answer"),
    ] {
        let mut rig = Rig::new();
        let receiver = Receiver::start(move |_| reply).await;
        let goal = rig.goal(&receiver.url());
        rig.queue(&goal, 1);
        rig.start();
        rig.logged(1).await;
        let line = rig.log().remove(0);
        assert_eq!((line.status, line.error.as_str()), (status, error), "{reply:?}");
        assert_eq!(rig.waiting(), 1, "{reply:?} is a failure");
        assert_eq!(receiver.received().len(), 1, "nothing was followed");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let mut rig = Rig::new();
    let receiver = Receiver::start(|_| Reply::Endless).await;
    let goal = rig.goal(&receiver.url());
    rig.queue(&goal, 1);
    rig.start();
    wait_for(|| rig.waiting() == 0).await;
    let line = rig.log().remove(0);
    assert_eq!((line.status, line.answer.len()), (Some(200), 1024));
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_left_after_a_while() {
    let mut rig = Rig::new();
    let receiver = Receiver::start(|_| Reply::Silence).await;
    let goal = rig.goal(&receiver.url());
    let event = rig.events(&goal, 1).remove(0);
    let mut client = Client::new(rig.postbacks.client.guard().clone());
    client.within = Duration::from_millis(50);
    let came = attempt::run(&client, &goal, &event, rig.clock.now(), true).await;
    assert_eq!((came.status, came.error), (None, "timeout"));
    let drips = Receiver::start(|_| Reply::Drips).await;
    let goal = rig.goal(&drips.url());
    let came = attempt::run(&client, &goal, &event, rig.clock.now(), true).await;
    assert_eq!((came.status, came.error), (Some(200), "timeout"), "a byte now and then buys no time");
}

#[tokio::test]
async fn one_that_takes_its_time_is_told_all_the_same() {
    let mut rig = Rig::new();
    let receiver = Receiver::start(|_| Reply::After(1_200)).await;
    let goal = rig.goal(&receiver.url());
    rig.queue(&goal, 3);
    rig.start();
    wait_for(|| rig.waiting() == 0).await;
    assert!(rig.log().iter().all(|line| line.status == Some(200) && line.latency_millis >= 1_200));
}

#[tokio::test]
async fn what_does_not_speak_tls_is_not_spoken_to() {
    let mut rig = Rig::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let goal = rig.goal(&receiver.url().replace("http:", "https:"));
    rig.queue(&goal, 1);
    rig.start();
    rig.logged(1).await;
    assert_eq!((rig.log()[0].status, rig.log()[0].error.as_str()), (None, "tls"));
    assert_eq!(receiver.received().len(), 0);
}

#[tokio::test]
async fn who_asks_for_a_pause_is_left_in_peace() {
    let mut rig = Rig::new();
    let receiver =
        Receiver::start(|before| if before == 0 { Reply::Pause(600) } else { Reply::Status(200) }).await;
    let goal = rig.goal(&receiver.url());
    rig.queue(&goal, 2);
    rig.start();
    rig.logged(1).await;
    let line = rig.log().remove(0);
    assert_eq!((line.status, line.next_attempt_at.expect("another").0 - line.at.0), (Some(503), 600_000));
    rig.turn(Duration::from_secs(599));
    assert_eq!((receiver.received().len(), rig.waiting()), (1, 2), "the other one waits too");
    rig.turn(Duration::from_secs(1));
    wait_for(|| rig.waiting() == 0).await;
}

#[tokio::test]
async fn a_network_that_expects_it_is_told_by_get() {
    let mut rig = Rig::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let mut goal =
        rig.goal(&format!("{}?cid={{click_id}}&payout={{value}}&txid={{order_id}}", receiver.url()));
    let patch = GoalPatch { postback_method: Some(webhook::PostbackMethod::Get), ..GoalPatch::default() };
    goal = rig.catalog.change_goal(ME, goal.id, patch).expect("changed");
    rig.queue(&goal, 1);
    rig.start();
    wait_for(|| rig.waiting() == 0).await;
    let request = receiver.received().remove(0);
    assert_eq!(request.line, "GET /hook?cid=789&payout=99.99&txid=ORDER%201%2F2 HTTP/1.1");
    let webhook = Webhook::new(&goal.postback.secret.expect("a secret").expose()).expect("a secret");
    webhook.verify(request.body.as_bytes(), &request.headers).expect("verified, without a body");
}

#[tokio::test]
async fn a_person_that_is_erased_is_told_of_no_more() {
    let mut rig = Rig::new();
    let receiver =
        Receiver::start(|before| if before == 0 { Reply::After(300) } else { Reply::Status(500) }).await;
    let goal = rig.goal(&receiver.url());
    rig.queue(&goal, 3);
    rig.start();
    // One is on its way, two wait.
    wait_for(|| receiver.received().len() == 1).await;
    let name = receiver.received()[0].header("webhook-id");
    let (ids, data_dir) =
        ([0, 1].map(|number| ConversionId(uuid::Uuid::from_u128(number))), rig.folder.path());
    let stop = tokio_util::sync::CancellationToken::new();
    let answering = async {
        while !stop.is_cancelled() {
            rig.postbacks.forget_as_asked(&stop).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let asking = async {
        let forgotten = forget(data_dir, &ids).await.expect("forgotten");
        stop.cancel();
        forgotten
    };
    let (forgotten, ()) = tokio::join!(asking, answering);
    assert_eq!(forgotten, Forgotten { withdrawn: 2, blanked: 0 });
    wait_for(|| rig.log().len() == 2).await;
    assert_eq!(rig.waiting(), 1, "the third person's goes on");
    let log = rig.log();
    assert_eq!(name, webhook::webhook_id(log[0].conversion_id), "the one that was on its way");
    assert_eq!((log[0].answer.as_str(), log[0].next_attempt_at), ("", None));
    assert!(log[1].conversion_id == ConversionId(uuid::Uuid::from_u128(2)) && log[1].answer == "ok");
    assert!(
        std::fs::read_dir(data_dir.join("forget")).expect("a folder").next().is_none(),
        "no file is left"
    );
}

#[tokio::test]
async fn a_name_that_changes_leads_nowhere_else() {
    let mut rig = Rig::resolving(&["127.0.0.1", "127.0.0.1", "10.0.0.1"]);
    let receiver = Receiver::start(|_| Reply::Close(200)).await;
    let url = format!("http://rebinds.example:{}/hook", receiver.address.port());
    rig.postbacks.vet(&url).await.expect("at creation");
    let goal = rig.goal(&url);
    rig.start();
    rig.queue(&goal, 1);
    rig.logged(1).await;
    rig.queue(&goal, 1);
    rig.logged(2).await;
    let log = rig.log();
    assert_eq!((log[0].status, log[1].status, log[1].error.as_str()), (Some(200), None, "refused_address"));
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_rests_until_it_is_named_again() {
    let mut rig = Rig::new();
    let receiver =
        Receiver::start(|before| if before == 0 { Reply::Status(410) } else { Reply::Status(200) }).await;
    let goal = rig.goal(&receiver.url());
    rig.queue(&goal, 1);
    rig.start();
    wait_for(|| rig.catalog.snapshot().goal(ME, goal.id).is_some_and(|goal| goal.postback.disabled)).await;
    rig.logged(1).await;
    rig.turn(Duration::from_hours(1));
    let patch = GoalPatch { postback_url: Some(goal.postback_url.clone()), ..GoalPatch::default() };
    assert_eq!((receiver.received().len(), rig.waiting()), (1, 1));
    rig.catalog.change_goal(ME, goal.id, patch).expect("changed");
    wait_for(|| rig.waiting() == 0).await;
    assert_eq!(receiver.received().len(), 2);
    let patch = GoalPatch { postback_url: Some(None), ..GoalPatch::default() };
    rig.catalog.change_goal(ME, goal.id, patch).expect("changed");
    rig.queue(&goal, 5);
    wait_for(|| rig.waiting() == 0).await;
    assert_eq!(receiver.received().len(), 2, "nobody is to be told any more");
}

#[tokio::test]
async fn an_endpoint_that_hangs_delays_nobody_else() {
    let mut rig = Rig::new();
    let hangs = Receiver::start(|_| Reply::Silence).await;
    let works = Receiver::start(|_| Reply::Status(200)).await;
    let working = rig.goal(&works.url());
    // As much as an endpoint that works would have at a time, and more in all than there is room for.
    let (endpoints, each) = (40, endpoint::FAST_MAX);
    for _ in 0..endpoints {
        let hanging = rig.goal(&hangs.url());
        rig.queue(&hanging, each as u128);
    }
    rig.queue(&working, 500);
    rig.start();
    // Long before the first of the others is given up.
    wait_for(|| works.received().len() == 500).await;
    assert!(hangs.received().len() <= endpoints * endpoint::NEW_MAX, "they have little room");
    wait_for(|| rig.waiting() == (endpoints * each) as u64).await;
}

#[tokio::test]
async fn a_batch_is_told_once_it_counts_also_after_a_restart() {
    let mut rig = Rig::new();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let goal = rig.goal(&receiver.url());
    let counted = |number| {
        let conversion = Conversion { goal_id: goal.id, ..conversion(number) };
        CountedConversion::unattributed(conversion, Unattributed::NoVisitor)
    };
    let conversions: Vec<_> = (0..10).map(counted).collect();
    let mut other = counted(11);
    other.conversion.goal_id = GoalId(999);
    rig.postbacks.prepare(BatchId(7), &conversions).expect("kept");
    rig.postbacks.prepare(BatchId(7), &conversions).expect("kept once");
    rig.postbacks.prepare(BatchId(7), &[other]).expect("nobody is to be told");
    let stop = rig.start();
    rig.queue(&goal, 1);
    wait_for(|| rig.waiting() == 10).await;
    assert_eq!(receiver.received().len(), 1, "the batch does not count yet");
    stop.cancel();
    wait_for(|| Arc::strong_count(&rig.postbacks) == 1).await;

    let Rig { postbacks, catalog, clock, folder, .. } = rig;
    drop(postbacks);
    let postbacks = open(&folder, &catalog, &clock, &["127.0.0.1"], BatchId(6));
    tokio::spawn(deliver(postbacks.clone(), tokio_util::sync::CancellationToken::new()));
    // Cut before the crash, settled again after it.
    postbacks.prepare(BatchId(7), &conversions).expect("kept");
    assert_eq!(receiver.received().len(), 1);
    postbacks.release(BatchId(7));
    wait_for(|| postbacks.outbox.len().expect("read") == 0).await;
    let names: HashSet<_> = receiver.received().iter().map(|request| request.header("webhook-id")).collect();
    assert_eq!((receiver.received().len(), names.len()), (11, 11));
}
