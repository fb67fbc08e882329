//! A receiver of postbacks: what came, byte for byte, and answers as a real one gives them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// How long an answer takes, so that some are on their way at any moment.
const TAKES: Duration = Duration::from_millis(5);

/// A postback as it came.
#[derive(Clone, Debug)]
pub struct Hook {
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// What it was answered with.
    pub status: u16,
}

impl Hook {
    pub fn name(&self) -> &str {
        self.headers.get("webhook-id").map(String::as_str).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The conversion that it tells of; none: it is a sample.
    pub fn conversion(&self) -> Option<String> {
        let json = self.json();
        (json["event"] == "conversion.tracked")
            .then(|| json["conversion_id"].as_str().expect("an id").to_owned())
    }
}

/// Given what came before, and what comes: a status and a body.
type Script = dyn Fn(&[Hook], &Hook) -> (u16, String) + Send + Sync;

/// A listening receiver, until the process ends.
pub struct Hooks {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Hook>>>,
}

impl Hooks {
    pub fn listen(script: impl Fn(&[Hook], &Hook) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let heard = Arc::<Mutex<Vec<Hook>>>::default();
        let (kept, script): (_, Arc<Script>) = (heard.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, script) = (kept.clone(), script.clone());
                // An end of the connection is none of the test's business: the daemon may have been killed.
                std::thread::spawn(move || while hear(&stream, &kept, &*script).is_some() {});
            }
        });
        Self { address, heard }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// All that came.
    pub fn heard(&self) -> Vec<Hook> {
        self.heard.lock().expect("whole").clone()
    }

    /// Conversions that were told of and answered with 2xx, by `webhook-id`.
    pub fn told(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut told: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for hook in self.heard().iter().filter(|hook| hook.status < 300) {
            if let Some(conversion) = hook.conversion() {
                told.entry(hook.name().to_owned()).or_default().insert(conversion);
            }
        }
        told
    }

    /// How many postbacks of conversions came, copies among them.
    pub fn copies(&self) -> usize {
        self.heard().iter().filter(|hook| hook.conversion().is_some()).count()
    }
}

fn hear(stream: &TcpStream, heard: &Mutex<Vec<Hook>>, script: &Script) -> Option<()> {
    // One request is read to its end before the next is sent: nothing is left in the buffer.
    let mut reader = BufReader::new(stream);
    let (mut headers, mut first) = (BTreeMap::new(), true);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            _ if std::mem::take(&mut first) => {}
            Some((name, value)) => drop(headers.insert(name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut hook = Hook { headers, body: String::from_utf8(body).ok()?, status: 0 };
    let answer;
    {
        let mut heard = heard.lock().ok()?;
        (hook.status, answer) = script(&heard, &hook);
        heard.push(hook.clone());
    }
    std::thread::sleep(TAKES);
    let answer = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n\r\n{answer}", hook.status, answer.len());
    (&mut &*stream).write_all(answer.as_bytes()).ok()
}
