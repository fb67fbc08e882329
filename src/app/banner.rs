//! What a person at the terminal is told when the daemon is up: where to go, and what to type first.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use crate::{catalog::KEY_FILE_NAME, secret::Secret};

/// The greeting. The first key is shown once, by whoever made it; here only its file is named.
pub(super) fn banner(public: SocketAddr, ops: SocketAddr, data_dir: &Path, embedded: bool) -> String {
    let base = format!("http://{}", reachable(public));
    let key = data_dir.join(KEY_FILE_NAME);
    let key = key.display();
    let mut text = format!(
        "\ntally takes hits on http://{public}\n\n\
         A goal:     curl {base}/api/v1/conversions/goals -H \"Authorization: Bearer $(cat {key})\" \\\n\
         \x20             -d '{{\"goal\":{{\"name\":\"First sale\",\"goal_type\":\"purchase\",\"value\":99.00,\"currency\":\"USD\"}}}}'\n\
         A hit:      curl {base}/api/conversions/track/TOKEN -d '{{\"value\":99.99,\"order_id\":\"ORDER-1\"}}'\n\
         Numbers:    curl \"{base}/api/v1/analytics/conversions?days=30\" -H \"Authorization: Bearer $(cat {key})\"\n\n\
         Health:     http://{ops}/readyz\nMetrics:    http://{ops}/metrics\n"
    );
    if embedded {
        let url = data_dir.join("reader.url");
        // Writing to a String has no error.
        let _ = writeln!(text, "ClickHouse: read-only, at the address in {}", url.display());
    }
    text
}

/// A key that was made just now. Only a terminal is shown the key itself: whatever else takes the output keeps it.
pub(super) fn key(key: &Secret, path: &Path, is_terminal: bool) -> String {
    let path = path.display();
    if is_terminal {
        format!("The first API key (it is also in {path}):\n{}", key.expose())
    } else {
        format!("The first API key is in {path}.")
    }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port()))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_is_shown_a_key() {
        let text = |is_terminal| key(&Secret::new("tally_1_x"), Path::new("./data/api-key"), is_terminal);
        assert!(text(true).contains("tally_1_x") && text(true).contains("./data/api-key"));
        assert!(!text(false).contains("tally_1_x") && text(false).contains("./data/api-key"));
    }

    #[test]
    fn the_lines_can_be_typed() {
        let any = SocketAddr::from(([0, 0, 0, 0], 8080));
        let text = banner(any, SocketAddr::from(([127, 0, 0, 1], 8081)), Path::new("./data"), true);
        assert!(text.contains("tally takes hits on http://0.0.0.0:8080"));
        assert!(text.contains("curl http://127.0.0.1:8080/api/conversions/track/TOKEN"), "{text}");
        assert!(text.contains("$(cat ./data/api-key)"));
    }
}
