//! Whole requests with contents that nobody should send: each is taken or refused for a stated reason, and nothing is
//! reached that is not the caller's.

mod support;

use loadtest::request::Goal;
use support::faults::daemon::{Tally, folder, hit};
use support::faults::wait_for;
use support::faults::wire::{Response, Wire, ask, post, request};
use tempfile::TempDir;

const GOALS: &str = "/api/v1/conversions/goals";
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// A daemon without a database, and a goal of it.
struct World {
    tally: Tally,
    goal: Goal,
    path: String,
    folder: TempDir,
}

impl World {
    fn start() -> Self {
        let folder = folder();
        let tally = Tally::start_alone(&folder.path().join("data"));
        let goal = tally.goal();
        let path = format!("/api/conversions/track/{}", goal.token);
        Self { tally, goal, path, folder }
    }

    fn ask(&self, bytes: impl AsRef<[u8]>) -> Response {
        ask(self.tally.public, bytes)
    }

    /// Status and code of a body of that type, sent to the tracking address.
    fn track(&self, content_type: &str, body: impl AsRef<[u8]>) -> (u16, String) {
        let answer = self.ask(post(&self.path, content_type, body));
        (answer.status, answer.code())
    }

    fn pixel(&self, query: &str, headers: &[(&str, &str)]) -> Response {
        self.ask(request(&format!("GET {}?{query}", self.path), headers, ""))
    }

