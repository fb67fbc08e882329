//! Headless Chromium, driven as `WebDriver` (a few JSON calls over HTTP) wants it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::TOOLS;
use crate::support::http::{agent, read};

const CHROMIUM: &str = "/usr/bin/chromium";
/// A browser that looks like a visitor's: headless ones call themselves so, and are taken for robots.
pub const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36";
/// Nothing but the pages of the test: no sandbox (tests run as root in containers), no background traffic.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--disable-search-engine-choice-screen",
    "--metrics-recording-only",
];

/// A browser with a profile of its own, ended with its driver when it is dropped.
pub struct Browser {
    driver: Child,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error}; {TOOLS}"));
        let mut said = BufReader::new(driver.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let port: u16 = said
            .find_map(|line| {
                line.split_once("on port ")?.1.trim_end_matches('.').parse().ok().filter(|port| *port > 0)
            })
            .unwrap_or_else(|| panic!("chromedriver named no port; {TOOLS}"));
        // Or it would block on a full pipe one day.
        std::thread::spawn(move || said.for_each(drop));

        let mut arguments: Vec<String> = FLAGS.map(str::to_owned).into();
        arguments.push(format!("--user-agent={USER_AGENT}"));
        arguments.push(format!("--user-data-dir={}", profile.path().join("profile").display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let sessions = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, session: sessions, _profile: profile };
        let created = browser.call("", &wanted);
        let id = created["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.call("/url", &json!({"url": url}));
    }

    /// What an expression on the page gives.
    pub fn evaluate(&self, expression: &str) -> Value {
        self.call("/execute/sync", &json!({"script": format!("return {expression}"), "args": []}))
    }

    /// What the pages said on the console since the last time, errors among it.
    pub fn console(&self) -> String {
        let entries = self.call("/se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().expect("a list").iter();
        let lines: Vec<_> = entries.map(|entry| format!("{} {}", entry["level"], entry["message"])).collect();
        lines.join("\n")
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let request = agent().post(format!("{}{path}", self.session)).send_json(body);
        let answer = read(request.expect("chromedriver answers")).expect("a body");
        assert_eq!(answer.status, 200, "WebDriver {path}: {}; {TOOLS}", answer.text());
        let mut answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with the session; without one there is nothing to end. Then the driver itself.
        let _ = agent().delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
