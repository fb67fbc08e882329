//! A shop's web server: another origin than the daemon's, with pages that hold an example each.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Serves until the test's process ends.
pub struct Shop {
    port: u16,
}

impl Shop {
    /// `pages` are path and body.
    pub fn serve(pages: HashMap<String, String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let pages = Arc::new(pages);
        thread::spawn(move || {
            // A browser opens connections ahead of need: each has a thread, or an idle one would block the rest.
            for stream in listener.incoming().flatten() {
                let pages = Arc::clone(&pages);
                thread::spawn(move || answer(stream, &pages));
            }
        });
        Self { port }
    }

    /// Another host name than the daemon's, too: to a browser it is another site.
    pub fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }
}

/// One answer a connection; a browser that goes away is no fault.
fn answer(mut stream: TcpStream, pages: &HashMap<String, String>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let target = first.split(' ').nth(1)?;
    let path = target.split('?').next()?;
    let answer = match pages.get(path) {
        Some(body) => {
            let page = format!(
                "<!doctype html><meta charset=utf-8><title>Thank you</title>\n<link rel=icon href=data:,>\n{body}"
            );
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            )
        }
        None => "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    stream.write_all(answer.as_bytes()).ok()
}
