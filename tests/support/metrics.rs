//! What the daemon says of itself, and what others ask it for.

use std::collections::BTreeSet;

use loadtest::request::Goal;
use serde_json::json;

use super::command::{data, post};
use super::daemon::Site;
use super::http::{agent, read};
use super::wait_for;

/// An exposition.
pub struct Exposition {
    pub text: String,
}

impl Exposition {
    /// Whether there is a sample of that name.
    pub fn has(&self, name: &str) -> bool {
        let is_it = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        self.text.lines().any(is_it)
    }
}

impl Site {
    /// What it says after a hit, a restart, a duplicate, a refusal and another hit, once ClickHouse has what there is and
    /// somebody who does not answer was to be told. Needs `--postback-allow 127.0.0.0/8`.
    pub fn metrics_after_traffic(&mut self) -> Exposition {
        let goal = json!({"goal": {"name": "told", "postback_url": "http://127.0.0.1:9/"}});
        let (status, made) = data(&post(self, "/api/v1/conversions/goals", &goal, None));
        assert_eq!(status, 201, "{made}");
        let token = made["postback_token"].as_str().expect("a token").to_owned();
        let goal = &Goal { id: made["id"].as_u64().expect("a number"), token };
        assert_eq!(self.track(goal, "ORDER-1").status, 201);
        self.wait_inserted(1);
        // Memory has forgotten it: whether it is a duplicate is asked of ClickHouse.
        self.kill();
        self.restart();
        wait_for("an answer to a duplicate", || self.track(goal, "ORDER-1").status == 200);
        let url = format!("http://{}/api/conversions/track/{}", self.daemon.options.listen, goal.token);
        let refused = agent().post(url).send_json(json!({"value": -1})).expect("an answer");
        assert_eq!(read(refused).expect("a body").status, 422);
        self.wait_warm();
        assert_eq!(self.track(goal, "ORDER-2").status, 201);
        self.wait_inserted(2);
        let said = || Exposition { text: self.ops("/metrics").expect("an answer").text() };
        wait_for("the number of parts, and an attempt to tell", || {
            ["tally_parts_max", "tally_postback_attempt_seconds_bucket"].iter().all(|name| said().has(name))
        });
        said()
    }
}

/// The metrics of ours and of the process that an expression names; not those that rules record.
pub fn metric_names(expression: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let ours =
        |name: &&str| (name.starts_with("tally_") || name.starts_with("process_")) && !name.contains(':');
    expression.split(|c| !word(c)).filter(ours).map(str::to_owned).collect()
}
