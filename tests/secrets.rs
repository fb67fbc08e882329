//! What must stay secret: nothing of it in logs, in metrics or readable by others, and nothing listens that need not.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use loadtest::process::children;
use support::faults::daemon::{Start, Tally, folder};
use support::faults::wait_for;
use support::faults::wire::{ask, request};

#[test]
fn secrets_stay_out_of_logs_and_metrics_and_files_of_others() {
    let folder = folder();
    let data = folder.path().join("data");
    let chatty = Start { flags: &["--log-level", "trace"], ..Start::default() };
    let tally = Tally::start(&data, &chatty);
    let key = tally.api_key();
    let goal = tally.goal();
    wait_for("the engine", || tally.metric("tally_filter_warm") == 1);
    // Each way in, and each way to be refused, with a secret in it.
    let authorization = format!("Bearer {key}");
    let api = |line: &str| ask(tally.public, request(line, &[("Authorization", &authorization)], "")).status;
    assert_eq!(api("GET /api/v1/conversions/goals"), 200);
    wait_for("a report", || api("GET /api/v1/analytics/conversions?days=30") == 200);
    assert_eq!(api("POST /api/v1/conversions/goals"), 400);
    assert_eq!(api(&format!("GET /api/v1/conversions/{key}")), 404);
    let wrong = ask(
        tally.public,
        request("GET /api/v1/conversions/goals", &[("Authorization", "Bearer hunter2")], ""),
    );
    assert_eq!(wrong.status, 401);
    assert_eq!(tally.hit(&goal, r#"{"order_id":"A","value":1}"#).status, 201);
    assert_eq!(tally.hit(&goal, r#"{"value":-1}"#).status, 422);
    let with_key = format!(r#"{{"postback_token":"{}","value":-1}}"#, goal.token);
    let track = request("POST /api/v1/conversions/track", &[("Authorization", &authorization)], with_key);
    assert_eq!(ask(tally.public, track).status, 422);
    // The engine's passwords are used again when it comes back.
    let engine = children(tally.server.pid()).first().copied().expect("an engine");
    kill(engine);
    wait_for("another engine", || tally.metric("tally_engine_restarts_total") >= 1);
    wait_for("the hits", || tally.line("SELECT count() FROM tally.conversions") == "1");

    let mut secrets =
        vec![("api key", key), ("postback token", goal.token.clone()), ("guess", "hunter2".into())];
    for file in ["writer.url", "reader.url"] {
        let url = fs::read_to_string(data.join(file)).expect("a URL");
        let password = url.split(':').nth(2).and_then(|rest| rest.split('@').next()).expect("a password");
        assert!(password.len() >= 16);
        secrets.push((file, password.to_owned()));
    }
    let metrics = String::from_utf8(ask(tally.ops, request("GET /metrics", &[], "")).body).expect("text");
    let log = tally.log();
    assert!(log.contains("TRACE"), "the log says all that it can");
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('{')).collect();
    for (what, secret) in &secrets {
        assert!(!metrics.contains(secret), "the {what} is in the metrics");
        let line = lines.iter().find(|line| line.contains(secret));
        assert!(line.is_none(), "the {what} is in the log: {line:?}");
    }
    assert!(!log.contains(&secrets[0].1), "the greeting shows the key to a terminal, and this is none");
    assert!(log.contains("api-key"), "it says where the key is");
    assert_command_lines_hold_none(&tally, &secrets);
    assert_private(&data);
    assert_listening(&tally);

    assert!(tally.stop().success());
    let tally = Tally::start(&data, &chatty);
    assert!(!tally.log().contains(&secrets[0].1), "and never again");
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

/// Anybody on the machine can read them.
fn assert_command_lines_hold_none(tally: &Tally, secrets: &[(&str, String)]) {
    for pid in children(tally.server.pid()).into_iter().chain([tally.server.pid()]) {
        let line =
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).expect("there")).into_owned();
        assert!(secrets.iter().all(|(_, secret)| !line.contains(secret)), "{line}");
    }
}

fn assert_private(data: &Path) {
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(data), 0o700);
    for file in ["api-key", "reader.url", "writer.url", "secret.key", "catalog.redb"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    let segments = fs::read_dir(data.join("wal")).expect("a folder").flatten();
    for segment in segments {
        assert_eq!(mode(&segment.path()), 0o600, "{}", segment.path().display());
    }
    let text = fs::read_to_string(data.join("api-key")).expect("a key");
    assert!(text.starts_with("tally_1_") && !text.contains(char::is_whitespace), "the key and nothing else");
}

/// The daemon listens where it was told to, the engine on loopback, and that is all.
fn assert_listening(tally: &Tally) {
    let own = listening(tally.server.pid());
    let told = [tally.public, tally.ops].map(|address| address.to_string());
    assert_eq!(own, BTreeSet::from(told));
    for engine in children(tally.server.pid()) {
        let addresses = listening(engine);
        assert!(
            addresses.len() <= 1 && addresses.iter().all(|a| a.starts_with("127.0.0.1:")),
            "{addresses:?}"
        );
    }
}

/// Addresses on which a process listens, from `/proc`.
fn listening(pid: u32) -> BTreeSet<String> {
    let inodes: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("there")
        .flatten()
        .filter_map(|file| {
            let link = fs::read_link(file.path()).ok()?;
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut addresses = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // State 0A is LISTEN.
            if fields[3] != "0A" || !inodes.contains(fields[9]) {
                continue;
            }
            let (host, port) = fields[1].split_once(':').expect("an address");
            let port = u16::from_str_radix(port, 16).expect("a port");
            let host = if host == "0100007F" { "127.0.0.1" } else { host };
            addresses.insert(format!("{host}:{port}"));
        }
    }
    addresses
}
