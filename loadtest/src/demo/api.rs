//! The daemon's API, as far as a past needs it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::history::LinkPlan;

/// How long a conversion may take to reach `ClickHouse`, where adjustments look for it.
const STORED_WITHIN: Duration = Duration::from_mins(2);

/// Why there is no past.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The daemon can't be reached, or its answer can't be read.
    #[error("the daemon's API: {0}")]
    Http(#[from] Box<ureq::Error>),
    /// It refused what it should have taken.
    #[error("the daemon answered {status} to {what}: {text}")]
    Refused {
        /// What was asked.
        what: String,
        /// The status.
        status: u64,
        /// What it said.
        text: String,
    },
}

/// A daemon and a key to it.
pub(super) struct Api {
    agent: ureq::Agent,
    url: String,
    authorization: String,
}

impl Api {
    pub(super) fn new(url: &str, key: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_mins(1)));
        Self {
            agent: config.build().into(),
            url: url.trim_end_matches('/').to_owned(),
            authorization: format!("Bearer {key}"),
        }
    }

    /// The link of that slug; made, where there is none yet. Its id.
    pub(super) fn link(&self, plan: &LinkPlan) -> Result<u64, DemoError> {
        let there = self.listed("/api/v1/links", "slug", plan.slug)?;
        let link = match there {
            Some(link) => link,
            None => self.create("/api/v1/links", &json!({"link": plan.json()}))?,
        };
        Ok(link["id"].as_u64().unwrap_or_default())
    }

    /// The goal of that name; made, where there is none yet. Its token.
    pub(super) fn goal(&self, goal: &Value) -> Result<String, DemoError> {
        let path = "/api/v1/conversions/goals";
        let goal = match self.listed(path, "name", goal["name"].as_str().unwrap_or_default())? {
            Some(goal) => goal,
            None => self.create(path, &json!({ "goal": goal }))?,
        };
        Ok(goal["postback_token"].as_str().unwrap_or_default().to_owned())
    }

    /// Sends lines, all of which must be taken, and gives the result of each.
    pub(super) fn lines(&self, path: &str, lines: &[Value]) -> Result<Vec<Value>, DemoError> {
        let body: Vec<String> = lines.iter().map(Value::to_string).collect();
        let request = self.post(path).header("Content-Type", "application/x-ndjson");
        let answer = read(request.send(body.join("\n")).map_err(Box::new)?)?;
        let results = answer.1["data"]["results"].as_array().cloned().unwrap_or_default();
        if answer.0 != 200 || results.len() != lines.len() {
            return Err(refused(path, answer.0, &answer.1));
        }
        match results.iter().find(|result| result["success"] != true) {
            Some(wrong) => Err(refused(path, wrong["status"].as_u64().unwrap_or_default(), wrong)),
            None => Ok(results),
        }
    }

    /// Adjusts a conversion, once `ClickHouse` has it.
    pub(super) fn adjust(&self, id: &str, adjustment: &Value) -> Result<(), DemoError> {
        let path = format!("/api/v1/conversions/{id}/adjustments");
        let deadline = Instant::now() + STORED_WITHIN;
        loop {
            let request = self.post(&path).header("Idempotency-Key", format!("demo-{id}"));
            let (status, answer) = read(request.send_json(adjustment).map_err(Box::new)?)?;
            match status {
                200..300 => return Ok(()),
                404 | 503 if Instant::now() < deadline => sleep(Duration::from_millis(200)),
                _ => return Err(refused(&path, status, &answer)),
            }
        }
    }

    /// A hit that must be refused.
    pub(super) fn mistake(&self, token: &str, body: &Value) -> Result<(), DemoError> {
        let path = format!("/api/conversions/track/{token}");
        let request = self.agent.post(format!("{}{path}", self.url));
        let (status, answer) = read(request.send_json(body).map_err(Box::new)?)?;
        if (400..500).contains(&status) { Ok(()) } else { Err(refused(&path, status, &answer)) }
    }

    fn create(&self, path: &str, body: &Value) -> Result<Value, DemoError> {
        let (status, answer) = read(self.post(path).send_json(body).map_err(Box::new)?)?;
        if status == 201 { Ok(answer["data"].clone()) } else { Err(refused(path, status, &answer)) }
    }

    fn listed(&self, path: &str, key: &str, value: &str) -> Result<Option<Value>, DemoError> {
        let url = format!("{}{path}?per_page=100", self.url);
        let request = self.agent.get(url).header("Authorization", &self.authorization);
        let (status, answer) = read(request.call().map_err(Box::new)?)?;
        if status != 200 {
            return Err(refused(path, status, &answer));
        }
        let items = answer["data"].as_array().cloned().unwrap_or_default();
        Ok(items.into_iter().find(|item| item[key] == value))
    }

    fn post(&self, path: &str) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        self.agent.post(format!("{}{path}", self.url)).header("Authorization", &self.authorization)
    }
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<(u64, Value), DemoError> {
    let status = u64::from(response.status().as_u16());
    let body = response.body_mut().with_config().limit(64 << 20).read_json().map_err(Box::new)?;
    Ok((status, body))
}

fn refused(what: &str, status: u64, answer: &Value) -> DemoError {
    DemoError::Refused { what: what.to_owned(), status, text: answer.to_string().chars().take(400).collect() }
}
