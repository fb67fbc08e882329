//! HTTP byte by byte, for what no well-behaved client would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::DEADLINE;

/// One connection.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Wire {
    pub fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).expect("connected"))
    }

    /// The same from that address of this machine, as another caller.
    pub fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("bound");
        socket.connect(&to.into()).expect("connected");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Self { stream, buffer: Vec::new() }
    }

    /// Sends; a server that has closed already is left to `answer` to notice.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).expect("shut down");
        self
    }

    /// The next answer; `None`: the connection ended without one.
    pub fn answer(&mut self) -> Option<Response> {
        self.next_answer(true)
    }

    /// The next answer, if one has begun to come by now.
    pub fn answer_by_now(&mut self) -> Option<Response> {
        if self.is_silent() { None } else { self.answer() }
    }

    /// The next answer, which has no body whatever its head says.
    pub fn answer_to_head(&mut self) -> Option<Response> {
        self.next_answer(false)
    }

    /// Whether the server has ended the connection, without another byte.
    pub fn is_ended(&mut self) -> bool {
        self.buffer.is_empty() && self.fill() == 0
    }

    /// Whether nothing has come by now.
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("set");
        let mut byte = [0];
        let peeked = self.stream.peek(&mut byte);
        self.stream.set_nonblocking(false).expect("set");
        self.buffer.is_empty() && peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Waits that long at most for a byte; whether one came.
    pub fn speaks_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("set");
        let came = self.stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
        self.stream.set_read_timeout(Some(DEADLINE)).expect("set");
        came
    }

    /// Whether the server has ended the connection by now.
    pub fn is_closed(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("set");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("set");
        match peeked {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    fn next_answer(&mut self, with_body: bool) -> Option<Response> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill() == 0 {
                assert!(self.buffer.is_empty(), "half an answer: {}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..head_end).collect()).expect("text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut response = Response { status, head, body: Vec::new() };
        let length = response.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        if with_body {
            while self.buffer.len() < length {
                assert!(self.fill() > 0, "the body breaks off");
            }
            response.body = self.buffer.drain(..length).collect();
        }
        Some(response)
    }

    fn fill(&mut self) -> usize {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(count) => {
                self.buffer.extend_from_slice(&piece[..count]);
                count
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The stable name of the error; empty: none.
    pub fn code(&self) -> String {
        let json = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn conversion_id(&self) -> String {
        self.json()["data"]["conversion_id"].as_str().expect("an id").to_owned()
    }
}

/// A request with a body of that type (or none) and its length.
pub fn post(path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    request(&format!("POST {path}"), &[("Content-Type", content_type)], body)
}

/// A request; `line` is method and target.
pub fn request(line: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("{line} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        text.extend([name, ": ", value, "\r\n"]);
    }
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// One request on a connection of its own.
pub fn ask(to: SocketAddr, bytes: impl AsRef<[u8]>) -> Response {
    let mut wire = Wire::connect(to);
    wire.send(bytes).answer().expect("an answer")
}
