//! A download whose speed the test decides, and whose end it sees: clean, or broken off.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

/// An answer under way.
pub struct Download {
    pub status: u16,
    head: String,
    stream: TcpStream,
    /// What came; from `at` on it is not decoded yet.
    raw: Vec<u8>,
    at: usize,
    ended: bool,
}

/// Why there is no more.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The last chunk came.
    Clean,
    /// The connection ended before it.
    BrokenOff,
}

impl Download {
    /// Asks, and reads the head.
    pub fn start(address: SocketAddr, path: &str, key: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {key}\r\n\r\n")
            .expect("sent");
        let mut raw = Vec::new();
        let end = loop {
            if let Some(end) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(receive(&mut stream, &mut raw), "no head");
        };
        let rest = raw.split_off(end);
        let head = String::from_utf8(raw).expect("ASCII");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Self { status, head, stream, raw: rest, at: 0, ended: false }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// At least so many bytes more, if they come.
    pub fn read(&mut self, bytes: usize) -> (Vec<u8>, Option<End>) {
        let mut body = Vec::new();
        while body.len() < bytes {
            match self.chunk() {
                Ok(chunk) => body.extend(chunk),
                Err(end) => return (body, Some(end)),
            }
        }
        (body, None)
    }

    /// The rest.
    pub fn read_to_end(mut self) -> (Vec<u8>, End) {
        let (body, end) = self.read(usize::MAX);
        (body, end.expect("an end"))
    }

    fn chunk(&mut self) -> Result<Vec<u8>, End> {
        if self.ended {
            return Err(End::Clean);
        }
        loop {
            let raw = &self.raw[self.at..];
            if let Some(line) = raw.windows(2).take(20).position(|window| window == b"\r\n") {
                let size = std::str::from_utf8(&raw[..line]).expect("ASCII");
                let size = usize::from_str_radix(size, 16).expect("a size");
                if raw.len() >= line + size + 4 {
                    let chunk = raw[line + 2..line + 2 + size].to_vec();
                    self.at += line + size + 4;
                    self.ended = size == 0;
                    return if self.ended { Err(End::Clean) } else { Ok(chunk) };
                }
            }
            self.raw.drain(..self.at);
            self.at = 0;
            if !receive(&mut self.stream, &mut self.raw) {
                return Err(End::BrokenOff);
            }
        }
    }
}

/// False: the connection ended.
fn receive(stream: &mut TcpStream, to: &mut Vec<u8>) -> bool {
    let mut buffer = vec![0; 64 << 10];
    match stream.read(&mut buffer) {
        Ok(count) => {
            to.extend_from_slice(&buffer[..count]);
            count > 0
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("nothing came: {error}"),
    }
}
