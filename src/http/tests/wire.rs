//! Bytes on a connection, through hyper: bodies in pieces, too large, cut off, pipelined.

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends the pieces, one after another, closes its side, and returns everything that comes back.
async fn exchange(it: &Fixture, pieces: &[&str]) -> String {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let connection =
        Connection { peer: "203.0.113.9".parse().expect("an address"), gate: (), place: Arc::default() };
    let service = service_fn(async |request| {
        Ok::<_, std::convert::Infallible>(handle(&it.services, &connection, request).await)
    });
    let serving = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
    let talking = async {
        for piece in pieces {
            client.write_all(piece.as_bytes()).await.expect("sent");
            tokio::task::yield_now().await;
        }
        client.shutdown().await.expect("closed");
        let mut got = String::new();
        client.read_to_string(&mut got).await.expect("text");
        got
    };
    // A connection that ends badly is what some of these ask for.
    let (_, got) = tokio::join!(serving, talking);
    got
}

fn head(it: &Fixture, method: &str, headers: &str) -> String {
    format!("{method} {} HTTP/1.1\r\nhost: tally\r\n{headers}\r\n", it.token_path())
}

fn statuses(got: &str) -> Vec<&str> {
    got.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect()
}

#[tokio::test]
async fn bodies_come_in_pieces() {
    let it = Fixture::new();
    let got = exchange(&it, &[&head(&it, "POST", "content-length: 13\r\n"), "{\"val", "ue\":1.5}"]).await;
    assert_eq!(statuses(&got), ["201"], "{got}");
    let chunked = head(&it, "POST", "transfer-encoding: chunked\r\n");
    let got = exchange(&it, &[&chunked, "6\r\n{\"valu\r\n", "7\r\ne\":2.5}\r\n0\r\n\r\n"]).await;
    assert_eq!(statuses(&got), ["201"], "{got}");
    let values: Vec<_> = it.submitted().iter().map(|hit| hit.value.to_string()).collect();
    assert_eq!(values, ["1.50", "2.50"]);
}

#[tokio::test]
async fn pipelined_hits_are_each_answered() {
    let it = Fixture::new();
    let one = format!("{}{{}}", head(&it, "POST", "content-length: 2\r\n"));
    let got = exchange(&it, &[&one.repeat(16)]).await;
    assert_eq!(statuses(&got), ["201"; 16], "{got}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let it = Fixture::new();
    let got =
        exchange(&it, &[&head(&it, "POST", "content-length: 1000000\r\nexpect: 100-continue\r\n")]).await;
    assert_eq!(statuses(&got), ["413"], "{got}");
    assert!(got.contains("connection: close"), "{got}");
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_no_hit() {
    let it = Fixture::new();
    exchange(&it, &[&head(&it, "POST", "content-length: 13\r\n"), "{\"val"]).await;
    exchange(&it, &[&head(&it, "POST", "transfer-encoding: chunked\r\n"), "6\r\n{\"val"]).await;
    assert!(it.submitted().is_empty());
}

#[tokio::test]
async fn a_head_has_the_pixels_headers_and_no_body() {
    let it = Fixture::new();
    let got = exchange(&it, &[&head(&it, "HEAD", "")]).await;
    assert_eq!(statuses(&got), ["200"]);
    assert!(got.contains("content-length: 43") && got.ends_with("\r\n\r\n"), "{got}");
    assert!(it.submitted().is_empty());
}
