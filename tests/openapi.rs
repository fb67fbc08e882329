//! The API's description against a daemon with its engine: schemathesis makes requests that it allows and some that it
//! forbids, and holds every answer to it. `scripts/test-tools.sh` gets schemathesis and the validator.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use loadtest::daemon::api_key;
use serde_json::{Value, json};
use support::daemon::Site;
use support::http::{agent, read};
use support::wait_for;

/// Requests an operation in the fuzzing phase; `make test-openapi-long` makes more.
const EXAMPLES: &str = "12";
const SEED: &str = "4";

#[test]
fn the_daemon_does_what_its_description_says() {
    let site = Site::start(&["--postback-allow", "127.0.0.0/8"]);
    let url = format!("http://{}", site.daemon.options.listen);
    let key = api_key(site.data_dir()).expect("a key");
    let made = |path: &str, body: &Value| -> Value {
        let request = agent().post(format!("{url}{path}")).header("Authorization", format!("Bearer {key}"));
        let answer = read(request.send_json(body).expect("an answer")).expect("a body");
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
        serde_json::from_slice::<Value>(&answer.body).expect("JSON")["data"].take()
    };
    // Of goals and links, the first are there to be changed and deleted.
    let hook = made(
        "/api/v1/conversions/goals",
        &json!({"goal": {"name": "Told", "postback_url": "https://127.0.0.1:1/hook"}}),
    );
    let goal = made("/api/v1/conversions/goals", &json!({"goal": {"name": "Kept"}}));
    made("/api/v1/accounts", &json!({"account": {"name": "Other"}}));
    let link = json!({"link": {"name": "Changed", "destination_url": "https://shop.example/"}});
    made("/api/v1/links", &link);
    let link = json!({"link": {"name": "Kept", "slug": "kept", "destination_url": "https://shop.example/?cid={click_id}"}});
    let link = made("/api/v1/links", &link);
    let hit = |goal: &Value, order_id: &str| {
        let token = &goal["postback_token"];
        let hit =
            json!({"postback_token": token, "value": "99.99", "order_id": order_id, "ip": "203.0.113.7"});
        made("/api/v1/conversions/track", &hit)
    };
    let conversion = hit(&goal, "KEPT");
    hit(&hook, "TOLD");
    site.wait_settled();
    // The database's tables may still be on their way.
    let delivery = || {
        let url = format!("{url}/api/v1/postbacks/deliveries");
        let request = agent().get(url).header("Authorization", format!("Bearer {key}"));
        let answer = read(request.call().expect("an answer")).expect("a body");
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer["data"][0]["id"].as_str().map(str::to_owned)
    };
    wait_for("an attempt to tell", || delivery().is_some());

    let document = site.data_dir().join("openapi.json");
    let served = read(agent().get(format!("{url}/openapi.json")).call().expect("an answer")).expect("a body");
    std::fs::write(&document, &served.body).expect("written");
    succeeds(Command::new(".venv/bin/python").args(["-m", "openapi_spec_validator"]).arg(&document));

    let examples = std::env::var("TALLY_OPENAPI_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    succeeds(
        Command::new(".venv/bin/schemathesis")
            .args([
                "--config-file",
                "tests/clients/openapi/schemathesis.toml",
                "run",
                &format!("{url}/openapi.json"),
            ])
            .args(["--max-examples", &examples, "--seed", SEED, "--no-color", "--continue-on-failure"])
            .args(["--header", &format!("Authorization: Bearer {key}")])
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", "tests/clients/openapi")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TALLY_TOKEN", text(&goal["postback_token"]))
            .env("TALLY_GOAL_ID", goal["id"].to_string())
            .env("TALLY_LINK_ID", link["id"].to_string())
            .env("TALLY_CONVERSION_ID", text(&conversion["conversion_id"]))
            .env("TALLY_DELIVERY_ID", delivery().expect("an id")),
    );
    // Nothing that was sent has hurt it: it counts, and its books are right.
    hit(&goal, "AFTER");
    site.wait_settled();
    support::accounts::audit(&site);
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Runs a program of `.venv`.
fn succeeds(command: &mut Command) {
    assert!(
        Path::new(".venv/bin/schemathesis").exists(),
        "schemathesis is missing: run scripts/test-tools.sh"
    );
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    println!("{said}");
    assert!(status.success(), "{command:?}: {status}\n{said}");
}
