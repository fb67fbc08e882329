//! Damage of the log: what is set aside of it, in the metrics; and `tally log salvage`.

use std::{path::Path, process::ExitCode, time::Duration};

use metrics::{Unit, describe_gauge, gauge};

use super::{LOG_FOLDER, SEGMENT_BYTES, commands::CommandError, data_dir::DataDir};
use crate::{
    config::Config,
    shipper::{Folder, Origin},
    wal,
};

/// An operator removes the files once they were seen; until then they are looked for this often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// Publishes what is set aside in the log's folder, until it is dropped.
pub(super) async fn watch(log_dir: std::path::PathBuf) {
    let mut ticks = tokio::time::interval(LOOK_AGAIN_AFTER);
    loop {
        ticks.tick().await;
        match wal::set_aside(&log_dir) {
            Ok(files) => publish(&files),
            // The gauges keep what they said last.
            Err(error) => tracing::warn!(%error, "the log's folder can't be listed"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn publish(files: &[wal::SetAside]) {
    let torn = files.iter().filter(|file| file.records_lost.is_none()).count();
    let lost: u64 = files.iter().filter_map(|file| file.records_lost).sum();
    gauge!("tally_wal_torn_tails").set(torn as f64);
    gauge!("tally_wal_lost_records").set(lost as f64);
    gauge!("tally_wal_set_aside_bytes").set(files.iter().map(|file| file.bytes).sum::<u64>() as f64);
}

/// Says what the metrics mean. Once, after the recorder is in force.
pub(super) fn describe_metrics() {
    describe_gauge!(
        "tally_wal_torn_tails",
        Unit::Count,
        "Ends of the log that were not whole at a start and are set aside as wal/torn-*: not known to have been acknowledged."
    );
    describe_gauge!(
        "tally_wal_lost_records",
        Unit::Count,
        "Acknowledged records that damage of the log took, by the files wal/lost-*."
    );
    describe_gauge!("tally_wal_set_aside_bytes", Unit::Bytes, "Size of the files wal/torn-* and wal/lost-*.");
}

/// `tally log salvage`: makes a damaged log usable again, keeping every intact record.
pub fn salvage(config: &Config) -> Result<ExitCode, CommandError> {
    let held = DataDir::take_existing(&config.data_dir, "log salvage")?;
    let folder = Folder::new(held.path());
    let settled = folder.load_checkpoint()?.position;
    let mut known_end = settled;
    for id in folder.cut_ids()? {
        if let Origin::Log { to, .. } = folder.load_cut(id)?.origin {
            known_end = known_end.max(to);
        }
    }
    let dir = held.path().join(LOG_FOLDER);
    let done = wal::salvage(&dir, SEGMENT_BYTES, settled, known_end)?;
    report(&dir, &done);
    Ok(ExitCode::SUCCESS)
}

fn report(dir: &Path, done: &wal::Salvage) {
    for number in &done.segments_mended {
        println!("segment {number}: its file, size or header was made again");
    }
    for gap in &done.gaps {
        let wal::Gap { segment, offset, bytes, records } = gap;
        println!(
            "segment {segment}: {bytes} bytes from byte {offset} on are damaged; {records} records are gone"
        );
    }
    let records: u64 = done.gaps.iter().map(|gap| gap.records).sum();
    if done.gaps.is_empty() && done.segments_mended.is_empty() {
        println!("The log is whole; nothing was changed.");
    } else {
        println!(
            "\n{records} acknowledged records are gone; all others are kept. The damaged bytes are in {dir}/lost-*: \
             `tally audit` and tally_wal_lost_records report them until these files are moved away.",
            dir = dir.display()
        );
    }
}
