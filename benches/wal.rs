//! The log: taking a record, and group commit by how many wait at a time. On a real disk, under `target/`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tally::wal::{Config, Position, Wal};

/// About what a conversion takes.
const RECORD: [u8; 150] = [7; 150];

fn group_commit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return };
    let mut group = criterion.benchmark_group("group commit");
    for waiters in [1u64, 16, 64, 512] {
        let Ok(folder) = tempfile::tempdir_in("target") else { return };
        let config = Config {
            dir: folder.path().to_owned(),
            segment_bytes: 64 << 20,
            spool_bytes_max: 16 << 30,
            disk_free_bytes_min: 0,
            appenders: 1,
        };
        let Ok(wal) = Wal::open(config, Position::START) else { return };
        let appender = wal.appender(0);
        let pump = runtime.spawn(appender.pump());
        group.throughput(Throughput::Elements(waiters));
        group.bench_function(format!("{waiters} waiters"), |bench| {
            bench.iter(|| {
                runtime.block_on(async {
                    let mut last = None;
                    for _ in 0..waiters {
                        last = appender.append(|out| out.extend_from_slice(&RECORD)).ok();
                    }
                    if let Some(ticket) = last {
                        assert_eq!(wal.wait(ticket).await, Ok(()), "the disk works");
                    }
                    // What is settled is recycled, so that the disk does not fill up.
                    wal.trim(wal.durable_end());
                });
            });
        });
        pump.abort();
        wal.close();
    }
    group.finish();
}

criterion_group!(benches, group_commit);
criterion_main!(benches);
