//! HTTP to strangers: connects to addresses that the guard let through and to no other, follows nothing, reads little,
//! and waits only so long.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use url::Url;

use super::guard::{Guard, UrlRefused};
use crate::tasks;

/// How long a connection may take, its encryption included.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long everything may take.
const TOTAL_WITHIN: Duration = Duration::from_secs(15);
/// What is kept of an answer's body.
const KEPT_BYTES: usize = 1024;
/// What is read of it, so that the connection can be used again; past this it is closed.
const READ_BYTES: usize = 16 << 10;
/// Largest head of an answer.
const HEAD_BYTES: usize = 16 << 10;
/// Addresses of one name that are tried.
const TRIED_MAX: usize = 3;
/// Idle connections to one place, and over all.
const IDLE_PER_PLACE_MAX: usize = 32;
const IDLE_MAX: usize = 1024;
/// How long a connection may be idle: then its name is looked up anew.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// What is sent.
pub(super) struct Call {
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) headers: Vec<(&'static str, HeaderValue)>,
    pub(super) body: Bytes,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Retry-After` as it came.
    pub(super) retry_after: Option<String>,
    /// The start of the body.
    pub(super) text: String,
    /// The body broke off or did not end in time.
    pub(super) broken: Option<CallError>,
}

/// Why nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    Refused(UrlRefused),
    Timeout,
    Connect,
    Tls,
    Broken,
}

impl CallError {
    /// The error's name in the log of deliveries.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.as_str(),
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Broken => "broken_answer",
        }
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// A client with its idle connections.
pub(super) struct Client {
    guard: Guard,
    tls: TlsConnector,
    idle: Mutex<Idle>,
    pub(super) within: Duration,
}

#[derive(Default)]
struct Idle {
    places: HashMap<String, Vec<(Sender, Instant)>>,
    count: usize,
}

impl Client {
    pub(super) fn new(guard: Guard) -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let config = match versions {
            Ok(config) => config.with_root_certificates(roots).with_no_client_auth(),
            // The provider has ciphers for both versions: a defect of the build.
            Err(error) => unreachable!("{error}"),
        };
        Self {
            guard,
            tls: TlsConnector::from(Arc::new(config)),
            idle: Mutex::default(),
            within: TOTAL_WITHIN,
        }
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Sends a call. With `reuse`, over an idle connection if there is one, which is then kept: for calls that run in one
    /// runtime.
    pub(super) async fn send(&self, call: &Call, reuse: bool) -> Result<Answer, CallError> {
        let deadline = Instant::now() + self.within;
        let place = place(&call.url);
        if reuse && let Some(mut sender) = self.take(&place) {
            match timeout_at(deadline, sender.send_request(request(call)?)).await {
                Ok(Ok(answer)) => return Ok(self.read(answer, sender, Some(place), deadline).await),
                Err(_) => return Err(CallError::Timeout),
                // It was closed while it was idle: the other end may do that at any time. A copy does no harm.
                Ok(Err(_)) => {}
            }
        }
        let connect = timeout(CONNECT_WITHIN, self.connect(&call.url)).await;
        let mut sender = connect.map_err(|_| CallError::Timeout)??;
        match timeout_at(deadline, sender.send_request(request(call)?)).await {
            Ok(Ok(answer)) => Ok(self.read(answer, sender, reuse.then_some(place), deadline).await),
            Ok(Err(_)) => Err(CallError::Broken),
            Err(_) => Err(CallError::Timeout),
        }
    }

    /// Reads the start of the body, and keeps the connection if the body ends soon.
    async fn read(
        &self,
        answer: Response<Incoming>,
        sender: Sender,
        keep: Option<String>,
        deadline: Instant,
    ) -> Answer {
        let (head, mut body) = answer.into_parts();
        let (mut kept, mut seen, mut broken, mut ended) = (Vec::new(), 0, None, false);
        while seen < READ_BYTES && broken.is_none() && !ended {
            match timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    seen += data.len();
                    let room = KEPT_BYTES.saturating_sub(kept.len());
                    kept.extend(data.iter().take(room));
                }
                Ok(Some(Err(_))) => broken = Some(CallError::Broken),
                Ok(None) => ended = true,
                Err(_) => broken = Some(CallError::Timeout),
            }
        }
        if let (true, Some(place)) = (ended, keep) {
            self.put(place, sender);
        }
        let retry_after = head.headers.get(header::RETRY_AFTER);
        Answer {
            status: head.status.as_u16(),
            retry_after: retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned),
            text: String::from_utf8_lossy(&kept).into_owned(),
            broken,
        }
    }

    async fn connect(&self, url: &Url) -> Result<Sender, CallError> {
        let addresses = self.guard.vet(url).await.map_err(CallError::Refused)?;
        let stream = connect_first(&addresses).await?;
        // Small requests that wait for their answers.
        let _ = stream.set_nodelay(true);
        if url.scheme() != "https" {
            return handshake(stream).await;
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| CallError::Tls)?;
        let stream = self.tls.connect(name, stream).await.map_err(|_| CallError::Tls)?;
        handshake(stream).await
    }

    fn take(&self, place: &str) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let mut found = None;
        let mut taken = 0;
        if let Some(senders) = idle.places.get_mut(place) {
            while let (None, Some((sender, since))) = (&found, senders.pop()) {
                taken += 1;
                if sender.is_ready() && since.elapsed() < IDLE_FOR {
                    found = Some(sender);
                }
            }
            if senders.is_empty() {
                idle.places.remove(place);
            }
        }
        idle.count -= taken;
        found
    }

    fn put(&self, place: String, sender: Sender) {
        let mut idle = self.idle.lock();
        if idle.count >= IDLE_MAX {
            return;
        }
        let senders = idle.places.entry(place).or_default();
        if senders.len() < IDLE_PER_PLACE_MAX {
            senders.push((sender, Instant::now()));
            idle.count += 1;
        }
    }

    /// Closes what was idle for too long. To be called now and then.
    pub(super) fn close_idle(&self) {
        let mut idle = self.idle.lock();
        idle.places.retain(|_, senders| {
            senders.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE_FOR);
            !senders.is_empty()
        });
        idle.count = idle.places.values().map(Vec::len).sum();
    }
}

async fn connect_first(addresses: &[SocketAddr]) -> Result<TcpStream, CallError> {
    for address in addresses.iter().take(TRIED_MAX) {
        if let Ok(stream) = TcpStream::connect(address).await {
            return Ok(stream);
        }
    }
    Err(CallError::Connect)
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Sender, CallError> {
    let (sender, connection) = Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| CallError::Broken)?;
    // Ends when the sender is dropped, or the other end closes.
    drop(tasks::spawn_isolated("postback-connection", connection));
    Ok(sender)
}

fn request(call: &Call) -> Result<Request<Full<Bytes>>, CallError> {
    let invalid = CallError::Refused(UrlRefused::Invalid);
    let path = match call.url.query() {
        Some(query) => format!("{}?{query}", call.url.path()),
        None => call.url.path().to_owned(),
    };
    let mut request =
        Request::builder().method(&call.method).uri(path).header(header::HOST, authority(&call.url));
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    request.body(Full::new(call.body.clone())).map_err(|_| invalid)
}

/// Host and port as `Host` has them: the port only where it is not the scheme's own.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn place(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}
