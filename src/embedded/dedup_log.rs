//! Repairs the engine's deduplication logs before it starts.
//!
//! The engine writes an insert's token to `store/*/*/deduplication_logs/*.txt` *before* it renames the part
//! into place. Killed in between, it remembers the token and has no rows: the re-send with the same token is
//! answered OK and dropped, and that table never gets the rows. So, before a start, every recent token whose
//! part is neither on disk nor covered by a merged part is taken out of its log.
//!
//! Must run while no engine has the data path.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Only this many of a table's last entries are looked at: the ones that can have been in flight. Older
/// entries may have lost their part in ways that leave no trace here (TTL), and must go on deduplicating.
const TAIL_ENTRIES: usize = 256;

/// Repairs every table under `data` (the engine's path) and returns how many entries were dropped.
pub(crate) fn repair(data: &Path) -> io::Result<usize> {
    let mut dropped = 0;
    for prefix in folders(&data.join("store"))? {
        for table in folders(&prefix)? {
            let logs = table.join("deduplication_logs");
            if logs.is_dir() {
                dropped += repair_table(data, &table, &logs)?;
            }
        }
    }
    Ok(dropped)
}

/// The lines to keep, of a table's log files in order, given the names of what lies in its folder.
///
/// A line is `operation TAB part TAB block`, operation 1 to add and 2 to drop. An entry goes when it is one of
/// the last [`TAIL_ENTRIES`], adds a part that is not there, and no later line drops it. A last line that was
/// cut off goes too. Everything else stays as it is, byte for byte.
fn keep(files: &[String], parts: &HashSet<String>) -> Vec<String> {
    let ranges: Vec<Part<'_>> = parts.iter().filter_map(|name| Part::parse(name)).collect();
    let mut kept = Vec::with_capacity(files.len());
    let mut dropped_later = HashSet::new();
    let mut seen = 0;
    // Backwards, since what comes later decides.
    for text in files.iter().rev() {
        let mut stay: Vec<&str> = Vec::new();
        for line in text.split_inclusive('\n').rev() {
            seen += 1;
            let is_end = seen == 1;
            let Some(complete) = line.strip_suffix('\n') else {
                if !is_end {
                    stay.push(line);
                }
                continue;
            };
            let mut fields = complete.split('\t');
            let (operation, part, block) = (fields.next(), fields.next(), fields.next());
            if let (Some("2"), Some(_), Some(block)) = (operation, part, block) {
                dropped_later.insert(block);
            }
            let lost = match (operation, part.and_then(Part::parse), block) {
                (Some("1"), Some(part), Some(block)) => {
                    seen <= TAIL_ENTRIES
                        && !dropped_later.contains(block)
                        && !ranges.iter().any(|present| present.covers(&part))
                }
                _ => false,
            };
            if !lost {
                stay.push(line);
            }
        }
        stay.reverse();
        kept.push(stay.concat());
    }
    kept.reverse();
    kept
}

/// A part's name: `PARTITION_MIN_MAX_LEVEL` or, after a mutation, `…_VERSION`.
struct Part<'a> {
    partition: &'a str,
    first: u64,
    last: u64,
}

impl<'a> Part<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let fields: Vec<&str> = name.split('_').collect();
        let (partition, numbers) = fields.split_first()?;
        if partition.is_empty() || !(3..=4).contains(&numbers.len()) {
            return None;
        }
        let numbers: Vec<u64> = numbers.iter().map(|field| field.parse().ok()).collect::<Option<_>>()?;
        Some(Self { partition, first: numbers[0], last: numbers[1] })
    }

    fn covers(&self, other: &Part<'_>) -> bool {
        self.partition == other.partition && self.first <= other.first && self.last >= other.last
    }
}

fn repair_table(data: &Path, table: &Path, logs: &Path) -> io::Result<usize> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(logs)? {
        let path = entry?.path();
        if let Some(number) = log_number(&path) {
            paths.push((number, path));
        }
    }
    paths.sort();
    let texts = paths.iter().map(|(_, path)| fs::read_to_string(path)).collect::<io::Result<Vec<_>>>()?;
    let mut parts = HashSet::new();
    for entry in fs::read_dir(table)? {
        parts.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let mut dropped = 0;
    for (((_, path), text), kept) in paths.iter().zip(&texts).zip(keep(&texts, &parts)) {
        if kept != *text {
            dropped += text.lines().count() - kept.lines().count();
            // The new file is made outside the log's folder, where the engine reads every file.
            let temporary = data.join("deduplication_log.new");
            let mut file = fs::File::create(&temporary)?;
            file.write_all(kept.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            fs::File::open(logs)?.sync_all()?;
        }
    }
    Ok(dropped)
}

fn log_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("deduplication_log_")?.strip_suffix(".txt")?.parse().ok()
}

