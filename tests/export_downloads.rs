//! Exports over real connections: broken off and resumed, read slowly, too many at once, in the middle of a kill of the
//! engine and of a stop; and, on demand, ten million rows.

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::daemon::{Site, kill};
use support::download::{Download, End};
use support::{seed, wait_for};
use tally::clickhouse::{Database, Endpoint, Timeouts};
use tally::core::{AccountId, BatchId, ExportFormat, ExportKind, ExportQuery, UnixMillis};

const ROWS: usize = 150_000;
const CSV: &str = "/api/v1/exports/conversions?format=csv";

fn start(site: &Site, path: &str) -> Download {
    let key = loadtest::daemon::api_key(site.data_dir()).expect("a key");
    Download::start(site.daemon.options.listen, path, &key)
}

/// The whole lines of a file, without its header.
fn lines(csv: &[u8]) -> Vec<&str> {
    let whole = csv.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let text = std::str::from_utf8(&csv[..whole]).expect("UTF-8");
    text.lines().filter(|line| !line.starts_with("conversion_id,")).collect()
}

fn id<'a>(line: &&'a str) -> &'a str {
    line.split(',').next().expect("a column").trim_matches('"')
}

fn count_of(site: &Site, sql: &str) -> u64 {
    seed::run(site, sql).trim().parse().expect("a number")
}

#[test]
fn a_download_survives_what_happens_to_it() {
    let mut site = Site::start(&[]);
    seed::conversions(&site, ROWS as u64);
    broken_off_in_the_middle(&site);
    page_by_page(&site);
    too_slow_and_too_many(&site);
    the_engine_is_killed(&site);

    // Cut by a stop, and seen to be cut.
    let mut under_way = start(&site, CSV);
    under_way.read(100_000);
    site.signal(Signal::TERM);
    assert_eq!(site.ended_within(Duration::from_secs(10)).code(), Some(0));
    let (_, end) = under_way.read_to_end();
    assert_eq!(end, End::BrokenOff);
}

/// The union of what came before and after is every row, once; rows that came meanwhile are not among them.
fn broken_off_in_the_middle(site: &Site) {
    let mut first = start(site, CSV);
    assert_eq!(first.status, 200);
    let cursor = first.header("x-export-cursor").expect("a cursor").to_owned();
    let name = first.header("content-disposition").expect("a name");
    assert!(name.starts_with("attachment; filename=\"conversions_") && name.ends_with(".csv\""), "{name}");
    let (mut file, end) = first.read(15_000_000);
    assert_eq!(end, None);
    drop(first);
    seed::run(
        site,
        "INSERT INTO conversions SELECT * REPLACE (generateUUIDv7() AS conversion_id, 999999 AS batch_id) \
         FROM conversions LIMIT 1000",
    );
    assert!(file.starts_with(b"conversion_id,goal_id,order_id,value,"), "the header comes first");
    let whole = file.iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
    file.truncate(whole);
    let had = lines(&file);
    let last = id(had.last().expect("rows"));
    let (rest, end) = start(site, &format!("{CSV}&cursor={cursor}&after={last}")).read_to_end();
    assert_eq!(end, End::Clean);
    let all: Vec<_> = had.iter().chain(&lines(&rest)).map(|line| id(line).to_owned()).collect();
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (ROWS, ROWS));
    let refunded = had.iter().filter(|line| line.split(',').nth(3) != line.split(',').nth(4)).count();
    assert!(refunded > had.len() / 100, "{refunded} refunds of {}", had.len());
    seed::run(site, "ALTER TABLE conversions DELETE WHERE batch_id = 999999 SETTINGS mutations_sync = 1");
}

fn page_by_page(site: &Site) {
    let mut path = Some(format!("{CSV}&limit=60000&from=2026-10-01&to=2026-11-01"));
    let mut sizes = Vec::new();
    let mut distinct = HashSet::new();
    while let Some(page) = path {
        let page = start(site, &page);
        path = page.header("link").map(|link| link[1..].split_once('>').expect("a link").0.to_owned());
        let (file, end) = page.read_to_end();
        assert_eq!(end, End::Clean);
        let rows = lines(&file);
        sizes.push(rows.len());
        distinct.extend(rows.iter().map(|line| id(line).to_owned()));
    }
    assert_eq!((sizes, distinct.len()), (vec![60_000, 60_000, 30_000], ROWS));
}

/// A client that reads nothing holds neither a query nor the whole of it in memory; and a third one has to wait.
fn too_slow_and_too_many(site: &Site) {
    let before = loadtest::process::rss_bytes(site.pid()).expect("it runs");
    let slow = [start(site, CSV), start(site, CSV)];
    let refused = start(site, CSV);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    let exporting = "SELECT count() FROM system.processes WHERE query LIKE '%attributions_current%' \
                     AND query NOT LIKE '%system.processes%'";
    wait_for("no query for those who do not read", || count_of(site, exporting) == 0);
    let held = loadtest::process::rss_bytes(site.pid()).expect("it runs").saturating_sub(before);
    assert!(held < 48 << 20, "two exports of 42 MB each, unread, hold {held} bytes");
    let [first, second] = slow;
    assert_eq!((first.status, second.status), (200, 200));
    drop(second);
    wait_for("a place", || start(site, CSV).status == 200);
    let (file, end) = first.read_to_end();
    assert_eq!((lines(&file).len(), end), (ROWS, End::Clean));
}

