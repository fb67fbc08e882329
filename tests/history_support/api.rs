//! The history's way in: accounts with goals and links, and requests that are repeated until they are acknowledged.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loadtest::rng::SplitMix64;
use serde_json::{Value, json};

use super::history::{Event, History, LINKS, WINDOWS};
use crate::support::DEADLINE;
use crate::support::daemon::Site;
use crate::support::http::{Answer, agent, read};
use crate::support::track::pause;

/// One account as its owner knows it.
#[derive(Debug, Clone)]
pub struct Account {
    address: SocketAddr,
    key: String,
    /// A goal for each of [`WINDOWS`].
    pub tokens: Vec<String>,
    pub links: Vec<u64>,
}

impl Account {
    /// The first account, which every daemon has.
    pub fn first(site: &Site) -> Self {
        let key = loadtest::daemon::api_key(site.data_dir()).expect("a key");
        Self { address: site.daemon.options.listen, key, tokens: Vec::new(), links: Vec::new() }.furnished(0)
    }

    /// Another one, created with the first one's key.
    pub fn create(&self, number: usize) -> Self {
        let wanted = json!({"account": {"name": format!("Account {number}"), "plan": "enterprise"}});
        let created = self.post("/api/v1/accounts", &wanted);
        let key = created["data"]["api_key"].as_str().expect("a key").to_owned();
        Self { key, tokens: Vec::new(), links: Vec::new(), ..self.clone() }.furnished(number)
    }

    fn furnished(mut self, number: usize) -> Self {
        for days in WINDOWS {
            let goal = json!({"goal": {"name": format!("Within {days}"), "goal_type": "purchase", "value": 5, "attribution_window_days": days}});
            let created = self.post("/api/v1/conversions/goals", &goal);
            self.tokens.push(created["data"]["postback_token"].as_str().expect("a token").to_owned());
        }
        for link in 0..LINKS {
            let wanted = json!({"link": {"name": format!("{number} {link}"), "destination_url": "https://shop.example/?cid={click_id}"}});
            let created = self.post("/api/v1/links", &wanted);
            self.links.push(created["data"]["id"].as_u64().expect("an id"));
        }
        self
    }

    /// Something that must be taken the first time.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.send(path, "application/json", body.to_string()).expect("an answer");
        assert!((200..300).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    pub fn get(&self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.address);
        let request = agent().get(url).header("Authorization", format!("Bearer {}", self.key));
        request.call().and_then(read).expect("an answer")
    }

    fn send(&self, path: &str, kind: &str, body: String) -> Result<Answer, ureq::Error> {
        let url = format!("http://{}{path}", self.address);
        let request = agent().post(url).header("Authorization", format!("Bearer {}", self.key));
        request.header("Content-Type", kind).send(body).and_then(read)
    }

    /// Sends the same again until it is acknowledged: numbers and order ids make that safe.
    fn send_until_acknowledged(&self, path: &str, kind: &str, body: &str) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.send(path, kind, body.to_owned());
            assert!(Instant::now() < deadline, "{path} is not acknowledged: {body}");
            match answer {
                Ok(answer) if (200..300).contains(&answer.status) => return answer,
                // It was killed, or is on its way back.
                Err(_) => {}
                Ok(answer) => assert_eq!(answer.status, 503, "{body}: {}", answer.text()),
            }
            pause(Duration::from_millis(20));
        }
    }
}

/// Sends every `lanes`th event from the `lane`th on, alone or several in one request, with pauses of random length.
pub fn send_lane(
    history: &History,
    accounts: &[Account],
    lane: usize,
    lanes: usize,
    random: &mut SplitMix64,
) {
    let mut tags = (lane..history.events.len()).step_by(lanes).peekable();
    while let Some(tag) = tags.next() {
        let mut group = vec![tag];
        if random.below(4) == 0 {
            while group.len() < 8
                && let Some(next) =
                    tags.next_if(|next| same_path(&history.events[*next], &history.events[tag]))
            {
                group.push(next);
            }
        }
        send_group(history, accounts, &group);
        pause(Duration::from_millis(random.below(60)));
    }
}

/// Whether two events can be lines of one request.
fn same_path(one: &Event, other: &Event) -> bool {
    match (one, other) {
        (Event::Click(one), Event::Click(other)) => one.account == other.account,
        (Event::Conversion(one), Event::Conversion(other)) => one.account == other.account,
        _ => false,
    }
}

fn send_group(history: &History, accounts: &[Account], group: &[usize]) {
    let bodies: Vec<String> = group
        .iter()
        .map(|&tag| match &history.events[tag] {
            Event::Click(click) => click.body(tag, &accounts[click.account].links).to_string(),
            Event::Conversion(conversion) => {
                conversion.body(tag, &accounts[conversion.account].tokens).to_string()
            }
        })
        .collect();
    let (account, one, many) = match &history.events[group[0]] {
        Event::Click(click) => (click.account, "/api/v1/clicks", "/api/v1/clicks"),
        Event::Conversion(conversion) => {
            (conversion.account, "/api/v1/conversions/track", "/api/v1/conversions/batch")
        }
    };
    let account = &accounts[account];
    if let [body] = &*bodies {
        account.send_until_acknowledged(one, "application/json", body);
    } else {
        let answer = account.send_until_acknowledged(many, "application/x-ndjson", &bodies.join("\n"));
        assert_every_line_taken(&answer, bodies.len());
    }
}

/// A request that was taken has a result for each of its lines, and each of them was taken.
fn assert_every_line_taken(answer: &Answer, lines: usize) {
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let results = answer["data"]["results"].as_array().expect("results");
    assert_eq!(results.len(), lines, "{answer}");
    assert!(results.iter().all(|result| result["status"].as_u64().is_some_and(|s| s < 300)), "{answer}");
}