/// The folders in a folder; none if it is not there (a first start).
fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn kept(log: &str, on_disk: &[&str]) -> String {
        keep(&[log.to_owned()], &parts(on_disk)).concat()
    }

    #[test]
    fn a_token_without_its_part_goes() {
        let log = "1\tall_1_1_0\ta\n1\tall_2_2_0\tb\n";
        assert_eq!(kept(log, &["all_1_1_0", "tmp_insert_all_2_2_0"]), "1\tall_1_1_0\ta\n");
    }

    #[test]
    fn a_merged_or_mutated_part_covers() {
        let log = "1\tall_1_1_0\ta\n1\tall_2_2_0\tb\n1\tall_3_3_0\tc\n";
        assert_eq!(kept(log, &["all_1_2_1", "all_3_3_0_4"]), log);
        assert_eq!(kept(log, &["other_1_3_1"]), "");
    }

    #[test]
    fn a_lost_token_between_present_ones_goes_and_a_dropped_one_stays() {
        let log = "1\tall_1_1_0\ta\n1\tall_2_2_0\tb\n1\tall_3_3_0\tc\n2\tall_1_1_0\ta\n";
        assert_eq!(kept(log, &["all_3_3_0"]), "1\tall_1_1_0\ta\n1\tall_3_3_0\tc\n2\tall_1_1_0\ta\n");
    }

    #[test]
    fn a_line_cut_off_by_a_kill_goes() {
        assert_eq!(kept("1\tall_1_1_0\ta\n1\tall_2_", &["all_1_1_0"]), "1\tall_1_1_0\ta\n");
    }

    #[test]
    fn old_entries_go_on_deduplicating() {
        let lines: Vec<String> =
            (1..=TAIL_ENTRIES + 10).map(|n| format!("1\tall_{n}_{n}_0\tb{n}\n")).collect();
        let log = lines.concat();
        assert_eq!(kept(&log, &[]).lines().count(), 10);
    }

    #[test]
    fn files_on_disk_are_rewritten_in_place() {
        let data = tempfile::tempdir().expect("a folder");
        assert_eq!(repair(data.path()).expect("a first start"), 0);
        let table = data.path().join("store/abc/abc-def");
        let logs = table.join("deduplication_logs");
        fs::create_dir_all(&logs).expect("made");
        fs::create_dir_all(table.join("all_1_1_0")).expect("made");
        fs::write(logs.join("deduplication_log_1.txt"), "1\tall_1_1_0\ta\n").expect("written");
        fs::write(logs.join("deduplication_log_2.txt"), "1\tall_2_2_0\tb\n").expect("written");
        assert_eq!(repair(data.path()).expect("repaired"), 1);
        assert_eq!(repair(data.path()).expect("repaired"), 0);
        let read = |name: &str| fs::read_to_string(logs.join(name)).expect("there");
        assert_eq!(read("deduplication_log_1.txt"), "1\tall_1_1_0\ta\n");
        assert_eq!(read("deduplication_log_2.txt"), "");
        assert_eq!(fs::read_dir(&logs).expect("a folder").count(), 2);
    }

    proptest! {
        #[test]
        fn only_whole_lines_go_and_present_parts_always_stay(
            entries in prop::collection::vec((1_u8..=2, 1_u64..40, 0_u8..6), 0..60),
            on_disk in prop::collection::hash_set(1_u64..40, 0..40),
        ) {
            let lines: Vec<String> =
                entries.iter().map(|(op, n, block)| format!("{op}\tall_{n}_{n}_0\t{block}\n")).collect();
            let present: HashSet<String> = on_disk.iter().map(|n| format!("all_{n}_{n}_0")).collect();
            let result = keep(&[lines.concat()], &present).concat();
            let mut left = result.split_inclusive('\n').peekable();
            for (line, (op, n, _)) in lines.iter().zip(&entries) {
                if left.peek() == Some(&line.as_str()) {
                    left.next();
                } else {
                    prop_assert!(*op == 1 && !on_disk.contains(n));
                }
            }
            prop_assert!(left.next().is_none());
            // A second repair finds nothing to do.
            prop_assert_eq!(keep(std::slice::from_ref(&result), &present).concat(), result);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,200}", name in "\\PC{0,30}") {
            let _ = keep(&[text], &parts(&[name.as_str()]));
        }
    }
}