/// An engine that was killed is back in seconds, and the file goes on where it was.
fn the_engine_is_killed(site: &Site) {
    let mut download = start(site, CSV);
    let (mut file, _) = download.read(1_000_000);
    let engine = site.engine_pid().expect("an engine");
    kill(engine);
    wait_for("another engine", || site.engine_pid().is_some_and(|pid| pid != engine));
    let (rest, end) = download.read_to_end();
    file.extend(rest);
    assert_eq!(end, End::Clean);
    let rows = lines(&file);
    let distinct: HashSet<_> = rows.iter().map(id).collect();
    assert_eq!((rows.len(), distinct.len()), (ROWS, ROWS));
}

/// How fast, and in how much memory: `TALLY_EXPORT_ROWS` conversions (ten million by default), the daemon's file and
/// ClickHouse's own answers to the same queries in turns.
#[test]
#[ignore = "a measurement of some minutes: cargo nextest run --release --test export_downloads --run-ignored only --no-capture"]
fn ten_million_rows_in_a_few_megabytes() {
    let rows = std::env::var("TALLY_EXPORT_ROWS").map_or(10_000_000, |rows| rows.parse().expect("a number"));
    let site = Site::start(&[]);
    seed::conversions(&site, rows);
    seed::run(&site, "OPTIMIZE TABLE conversions");
    // What is loaded once is loaded.
    start(&site, &format!("{CSV}&limit=100000")).read_to_end();
    let idle = loadtest::process::rss_bytes(site.pid()).expect("it runs");
    let (peak, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watch = {
        let (pid, peak, over) = (site.pid(), Arc::clone(&peak), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(loadtest::process::rss_bytes(pid).unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let mib = |bytes: u64| bytes >> 20;
    for format in [ExportFormat::Csv, ExportFormat::Ndjson, ExportFormat::Parquet] {
        let name = format!("{format:?}").to_lowercase();
        let mut ratios = Vec::new();
        for round in 0..3 {
            peak.store(0, Ordering::Relaxed);
            let (whole, whole_seconds) = timed(|| {
                let mut download = start(&site, &format!("/api/v1/exports/conversions?format={name}"));
                let mut bytes = 0;
                loop {
                    let (piece, end) = download.read(1 << 20);
                    bytes += piece.len() as u64;
                    match end {
                        None => {}
                        Some(end) => break assert_eq!(end, End::Clean),
                    }
                }
                bytes
            });
            let high = peak.load(Ordering::Relaxed);
            let (straight, straight_seconds) = timed(|| straight(&site, format));
            assert_eq!(whole, straight, "the same bytes");
            ratios.push(straight_seconds / whole_seconds);
            println!(
                "{name} {round}: {} MiB in {whole_seconds:.1} s, {:.0} rows/s, the daemon at {} MiB (idle {}); \
                 straight from the engine {straight_seconds:.1} s",
                mib(whole),
                f64::from(u32::try_from(rows).expect("fits")) / whole_seconds,
                mib(high),
                mib(idle),
            );
            assert!(high.saturating_sub(idle) < 96 << 20, "{} MiB beside {}", mib(high), mib(idle));
        }
        ratios.sort_by(f64::total_cmp);
        println!("{name}: {:.2} of the engine's own speed (median of {ratios:.2?})", ratios[1]);
    }
    over.store(true, Ordering::Relaxed);
    watch.join().expect("no panic");
}

fn timed<T>(what: impl FnOnce() -> T) -> (T, f64) {
    let started = Instant::now();
    (what(), started.elapsed().as_secs_f64())
}

/// The export's queries, one after the other, without the daemon: how many bytes they give.
fn straight(site: &Site, format: ExportFormat) -> u64 {
    let url = std::fs::read_to_string(site.data_dir().join("writer.url")).expect("a URL");
    let database = Database::new(Endpoint::parse(&url).expect("a URL"), Timeouts::default());
    let query = ExportQuery {
        account_id: AccountId(1),
        kind: ExportKind::Conversions,
        from: UnixMillis(0),
        to: UnixMillis(4_000_000_000_000),
        batch: BatchId(0),
        after: None,
        until: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (mut stream, mut bytes) = (database.export(query, format), 0);
        while let Some(piece) = stream.next().await.expect("exported") {
            bytes += piece.iter().map(bytes::Bytes::len).sum::<usize>() as u64;
        }
        bytes
    })
}
