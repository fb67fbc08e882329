//! A real Prometheus with the stack's own configuration, scraping a running daemon: every expression of the Ingest
//! dashboard, of the alerts and of the rules is evaluated by it, without an error, and has something to show.

mod support;

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
};

use loadtest::request::Goal;
use serde_json::{Value, json};
use support::{
    command::{data, post},
    daemon::{Site, disk_folder},
    grafana::{dashboards, panels, targets},
    hooks::Hooks,
    http::{agent, read},
    metrics::metric_names,
    port::Port,
    wait_for,
};
use tempfile::TempDir;

/// Orders that are in ClickHouse before a restart.
const KNOWN: usize = 400;
/// What stands for the dashboard's intervals: many scrapes, also on a slow machine.
const WINDOW: &str = "30s";
/// What nothing is shown of, and why that is right.
const EMPTY: [(&str, &str); 3] = [
    ("offset 5m", "there is no version before this one"),
    ("offset 1d", "there was no yesterday"),
    ("ALERTS{", "nothing fires"),
];

#[test]
fn every_expression_has_something_to_show() {
    let mut site = Site::start(&["--postback-allow", "127.0.0.0/8"]);
    let said = site.metrics_after_traffic();
    for (place, expression) in expressions() {
        for name in metric_names(&expression) {
            assert!(said.has(&name), "{place} asks for {name}, which is not in\n{}", said.text);
        }
    }
    let prometheus = Prometheus::start(&site);
    let goals = site.goals(1);
    // It answers, so that every hit is an attempt: one that fails is left in peace for longer and longer.
    let endpoint = Hooks::listen(|_, _| (200, String::new()));
    let url = format!("http://{}/", endpoint.address);
    let told = json!({"goal": {"name": "told again", "postback_url": url}});
    let (_, told) = data(&post(&site, "/api/v1/conversions/goals", &told, None));
    let told = Goal {
        id: told["id"].as_u64().expect("a number"),
        token: told["postback_token"].as_str().expect("a token").to_owned(),
    };
    let link = json!({"link": {"name": "n", "slug": "n", "destination_url": "https://shop.example/"}});
    assert_eq!(post(&site, "/api/v1/links", &link, None).status, 201);
    let track = |site: &Site, order: &str| assert!(site.track(&goals[0], order).status < 300);
    (0..KNOWN).for_each(|n| track(&site, &format!("KNOWN-{n}")));
    site.wait_settled();
    wait_for("scrapes before a restart", || prometheus.value("count_over_time(up[1m])") >= 3.0);
    // Memory forgets the orders: whether they are duplicates is asked of ClickHouse.
    site.kill();
    site.restart();
    // Hits, duplicates, refusals and visits all along, until there is a moment at which every window of the expressions
    // has seen enough of them. All is then asked as of that moment, however long the asking takes.
    let public = format!("http://{}", site.daemon.options.listen);
    let refused = format!("{public}/api/conversions/track/{}", goals[0].token);
    let (mut round, mut moment) = (0, 0.0);
    wait_for("scrapes", || {
        round += 1;
        track(&site, &format!("NEW-{round}"));
        track(&site, &format!("KNOWN-{}", round % KNOWN));
        assert!(site.track(&told, &format!("TOLD-{round}")).status < 300);
        let answer = agent().post(&refused).send_json(json!({"value": -1})).and_then(read);
        assert_eq!(answer.expect("an answer").status, 422);
        let visit = agent().get(format!("{public}/r/n")).config().max_redirects(0).build().call();
        assert_eq!(visit.and_then(read).expect("an answer").status, 302);
        moment = prometheus.value("time()");
        prometheus.value_at("count_over_time(up{job=\"tally\"}[25s])", moment) >= 6.0
            && prometheus.value_at("max(tally_parts_max)", moment) > 0.0
            && ["insert_seconds", "lookup_query_seconds", "postback_attempt_seconds", "ack_seconds"]
                .iter()
                .all(|of| {
                    prometheus.value_at(&format!("sum(increase(tally_{of}_count[{WINDOW}]))"), moment) > 0.0
                })
    });
    assert!((prometheus.value_at("min(up)", moment) - 1.0).abs() < f64::EPSILON);

    let mut failed = Vec::new();
    for (place, expression) in expressions() {
        let expression = expression
            .replace("$__rate_interval", WINDOW)
            .replace("$__range", WINDOW)
            .replace("${instance}", ".+")
            .replace("$instance", ".+");
        match prometheus.ask_at(&expression, Some(moment)) {
            Err(error) => failed.push(format!("{place}: {error}: {expression}")),
            Ok(found) if found.is_empty() && EMPTY.iter().all(|(part, _)| !expression.contains(part)) => {
                failed.push(format!("{place} shows nothing: {expression}"));
            }
            Ok(_) => {}
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    prometheus.rules_are_sound();
}

/// Those of panels and annotations: where, and what.
fn expressions() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in targets(panel).iter().filter(|target| target["expr"].is_string()) {
                let place = format!("{file}: {}: {}", text(&panel["title"]), text(&target["refId"]));
                found.insert(place, text(&target["expr"]));
            }
        }
        for annotation in dashboard["annotations"]["list"].as_array().expect("a list") {
            if annotation["expr"].is_string() {
                found.insert(format!("{file}: {}", text(&annotation["name"])), text(&annotation["expr"]));
            }
        }
    }
    assert!(found.len() > 50, "{}", found.len());
    found
}

