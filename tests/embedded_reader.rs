//! The reader, whose URL lies in dashboards: what it can't do, however it asks.

mod embedded_support;

use embedded_support::{Engine, get, post, try_post};

/// Statements that must be refused and must not leak; `SECRET` is what they are after.
const REFUSED: &[&str] = &[
    // Writing.
    "INSERT INTO t VALUES (1)",
    "CREATE TABLE x (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a UInt8)",
    "CREATE VIEW x AS SELECT 1",
    "CREATE FUNCTION f AS x -> x",
    "ALTER TABLE t DELETE WHERE 1",
    "DROP TABLE t",
    "TRUNCATE TABLE t",
    "OPTIMIZE TABLE t",
    "SYSTEM FLUSH LOGS",
    "KILL QUERY WHERE 1",
    "BACKUP DATABASE tally TO File('/tmp/backup')",
    // Getting out of the role or out of readonly.
    "SET readonly = 0",
    "SET readonly = DEFAULT",
    "SET ROLE writer",
    "SET ROLE ALL",
    "SET ROLE DEFAULT",
    "EXECUTE AS default SELECT 1",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 10000",
    "SELECT 1 SETTINGS additional_result_filter = '1'",
    // The engine itself holds a subquery's settings to nothing.
    "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
    "SELECT 1 UNION ALL SELECT 2 SETTINGS readonly = 0",
    "SELECT 1 UNION ALL (SELECT 2 SETTINGS readonly = 0)",
    "SELECT (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT 1 IN (SELECT 1 SETTINGS max_threads = 64)",
    "WITH x AS (SELECT 1 SETTINGS max_threads = 64) SELECT * FROM x",
    "SELECT * FROM view(SELECT 1 SETTINGS max_threads = 64)",
    "EXPLAIN SELECT * FROM (SELECT 1 SETTINGS max_threads = 64)",
    "DESCRIBE (SELECT 1 SETTINGS max_threads = 64)",
    "SELECT 1; SELECT 2",
    "SELECT 1 PARALLEL WITH SELECT 2",
    // Files.
    "SELECT file('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT \"fil\\x65\"('/etc/passwd')",
    "SELECT /**/ file /**/ ('/etc/passwd')",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd' AS a)",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '/etc/passwd' AS a)",
    "WITH file AS f SELECT arrayMap(f, ['/etc/passwd'])",
    "EXPLAIN QUERY TREE SELECT file('/etc/passwd')",
    "EXPLAIN SELECT file('/etc/passwd')",
    "EXPLAIN SYNTAX SELECT file('/etc/passwd')",
    "DESCRIBE (SELECT file('/etc/passwd'))",
    "SELECT 1 WHERE file('/etc/passwd') LIKE 'root%'",
    "SELECT file('/etc/passwd') FORMAT RawBLOB",
    "SELECT file('/etc/passwd') FORMAT Null SETTINGS max_threads = 1",
    "SELECT * FROM values('a String', file('/etc/passwd'))",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT 1 IN file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM `/etc/passwd`",
    "SELECT * FROM default.`/etc/passwd`",
    "SELECT * FROM filesystem('/etc')",
    "SELECT * FROM icebergLocal('/etc')",
    "SELECT * FROM deltaLakeLocal('/etc')",
    "SELECT * FROM sqlite('/etc/passwd', 'x')",
    "SELECT 1 INTO OUTFILE '/tmp/tally-outfile'",
    "SELECT 1 INTO OUTFILE '/tmp/tally-outfile' FORMAT CSV",
    "DESCRIBE file('/etc/passwd')",
    // SQL out of strings.
    "SELECT * FROM eval('SELECT file(\\'/etc/passwd\\')')",
    "SELECT * FROM EVAL('SELECT 1')",
    "SELECT * FROM executable('x.sh', TSV, 'a String')",
    "SELECT * FROM format(LineAsString, 'x')",
    // Network.
    "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/a', LineAsString)",
    "SELECT * FROM remote('127.0.0.1:1', system.one)",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM redis('127.0.0.1:1', 'a', 'a Int8')",
    // Tables and columns that it was not granted.
    "SELECT * FROM api_keys",
    "SELECT count() FROM api_keys",
    "SELECT * FROM tally.goals",
    "SELECT * FROM leak",
    "SELECT * FROM merge(REGEXP('tally'), 'api_keys')",
    "SELECT 'SECRET' IN api_keys",
    "SELECT * FROM mergeTreeIndex('tally', 'api_keys')",
    "SELECT * FROM mergeTreeProjection('tally', 'api_keys', 'p')",
    "SELECT * FROM loop(tally.api_keys)",
    "SELECT * FROM view(SELECT * FROM tally.api_keys)",
    "SELECT * FROM (SELECT * FROM tally.api_keys)",
    "SELECT (SELECT any(key) FROM tally.api_keys)",
    "SELECT 1 WHERE EXISTS (SELECT key FROM tally.api_keys)",
    "WITH k AS (SELECT * FROM tally.api_keys) SELECT * FROM k",
    "SHOW CREATE TABLE api_keys",
    "DESCRIBE TABLE api_keys",
    "CHECK TABLE api_keys",
    "EXPLAIN SELECT * FROM api_keys",
    "EXPLAIN ESTIMATE SELECT * FROM api_keys",
    // Exhausting it.
    "SELECT groupArray(number) FROM numbers(1000000000)",
    "SELECT number FROM numbers(100000000) FORMAT JSON",
    "SELECT number FROM numbers(100000000)",
];

