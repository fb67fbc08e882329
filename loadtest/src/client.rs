//! One connection of the load client: a batch of requests out in one write, its answers in as few reads as they come in.
//!
//! Two system calls an exchange and no allocation. A lost connection loses only what was under way on it, and connecting
//! again is tried until a deadline, so that a daemon may be killed and restarted under the load.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::response::{self, Answer};

const BUFFER_BYTES: usize = 16 * 1024;
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// A keep-alive connection that comes back after a loss.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    fuse: Rc<Fuse>,
}

impl Connection {
    /// A connection to `address` that is not open yet.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: vec![0; BUFFER_BYTES], fuse: Rc::default() }
    }

    /// What cuts this connection from outside.
    #[must_use]
    pub fn fuse(&self) -> Rc<Fuse> {
        Rc::clone(&self.fuse)
    }

    /// Whether the connection is open, as far as is known.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Opens the connection unless it is open, trying again until `deadline` or while `wanted`; whether it is open now.
    pub async fn open(&mut self, deadline: Instant, wanted: impl Fn() -> bool) -> bool {
        while self.stream.is_none() {
            let connecting = TcpStream::connect(self.address);
            if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), connecting).await
                && stream.set_nodelay(true).is_ok()
                && let Ok(handle) = stream.as_fd().try_clone_to_owned()
            {
                self.fuse.arm(handle);
                self.stream = Some(stream);
                return true;
            }
            if Instant::now() >= deadline || !wanted() {
                return false;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
        true
    }

    /// Sends `requests`, which are `count` requests, and hands each answer with its place among them to `answered`, with
    /// the time at which it was read. Returns how many were answered: the others' outcome is unknown, and the
    /// connection is closed then.
    pub async fn exchange(
        &mut self,
        requests: &[u8],
        count: usize,
        mut answered: impl FnMut(usize, &Answer, Instant),
    ) -> usize {
        let Some(stream) = self.stream.as_mut() else {
            return 0;
        };
        let mut done = 0;
        self.fuse.light();
        let open = talk(stream, &mut self.buffer, requests, count, |answer, at| {
            answered(done, answer, at);
            done += 1;
        })
        .await;
        self.fuse.rest();
        if !open {
            self.fuse.disarm();
            self.stream = None;
        }
        done
    }
}

/// One exchange; whether the connection can be used again.
async fn talk(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    requests: &[u8],
    count: usize,
    mut answered: impl FnMut(&Answer, Instant),
) -> bool {
    if stream.write_all(requests).await.is_err() {
        return false;
    }
    let (mut start, mut end, mut done) = (0, 0, 0);
    while done < count {
        if end == buffer.len() {
            make_room(buffer, &mut start, &mut end);
        }
        match stream.read(&mut buffer[end..]).await {
            Ok(0) | Err(_) => return false,
            Ok(bytes) => end += bytes,
        }
        let at = Instant::now();
        while done < count && start < end {
            match response::parse(&buffer[start..end]) {
                Ok(Some(answer)) => {
                    start += answer.bytes;
                    done += 1;
                    answered(&answer, at);
                    if answer.closes {
                        return false;
                    }
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
    }
    // More than was asked for would be taken for the answer to the next request.
    start == end
}

/// Moves the unread bytes to the front, or doubles a buffer that they fill.
fn make_room(buffer: &mut Vec<u8>, start: &mut usize, end: &mut usize) {
    if *start == 0 {
        buffer.resize(buffer.len() * 2, 0);
    } else {
        buffer.copy_within(*start..*end, 0);
        *end -= *start;
        *start = 0;
    }
}

/// Lets a watchdog cut a connection whose answer does not come, at no cost to those whose answers do.
#[derive(Debug, Default)]
pub struct Fuse {
    state: RefCell<FuseState>,
}

#[derive(Debug, Default)]
struct FuseState {
    /// A second handle of the socket.
    handle: Option<OwnedFd>,
    /// Counts exchanges, so that a watchdog sees whether it is still the same one.
    exchange: u64,
    busy: bool,
}

impl Fuse {
    /// The number of the exchange that is under way.
    #[must_use]
    pub fn under_way(&self) -> Option<u64> {
        let state = self.state.borrow();
        state.busy.then_some(state.exchange)
    }

    /// Shuts the socket down: the exchange under way ends with what was answered.
    pub fn cut(&self) {
        if let Some(handle) = &self.state.borrow().handle {
            // A socket that is down already is what was wanted.
            let _ = rustix::net::shutdown(handle, rustix::net::Shutdown::Both);
        }
    }

    fn arm(&self, handle: OwnedFd) {
        self.state.borrow_mut().handle = Some(handle);
    }

    fn disarm(&self) {
        self.state.borrow_mut().handle = None;
    }

    fn light(&self) {
        let mut state = self.state.borrow_mut();
        state.exchange += 1;
        state.busy = true;
    }

    fn rest(&self) {
        self.state.borrow_mut().busy = false;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const OK: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_reset_leaves_the_rest_unanswered_and_the_next_exchange_connects_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut request = [0; 64];
            let (mut first, _) = listener.accept().unwrap();
            let _ = first.read(&mut request).unwrap();
            first.write_all(OK).unwrap();
            drop(first);
            let (mut second, _) = listener.accept().unwrap();
            let _ = second.read(&mut request).unwrap();
            second.write_all(&OK.repeat(2)).unwrap();
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        let answered = runtime().block_on(async {
            let mut connection = Connection::new(address);
            let mut statuses = Vec::new();
            assert!(connection.open(deadline, || true).await);
            let first = connection.exchange(b"xx", 2, |_, answer, _| statuses.push(answer.status)).await;
            assert!(connection.open(deadline, || true).await);
            let second = connection.exchange(b"xx", 2, |_, answer, _| statuses.push(answer.status)).await;
            assert_eq!(statuses, [204; 3]);
            (first, second)
        });
        assert_eq!(answered, (1, 2));
        server.join().unwrap();
    }

    #[test]
    fn a_cut_ends_an_exchange_that_nobody_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answered = runtime().block_on(async {
            let mut connection = Connection::new(address);
            assert!(connection.open(Instant::now(), || true).await);
            let fuse = connection.fuse();
            let cut = async {
                tokio::task::yield_now().await;
                assert_eq!(fuse.under_way(), Some(1));
                fuse.cut();
            };
            tokio::join!(connection.exchange(b"x", 1, |_, _, _| ()), cut).0
        });
        assert_eq!(answered, 0);
    }

    #[test]
    fn nobody_there_is_not_open() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let opened = runtime().block_on(Connection::new(address).open(Instant::now(), || true));
        assert!(!opened);
    }
}
