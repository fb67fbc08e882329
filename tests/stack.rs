//! `docker compose up`, as far as it can be told without Docker: every file that is mounted is there, versions are
//! pinned, secrets come from outside, and what the services call each other is what they are called.

mod support;

use std::{path::Path, process::Command};

use serde_yaml_ng::Value;

const SERVICES: [&str; 4] = ["clickhouse", "tally", "prometheus", "grafana"];

#[test]
fn every_service_is_pinned_comes_back_and_has_its_files() {
    let compose = yaml("docker-compose.yml");
    let services = compose["services"].as_mapping().expect("services");
    assert_eq!(services.keys().map(text).collect::<Vec<_>>(), SERVICES);
    for (name, service) in services {
        let name = text(name);
        let (_, version) = text(&service["image"]).rsplit_once(':').expect("an image with its version");
        assert!(version != "latest" && version.contains('.'), "{name}: {version}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        // tally's is in the Dockerfile.
        assert!(name == "tally" || service["healthcheck"]["test"].is_sequence(), "{name}");
        for volume in service["volumes"].as_sequence().expect("volumes") {
            let source = text(volume).split(':').next().expect("a source");
            if source.starts_with('.') {
                assert!(root().join(source).exists(), "{name} mounts {source}");
                assert!(text(volume).ends_with(":ro"), "{name} may write {source}");
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name}: {source} is not declared");
            }
        }
        for other in service["depends_on"].as_sequence().into_iter().flatten() {
            assert!(SERVICES.contains(&text(other)), "{name} depends on {}", text(other));
        }
    }
}

/// Docker's own reading of the file, where its compose plugin is installed; it needs no daemon.
#[test]
fn docker_compose_understands_the_file() {
    let compose = |arguments: &[&str]| {
        Command::new("docker").arg("compose").args(arguments).current_dir(root()).output()
    };
    if !compose(&["version"]).is_ok_and(|output| output.status.success()) {
        eprintln!("docker compose is not installed: its reading of docker-compose.yml was not checked");
        return;
    }
    let output = compose(&["--env-file", "docker/test.env", "config", "--quiet"]).expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn secrets_come_from_outside() {
    let compose = yaml("docker-compose.yml");
    let example = read(".env.example");
    let mut asked = 0;
    for (_, service) in compose["services"].as_mapping().expect("services") {
        for (name, value) in service["environment"].as_mapping().into_iter().flatten() {
            let (name, value) = (text(name), text(value));
            if name.contains("PASSWORD") || name.contains("URL") && value.contains('@') {
                let variable = value.split("${").nth(1).and_then(|rest| rest.split(":?").next());
                let variable = variable.unwrap_or_else(|| panic!("{name} holds its secret"));
                assert!(example.contains(&format!("{variable}=\n")), "{variable} is not in .env.example");
                asked += 1;
            }
        }
    }
    assert_eq!(asked, 5);
    assert!(read(".gitignore").lines().any(|line| line == ".env"));
}

#[test]
fn services_call_each_other_by_their_names() {
    let compose = yaml("docker-compose.yml");
    let services = &compose["services"];
    assert!(text(&services["tally"]["environment"]["TALLY_CLICKHOUSE_URL"]).contains("@clickhouse:8123/"));
    let grafana = &services["grafana"]["environment"];
    assert_eq!(text(&grafana["TALLY_READER_HOST"]), "clickhouse");
    assert_eq!(text(&grafana["TALLY_PROMETHEUS_URL"]), "http://prometheus:9090");
    assert_eq!(
        text(&yaml("prometheus/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"][0]),
        "tally:8081"
    );
    // What provisioning asks of the environment is given.
    let sources = read("grafana/provisioning/datasources/tally.yml");
    for variable in sources.split("${").skip(1) {
        let name = variable.split('}').next().expect("a name");
        assert!(grafana.get(name).is_some(), "Grafana gets no {name}");
    }
    let path = &yaml("grafana/provisioning/dashboards/tally.yml")["providers"][0]["options"]["path"];
    let mounts = services["grafana"]["volumes"].as_sequence().expect("volumes");
    assert!(mounts.iter().any(|it| text(it) == format!("./grafana/dashboards:{}:ro", text(path))));
}

/// The dashboards were written for that version of the plugin, and it is there before it is provisioned for.
#[test]
fn the_plugin_is_the_one_that_the_dashboards_were_written_for() {
    let plugin =
        &yaml("docker-compose.yml")["services"]["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_SYNC"];
    let (id, version) = text(plugin).split_once('@').expect("a plugin with its version");
    assert!(read("grafana/provisioning/datasources/tally.yml").contains(&format!("type: {id}\n")));
    for (file, dashboard) in support::grafana::dashboards() {
        for target in support::grafana::panels(&dashboard).flat_map(support::grafana::targets) {
            let written_for = &target["pluginVersion"];
            assert!(target["rawSql"].is_null() || written_for == version, "{file}: {written_for}");
        }
    }
}

/// What the reader of a server may see is what that of the embedded engine may see.
#[test]
fn the_reader_is_granted_the_same_everywhere() {
    let users = read("docker/clickhouse/users.xml");
    for grant in tally::embedded::EmbeddedConfig::new("x").reader_grants {
        assert!(users.contains(&format!("<query>{grant}</query>")), "{grant}");
    }
}

#[test]
fn the_image_runs_as_nobody_special_and_says_how_it_is() {
    let dockerfile = read("Dockerfile");
    let of = |name: &str| dockerfile.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(of("FROM ").len(), 2, "built in one image, run in another");
    assert_eq!(of("USER "), ["USER tally"]);
    assert!(dockerfile.contains("HEALTHCHECK") && dockerfile.contains("http://127.0.0.1:8081/readyz"));
    assert_eq!(of("ENTRYPOINT "), [r#"ENTRYPOINT ["tally"]"#]);
    let toolchain = read("rust-toolchain.toml");
    let version = of("FROM rust:")[0].trim_start_matches("FROM rust:").split('-').next().expect("a version");
    assert!(toolchain.contains(version), "the image's Rust is not {toolchain}");
}

fn yaml(path: &str) -> Value {
    let mut value: Value =
        serde_yaml_ng::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    value.apply_merge().unwrap_or_else(|error| panic!("{path}: {error}"));
    value
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text, not {value:?}"))
}