/// Debian's, on a folder and a port of its own.
struct Prometheus {
    child: Child,
    port: Port,
    _folder: TempDir,
}

impl Prometheus {
    /// With `prometheus/prometheus.yml` and its rules, but for the address of the daemon and the pace.
    fn start(site: &Site) -> Self {
        let folder = disk_folder();
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus");
        let own = std::fs::read_to_string(here.join("prometheus.yml")).expect("readable");
        let ours = own
            .replace("15s", "1s")
            .replace("tally:8081", &site.daemon.options.ops_listen.to_string())
            .replace("- alerts.yml", &format!("- {}", here.join("alerts.yml").display()));
        assert_eq!(ours.matches("1s").count(), 2, "the pace is the test's");
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, ours).expect("written");
        let port = Port::reserve();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .expect("prometheus: run `make test-tools`");
        let it = Self { child, port, _folder: folder };
        wait_for("Prometheus", || it.get("/-/ready").is_some());
        it
    }

    /// The samples of a query that are numbers, as of now or of a moment.
    fn ask_at(&self, expression: &str, moment: Option<f64>) -> Result<Vec<f64>, String> {
        let query: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let at = moment.map_or_else(String::new, |moment| format!("&time={moment}"));
        let answer = self.get(&format!("/api/v1/query?query={query}{at}")).ok_or("no answer")?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let samples = match &answer["data"] {
            data if data["resultType"] == "scalar" => vec![json!({"value": data["result"]})],
            data => data["result"].as_array().expect("a vector").clone(),
        };
        let values = samples.iter().map(|it| it["value"][1].as_str().expect("text").parse::<f64>());
        Ok(values.map(|it| it.expect("a number")).filter(|value| !value.is_nan()).collect())
    }

    /// One number; none is 0.
    fn value(&self, expression: &str) -> f64 {
        self.ask_at(expression, None).expect("an answer").first().copied().unwrap_or(0.0)
    }

    /// The same as of a moment.
    fn value_at(&self, expression: &str, moment: f64) -> f64 {
        self.ask_at(expression, Some(moment)).expect("an answer").first().copied().unwrap_or(0.0)
    }

    /// Every rule was evaluated on the daemon's own metrics, none failed, and no alert fires.
    fn rules_are_sound(&self) {
        let mut rules = Vec::new();
        wait_for("the rules", || {
            let answer = self.get("/api/v1/rules").expect("rules");
            let groups = answer["data"]["groups"].as_array().expect("groups").clone();
            rules =
                groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect();
            rules.iter().all(|rule| rule["health"] != "unknown")
        });
        assert!(rules.len() > 20, "{}", rules.len());
        for rule in rules {
            assert_eq!(rule["health"], "ok", "{rule}");
            assert!(rule["state"].is_null() || rule["state"] != "firing", "{rule}");
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let url = format!("http://{}{path}", self.port.address());
        let answer = agent().get(url).call().and_then(read).ok()?;
        if path == "/-/ready" {
            return (answer.status == 200).then_some(Value::Null);
        }
        serde_json::from_slice(&answer.body).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