/// What dashboards and clients ask.
const ALLOWED: &[&str] = &[
    "SHOW TABLES",
    "SHOW DATABASES",
    "SHOW CREATE TABLE t",
    "SHOW COLUMNS FROM t",
    "DESCRIBE TABLE t",
    "EXISTS TABLE t",
    "EXPLAIN SELECT * FROM t",
    "EXPLAIN indexes = 1 SELECT * FROM t",
    "WITH 1 AS x SELECT x FROM t",
    "FROM t SELECT a",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "SELECT 1 INTERSECT SELECT 1",
    "SELECT a, count() OVER (PARTITION BY a) FROM t ORDER BY a WITH FILL FROM 0 TO 20",
    "SELECT number FROM numbers(3)",
    "SELECT 1 AS file",
    "SELECT * FROM (SELECT * FROM t) AS x JOIN t AS y USING (a)",
    "SELECT quantile(0.95)(a), uniq(a), argMax(a, a) FROM t",
    "-- a comment\nSELECT /* another */ 1",
    "SELECT version(), currentUser(), timezone();",
];

/// Statements that run and must not tell anything about what is hidden.
const SILENT: &[&str] = &[
    "SELECT query, Settings FROM system.processes",
    "SHOW PROCESSLIST",
    "SELECT * FROM system.errors",
    // It leaves out what may not be read.
    "SELECT * FROM merge('tally', '^api_keys$|^t$')",
    "SELECT name, create_table_query FROM system.tables WHERE name = 'api_keys'",
    "SELECT * FROM system.columns WHERE table = 'api_keys'",
    "SELECT * FROM system.parts WHERE table = 'api_keys'",
    "SELECT * FROM system.parts_columns WHERE table = 'api_keys'",
    "SELECT * FROM system.mutations",
    "SELECT * FROM system.named_collections",
    "SHOW TABLES LIKE '%key%'",
];

#[test]
fn the_reader_only_reads_what_it_was_granted() {
    let engine = Engine::start();
    engine.run("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a");
    engine.run("INSERT INTO t SELECT number FROM numbers(10)");
    engine.run("CREATE TABLE api_keys (key String) ENGINE = MergeTree ORDER BY key");
    engine.run("INSERT INTO api_keys VALUES ('SECRET')");
    engine.run("ALTER TABLE api_keys DELETE WHERE key = 'SECRET2'");
    engine.run("CREATE TABLE goals (id UInt8, token String) ENGINE = MergeTree ORDER BY id");
    engine.run("CREATE VIEW leak AS SELECT * FROM api_keys");
    let reader = engine.reader();
    let in_tally = "database=tally";

    assert_eq!(post(&reader, in_tally, b"SELECT sum(a) FROM t", &[]).text(), "45\n");
    assert_eq!(
        post(&reader, &format!("{in_tally}&param_x=3"), b"SELECT a FROM t WHERE a = {x:UInt64}", &[]).text(),
        "3\n"
    );
    let allowed =
        "SELECT formatDateTime(now(), '%Y') > '2000', format('{}', 1), sum(a) FROM t FORMAT JSONEachRow";
    assert_eq!(post(&reader, in_tally, allowed.as_bytes(), &[]).status, 200);
    assert_eq!(get(&reader, "/?database=tally&query=SHOW%20TABLES").text(), "goals\nleak\nt\n");

    for sql in ALLOWED {
        let answer = post(&reader, in_tally, sql.as_bytes(), &[]);
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
    }
    let by_name = post(&reader, "param_f=file", b"SELECT arrayMap({f:Identifier}, ['/etc/passwd'])", &[]);
    assert_eq!((by_name.status, by_name.code()), (500, "497"), "{}", by_name.text());
    for sql in REFUSED {
        // An answer that breaks off is no answer.
        let Ok(answer) = try_post(&reader, in_tally, sql.as_bytes(), &[]) else { continue };
        let text = answer.text();
        assert!(!text.contains("root:") && !text.contains("127.0.0.1:1)"), "{sql}: {text}");
        assert_ne!(answer.status, 200, "{sql}: {}", text.chars().take(300).collect::<String>());
        // The statement itself may come back in a message, what it was after may not.
        assert!(sql.contains("SECRET") || !text.contains("SECRET"), "{sql}: {text}");
    }
    // The writer's statements run meanwhile, with a secret in their text.
    let writer = engine.writer();
    let slow = std::thread::spawn(move || {
        post(
            &writer,
            "log_comment=slow",
            b"SELECT 'SECRET', sleepEachRow(1) FROM numbers(2) SETTINGS max_block_size = 1",
            &[],
        )
    });
    embedded_support::wait_for("the writer's query", || {
        engine.run("SELECT count() FROM system.processes WHERE Settings['log_comment'] = 'slow'") == "1\n"
    });
    for sql in SILENT {
        let answer = post(&reader, in_tally, sql.as_bytes(), &[]);
        let text = answer.text();
        assert!(
            !text.contains("SECRET") && !text.contains("api_keys") && !text.contains("key "),
            "{sql}: {text}"
        );
    }
    slow.join().expect("ended");

    // Settings by URL: harmless ones pass, limits can only be lowered, the rest is refused.
    let setting = |name: &str, value: &str| {
        let sql = format!("SELECT getSetting('{name}')");
        let answer = post(&reader, &format!("{name}={value}"), sql.as_bytes(), &[]);
        if answer.status == 200 { answer.text().trim().to_owned() } else { answer.code().to_owned() }
    };
    assert_eq!(setting("log_comment", "mine"), "mine");
    assert_eq!(setting("max_execution_time", "64"), "64");
    assert_eq!(setting("max_execution_time", "100000"), "120");
    assert_eq!(setting("max_execution_time", "0"), "120");
    assert_eq!(setting("readonly", "0"), "1");
    assert_ne!(setting("max_memory_usage", "0"), "0");
    for refused in [
        "additional_result_filter",
        "format_schema",
        "output_format_schema",
        "output_format_pretty_squash_consecutive_ms",
        "allow_experimental_ai_functions",
        "allow_ddl",
        "max_bytes_ratio_before_external_sort",
    ] {
        assert_eq!(setting(refused, "1"), "164", "{refused}");
    }
    // A named session is a fresh one all the same.
    post(&reader, "session_id=s", b"SET max_threads = 1", &[]);
    assert_eq!(post(&reader, "session_id=s&role=writer", b"SELECT 1", &[]).status, 400);
    assert!(!std::path::Path::new("/tmp/tally-outfile").exists());
    assert_eq!(engine.run("SELECT count() FROM t"), "10\n");
    engine.stop();
}

