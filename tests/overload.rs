//! Invariant 7: more than it can take is answered, not suffered. A full spool is 503 with `Retry-After`, memory stays
//! bounded, and once ClickHouse is back everything that was acknowledged is there once. Connections above the limit
//! wait for a place while all others are busy.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loadtest::ledger::Ledger;
use loadtest::request::Goal;
use support::accounts::assert_exactly_once;
use support::daemon::Site;
use support::gateway::{Engine, Gateway};
use support::track::{entry, postback, send};
use support::{wait_for, wait_within};

/// Two segments of the log.
const SPOOL: &str = "128MiB";
/// Far above what it needs with so little to remember, and below the spool with what a copy of it would take.
const RSS_BYTES_MAX: u64 = 200 << 20;
/// How long the flood may take on a slow disk.
const FULL_WITHIN: Duration = Duration::from_mins(3);
const CONNECTIONS: usize = 16;
/// Requests that one connection has under way.
const PIPELINE: usize = 64;

#[test]
fn a_full_spool_is_answered_and_drains() {
    let engine = Engine::start();
    let (mut gateway, url) = Gateway::to(&engine);
    let site = Site::start(&["--clickhouse-url", &url, "--spool-bytes-max", SPOOL]);
    let goal = site.goals(1).remove(0);
    let flood = Flood { site: &site, goal: &goal, ledger: Ledger::memory(), refused: Mutex::default() };
    let full = AtomicBool::new(false);
    let rss_bytes_max = std::thread::scope(|scope| {
        let ending = EndsOnDrop(&full);
        for lane in 0..CONNECTIONS {
            let (flood, full) = (&flood, &full);
            scope.spawn(move || flood.run(lane, full));
        }
        let mut rss_bytes_max = 0;
        let spool_full = || {
            let rss_bytes = loadtest::process::rss_bytes(site.pid()).expect("it runs");
            rss_bytes_max = rss_bytes_max.max(rss_bytes);
            let ready = site.ops("/readyz").expect("an answer");
            let refused = flood.refused.lock().expect("no panic").len();
            // Some more of the flood meets a closed door.
            ready.status == 503 && ready.text().contains("spool_full") && refused > 1_000
        };
        wait_within(FULL_WITHIN, "a full spool", spool_full);
        drop(ending);
        rss_bytes_max
    });
    let refused = flood.refused.into_inner().expect("no panic");
    println!(
        "{} acknowledged, {} refused, {rss_bytes_max} bytes of memory at most",
        flood.ledger.noted(),
        refused.len()
    );
    assert!(
        refused.iter().all(|&(status, retry_after)| status == 503 && retry_after),
        "503 with Retry-After"
    );
    assert!(rss_bytes_max < RSS_BYTES_MAX, "{rss_bytes_max} bytes of memory");
    assert_eq!(site.ops("/livez").expect("an answer").status, 200, "it is alive all the same");

    gateway.open();
    wait_for("readiness", || site.ops("/readyz").is_some_and(|answer| answer.status == 200));
    let fresh = site.track(&goal, "AFTERWARDS");
    assert!(matches!(fresh.status, 201 | 202), "{}", fresh.text());
    let verdict = assert_exactly_once(&site, &engine.reader_url(), &flood.ledger.entries());
    assert_eq!(verdict.unknown_accepted, 0, "what was refused is not there");
}

#[test]
fn connections_above_the_limit_wait_for_a_place() {
    const PLACES: usize = 8;
    let site = Site::start(&["--connections-max", &PLACES.to_string()]);
    let goal = site.goals(1).remove(0);
    let connect = || {
        let stream = TcpStream::connect(site.daemon.options.listen).expect("connected");
        stream.set_read_timeout(Some(support::DEADLINE)).expect("set");
        stream
    };
    // Each has a request under way, the end of which is not there.
    let mut places: Vec<_> = (0..PLACES)
        .map(|n| {
            let (mut stream, request) = (connect(), postback(&goal, &format!("PLACE-{n}"), ""));
            let (begun, rest) = request.split_at(request.len() - 1);
            stream.write_all(begun).expect("sent");
            (stream, rest.to_vec())
        })
        .collect();
    wait_for("all places taken", || site.metric("tally_http_connections") == Some(8.0));
    let waiting: Vec<_> = (0..PLACES * 10)
        .map(|n| {
            let mut stream = connect();
            stream.write_all(&postback(&goal, &format!("WAITS-{n}"), "connection: close\r\n")).expect("sent");
            stream
        })
        .collect();
    let mut first = waiting[0].try_clone().expect("a handle");
    first.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
    assert!(first.read(&mut [0; 1]).is_err(), "nobody is served while all places are taken");
    for (stream, rest) in &mut places {
        stream.write_all(rest).expect("sent");
        assert!(matches!(status(stream), Some(200..300)), "those that have one are served");
    }
    // They are idle now, and make room.
    for (n, mut stream) in waiting.into_iter().enumerate() {
        stream.set_read_timeout(Some(support::DEADLINE)).expect("set");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 20"), "connection {n}: {answer}");
    }
}

/// Ends the flood, also where the test fails: the scope waits for its threads.
struct EndsOnDrop<'a>(&'a AtomicBool);

impl Drop for EndsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hits with long user agents, so that the spool fills soon, from every connection until the spool is full.
struct Flood<'a> {
    site: &'a Site,
    goal: &'a Goal,
    /// What was answered, and how.
    ledger: Ledger,
    /// Status, and whether there was a `Retry-After`.
    refused: Mutex<Vec<(u16, bool)>>,
}

impl Flood<'_> {
    fn run(&self, lane: usize, full: &AtomicBool) {
        let agent = format!("user-agent: {}\r\n", "x".repeat(500));
        let requests = |round: usize| {
            let orders = (0..PIPELINE).map(|n| format!("{lane}-{round}-{n}")).collect::<Vec<_>>();
            let bytes =
                orders.iter().flat_map(|order| postback(self.goal, order, &agent)).collect::<Vec<_>>();
            (orders, bytes)
        };
        let mut round = 0;
        send(self.site.daemon.options.listen, |answers| {
            let (sent, _) = requests(round);
            let told: Vec<_> =
                sent.iter().zip(answers).map(|(order, answer)| entry(self.goal, order, answer)).collect();
            self.ledger.append(&told);
            let refused = answers.iter().filter(|answer| !(200..300).contains(&answer.status));
            let refused = refused.map(|answer| (answer.status, answer.retry_after));
            self.refused.lock().expect("no panic").extend(refused);
            let (_, bytes) = requests(round + 1);
            round += 1;
            (!full.load(Ordering::Relaxed)).then_some((bytes, PIPELINE))
        });
    }
}

/// The status of the answer on a connection that stays open.
fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).expect("an answer");
        bytes.extend_from_slice(&buffer[..read]);
        match loadtest::response::parse(&bytes).expect("HTTP") {
            Some(answer) => return Some(answer.status),
            None if read == 0 => return None,
            None => {}
        }
    }
}
