//! A receiver of postbacks that does as the test says.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// What a request is met with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    Status(u16),
    /// The same, and the connection ends.
    Close(u16),
    Redirect(&'static str),
    Silence,
    ResetInHead,
    /// Not an end but a reset, which is another error.
    Reset,
    EndlessHead,
    /// A body of which a byte comes now and then.
    Drips,
    /// 503 that asks for a pause of that many seconds.
    Pause(u32),
    ResetInBody,
    Endless,
    /// 200 after so many milliseconds.
    After(u64),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }
}

/// A listening receiver.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    answered: Answered,
}

/// When each name was answered first.
type Answered = Arc<Mutex<HashMap<String, Instant>>>;

impl Receiver {
    /// Starts one; `script` is given how many requests came before.
    pub(super) async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_keeping(true, script).await
    }

    /// One that keeps nothing of what comes: for measurements, whose memory is not to be the receiver's.
    pub(super) async fn start_forgetful() -> Self {
        Self::start_keeping(false, |_| Reply::Status(200)).await
    }

    async fn start_keeping(keeps: bool, script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        // On every address of the loopback: as many places as a test wants.
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let address = ([127, 0, 0, 1], listener.local_addr().expect("an address").port()).into();
        let received = Arc::new(Mutex::new(Vec::new()));
        let answered = Answered::default();
        let at = answered.clone();
        let (script, count, kept) = (Arc::new(script), Arc::new(AtomicUsize::new(0)), received.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, count, kept, at) = (script.clone(), count.clone(), kept.clone(), at.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read(&mut stream).await {
                        let name = request.header("webhook-id");
                        if keeps {
                            kept.lock().push(request);
                        }
                        let reply = script(count.fetch_add(1, Ordering::SeqCst));
                        let goes_on = answer(reply, stream.get_mut()).await;
                        if keeps {
                            at.lock().entry(name).or_insert_with(Instant::now);
                        }
                        if !goes_on {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, received, answered }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// When each name was answered first.
    pub(super) fn answered(&self) -> HashMap<String, Instant> {
        self.answered.lock().clone()
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut headers = HeaderMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    let length =
        headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { line: line.trim_end().to_owned(), headers, body: String::from_utf8(body).ok()? })
}

/// False: the connection ends.
async fn answer(reply: Reply, stream: &mut TcpStream) -> bool {
    let text = match reply {
        Reply::Status(status) => format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{}",
            2 * usize::from(status != 204),
            if status == 204 { "" } else { "ok" }
        ),
        Reply::Close(status) => {
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        }
        Reply::Redirect(to) => format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
        Reply::Silence => std::future::pending().await,
        Reply::ResetInHead => "HTTP/1.1 200 O".to_owned(),
        Reply::Reset => {
            let _ = socket2::SockRef::from(&*stream).set_linger(Some(std::time::Duration::ZERO));
            return false;
        }
        Reply::EndlessHead => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(b"x-and-so: on and on\r\n").await.is_ok() {}
            return false;
        }
        Reply::Drips => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
            while stream.write_all(b".").await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            return false;
        }
        Reply::Pause(seconds) => {
            format!("HTTP/1.1 503 X\r\nretry-after: {seconds}\r\ncontent-length: 0\r\n\r\n")
        }
        Reply::ResetInBody => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
        Reply::Endless => {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(b"10\r\nand so on and on\r\n").await.is_ok() {}
            return false;
        }
        Reply::After(millis) => {
            tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
    };
    let sent = stream.write_all(text.as_bytes()).await.is_ok();
    sent && matches!(reply, Reply::Status(_) | Reply::Redirect(_) | Reply::After(_))
}
