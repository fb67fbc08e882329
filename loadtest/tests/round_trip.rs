//! The whole way without tally: a load against a server that keeps conversions in memory and answers `ClickHouse`'s
//! queries from them. An honest server passes the verification, and each kind of lie is found.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use loadtest::clickhouse::ClickHouse;
use loadtest::daemon::create_goals;
use loadtest::generator::Mix;
use loadtest::ledger::Ledger;
use loadtest::load::Load;
use loadtest::open_loop::{self, Arrivals};
use loadtest::report::Report;
use loadtest::schedule::Spacing;
use loadtest::verify::{Comparison, Verdict};

/// What the server does wrong, with its 100th conversion.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Acknowledges and forgets.
    Forgets,
    /// Writes two rows.
    Doubles,
    /// Names another conversion for a duplicate.
    Misnames,
    /// Takes a hit whose value is below zero.
    TakesBad,
    /// Acknowledges a click and forgets it.
    ForgetsClick,
    /// Writes two rows of a click.
    DoublesClick,
    /// Attributes a conversion to nothing, although its click is there.
    Unearned,
    /// Drops the connection of every 50th conversion before the answer. No lie: it must pass.
    HangsUp,
}

#[derive(Default)]
struct State {
    conversions: HashMap<(String, String), String>,
    rows: Vec<String>,
    clicks: HashSet<u64>,
    click_rows: Vec<String>,
    goals: usize,
    taken: usize,
}

struct Fake {
    fault: Fault,
    state: Mutex<State>,
}