    /// A call of the API with that Authorization.
    fn api(&self, line: &str, authorization: &str, body: &str) -> (u16, String) {
        let answer = self.ask(request(line, &[("Authorization", authorization)], body));
        (answer.status, answer.code())
    }
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn taken() -> (u16, String) {
    refused(201, "")
}

#[test]
fn json_is_taken_whole_or_refused_with_a_reason() {
    let world = World::start();
    let json = |body: &[u8]| world.track(JSON, body);
    let invalid = refused(400, "invalid_json");
    for body in [
        &b"{\"order_id\":\"a\0b\"}"[..],
        b"{\"order_id\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"{\"value\":1",
        b"{\"value\":1}}",
        b"{\"value\":1} {\"value\":1}",
        b"{\"value\":NaN}",
        b"{\"value\":.5}",
        b"{\"value\":0x10}",
        b"{'value':1}",
        b"[]",
        b"1",
        b"null",
        b"\0",
    ] {
        assert_eq!(json(body), invalid, "{}", String::from_utf8_lossy(body));
    }
    for value in ["-1", "1e999999999", "1e400", "true", "[]", "{}", "\"1,5\"", "\"1 000\"", "\"NaN\""] {
        assert_eq!(
            json(format!("{{\"value\":{value}}}").as_bytes()),
            refused(422, "invalid_value"),
            "{value}"
        );
    }
    let digits = "9".repeat(60_000);
    assert_eq!(json(format!("{{\"value\":0.{digits}}}").as_bytes()), taken(), "rounded");
    for value in [digits.clone(), format!("1e{digits}"), format!("\"{digits}\"")] {
        assert_eq!(json(format!("{{\"value\":{value}}}").as_bytes()), refused(422, "invalid_value"));
    }
    assert_eq!(json(b"{\"order_id\":\"a\\u0000b\"}"), refused(422, "invalid_order_id"));
    assert_eq!(json(b"{\"order_id\":\"\\ud800\"}"), refused(422, "invalid_order_id"), "half a character");
    let long = format!("{{\"order_id\":\"{}\"}}", "x".repeat(256));
    assert_eq!(json(long.as_bytes()), refused(422, "invalid_order_id"));
    // Of a repeated field the last counts, whatever the first one was.
    assert_eq!(json(b"{\"value\":-1,\"value\":1}"), taken());
    assert_eq!(json(b"{\"value\":1,\"value\":-1}"), refused(422, "invalid_value"));
    assert_eq!(
        json(b"{\"value\":\"1.50\",\"payout\":-1,\"\":0}"),
        taken(),
        "unknown fields are an ad network's own"
    );
    // As deep as a body can be: neither the stack's end nor anybody else's trouble.
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 60_000 / (open.len() + close.len());
        let whole = format!("{{\"value\":1,\"x\":{}1{}}}", open.repeat(depth), close.repeat(depth));
        let answer = json(whole.as_bytes());
        assert!(answer == taken() || answer == invalid, "{answer:?}");
        assert_eq!(json(format!("{{\"x\":{}", open.repeat(depth)).as_bytes()), invalid);
    }
    assert_eq!(world.tally.readiness().0, 200);
}

#[test]
fn forms_and_queries_are_taken_or_refused_by_field() {
    let world = World::start();
    assert_eq!(world.track(FORM, "value=1.50&currency=EUR&junk=%ff"), taken());
    assert_eq!(world.track(FORM, "order_id=%ff%fe"), refused(422, "invalid_order_id"));
    assert_eq!(world.track(FORM, "order_id=a%00b"), refused(422, "invalid_order_id"));
    assert_eq!(world.track(FORM, b"order_id=\xff"), refused(422, "invalid_order_id"));
    assert_eq!(world.track(FORM, "value=1&value=-1"), refused(422, "invalid_value"));
    assert_eq!(world.track(FORM, "&&==&%&%4&value=1&%"), taken());
    assert_eq!(world.track(FORM, "value=1&".repeat(8000)), taken());
    assert_eq!(world.track(FORM, format!("value={}", "9".repeat(60_000))), refused(422, "invalid_value"));
    let image = [("Accept", "image/*")];
    let status = |query: &str| world.pixel(query, &image).header("x-conversion-status").map(str::to_owned);
    assert_eq!(status("value=1&x=%ff%00").as_deref(), Some("new"));
    assert_eq!(status("order_id=%00").as_deref(), Some("invalid_order_id"));
    assert_eq!(status("click_id=%7Bclickid%7D").as_deref(), Some("unexpanded_macro"));
    assert_eq!(status("value=1e9999").as_deref(), Some("invalid_value"));
}

#[test]
fn a_body_is_read_by_its_look_as_newcomers_send_it() {
    let world = World::start();
    let goal = r#"{"goal":{"name":"By hand"}}"#;
    let key = format!("Bearer {}", world.tally.api_key());
    // `curl -d` calls everything a form; a beacon calls everything text.
    for content_type in [FORM, "text/plain;charset=UTF-8", "", "application/octet-stream", "nonsense"] {
        assert_eq!(world.track(content_type, "{\"value\":1}"), taken(), "{content_type}");
        let headers = [("Authorization", key.as_str()), ("Content-Type", content_type)];
        let answer = world.ask(request(&format!("POST {GOALS}"), &headers, goal));
        assert_eq!(answer.status, 201, "{content_type}: {answer:?}");
    }
    for content_type in ["multipart/form-data; boundary=x", "image/png", "text/xml"] {
        assert_eq!(
            world.track(content_type, "--x"),
            refused(415, "unsupported_media_type"),
            "{content_type}"
        );
    }
    let headers = [("Authorization", key.as_str()), ("Content-Type", FORM)];
    let form = world.ask(request(&format!("POST {GOALS}"), &headers, "name=x"));
    assert_eq!((form.status, form.code()), refused(415, "unsupported_media_type"));
}

#[test]
fn looking_is_not_converting() {
    let world = World::start();
    for (name, value) in
        [("Sec-Purpose", "prefetch;prerender"), ("Purpose", "prefetch"), ("X-Moz", "prefetch")]
    {
        let answer = world.pixel("value=1", &[(name, value)]);
        assert_eq!((answer.status, answer.header("x-conversion-status")), (200, Some("ignored")));
    }
    let mut wire = Wire::connect(world.tally.public);
    let head = wire.send(request(&format!("HEAD {}?value=1", world.path), &[], "")).answer_to_head();
    assert_eq!(head.expect("an answer").header("x-conversion-status"), Some("ignored"));

    let asking = [("Origin", "https://shop.example"), ("Access-Control-Request-Method", "POST")];
    let preflight = world.ask(request(&format!("OPTIONS {}", world.path), &asking, ""));
    let origin = preflight.header("access-control-allow-origin");
    assert_eq!((preflight.status, origin), (204, Some("https://shop.example")));
    assert!(preflight.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    let api = world.ask(request(&format!("OPTIONS {GOALS}"), &asking, ""));
    assert_eq!(
        (api.status, api.header("access-control-allow-origin")),
        (405, None),
        "no page may use the API"
    );

    assert_eq!(world.pixel("value=1", &[]).header("x-conversion-status"), Some("new"));
    wait_for("the count", || world.tally.metric("tally_hits_accepted_total") > 0);
    assert_eq!(world.tally.metric("tally_hits_accepted_total"), 1, "the last one alone");
}

#[test]
fn without_its_key_nothing_of_an_account_can_be_reached() {
    let world = World::start();
    let key = world.tally.api_key();
    let own = format!("Bearer {key}");
    let goal = format!("{GOALS}/{}", world.goal.id);
    let calls = [
        format!("GET {GOALS}"),
        format!("POST {GOALS}"),
        format!("GET {goal}"),
        format!("PATCH {goal}"),
        format!("DELETE {goal}"),
        format!("POST {goal}/rotate-token"),
        "POST /api/v1/conversions/track".to_owned(),
        "GET /api/v1/conversions/rejections".to_owned(),
        "GET /api/v1/conversions/0198c000-0000-7000-8000-000000000000".to_owned(),
        "GET /api/v1/analytics/conversions?days=30".to_owned(),
    ];
    let mut wrong = key.clone().into_bytes();
    let last = wrong.last_mut().expect("a key");
    *last = if *last == b'A' { b'B' } else { b'A' };
    let wrong = format!("Bearer {}", String::from_utf8(wrong).expect("text"));
    let cut = format!("Bearer {}", &key[..key.len() - 1]);
    let other_id = format!("Bearer {}", key.replacen("tally_1_", "tally_2_", 1));
    let basic = format!("Basic {key}");
    let token = format!("Bearer {}", world.goal.token);
    for authorization in
        ["", "Bearer", "Bearer ", "Bearer \u{fc}", &wrong, &cut, &other_id, &basic, &key, &token]
    {
        for call in &calls {
            assert_eq!(
                world.api(call, authorization, "{}"),
                refused(401, "unauthorized"),
                "{call}: {authorization}"
            );
        }
    }
    assert_eq!(world.api(&calls[2], &own, "").0, 200);
    assert_eq!(world.api(&calls[2], &own.replace("Bearer", "bearer"), "").0, 200);

    let World { tally, folder, .. } = world;
    let stranger = tally.api("POST /api/v1/accounts", r#"{"account":{"name":"stranger"}}"#).json();
    let stranger = format!("Bearer {}", stranger["data"]["api_key"].as_str().expect("a key"));
    let call = |line: &str, body: &str| {
        let answer = ask(tally.public, request(line, &[("Authorization", &stranger)], body));
        (answer.status, answer.code(), String::from_utf8_lossy(&answer.body).into_owned())
    };
    assert!(call(&calls[0], "").2.contains(r#""data":[]"#), "it has no goals");
    for line in &calls[2..6] {
        let (status, code, _) = call(line, r#"{"goal":{"name":"mine"}}"#);
        assert_eq!((status, code), refused(404, "goal_not_found"), "{line}");
    }
    let token =
        String::from_utf8_lossy(&ask(tally.public, request(&calls[2], &[("Authorization", &own)], "")).body)
            .split("\"postback_token\":\"")
            .nth(1)
            .and_then(|rest| Some(rest.split_once('"')?.0.to_owned()))
            .expect("a token");
    let (status, code, _) = call(&calls[6], &format!(r#"{{"postback_token":"{token}"}}"#));
    assert_eq!((status, code), refused(404, "unknown_token"), "not with another's token");
    drop(folder);
}

#[test]
fn addresses_that_climb_lead_nowhere() {
    let world = World::start();
    for path in [
        "/api/conversions/track/../../v1/conversions/goals",
        "/api/conversions/track/..%2f..%2f..%2fetc%2fpasswd",
        "/api/conversions/track/%2e%2e",
        "/api/conversions/track/%00",
        "/api/conversions/track/' OR 1=1 --".replace(' ', "%20").as_str(),
        "/api/conversions/track/",
        "/api/conversions/track//x",
        "//api/v1/conversions/goals",
        "/metrics",
        "/readyz",
        "/catalog.redb",
        "/../data/api-key",
    ] {
        for method in ["GET", "POST"] {
            let answer = world.ask(request(&format!("{method} {path}"), &[], ""));
            let pixel = answer.header("x-conversion-status");
            assert!(answer.status == 404 || pixel == Some("unknown_token"), "{method} {path}: {answer:?}");
        }
    }
    let long = "A".repeat(8000);
    assert_eq!(world.ask(hit(&Goal { id: 0, token: long }, "{}")).status, 404);
}
