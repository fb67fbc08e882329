//! Outgoing postbacks of the daemon: each conversion's arrives at least once, all copies under one name, however often
//! the daemon is killed; what became of them can be read, and they can be sent again.
//!
//! `TALLY_POSTBACK_KILLS` says how often it is killed.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loadtest::request::Goal;
use serde_json::{Value, json};
use support::daemon::Site;
use support::http::{agent, read};
use support::track::pause;
use support::wait_for;

/// Orders between two kills.
const ORDERS: usize = 40;

/// Conversion ids by `webhook-id`, with how often they came.
type Heard = Arc<Mutex<BTreeMap<String, (String, usize)>>>;

#[test]
fn killed_while_it_tells_it_tells_every_conversion_under_one_name() {
    let kills = std::env::var("TALLY_POSTBACK_KILLS").ok().map_or(3, |text| text.parse().expect("a number"));
    let (address, heard) = listen();
    let mut site = Site::start(&["--postback-allow", "127.0.0.0/8"]);
    let (goal, made) = create(&site, &format!("http://{address}/hook"));
    let secret = made["postback_secret"].as_str().expect("shown once");
    assert!(secret.starts_with("whsec_"));
    let mut told = BTreeSet::new();
    for kill in 0..=kills {
        for order in 0..ORDERS {
            let answer = site.track(&goal, &format!("{kill}-{order}"));
            assert_eq!(answer.status, 201, "{}", answer.text());
            let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
            told.insert(answer["data"]["conversion_id"].as_str().expect("an id").to_owned());
        }
        if kill < kills {
            // Between the insert and the last delivery, somewhere.
            pause(Duration::from_millis(300 + 500 * (kill % 5)));
            site.kill();
            site.restart();
        }
    }
    wait_for("every postback", || {
        heard.lock().expect("whole").values().filter(|(_, copies)| *copies > 0).count() >= told.len()
    });
    let by_name = heard.lock().expect("whole").clone();
    let arrived: BTreeSet<_> = by_name.values().map(|(conversion, _)| conversion.clone()).collect();
    assert_eq!((by_name.len(), &arrived), (told.len(), &told));
    assert!(by_name.iter().all(|(name, (conversion, _))| *name == format!("msg_{conversion}")));
    wait_for("an empty outbox", || site.metric("tally_postbacks_queued") == Some(0.0));

    // What became of one, and the same once more.
    let conversion = told.first().expect("one");
    let path = format!("/api/v1/postbacks/deliveries?conversion_id={conversion}");
    let mut deliveries = Value::Null;
    wait_for("the log", || {
        deliveries = site.api(&path)["data"].clone();
        deliveries[0]["status"] == 200
    });
    assert_eq!(deliveries[0]["webhook_id"], format!("msg_{conversion}"));
    let copies = |heard: &Heard| heard.lock().expect("whole")[&format!("msg_{conversion}")].1;
    let before = copies(&heard);
    let id = deliveries[0]["id"].as_str().expect("an id");
    let (status, answer) = post(&site, &format!("/api/v1/postbacks/deliveries/{id}/replay"), &Value::Null);
    assert_eq!(
        (status, &answer["data"]["webhook_id"]),
        (202, &json!(format!("msg_{conversion}"))),
        "{answer}"
    );
    wait_for("the copy", || copies(&heard) > before);

    // All of them once more.
    let total =
        |heard: &Heard| heard.lock().expect("whole").values().map(|(_, copies)| copies).sum::<usize>();
    let before = total(&heard);
    let path = format!("/api/v1/conversions/goals/{}/backfill", goal.id);
    let (status, answer) = post(&site, &path, &json!({"from": "2020-01-01T00:00:00Z"}));
    assert_eq!((status, &answer["data"]["queued"]), (202, &json!(told.len())), "{answer}");
    wait_for("all copies", || total(&heard) >= before + told.len());
    assert_eq!(heard.lock().expect("whole").len(), told.len(), "no new name");

    let (status, answer) = post(&site, &format!("/api/v1/conversions/goals/{}/test", goal.id), &Value::Null);
    assert_eq!(
        (status, &answer["data"]["status"], &answer["data"]["answer"]),
        (200, &json!(200), &json!("ok"))
    );
    assert!(!site.log().contains(secret) && !site.log().contains(&secret[6..]), "no secret in the log");
}

#[test]
fn nobody_reaches_what_is_not_public() {
    let site = Site::start(&[]);
    for url in [
        "http://127.0.0.1:9/",
        "https://127.0.0.1/",
        "https://[::ffff:169.254.169.254]/",
        "https://10.0.0.1/",
        "http://1.1.1.1/",
        "https://localhost/",
    ] {
        let (status, answer) =
            post(&site, "/api/v1/conversions/goals", &json!({"goal": {"name": "n", "postback_url": url}}));
        assert_eq!((status, &answer["error"]["field"]), (422, &json!("postback_url")), "{url}: {answer}");
    }
}

fn create(site: &Site, url: &str) -> (Goal, Value) {
    let (status, answer) =
        post(site, "/api/v1/conversions/goals", &json!({"goal": {"name": "n", "postback_url": url}}));
    assert_eq!(status, 201, "{answer}");
    let made = answer["data"].clone();
    let id = made["id"].as_u64().expect("a number");
    (Goal { id, token: made["postback_token"].as_str().expect("a token").to_owned() }, made)
}

fn post(site: &Site, path: &str, body: &Value) -> (u16, Value) {
    let key = loadtest::daemon::api_key(site.data_dir()).expect("a key");
    let url = format!("http://{}{path}", site.daemon.options.listen);
    let request = agent().post(url).header("Authorization", format!("Bearer {key}"));
    let answer = read(request.send_json(body).expect("an answer")).expect("a body");
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

/// A receiver that answers each connection's requests, every seventh of them with 500 if it is a first attempt.
fn listen() -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let heard = Heard::default();
    let kept = heard.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let kept = kept.clone();
            std::thread::spawn(move || hear(stream, number, &kept));
        }
    });
    (address, heard)
}

fn hear(stream: TcpStream, first: usize, heard: &Heard) -> Option<()> {
    let mut stream = BufReader::new(stream);
    for number in first.. {
        let (mut name, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("webhook-id", value)) => value.clone_into(&mut name),
                Some(("content-length", value)) => length = value.parse().ok()?,
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let mut fails = false;
        if body["event"] == "conversion.tracked" {
            let conversion = body["conversion_id"].as_str()?.to_owned();
            let mut heard = heard.lock().ok()?;
            // The third attempt is minutes away: nothing fails twice.
            fails = number % 7 == 6 && !heard.contains_key(&name);
            heard.entry(name).or_insert((conversion, 0)).1 += usize::from(!fails);
        }
        let status = if fails { "500 X" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
    }
    None
}
