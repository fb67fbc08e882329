//! Bytes that no good client sends, over real connections to a real daemon: each is answered as the protocol has it or
//! cut off, and none of them becomes a hit that was not whole.

mod support;

use std::time::Duration;

use loadtest::request::Goal;
use support::faults::daemon::{NO_CLICKHOUSE, Start, Tally, folder, hit};
use support::faults::wire::{Wire, ask, post, request};
use support::faults::{DEADLINE, wait_for};
use tempfile::TempDir;

const GOOD: &str = r#"{"value":1}"#;

/// A daemon without a database, and a goal of it.
struct World {
    tally: Tally,
    goal: Goal,
    path: String,
    _folder: TempDir,
}

impl World {
    fn start() -> Self {
        let folder = folder();
        // Idle connections have less time than a head, so that this takes no longer than that.
        let flags = ["--clickhouse-url", NO_CLICKHOUSE, "--keep-alive-seconds", "15"];
        let how = Start { flags: &flags, ..Start::default() };
        let tally = Tally::start(&folder.path().join("data"), &how);
        let goal = tally.goal();
        let path = format!("/api/conversions/track/{}", goal.token);
        Self { tally, goal, path, _folder: folder }
    }

    fn connect(&self) -> Wire {
        Wire::connect(self.tally.public)
    }

    /// The daemon is well, and has taken so many hits and no other.
    fn assert_taken(&self, hits: u64) {
        assert_eq!(self.tally.hit(&self.goal, GOOD).status, 201);
        wait_for("the count", || self.tally.metric("tally_hits_accepted_total") > hits);
        assert_eq!(self.tally.metric("tally_hits_accepted_total"), hits + 1);
        assert_eq!(self.tally.readiness(), (200, Vec::new()));
    }

    /// A head for the tracking address, without a blank line at its end.
    fn head(&self, more: &str) -> String {
        format!("POST {} HTTP/1.1\r\nHost: t\r\n{more}", self.path)
    }
}