/// Of tally's own tables: everything that is counted, and nothing that opens anything.
#[test]
fn of_the_real_schema_it_reads_what_is_counted_and_no_secret() {
    let engine = Engine::start();
    engine.with_schema();
    let reader = engine.reader();
    let ask = |sql: &str| post(&reader, "database=tally&max_execution_time=8", sql.as_bytes(), &[]);
    let tables = ask("SHOW TABLES").text();
    for table in tables.lines() {
        let answer = ask(&format!("SELECT * FROM {table} FORMAT JSONEachRow"));
        assert!(!answer.text().contains("SECRET"), "{table}: {}", answer.text());
        assert_eq!(answer.status == 200, table != "goals", "{table}: {}", answer.text());
    }
    assert!(!tables.contains("api_keys"), "{tables}");
    assert!(tables.lines().count() > 15, "{tables}");
    let goals = ask("SELECT id, account_id, name, goal_type, deleted FROM goals");
    assert_eq!(goals.text(), "1\t1\tSales\tpurchase\tfalse\n");
    for secret in [
        "SELECT postback_token FROM goals",
        "SELECT postback_url FROM goals",
        "SELECT length(postback_token) FROM goals",
        "SELECT id FROM goals WHERE postback_token LIKE 'S%'",
        "SELECT id FROM goals ORDER BY postback_token",
        "SELECT COLUMNS('token') FROM goals",
        "SELECT count() FROM goals PREWHERE postback_token > 'A'",
        "SELECT * FROM conversions JOIN goals ON goals.postback_token = conversions.order_id",
        "SELECT * FROM api_keys",
        "SELECT count() FROM api_keys WHERE sha256 > 'A'",
        "SELECT * FROM merge('tally', 'api_keys|goals')",
    ] {
        let answer = ask(secret);
        assert_ne!(answer.status, 200, "{secret}: {}", answer.text());
        assert!(!answer.text().contains("SECRET"), "{secret}: {}", answer.text());
    }

    // Whatever takes all memory is stopped, and nobody else notices.
    let pid = engine.embedded.pid();
    for greedy in [
        "SELECT number, count() FROM numbers(1000000000) GROUP BY number FORMAT Null",
        "SELECT toString(number) AS text FROM numbers(1000000000) ORDER BY sipHash64(text) FORMAT Null",
        "SELECT arrayJoin(range(400000000)) AS n FORMAT Null",
        "SELECT count() FROM (SELECT number AS a FROM numbers(100000000)) AS x JOIN \
             (SELECT number AS a FROM numbers(100000000)) AS y USING (a)",
    ] {
        let answer = ask(greedy);
        let stopped = ["241", "243", "159", "396", "128", "131", "307"].contains(&answer.code());
        assert!(stopped, "{greedy}: {} {}", answer.status, answer.text());
    }
    assert_eq!(engine.embedded.pid(), pid, "the engine is the same");
    assert_eq!(engine.run("SELECT count() FROM conversions"), "1\n");
    assert_eq!(ask("SELECT count() FROM conversions").text(), "1\n");
    engine.stop();
}
