//! The requests that Grafana's ClickHouse plugin sends over protocol http, as recorded, as the reader.

mod embedded_support;

use std::io::Read;

use base64::Engine as _;
use embedded_support::{Engine, post};

const PARAMETERS: &str =
    "client_protocol_version=54460&database=default&default_format=Native&max_execution_time=64";

/// A request as recorded: Basic auth, gzip, Native.
fn ask(engine: &Engine, sql: &str) -> (u16, String, Vec<u8>) {
    let mut reader = engine.reader();
    let basic = format!("{}:{}", reader.user, reader.password);
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(basic));
    // The plugin sends Basic only; empty headers of ours would come first.
    reader.user = String::new();
    let mut request = ureq::post(format!("{}/?{PARAMETERS}", reader.url))
        .config()
        .http_status_as_error(false)
        .build()
        .header("Authorization", &basic)
        .header("Accept-Encoding", "gzip")
        .header("User-Agent", "clickhouse-go/2.48.0 (lv:go/1.26; os:linux)")
        .send(sql)
        .expect("an answer");
    let status = request.status().as_u16();
    let header = |name: &str| request.headers().get(name).map(|it| it.to_str().expect("text").to_owned());
    let code = header("x-clickhouse-exception-code").unwrap_or_default();
    let gzip = header("content-encoding").as_deref() == Some("gzip");
    let body = request.body_mut().read_to_vec().expect("a body");
    if !gzip {
        return (status, code, body);
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain).expect("gzip");
    (status, code, plain)
}

#[test]
fn recorded_requests() {
    let engine = Engine::start();
    engine.run("CREATE TABLE panel (at DateTime64(3, 'UTC'), source LowCardinality(String), n UInt64) ENGINE = MergeTree ORDER BY at");
    engine.run("INSERT INTO panel SELECT toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + number, concat('s', toString(number % 3)), number FROM numbers(70000)");

    // The hello that every connection opens with: framed for the client's revision, and revision 0 inside.
    let (status, _, hello) = ask(&engine, "SELECT displayName(), version(), revision(), timezone()");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&hello));
    assert_eq!(hello[..10], [0x01, 0x00, 0x02, 0xff, 0xff, 0xff, 0xff, 0x00, 4, 1]);
    assert!(String::from_utf8_lossy(&hello).contains("revision()\u{6}UInt32\0\0\0\0\0"));

    // Every later block is as revision 0 has it: columns, rows, then name, type, content.
    let (status, _, one) = ask(&engine, "SELECT 1");
    assert_eq!((status, one.as_slice()), (200, &b"\x01\x01\x011\x05UInt8\x01"[..]));

    let panel = "SELECT toStartOfInterval(toDateTime(at), INTERVAL 3600 second) AS time, toString(source) AS source, \
                 sum(n) AS n FROM tally.panel WHERE at >= fromUnixTimestamp64Milli(1767225600000) \
                 AND at <= fromUnixTimestamp64Milli(1767312000000) GROUP BY time, source ORDER BY time";
    let (status, code, block) = ask(&engine, panel);
    assert_eq!((status, code.as_str()), (200, ""), "{}", String::from_utf8_lossy(&block));
    assert_eq!(block[..2], [3, 60], "three columns, 20 hours of three sources");

    let (status, _, empty) = ask(&engine, "SELECT at FROM tally.panel WHERE n = 999999999");
    assert_eq!((status, empty.len()), (200, 0));

    let (status, code, error) = ask(&engine, "SELECT * FROM tally.nothing");
    assert_eq!((status, code.as_str()), (404, "60"));
    assert!(error.starts_with(b"Code: 60. DB::Exception: "));
    // What the health check and the query builder ask.
    for sql in [
        "SELECT name FROM system.databases",
        "SELECT name FROM system.tables WHERE database = 'tally'",
        "SELECT name, type FROM system.columns WHERE database = 'tally' AND table = 'panel'",
        "DESC TABLE \"tally\".\"panel\"",
    ] {
        let (status, _, body) = ask(&engine, sql);
        assert_eq!(status, 200, "{sql}: {}", String::from_utf8_lossy(&body));
        assert!(!body.is_empty(), "{sql}");
    }
    assert_eq!(post(&engine.reader(), PARAMETERS, b"SELECT 1", &[]).status, 200);
    engine.stop();
}
