//! The other subcommands, run on a site's folder; and requests with its key.

use std::process::{Command, Output};

use serde_json::Value;

use super::daemon::Site;
use super::http::{Answer, agent, read};

/// Runs `tally` with these arguments on the site's folder.
pub fn tally(site: &Site, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tally"))
        .args(arguments)
        .arg("--data-dir")
        .arg(site.data_dir())
        .output()
        .expect("it runs")
}

/// The same; it succeeds and prints JSON.
pub fn tally_json(site: &Site, arguments: &[&str]) -> Value {
    let output = tally(site, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tally {arguments:?}: {}\n{said}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// POSTs JSON with the first key, and perhaps an `Idempotency-Key`.
pub fn post(site: &Site, path: &str, body: &Value, idempotency_key: Option<&str>) -> Answer {
    let key = loadtest::daemon::api_key(site.data_dir()).expect("a key");
    let url = format!("http://{}{path}", site.daemon.options.listen);
    let mut request = agent().post(url).header("Authorization", format!("Bearer {key}"));
    if let Some(idempotency_key) = idempotency_key {
        request = request.header("Idempotency-Key", idempotency_key);
    }
    read(request.send_json(body).expect("an answer")).expect("a body")
}

/// The data of an answer, with its status.
pub fn data(answer: &Answer) -> (u16, Value) {
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()));
    (answer.status, json["data"].clone())
}

/// Waits until that many clicks of the last thirty days are in the statistics, and all conversions settled.
pub fn wait_shipped(site: &Site, clicks: u64) {
    let key = loadtest::daemon::api_key(site.data_dir()).expect("a key");
    let url = format!("http://{}/api/v1/analytics/conversions?days=30", site.daemon.options.listen);
    super::wait_for("the clicks", || {
        // On a new folder there may be no tables yet.
        let answer = agent().get(&url).header("Authorization", format!("Bearer {key}")).call().and_then(read);
        answer.is_ok_and(|answer| answer.status == 200 && data(&answer).1["clicks"] == clicks)
    });
    site.wait_settled();
}
