//! A proxy in front of ClickHouse that fails on purpose, driven by code.
//!
//! One request a connection, bodies forwarded as they come. [`Proxy::set`] changes what happens to the requests that
//! begin from then on; [`Proxy::set_times`] for that many inserts only.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it is passed on.
    Pass,
    /// The connection is closed before anything is read.
    Refuse,
    /// Read, and never answered.
    Hang,
    /// Answered `500` without a code, without being passed on.
    Error500,
    /// Answered as ClickHouse answers too many parts, without being passed on.
    TooManyParts,
    /// Passed on and done, but never answered.
    CommitThenHang,
    /// Passed on and done, and the connection reset instead of the answer.
    CommitThenReset,
    /// Refused as bad data (code 469), without being passed on, if the body holds these bytes; else passed on.
    RejectRowsWith(Vec<u8>),
    /// A query in that format is answered with these bytes, and then with an exception in place of the rest.
    ExceptionAfter { format: &'static str, head: &'static [u8] },
}

/// A running proxy. Dropped, it takes no more connections.
pub struct Proxy {
    url: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    upstream: String,
    /// What happens, and for how many more inserts.
    fault: Mutex<(Fault, Option<u64>)>,
    inserts: AtomicU64,
    failed: AtomicU64,
}

impl Proxy {
    /// In front of `http://host:port`, on a port of its own. Runs in the current runtime.
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let upstream = upstream.strip_prefix("http://").expect("http").trim_end_matches('/').to_owned();
        let state = Arc::new(State {
            upstream,
            fault: Mutex::new((Fault::Pass, None)),
            inserts: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // A broken connection is what this is for.
                    let _ = serve(client, &shared).await;
                });
            }
        });
        Self { url, state, task }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on, this happens to every request (`Refuse`, `Hang`) or every insert (all others).
    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().expect("lock") = (fault, None);
    }

    /// This happens to the next `times` inserts.
    pub fn set_times(&self, fault: Fault, times: u64) {
        *self.state.fault.lock().expect("lock") = (fault, Some(times));
    }

    /// Inserts seen.
    pub fn inserts(&self) -> u64 {
        self.state.inserts.load(Ordering::SeqCst)
    }

    /// Requests that were made to fail.
    pub fn failed(&self) -> u64 {
        self.state.failed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn fault_for(&self, is_insert: bool) -> Fault {
        let mut fault = self.fault.lock().expect("lock");
        let for_all = matches!(fault.0, Fault::Refuse | Fault::Hang | Fault::ExceptionAfter { .. });
        if !(is_insert || for_all && fault.1.is_none()) {
            return Fault::Pass;
        }
        let now = fault.0.clone();
        if let Some(left) = &mut fault.1 {
            *left = left.saturating_sub(1);
            if *left == 0 {
                *fault = (Fault::Pass, None);
            }
        }
        now
    }
}

async fn serve(mut client: TcpStream, state: &State) -> std::io::Result<()> {
    let (head, mut body) = read_head(&mut client).await?;
    let first_line = head.lines().next().unwrap_or_default().to_owned();
    let is_insert = first_line.contains("query=INSERT");
    if is_insert {
        state.inserts.fetch_add(1, Ordering::SeqCst);
    }
    let fault = state.fault_for(is_insert);
    if fault != Fault::Pass && !matches!(fault, Fault::RejectRowsWith(_)) {
        state.failed.fetch_add(1, Ordering::SeqCst);
    }
    if fault == Fault::Refuse {
        return reset(client);
    }
    read_body(&mut client, &head, &mut body).await?;
    match fault {
        Fault::Refuse => Ok(()),
        Fault::Hang => hang(client).await,
        Fault::Error500 => answer(client, "500 Internal Server Error", "", "upstream failed").await,
        Fault::TooManyParts => {
            exception(
                client,
                252,
                "Too many parts (300). Merges are processing slower than inserts.",
                "TOO_MANY_PARTS",
            )
            .await
        }
        Fault::RejectRowsWith(marker) if body.windows(marker.len()).any(|window| window == marker) => {
            state.failed.fetch_add(1, Ordering::SeqCst);
            exception(
                client,
                469,
                "Constraint `test` for table tally.conversions is violated",
                "VIOLATED_CONSTRAINT",
            )
            .await
        }
        Fault::ExceptionAfter { format, head }
            if first_line.contains(&format!("default_format={format} "))
                || first_line.contains(&format!("default_format={format}&")) =>
        {
            half_answer(client, head).await
        }
        Fault::Pass
        | Fault::RejectRowsWith(_)
        | Fault::ExceptionAfter { .. }
        | Fault::CommitThenHang
        | Fault::CommitThenReset => {
            let answered = forward(state, &head, &body).await?;
            match fault {
                Fault::CommitThenHang => hang(client).await,
                Fault::CommitThenReset => reset(client),
                _ => client.write_all(&answered).await,
            }
        }
    }
}

