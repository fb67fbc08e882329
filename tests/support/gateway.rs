//! A ClickHouse that is not the daemon's own, and a way to it that can be closed and opened: while it is closed,
//! connections are refused.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tally::embedded::{Embedded, Endpoint};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::daemon::disk_folder;
use super::port::Port;

/// An engine that the test runs.
pub struct Engine {
    embedded: Embedded,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Engine {
    pub fn start() -> Self {
        let folder = disk_folder();
        let runtime = Runtime::new().expect("a runtime");
        let embedded = Embedded::start(super::config(folder.path())).expect("a handle");
        runtime.block_on(embedded.ready(super::DEADLINE)).expect("the engine is up");
        Self { embedded, _runtime: runtime, _folder: folder }
    }

    /// For the proof.
    pub fn reader_url(&self) -> String {
        self.embedded.reader_url()
    }
}

/// Forwards to an engine while it is open. Closed at first.
pub struct Gateway {
    port: Port,
    target: SocketAddr,
    open: Option<Open>,
}

/// What runs while it is open.
struct Open {
    closing: Arc<AtomicBool>,
    /// Both ends of every connection, so that closing cuts what is under way.
    streams: Arc<Mutex<Vec<TcpStream>>>,
    acceptor: JoinHandle<()>,
}

impl Gateway {
    /// A closed gateway to `engine`, and the URL that leads through it.
    pub fn to(engine: &Engine) -> (Self, String) {
        let Endpoint { url, user, password, database } = engine.embedded.writer();
        let target = url.strip_prefix("http://").expect("a URL").parse().expect("an address");
        let gateway = Self { port: Port::reserve(), target, open: None };
        let url = format!("http://{user}:{password}@{}/?database={database}", gateway.port.address());
        (gateway, url)
    }

    /// Connections are forwarded from here on.
    pub fn open(&mut self) {
        assert!(self.open.is_none(), "it is open");
        let listener = self.port.listen();
        let (closing, streams) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let acceptor = {
            let (closing, streams, target) = (Arc::clone(&closing), Arc::clone(&streams), self.target);
            std::thread::spawn(move || accept(&listener, target, &closing, &streams))
        };
        self.open = Some(Open { closing, streams, acceptor });
    }

    /// Cuts every connection and refuses new ones.
    pub fn close(&mut self) {
        let Some(Open { closing, streams, acceptor }) = self.open.take() else { return };
        closing.store(true, Ordering::SeqCst);
        // Whatever accepts is woken by one more connection; then its listener is gone.
        drop(TcpStream::connect(self.port.address()));
        acceptor.join().expect("no panic");
        for stream in streams.lock().expect("no panic").iter() {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.close();
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, closing: &AtomicBool, streams: &Mutex<Vec<TcpStream>>) {
    for client in listener.incoming() {
        if closing.load(Ordering::SeqCst) {
            return;
        }
        // A connection that fails is a connection that is refused: its client tries again.
        if let Ok(pair) = client.and_then(|client| forward(client, target)) {
            streams.lock().expect("no panic").extend(pair);
        }
    }
}

/// Copies both ways until an end closes.
fn forward(client: TcpStream, target: SocketAddr) -> io::Result<[TcpStream; 2]> {
    let server = TcpStream::connect(target)?;
    let ends = [client.try_clone()?, server.try_clone()?];
    let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
    for (mut from, mut to) in [(client, server), (back_from, back_to)] {
        std::thread::spawn(move || {
            // An end that is cut ends the copying; the other one must hear of it.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok(ends)
}
