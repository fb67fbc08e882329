//! What the running daemon says: the terms in its metrics, held against the data folder.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Books, Check};
use crate::{
    core::{Kind, PerKind},
    shipper::Terms,
};

/// How long a daemon may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// More is not an exposition of ours.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Where a daemon's operations listener is: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpsAddress(String);

/// The text is not the address of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the address of an operations listener: expected http://HOST:PORT")]
pub struct OpsAddressError(String);

impl OpsAddress {
    /// Reads `http://host:port`, with or without a path.
    pub fn parse(url: &str) -> Result<Self, OpsAddressError> {
        let wrong = || OpsAddressError(url.to_owned());
        let authority = url.strip_prefix("http://").ok_or_else(wrong)?.split('/').next().unwrap_or_default();
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let fits = !host.is_empty() && !host.contains(['@', ' ', '\r', '\n']) && port.parse::<u16>().is_ok();
        if fits { Ok(Self(authority.to_owned())) } else { Err(wrong()) }
    }
}

impl From<std::net::SocketAddr> for OpsAddress {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(address.to_string())
    }
}

/// What came of asking the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonSays {
    /// No daemon runs on the folder.
    NotRunning,
    /// Nobody answers where its metrics should be.
    Nothing(String),
    /// Its terms against those of the folder.
    Terms(Vec<Check>),
}

impl DaemonSays {
    /// Compares metrics with the folder as it was before and after they were asked for: what grows lies between, and is
    /// equal where nothing moved.
    pub(super) fn new(metrics: Result<PerKind<Terms>, String>, before: &Books, after: &Books) -> Self {
        let metrics = match metrics {
            Ok(metrics) => metrics,
            Err(reason) => return Self::Nothing(reason),
        };
        let mut checks = Vec::new();
        for kind in Kind::ALL {
            let (first, last, says) = (before.terms(kind), after.terms(kind), metrics[kind]);
            let mut between = |what: &str, first: u64, last: u64, found: u64| {
                let there = (first.min(last)..=first.max(last)).contains(&found);
                let expected = if there { found } else { last };
                checks.push(Check {
                    what: format!("metrics: {kind}s {what}", kind = kind.as_str()),
                    expected,
                    found,
                });
            };
            between("accepted", first.accepted, last.accepted, says.accepted);
            between("inserted", first.inserted, last.inserted, says.inserted);
            between("duplicate", first.duplicate, last.duplicate, says.duplicate);
            between("dead-lettered", first.dead_lettered, last.dead_lettered, says.dead_lettered);
            if first == last {
                between("pending", first.pending, last.pending, says.pending);
            }
        }
        Self::Terms(checks)
    }

    /// Whether there is nothing to look at again.
    pub(super) fn holds(&self) -> bool {
        match self {
            Self::Terms(checks) => checks.iter().all(Check::holds),
            Self::NotRunning | Self::Nothing(_) => true,
        }
    }
}

/// Asks for the metrics. The error says why there are none.
pub(super) async fn metrics(ops: &OpsAddress) -> Result<PerKind<Terms>, String> {
    match tokio::time::timeout(ANSWER_WITHIN, fetch(ops)).await {
        Ok(Ok(text)) => terms(&text).ok_or_else(|| format!("{} does not tell a tally's metrics", ops.0)),
        Ok(Err(error)) => Err(format!("{}: {error}", ops.0)),
        Err(_) => Err(format!("{} did not answer within {} seconds", ops.0, ANSWER_WITHIN.as_secs())),
    }
}

async fn fetch(ops: &OpsAddress) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(&ops.0).await?;
    // The old version: the answer ends with the connection, and comes in one piece.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", ops.0);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The terms in an exposition; none unless all of them are there.
fn terms(text: &str) -> Option<PerKind<Terms>> {
    let mut terms = PerKind::default();
    for kind in Kind::ALL {
        let value = |name: &str| {
            let series = format!("{name}{{kind=\"{}\"}} ", kind.as_str());
            let value = text.lines().find_map(|line| line.strip_prefix(&series))?;
            // A gauge may be written as a float; all of these are whole.
            value.trim().split('.').next()?.parse().ok()
        };
        terms[kind] = Terms {
            accepted: value("tally_hits_accepted_total")?,
            inserted: value("tally_hits_inserted_total")?,
            duplicate: value("tally_hits_duplicate_total")?,
            dead_lettered: value("tally_hits_dead_lettered")?,
            pending: value("tally_hits_pending")?,
        };
    }
    Some(terms)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::shipper::Checkpoint;

    fn books(accepted: u64, inserted: u64) -> Books {
        let mut checkpoint = Checkpoint::NEW;
        checkpoint.totals.kinds[Kind::Click].accepted = inserted;
        checkpoint.totals.kinds[Kind::Click].inserted = inserted;
        let mut pending = PerKind::default();
        pending[Kind::Click] = accepted - inserted;
        Books { checkpoint, pending, cuts: Vec::new(), dead_letters: 0, set_aside: Vec::new() }
    }

    fn metrics(accepted: u64, inserted: u64) -> PerKind<Terms> {
        let mut terms = PerKind::default();
        terms[Kind::Click] = Terms { accepted, inserted, pending: accepted - inserted, ..Terms::default() };
        terms
    }

    #[test]
    fn what_moves_lies_between_and_what_does_not_is_equal() {
        let says = |metrics, before, after| DaemonSays::new(metrics, &before, &after).holds();
        assert!(says(Ok(metrics(10, 8)), books(10, 8), books(10, 8)));
        assert!(!says(Ok(metrics(11, 8)), books(10, 8), books(10, 8)), "a quiet daemon agrees");
        assert!(!says(Ok(metrics(9, 7)), books(10, 8), books(10, 8)));
        assert!(says(Ok(metrics(15, 9)), books(10, 8), books(20, 10)));
        assert!(!says(Ok(metrics(21, 9)), books(10, 8), books(20, 10)));
        assert!(says(Err("nobody".into()), books(1, 1), books(1, 1)));
    }

    #[test]
    fn the_exposition_is_read() {
        let mut text = String::from("# HELP x\ntally_hits_pending_other 3\n");
        assert_eq!(terms(&text), None);
        for (n, kind) in Kind::ALL.iter().enumerate() {
            for name in ["accepted_total", "inserted_total", "duplicate_total", "dead_lettered", "pending"] {
                let _ = writeln!(text, "tally_hits_{name}{{kind=\"{}\"}} {n}", kind.as_str());
            }
        }
        let read = terms(&text).expect("all there");
        assert_eq!(read.0.map(|terms| terms.pending), [0, 1, 2]);
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(
            OpsAddress::parse("http://127.0.0.1:8081/metrics"),
            Ok(OpsAddress("127.0.0.1:8081".into()))
        );
        assert_eq!(OpsAddress::parse("http://[::1]:8081"), Ok(OpsAddress("[::1]:8081".into())));
        for wrong in
            ["", "127.0.0.1:8081", "https://x:1", "http://x", "http://:1", "http://x:99999", "http://a b:1"]
        {
            assert!(OpsAddress::parse(wrong).is_err(), "{wrong}");
        }
    }
}
