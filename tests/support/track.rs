//! Many hits at once, each written by the test itself, and what was answered to each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loadtest::client::Connection;
use loadtest::generator::HitKind;
use loadtest::ledger::{Entry, Outcome};
use loadtest::request::Goal;
use loadtest::response::Answer;
use loadtest::text::ShortText;
use tokio::task::{JoinSet, LocalSet};

use super::DEADLINE;

/// The bytes of one hit: a postback with an order id and whatever headers (each line with its end).
pub fn postback(goal: &Goal, order_id: &str, headers: &str) -> Vec<u8> {
    let body = format!(r#"{{"value":12.5,"currency":"EUR","order_id":"{order_id}"}}"#);
    format!(
        "POST /api/conversions/track/{} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n{body}",
        goal.token,
        body.len()
    )
    .into_bytes()
}

/// How far the sending of copies is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Every connection is open, and nothing is sent.
    Connected,
    /// One more copy was answered.
    Answered,
}

/// Sends the same request `copies` times, over that many connections, all open before the first is sent. `at` is
/// called then, and at each answer. What is returned was answered; connections that break have the rest of their
/// answers missing.
pub fn send_copies(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    copies: usize,
    at: impl Fn(Moment) + Clone + 'static,
) -> Vec<Answer> {
    let each = copies / connections;
    assert_eq!(each * connections, copies, "as many copies on each connection");
    let batch = request.repeat(each);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let mut ready = Vec::new();
        for _ in 0..connections {
            let mut connection = Connection::new(address);
            assert!(connection.open(Instant::now() + DEADLINE, || true).await, "connected");
            ready.push(connection);
        }
        at(Moment::Connected);
        let mut lanes = JoinSet::new();
        for mut connection in ready {
            let (batch, at) = (batch.clone(), at.clone());
            lanes.spawn_local(async move {
                let mut answers = Vec::with_capacity(each);
                let exchange = connection.exchange(&batch, each, |_, answer, _| {
                    at(Moment::Answered);
                    answers.push(*answer);
                });
                tokio::time::timeout(DEADLINE, exchange).await.expect("answers, or a lost connection");
                answers
            });
        }
        lanes.join_all().await.concat()
    })
}

/// Talks over one connection: `next` is given the answers to what it sent last (none at first) and says what to send
/// now, and how many requests that is, until it has nothing more. A connection
/// that the daemon ends leaves the rest of its requests unanswered, and another one takes its place.
pub fn send(address: SocketAddr, mut next: impl FnMut(&[Answer]) -> Option<(Vec<u8>, usize)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut connection = Connection::new(address);
        let mut answers = Vec::new();
        while let Some((requests, count)) = next(&answers) {
            assert!(connection.open(Instant::now() + DEADLINE, || true).await, "connected");
            answers.clear();
            let exchange = connection.exchange(&requests, count, |_, answer, _| answers.push(*answer));
            // A connection that was ended has answered none, or some.
            tokio::time::timeout(DEADLINE, exchange).await.expect("answers, or a lost connection");
        }
    });
}

/// The ledger's line for an answer to the order.
pub fn entry(goal: &Goal, order_id: &str, answer: &Answer) -> Entry {
    let outcome = match answer.status {
        status @ 200..300 => {
            Outcome::Acked { status, conversion_id: answer.conversion_id, duplicate: answer.duplicate }
        }
        status => Outcome::Refused { status },
    };
    Entry {
        goal_id: goal.id,
        order_id: ShortText::from_bytes(order_id.as_bytes()),
        click_id: None,
        kind: HitKind::New,
        outcome,
    }
}

/// A pause whose length is the test's input, not a wait for something.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}
