//! The HTTP face of the embedded engine, request by request: statuses, headers, formats, sessions, bodies.

mod embedded_support;

use std::io::{Read, Write};

use embedded_support::{Engine, get, post, try_post, wait_for};

#[test]
fn answers_like_a_clickhouse_server() {
    let engine = Engine::start();
    let writer = engine.writer();

    assert_eq!(get(&writer, "/ping").text(), "Ok.\n");
    let one = get(&writer, "/?query=SELECT%201%20FORMAT%20JSON&query_id=an-id");
    assert_eq!((one.status, one.header("x-clickhouse-query-id")), (200, "an-id"));
    assert!(one.text().contains("\"data\"") && one.header("content-type").starts_with("application/json"));
    assert!(one.header("x-clickhouse-summary").contains("\"result_rows\":\"1\""));

    // GET changes nothing.
    let change = get(&writer, "/?query=CREATE%20TABLE%20x%20(a%20Int8)%20ENGINE%3DMemory");
    assert_eq!(change.code(), "164", "{}", change.text());

    // Errors: status, code and text.
    for (sql, status, code) in [
        ("SELECT * FROM nowhere", 404, "60"),
        ("SELEC 1", 400, "62"),
        ("SELECT 1; SELECT 2", 400, "62"),
        ("SELECT 1; nonsense", 400, "62"),
        ("SELECT throwIf(1)", 500, "395"),
        ("SELECT unknown_function()", 404, "46"),
        ("", 400, "62"),
    ] {
        let answer = post(&writer, "", sql.as_bytes(), &[]);
        assert_eq!((answer.status, answer.code()), (status, code), "{sql}: {}", answer.text());
        assert!(
            answer.text().starts_with("Code: ") && answer.text().contains("(version "),
            "{}",
            answer.text()
        );
    }
    let unknown_setting = post(&writer, "no_such_setting=1", b"SELECT 1", &[]);
    assert_eq!((unknown_setting.status, unknown_setting.code()), (404, "115"), "{}", unknown_setting.text());

    // Credentials.
    let mut stranger = writer.clone();
    stranger.password = "wrong".into();
    let refused = post(&stranger, "", b"SELECT 1", &[]);
    assert_eq!((refused.status, refused.code()), (403, "516"));

    // Settings and parameters, with everything that would break out of a quote.
    let setting = post(&writer, "log_comment=it%27s%20%5C%20%22x", b"SELECT getSetting('log_comment')", &[]);
    assert_eq!(setting.text(), "it\\'s \\\\ \"x\n");
    let param = post(&writer, "param_a=x%27y", b"SELECT {a:String}", &[]);
    assert_eq!(param.text(), "x\\'y\n");
    let form = "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a:UInt8} + 1\r\n--b\r\n\
                Content-Disposition: form-data; name=\"param_a\"\r\n\r\n41\r\n--b--\r\n";
    let answer = post(&writer, "", form.as_bytes(), &[("Content-Type", "multipart/form-data; boundary=b")]);
    assert_eq!(answer.text(), "42\n");

    // A statement in two halves, and one without a FORMAT of its own.
    assert_eq!(post(&writer, "query=SELECT%201%2B", b"2", &[]).text(), "3\n");
    assert_eq!(post(&writer, "default_format=CSV", b"SELECT 'a' -- comment", &[]).text(), "\"a\"\n");
    assert_eq!(post(&writer, "", b"SHOW DATABASES LIKE 'tally' FORMAT CSV", &[]).text(), "\"tally\"\n");
    engine.stop();
}