/// Sends the request on a connection of its own and reads the whole answer.
async fn forward(state: &State, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(&state.upstream).await?;
    let mut lines = head.trim_end().split("\r\n");
    let mut request = format!("{}\r\n", lines.next().unwrap_or_default());
    for line in lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("Connection: close\r\n\r\n");
    upstream.write_all(request.as_bytes()).await?;
    upstream.write_all(body).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn read_head(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads the body as it stands on the wire, chunk headers included.
async fn read_body(client: &mut TcpStream, head: &str, body: &mut Vec<u8>) -> std::io::Result<()> {
    let head = head.to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let chunked = head.contains("transfer-encoding: chunked");
    let mut walked = 0;
    loop {
        let done = match length {
            Some(length) => body.len() >= length,
            None if chunked => last_chunk(body, &mut walked),
            None => true,
        };
        if done {
            return Ok(());
        }
        if client.read_buf(body).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whether the chunked body is whole; `walked` is how far its chunks were followed already.
fn last_chunk(body: &[u8], walked: &mut usize) -> bool {
    loop {
        let Some(end) = find(&body[*walked..], b"\r\n") else { return false };
        let size = std::str::from_utf8(&body[*walked..*walked + end]).unwrap_or_default();
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
        let next = *walked + end + 2 + size + 2;
        if body.len() < next {
            return false;
        }
        if size == 0 {
            return true;
        }
        *walked = next;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

async fn exception(client: TcpStream, code: u32, text: &str, name: &str) -> std::io::Result<()> {
    let header = format!("X-ClickHouse-Exception-Code: {code}\r\n");
    let body = format!("Code: {code}. DB::Exception: {text} ({name}) (version 26.7.2.1)\n");
    answer(client, "500 Internal Server Error", &header, &body).await
}

async fn answer(mut client: TcpStream, status: &str, headers: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await
}

/// Some of a result, and how ClickHouse says that it failed meanwhile, in two pieces.
async fn half_answer(mut client: TcpStream, head: &[u8]) -> std::io::Result<()> {
    let text = "Code: 241. DB::Exception: Memory limit exceeded (MEMORY_LIMIT_EXCEEDED) (version 26.7.2.1)\n";
    let tag = "abcdefghijklmnop";
    let said = format!("\r\n__exception__\r\n{tag}\r\n{text}{} {tag}\r\n__exception__\r\n", text.len());
    let length = head.len() + said.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\nX-ClickHouse-Exception-Tag: {tag}\r\n\r\n"
    );
    client.write_all(answer.as_bytes()).await?;
    client.write_all(head).await?;
    let (first, second) = said.as_bytes().split_at(said.len() - 5);
    client.write_all(first).await?;
    client.flush().await?;
    // Long enough for the reader to have seen the first.
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.write_all(second).await
}

async fn hang(client: TcpStream) -> std::io::Result<()> {
    tokio::time::sleep(Duration::from_hours(1)).await;
    drop(client);
    Ok(())
}

fn reset(client: TcpStream) -> std::io::Result<()> {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    drop(client);
    Ok(())
}