#[test]
fn heads_and_bodies_that_dribble_are_cut_off() {
    let world = World::start();
    let mut slow_head = world.connect();
    slow_head.send(world.head("X-Slow: "));
    let mut idle = world.connect();
    let mut slow_body = world.connect();
    slow_body.send(world.head("Content-Length: 1000\r\n\r\n{\"value\":"));
    let mut kept_alive = world.connect();
    assert_eq!(kept_alive.send(hit(&world.goal, GOOD)).answer().expect("an answer").status, 201);

    // Both go on, one byte at a time: it is the whole that has its time.
    let mut told = false;
    wait_for("the end of the head", || {
        if !told {
            slow_body.send("1");
            told = slow_body.speaks_within(Duration::from_millis(100));
        }
        slow_head.send("x");
        slow_head.speaks_within(Duration::from_millis(200)) || slow_head.is_closed()
    });
    assert!(told, "a body has less time than a head");
    let answer = slow_body.answer().expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
    assert!(slow_body.is_ended());
    assert!(kept_alive.is_ended() && idle.is_ended(), "so are those that say nothing");
    world.assert_taken(1);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_there() {
    let world = World::start();
    let large = "x".repeat(65 << 10);
    let status = |bytes: &[u8]| {
        let mut wire = world.connect();
        let answer = wire.send(bytes).answer().expect("an answer");
        (answer.status, answer.code())
    };
    let body_too_large = (413, "body_too_large".to_owned());
    // Promised, sent, and sent in pieces without a promise.
    assert_eq!(status(world.head("Content-Length: 99999999999\r\n\r\n").as_bytes()), body_too_large);
    assert_eq!(status(&post(&world.path, "application/json", &large)), body_too_large);
    let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    assert_eq!(
        status((world.head("Transfer-Encoding: chunked\r\n\r\n") + &chunk).as_bytes()),
        body_too_large
    );
    let small_chunks = "400\r\n".to_owned() + &"x".repeat(1024) + "\r\n";
    let many = world.head("Transfer-Encoding: chunked\r\n\r\n") + &small_chunks.repeat(65);
    assert_eq!(status(many.as_bytes()), body_too_large);
    assert_eq!(
        status(&request("POST /api/v1/conversions/goals", &[("Authorization", "Bearer x")], &large)).0,
        401
    );

    assert_eq!(status((world.head("X-Large: ") + &large + "\r\n\r\n").as_bytes()).0, 431);
    let many = "X-Filler: 1\r\n".repeat(200);
    assert_eq!(status((world.head(&many) + "\r\n").as_bytes()).0, 431);
    let target = format!("GET {}?x={large} HTTP/1.1\r\nHost: t\r\n\r\n", world.path);
    assert!(matches!(status(target.as_bytes()).0, 414 | 431));
    world.assert_taken(0);
}

#[test]
fn what_breaks_off_is_not_a_hit() {
    let world = World::start();
    for bytes in [
        "POST".to_owned(),
        world.head(""),
        world.head("Content-Length: 11\r\n\r\n"),
        world.head("Content-Length: 12\r\n\r\n") + GOOD,
        world.head("Transfer-Encoding: chunked\r\n\r\nb\r\n") + GOOD,
        world.head("Transfer-Encoding: chunked\r\n\r\nb\r\n") + GOOD + "\r\n",
    ] {
        let mut wire = world.connect();
        wire.send(&bytes).finish_sending();
        if let Some(answer) = wire.answer() {
            assert_eq!(answer.status, 400, "{bytes}: {answer:?}");
        }
        assert!(wire.is_ended());
        // And dropped without a word.
        world.connect().send(&bytes);
    }
    world.assert_taken(0);
}

#[test]
fn pipelined_requests_are_answered_in_order_each_by_itself() {
    let world = World::start();
    let line = |method: &str, path: &str| request(&format!("{method} {path}"), &[], "");
    let track = |body: &str| hit(&world.goal, body);
    let requests = [
        (track(GOOD), 201),
        (track("{"), 400),
        (track(r#"{"value":-1}"#), 422),
        (post("/api/conversions/track/nobody", "application/json", GOOD), 404),
        (track(GOOD), 201),
        (line("HEAD", &world.path), 200),
        (line("OPTIONS", &world.path), 204),
        (line("PUT", &world.path), 405),
        (line("GET", &format!("{}?value=2", world.path)), 200),
        (line("GET", "/api/v1/conversions/goals"), 401),
        (line("GET", "/nowhere"), 404),
        (post(&world.path, "multipart/form-data; boundary=x", "--x"), 415),
        (track(r#"{"currency":"ZZZ"}"#), 422),
        (track(""), 201),
        (line("GET", "/"), 200),
        (track(GOOD), 201),
    ];
    let mut wire = world.connect();
    wire.send(requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect::<Vec<_>>());
    let mut ids = Vec::new();
    for (number, (bytes, status)) in requests.iter().enumerate() {
        let is_head = bytes.starts_with(b"HEAD");
        let answer = if is_head { wire.answer_to_head() } else { wire.answer() }.expect("an answer");
        assert_eq!(answer.status, *status, "request {number}: {answer:?}");
        if answer.status == 201 {
            ids.push(answer.conversion_id());
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 4, "each has its own id");
    assert!(wire.is_silent(), "and nothing more is said");
    world.assert_taken(5);
}

#[test]
fn an_answer_does_not_wait_for_what_follows_its_request() {
    let world = World::start();
    let good = hit(&world.goal, GOOD);
    // A line break after the body, as `echo … | nc` sends it; the beginning of another request.
    for after in ["\r\n", "\n", "P", "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nab"] {
        let mut wire = world.connect();
        wire.send([&good, after.as_bytes()].concat());
        assert_eq!(wire.answer().expect("an answer").status, 201, "{after:?}");
    }
    let mut last = world.connect();
    last.send(world.head("Content-Length: 11\r\nConnection: close\r\n\r\n") + GOOD + "\r\n");
    assert_eq!(last.answer().expect("an answer").status, 201);
    assert!(last.is_ended());
    // What was taken before the garbage is acknowledged.
    let mut broken = world.connect();
    broken.send([&good, &good, &b"\0\0\r\n\r\n"[..]].concat());
    assert_eq!(broken.answer().expect("an answer").status, 201);
    assert_eq!(broken.answer().expect("an answer").status, 201);
    assert_eq!(broken.answer().expect("an answer").status, 400);
    assert!(broken.is_ended());
    world.assert_taken(7);
}

#[test]
fn a_client_that_has_finished_sending_gets_its_answers() {
    let world = World::start();
    let mut wire = world.connect();
    wire.send([hit(&world.goal, GOOD), hit(&world.goal, GOOD)].concat()).finish_sending();
    assert_eq!(wire.answer().expect("an answer").status, 201);
    assert_eq!(wire.answer().expect("an answer").status, 201);
    assert!(wire.is_ended());
    world.assert_taken(2);
}

#[test]
fn what_is_not_http_is_refused() {
    let world = World::start();
    let path = &world.path;
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"{\"value\":1}\r\n\r\n".to_vec(),
        format!("POST {path} HTTP/1.1\r\nHost: t\r\nX Y: 1\r\n\r\n").into_bytes(),
        format!("POST {path} HTTP/1.1\r\nHost : t\r\n\r\n").into_bytes(),
        format!("POST {path} HTTP/1.1\r\nX: a\r\n b\r\n\r\n").into_bytes(),
        format!("POST {path} HTTP/1.1\r\nX: \0\r\n\r\n").into_bytes(),
        format!("POST {path} HTTP/9.9\r\n\r\n").into_bytes(),
        format!("POST {path}\0 HTTP/1.1\r\n\r\n").into_bytes(),
        format!("POST  {path} HTTP/1.1\r\n\r\n").into_bytes(),
    ] {
        let mut wire = world.connect();
        let answer = wire.send(&bytes).answer();
        let status = answer.as_ref().map(|answer| answer.status);
        assert!(matches!(status, Some(400)), "{}: {answer:?}", String::from_utf8_lossy(&bytes));
        assert!(wire.is_ended());
    }
    // HTTP/2 without having agreed on it: the connection ends.
    assert!(world.connect().send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").answer().is_none());
    world.assert_taken(0);
}

#[test]
fn what_two_servers_could_read_differently_is_refused() {
    let world = World::start();
    // Whoever reads the other length sees a second hit in the first one's body.
    let hidden = String::from_utf8(hit(&world.goal, GOOD)).expect("text");
    for lengths in [
        "Content-Length: 11\r\nContent-Length: 12\r\n",
        "Content-Length: 11, 12\r\n",
        "Content-Length: +11\r\n",
        "Content-Length: -11\r\n",
        "Content-Length: 0x0b\r\n",
        "Content-Length: 11 11\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked;x=1\r\n",
        "Host: t\r\n",
        "Host: elsewhere\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 11\r\n",
    ] {
        let mut wire = world.connect();
        wire.send(format!("{}\r\n0\r\n\r\n{hidden}", world.head(lengths)));
        let answer = wire.answer().unwrap_or_else(|| panic!("{lengths}: an answer"));
        assert_eq!(answer.status, 400, "{lengths}: {answer:?}");
        assert!(wire.is_ended(), "{lengths}: nothing after it is read");
    }
    // As RFC 9112, 6.1 has it: the encoding alone counts, and the connection ends, whatever comes after.
    for both in [
        "Content-Length: 11\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 11\r\n",
    ] {
        let mut wire = world.connect();
        wire.send(format!("{}\r\n0\r\n\r\n{hidden}", world.head(both)));
        assert_eq!(wire.answer().expect("an answer").status, 201, "{both}");
        assert!(wire.is_ended(), "{both}: nothing after it is read");
    }
    // A host that is none, or not there; a good one afterwards is not looked at.
    for (head, status) in [
        (format!("POST {} HTTP/1.1\r\n", world.path), 400),
        (format!("POST {} HTTP/1.1\r\nHost: a b\r\n", world.path), 400),
        (format!("POST {} HTTP/1.1\r\nHost: a/b@c\r\n", world.path), 400),
        (format!("POST http://t{} HTTP/1.1\r\n", world.path), 400),
        (world.head("Expect: the-impossible\r\n"), 417),
    ] {
        let mut wire = world.connect();
        wire.send(format!("{head}Content-Length: 11\r\n\r\n{GOOD}{hidden}"));
        let answer = wire.answer().unwrap_or_else(|| panic!("{head}: an answer"));
        assert_eq!(answer.status, status, "{head}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{head}");
        assert!(wire.is_ended(), "{head}: nothing after it is read");
    }
    // Nor by the operators' listener.
    for head in ["GET /readyz HTTP/1.1\r\n\r\n", "GET /readyz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"] {
        let mut wire = Wire::connect(world.tally.ops);
        let answer = wire.send(head).answer().expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_head"), "{head}");
        assert!(wire.is_ended(), "{head}");
    }
    // A chunk's length that is none.
    for chunk in ["0x0b\r\n", "-1\r\n", "\r\n", "fffffffffffffffff\r\n"] {
        let mut wire = world.connect();
        wire.send(format!("{}{chunk}{GOOD}\r\n0\r\n\r\n", world.head("Transfer-Encoding: chunked\r\n\r\n")));
        let answer = wire.answer().unwrap_or_else(|| panic!("{chunk}: an answer"));
        assert_eq!(answer.status, 400, "{chunk}: {answer:?}");
    }
    world.assert_taken(2);
}

#[test]
fn a_body_that_is_not_read_ends_the_connection_and_says_so() {
    let world = World::start();
    let goals = "/api/v1/conversions/goals";
    let length = 1 << 20;
    for (line, more, status) in [
        ("POST /nowhere", "", 404),
        ("POST /api/conversions/track/nobody", "", 404),
        ("POST /api/v1/conversions/goals", "", 401),
        ("POST /api/v1/conversions/track", "", 401),
        ("POST /api/v1/clicks", "", 401),
        ("POST /metrics", "", 404),
        ("PUT /", "", 405),
        ("GET /", "", 200),
        (&format!("DELETE {goals}/1"), "", 401),
        (&format!("POST {}", world.path), "", 413),
    ] {
        // Not a byte of it has come; some have; the client waits to be told to send it.
        for (more, begun) in [(more, ""), (more, "{\"value\":1"), ("Expect: 100-continue\r\n", "")] {
            let mut wire = world.connect();
            wire.send(format!("{line} HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n{more}\r\n{begun}"));
            let answer = wire.answer().unwrap_or_else(|| panic!("{line}: an answer"));
            assert_eq!(answer.status, status, "{line}: {answer:?}");
            assert_eq!(answer.header("connection"), Some("close"), "{line} {more}: {answer:?}");
            // The rest may be on its way: the answer is not lost to it.
            wire.send("x".repeat(length / 4));
            assert!(wire.is_ended(), "{line}: nothing after it is read");
        }
    }
    let mut ops = Wire::connect(world.tally.ops);
    let answer = ops.send("GET /livez HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n").answer();
    assert_eq!(answer.expect("an answer").header("connection"), Some("close"));
    // What is there already, and small, keeps no connection from going on.
    let mut wire = world.connect();
    for (line, status) in
        [("POST /nowhere", 404), ("POST /api/v1/clicks", 401), ("DELETE /", 405), ("GET /", 200)]
    {
        let chunked =
            format!("{line} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        for bytes in
            [request(line, &[], GOOD), request(line, &[], "x".repeat(50 << 10)), chunked.into_bytes()]
        {
            let answer = wire.send(&bytes).answer().unwrap_or_else(|| panic!("{line}: an answer"));
            assert_eq!((answer.status, answer.header("connection")), (status, None), "{line}: {answer:?}");
        }
    }
    world.assert_taken(0);
}

#[test]
fn old_and_unusual_clients_are_served() {
    let world = World::start();
    let path = &world.path;
    let mut old = world.connect();
    old.send(format!("POST {path} HTTP/1.0\r\nContent-Length: 11\r\n\r\n{GOOD}"));
    assert_eq!(old.answer().expect("an answer").status, 201);
    assert!(old.is_ended(), "HTTP/1.0 ends with its answer");

    let mut polite = world.connect();
    polite.send(world.head("Content-Length: 11\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(polite.answer().expect("an answer").status, 100);
    assert_eq!(polite.send(GOOD).answer().expect("an answer").status, 201);

    let absolute = format!(
        "POST http://elsewhere.example{path} HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\n{GOOD}"
    );
    assert_eq!(ask(world.tally.public, absolute).status, 201);

    // One byte at a time.
    let mut slow = world.connect();
    for byte in hit(&world.goal, GOOD) {
        slow.send([byte]);
    }
    assert_eq!(slow.answer().expect("an answer").status, 201);
    assert!(DEADLINE > Duration::from_secs(30), "longer than any time-out of the daemon");
    world.assert_taken(4);
}
