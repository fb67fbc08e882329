//! ClickHouse's own clients, unmodified, against the embedded engine: the `clickhouse` crate, Python's
//! `clickhouse-connect`, Node's `@clickhouse/client`. `scripts/test-tools.sh` gets the latter two.

mod embedded_support;

use std::process::Command;

use clickhouse::{Compression, Row};
use embedded_support::Engine;
use serde::{Deserialize, Serialize};

#[derive(Row, Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Hit {
    id: u64,
    name: String,
    price: Option<i64>,
    tags: Vec<String>,
}

fn hits(count: u64) -> Vec<Hit> {
    let hit = |id| Hit {
        id,
        name: format!("it's \\ {id} é"),
        price: (id % 2 == 0).then_some(id.cast_signed()),
        tags: vec!["a".into(); (id % 3) as usize],
    };
    (0..count).map(hit).collect()
}

#[test]
fn the_clickhouse_crate() {
    let engine = Engine::start();
    engine.runtime.block_on(async {
        for compression in [Compression::None, Compression::Lz4] {
            for validation in [true, false] {
                let client = engine.client().with_compression(compression).with_validation(validation);
                round_trip(&client).await;
            }
        }
        engine_errors(&engine.client()).await;
    });
    engine.stop();
}

async fn round_trip(client: &clickhouse::Client) {
    client
        .query("CREATE OR REPLACE TABLE hits (id UInt64, name String, price Nullable(Int64), tags Array(String)) ENGINE = MergeTree ORDER BY id")
        .execute()
        .await
        .expect("created");
    let rows = hits(20_000);
    let mut insert = client.insert::<Hit>("hits").await.expect("begun");
    for row in &rows {
        insert.write(row).await.expect("written");
    }
    insert.end().await.expect("ended");

    let read = client
        .query("SELECT ?fields FROM hits WHERE id < ? AND name != ? ORDER BY id")
        .bind(10)
        .bind("it's \\ 5 é")
        .with_setting("max_threads", "1")
        .fetch_all::<Hit>()
        .await
        .expect("read");
    let expected: Vec<Hit> = rows[..10].iter().filter(|row| row.id != 5).cloned().collect();
    assert_eq!(read, expected);

    let with_param = client
        .query("SELECT count() FROM hits WHERE id >= {from:UInt64} AND name LIKE {like:String}")
        .param("from", 19_990)
        .param("like", "it's%")
        .fetch_one::<u64>()
        .await
        .expect("read");
    assert_eq!(with_param, 10);

    let mut cursor = client.query("SELECT ?fields FROM hits").fetch::<Hit>().expect("begun");
    let mut count = 0;
    while cursor.next().await.expect("read").is_some() {
        count += 1;
    }
    assert_eq!(count, 20_000);
    let none = client.query("SELECT id FROM hits WHERE 0").fetch_all::<u64>().await.expect("read");
    assert!(none.is_empty());
    let comment = client
        .query("SELECT getSetting('log_comment')")
        .with_setting("log_comment", "a 'quoted' \\ one")
        .fetch_one::<String>()
        .await;
    assert_eq!(comment.expect("read"), "a 'quoted' \\ one");
}

async fn engine_errors(client: &clickhouse::Client) {
    let error = client.query("SELECT * FROM nowhere").fetch_all::<u64>().await.expect_err("refused");
    assert!(error.to_string().contains("Code: 60"), "{error}");
    let error = client.insert::<Hit>("nowhere").await.err().map(|error| error.to_string());
    assert!(error.is_some_and(|text| text.contains("60") || text.contains("nowhere")));
    let mut cursor = client
        .query(
            "SELECT toUInt64(throwIf(number = 900000)) FROM numbers(1000000) SETTINGS max_block_size = 10000",
        )
        .fetch::<u64>()
        .expect("begun");
    let broken = loop {
        match cursor.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a broken result looked complete"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(broken.contains("395") || broken.contains("throwIf"), "{broken}");
}

#[test]
fn python_clickhouse_connect() {
    run_client(".venv/bin/python", "tests/clients/client.py");
}

#[test]
fn node_clickhouse_client() {
    assert!(
        std::path::Path::new("tests/clients/node/node_modules/@clickhouse/client").is_dir(),
        "the Node client is missing: run scripts/test-tools.sh"
    );
    run_client("node", "tests/clients/node/client.mjs");
}

fn run_client(program: &str, script: &str) {
    let engine = Engine::start();
    // What dashboards read is there before their client connects.
    engine.with_schema();
    let writer_url = std::fs::read_to_string(engine.folder.path().join("writer.url")).expect("written");
    let output = Command::new(program)
        .args([script, &writer_url, &engine.embedded.reader_url()])
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}; run scripts/test-tools.sh"));
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("all good"), "{said}");
    engine.stop();
}