impl Fake {
    fn start(fault: Fault) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(Self { fault, state: Mutex::default() });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fake = Arc::clone(&fake);
                thread::spawn(move || fake.serve(stream));
            }
        });
        address
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (mut line, mut length) = (String::new(), 0);
            reader.read_line(&mut line).ok()?;
            let path = line.split(' ').nth(1)?.to_owned();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).ok()?;
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let (status, answer) = self.answer(&path, &body)?;
            // In one write, or the client's delayed acknowledgement holds up the second.
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(answer.as_bytes()).ok()?;
        }
    }

    fn answer(&self, path: &str, body: &[u8]) -> Option<(u16, String)> {
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        if path == "/api/v1/conversions/goals" {
            state.goals += 1;
            let id = state.goals;
            return Some((
                201,
                format!(r#"{{"success":true,"data":{{"id":{id},"postback_token":"tok{id}"}}}}"#),
            ));
        }
        if path == "/api/v1/clicks" {
            return Some(self.click(state, body));
        }
        let Some(token) = path.strip_prefix("/api/conversions/track/") else {
            let query = String::from_utf8_lossy(body);
            let rows = match &*query {
                query if query.contains("tally.rejections") => String::new(),
                query if query.contains("tally.clicks") => state.click_rows.concat(),
                _ => state.rows.concat(),
            };
            return Some((200, rows));
        };
        let (Some(goal), Ok(hit)) =
            (token.strip_prefix("tok"), serde_json::from_slice::<serde_json::Value>(body))
        else {
            return Some((400, "{}".into()));
        };
        let bad = hit["value"].as_f64()? < 0.0 || hit["currency"] != "USD";
        if bad && (self.fault != Fault::TakesBad) {
            return Some((422, "{}".into()));
        }
        let order = hit["order_id"].as_str().unwrap_or_default().to_owned();
        let key = (goal.to_owned(), order.clone());
        let answer = |status, id: &str, duplicate: bool| {
            Some((status, format!(r#"{{"data":{{"conversion_id":"{id}","duplicate":{duplicate}}}}}"#)))
        };
        if let Some(id) = state.conversions.get(&key) {
            return answer(200, if self.fault == Fault::Misnames { "other" } else { id }, true);
        }
        state.taken += 1;
        let nth = state.taken;
        let id = format!("c-{nth}");
        if !order.is_empty() {
            state.conversions.insert(key, id.clone());
        }
        let copies = match self.fault {
            Fault::Forgets if nth == 100 => 0,
            Fault::Doubles if nth == 100 => 2,
            _ => 1,
        };
        let click = hit["click_id"].as_u64().unwrap_or(0);
        let earned = u8::from(state.clicks.contains(&click) && self.fault != Fault::Unearned);
        let row = format!("{goal}\t{order}\t{id}\t{click}\t{earned}\n");
        state.rows.extend(std::iter::repeat_n(row, copies));
        if self.fault == Fault::HangsUp && nth.is_multiple_of(50) {
            return None;
        }
        answer(201, &id, false)
    }

    fn click(&self, state: &mut State, body: &[u8]) -> (u16, String) {
        let click: serde_json::Value = serde_json::from_slice(body).unwrap();
        let id = click["click_id"].as_u64().unwrap();
        let new = state.clicks.insert(id);
        let copies = match self.fault {
            Fault::ForgetsClick if state.clicks.len() == 100 => 0,
            Fault::DoublesClick if state.clicks.len() == 100 => 2,
            _ => 1,
        };
        if new {
            state.click_rows.extend(std::iter::repeat_n(format!("{id}\n"), copies));
        }
        (if new { 201 } else { 200 }, format!(r#"{{"data":{{"click_id":{id},"duplicate":{}}}}}"#, !new))
    }
}

fn verified(fault: Fault) -> (Report, Verdict) {
    let address = Fake::start(fault);
    let goals = create_goals(&format!("http://{address}"), "key", 3).unwrap();
    let ledger = Arc::new(Ledger::memory());
    let load = Load {
        api_key: Some("key".into()),
        mix: Mix::with(0.2, 0.1, 0.1).and_clicks(1),
        connections: 8,
        window: Duration::from_millis(500),
        ledger: Some(Arc::clone(&ledger)),
        ..Load::new(address, goals)
    };
    let report = open_loop::run(&load, Arrivals { per_second: 4_000.0, spacing: Spacing::Uniform }).unwrap();
    assert_eq!(u64::try_from(ledger.entries().len()).unwrap(), report.total.all(), "one line a hit");
    let clickhouse = ClickHouse::new(&format!("http://reader:secret@{address}/?database=tally")).unwrap();
    (report, clickhouse.verify(Comparison::new(ledger.entries())).unwrap())
}

#[test]
fn an_honest_server_passes() {
    let (report, verdict) = verified(Fault::None);
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(report.total.acked(), verdict.acknowledged);
    assert_eq!(report.total.created, verdict.rows);
    assert!(verdict.rows > 1_000, "{verdict}");
    assert!(report.total.duplicates > 0 && report.total.bad > 0);
    assert_eq!((report.total.unknown, verdict.foreign_rows), (0, 0));
}

#[test]
fn lost_answers_are_neither_missing_nor_doubled() {
    let (report, verdict) = verified(Fault::HangsUp);
    assert!(verdict.holds(), "{verdict}");
    assert!(report.total.unknown > 0);
    assert!(verdict.rows + verdict.foreign_rows > report.total.created, "some lost answers were taken");
}

#[test]
fn a_forgotten_conversion_is_missing() {
    let (_, verdict) = verified(Fault::Forgets);
    assert_eq!(verdict.missing.count, 1, "{verdict}");
}

#[test]
fn a_second_row_is_doubled() {
    let (_, verdict) = verified(Fault::Doubles);
    assert_eq!(verdict.doubled.count, 1, "{verdict}");
}

#[test]
fn clicks_that_are_forgotten_doubled_or_not_attributed_are_found() {
    assert_eq!(verified(Fault::ForgetsClick).1.missing.count, 1);
    assert_eq!(verified(Fault::DoublesClick).1.doubled.count, 1);
    let (_, verdict) = verified(Fault::Unearned);
    assert!(verdict.unearned.count > 0 && verdict.missing.count == 0, "{verdict}");
}

#[test]
fn a_wrong_id_is_a_mismatch() {
    let (_, verdict) = verified(Fault::Misnames);
    assert!(verdict.mismatched.count > 0 && verdict.missing.count == 0, "{verdict}");
}

#[test]
fn a_bad_hit_that_is_taken_is_found() {
    let (_, verdict) = verified(Fault::TakesBad);
    assert!(verdict.bad_accepted.count > 0 && verdict.bad_acknowledged.count > 0, "{verdict}");
}