/// Head and raw chunks of an answer whose connection is closed.
fn cut_off(endpoint: &tally::embedded::Endpoint, sql: &[u8]) -> (String, String) {
    let address = endpoint.url.strip_prefix("http://").expect("a URL");
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\nContent-Length: {}\r\n\r\n",
        endpoint.user,
        endpoint.password,
        sql.len()
    );
    stream.write_all(&[head.as_bytes(), sql].concat()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("closed in order");
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn streams_and_joins_results() {
    let engine = Engine::start();
    let writer = engine.writer();
    // More than one block: every piece repeats the header and only one of them may stay.
    let rows = post(&writer, "", b"SELECT number AS n FROM numbers(200000) FORMAT CSVWithNames", &[]).text();
    assert_eq!(rows.lines().count(), 200_001);
    assert_eq!(rows.matches("\"n\"").count(), 1);
    let binary =
        post(&writer, "", b"SELECT number AS n FROM numbers(200000) FORMAT RowBinaryWithNamesAndTypes", &[]);
    assert_eq!(binary.body.len(), 10 + 200_000 * 8);
    // No rows: the header all the same.
    let none = post(&writer, "", b"SELECT 1 AS a WHERE 0 FORMAT TSVWithNamesAndTypes", &[]);
    assert_eq!(none.text(), "a\nUInt8\n");

    for encoding in ["gzip", "deflate", "lz4", "zstd"] {
        let answer =
            post(&writer, "", b"SELECT number FROM numbers(300000)", &[("Accept-Encoding", encoding)]);
        assert_eq!(answer.header("content-encoding"), encoding);
        let mut text = String::new();
        let body = std::io::Cursor::new(answer.body);
        let mut reader: Box<dyn Read> = match encoding {
            "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
            "deflate" => Box::new(flate2::read::ZlibDecoder::new(body)),
            "lz4" => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
            _ => Box::new(zstd::stream::read::Decoder::new(body).expect("a decoder")),
        };
        reader.read_to_string(&mut text).expect("decompresses");
        assert_eq!(text.lines().count(), 300_000, "{encoding}");
    }

    let blocks = post(&writer, "compress=1", b"SELECT 'x'", &[]);
    assert_eq!((blocks.header("content-encoding"), blocks.body[16]), ("", 0x82));
    assert_eq!(lz4_flex::block::decompress(&blocks.body[25..], 2).expect("a block"), b"x\n");

    // An error after the first pieces: the status is out already, so it is framed at the end.
    let sql = b"SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 10000";
    let (head, text) = cut_off(&writer, sql);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let tag = head.split("x-clickhouse-exception-tag: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let tag = tag.expect("a tag");
    assert!(
        text.contains(&format!("\r\n__exception__\r\n{tag}\r\nCode: 395.")),
        "{}",
        &text[text.len() - 500..]
    );
    // As from a ClickHouse server the body has no end: who does not know the frame can't take it for a result.
    assert!(text.ends_with(&format!(" {tag}\r\n__exception__\r\n\r\n")), "{}", &text[text.len() - 200..]);
    assert!(try_post(&writer, "", sql, &[]).is_err());
    // Asked to wait, it gets its status.
    let waited = post(&writer, "wait_end_of_query=1", sql, &[]);
    assert_eq!((waited.status, waited.code()), (500, "395"));

    // What can't be joined is bounded.
    let huge = post(&writer, "", b"SELECT number FROM numbers(100000000) FORMAT JSON", &[]);
    assert_eq!(huge.code(), "396", "{}", huge.text());
    engine.stop();
}

#[test]
fn inserts_and_keeps_sessions() {
    let engine = Engine::start();
    let writer = engine.writer();
    engine.run("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a");
    let in_tally = "database=tally";

    let summary = |answer: &embedded_support::Answer| answer.header("x-clickhouse-summary").to_owned();
    let url =
        post(&writer, &format!("{in_tally}&query=INSERT%20INTO%20t%20FORMAT%20CSV"), b"1,x\n2,y\n", &[]);
    assert_eq!(url.status, 200, "{}", url.text());
    assert!(summary(&url).contains("\"written_rows\":\"2\""), "{}", summary(&url));
    assert!(url.body.is_empty());
    for body in [
        "INSERT INTO t FORMAT JSONEachRow\n{\"a\":3,\"b\":\"FORMAT CSV\"}\n",
        "INSERT INTO t (a, b) VALUES (4, 'z')",
    ] {
        let answer = post(&writer, in_tally, body.as_bytes(), &[]);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let select = post(&writer, in_tally, b"INSERT INTO t SELECT 5, 'select'", &[]);
    assert_eq!(select.status, 200, "{}", select.text());
    let parameter =
        post(&writer, &format!("{in_tally}&param_b=six"), b"INSERT INTO t VALUES (6, {b:String})", &[]);
    assert_eq!(parameter.status, 200, "{}", parameter.text());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"INSERT INTO t FORMAT TSV\n7\tgz\n").expect("compressed");
    let body = gzip.finish().expect("compressed");
    assert_eq!(post(&writer, in_tally, &body, &[("Content-Encoding", "gzip")]).status, 200);
    // 2 MB of rows in one body: one insert, one part.
    let many = (100..200_000).map(|n| format!("{n}\tr\n")).collect::<Vec<_>>().concat();
    let big =
        post(&writer, &format!("{in_tally}&query=INSERT%20INTO%20t%20FORMAT%20TSV"), many.as_bytes(), &[]);
    assert_eq!(big.status, 200, "{}", big.text());
    assert_eq!(engine.run("SELECT count(), uniqExact(a) FROM t"), "199907\t199907\n");
    assert_eq!(
        engine.run("SELECT rows FROM system.parts WHERE table = 't' AND rows > 10 AND level = 0"),
        "199900\n"
    );

    // Refused rows leave nothing behind.
    let bad =
        post(&writer, &format!("{in_tally}&query=INSERT%20INTO%20t%20FORMAT%20CSV"), b"8,x\nnope,y\n", &[]);
    assert_eq!(bad.status, 400, "{}", bad.text());
    let nowhere =
        post(&writer, &format!("{in_tally}&query=INSERT%20INTO%20no%20FORMAT%20CSV"), b"8,x\n", &[]);
    assert_eq!((nowhere.status, nowhere.code()), (404, "60"));
    // Refused while it still sends: it gets the answer all the same.
    let query = format!("{in_tally}&query=INSERT%20INTO%20no%20FORMAT%20CSV");
    let refused = post(&writer, &query, &b"8,x\n".repeat(10 << 20), &[]);
    assert_eq!((refused.status, refused.code()), (404, "60"));
    let garbage = post(
        &writer,
        &format!("{in_tally}&decompress=1&query=INSERT%20INTO%20t%20FORMAT%20CSV"),
        b"not blocks at all, but long enough",
        &[],
    );
    assert_eq!((garbage.status, garbage.code()), (400, "33"), "{}", garbage.text());
    assert_eq!(engine.run("SELECT count() FROM t"), "199907\n");

    // A session keeps temporary tables and its own SETs, but no URL settings.
    let session = "session_id=s1";
    post(&writer, session, b"CREATE TEMPORARY TABLE tmp (a UInt8)", &[]);
    post(&writer, session, b"INSERT INTO tmp VALUES (9)", &[]);
    assert_eq!(post(&writer, session, b"SELECT a FROM tmp", &[]).text(), "9\n");
    assert_eq!(post(&writer, "session_id=s2", b"SELECT a FROM tmp", &[]).status, 404);
    let with =
        post(&writer, &format!("{session}&max_threads=1"), b"SELECT getSetting('max_threads')", &[]).text();
    let without = post(&writer, session, b"SELECT getSetting('max_threads') = 1", &[]).text();
    assert_eq!((with.as_str(), without.as_str()), ("1\n", "0\n"));
    engine.stop();
}

#[test]
fn a_query_dies_with_its_client_and_a_client_can_kill_its_own() {
    let engine = Engine::start();
    let writer = engine.writer();
    let running = |comment: &str| {
        engine
            .run(&format!("SELECT count() FROM system.processes WHERE Settings['log_comment'] = '{comment}'"))
    };
    // A client that hangs up.
    let address = writer.url.strip_prefix("http://").expect("a URL");
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    let sql = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)";
    write!(
        stream,
        "POST /?log_comment=hangs-up HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: tally\r\nX-ClickHouse-Key: {}\r\n\
         Content-Length: {}\r\n\r\n{sql}",
        writer.password,
        sql.len()
    )
    .expect("sent");
    wait_for("the query", || running("hangs-up") == "1\n");
    drop(stream);
    wait_for("the end of the query", || running("hangs-up") == "0\n");

    // A client that kills its query from another connection.
    let other = writer.clone();
    let query = std::thread::spawn(move || post(&other, "log_comment=mine", sql.as_bytes(), &[]));
    wait_for("the query", || running("mine") == "1\n");
    engine.run("KILL QUERY WHERE Settings['log_comment'] = 'mine' ASYNC");
    let killed = query.join().expect("an answer");
    assert_eq!(killed.code(), "394", "{}", killed.text());

    // A body that breaks its own framing.
    engine.run("CREATE TABLE half (a UInt64) ENGINE = MergeTree ORDER BY a");
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    write!(
        stream,
        "POST /?log_comment=frame&database=tally&query=INSERT%20INTO%20half%20FORMAT%20CSV HTTP/1.1\r\nHost: x\r\n\
         X-ClickHouse-User: tally\r\nX-ClickHouse-Key: {}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1\n2\n\r\nnonsense\r\n",
        writer.password
    )
    .expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");

    // Half an insert is none.
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    write!(
        stream,
        "POST /?log_comment=half&database=tally&query=INSERT%20INTO%20half%20FORMAT%20CSV HTTP/1.1\r\nHost: x\r\n\
         X-ClickHouse-User: tally\r\nX-ClickHouse-Key: {}\r\nContent-Length: 100000000\r\n\r\n",
        writer.password
    )
    .expect("sent");
    stream.write_all(&b"1\n2\n3\n".repeat(500_000)).expect("sent");
    wait_for("the insert", || running("half") == "1\n");
    drop(stream);
    wait_for("the end of the insert", || running("half") == "0\n");
    assert_eq!(engine.run("SELECT count() FROM half"), "0\n");
    engine.stop();
}
