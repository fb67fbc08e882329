//! Damage of every kind: the log is opened without it, or not at all, and an operator can go on with what is whole.

use super::*;

/// A folder with a log of 100 records, closed, and where it ends.
fn log() -> (tempfile::TempDir, Position) {
    let folder = tempfile::tempdir().expect("a folder");
    let end = filled(folder.path(), 100);
    assert!(end.segment >= 2, "several segments are in play");
    (folder, end)
}

fn try_open(dir: &Path) -> Result<Fixture, OpenError> {
    Fixture::try_open(config(dir), Position::START)
}

/// The numbers that the records hold.
fn numbers(fixture: &Fixture) -> Vec<u32> {
    let all = read(fixture.wal.reader(Position::START).expect("readable"));
    all.iter().map(|(_, bytes, _)| u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))).collect()
}

fn zero(dir: &Path, number: u64, range: std::ops::Range<u64>) {
    let file = OpenOptions::new().write(true).open(segment::path(dir, number)).expect("a segment");
    file.write_all_at(&vec![0; usize::try_from(range.end - range.start).expect("small")], range.start)
        .expect("written");
}

/// Where the last blocks begin: all are of one record of 100 bytes.
fn last_blocks(end: Position, count: u64) -> std::ops::Range<u64> {
    end.offset - count * 128..end.offset
}

/// The damage stops a start, and leaves nothing behind that a second start would take for health.
fn refused(dir: &Path) -> OpenError {
    let first = try_open(dir).err().expect("refused");
    let second = try_open(dir).err().expect("refused again");
    assert_eq!(first.to_string(), second.to_string());
    let checked = check(dir, SEGMENT_BYTES, Position::START).expect_err("the same without a start");
    assert_eq!(checked.to_string(), first.to_string());
    first
}

/// Salvages, and proves that the log is sound again: it goes on, without `gone`, and counts them.
fn salvaged(dir: &Path, gone: &[u32]) -> Salvage {
    let done = salvage(dir, SEGMENT_BYTES, Position::START, Position::START).expect("salvaged");
    let again = salvage(dir, SEGMENT_BYTES, Position::START, Position::START).expect("salvaged");
    assert_eq!(again, Salvage::default(), "the second time there is nothing to do");
    let lost: u64 = done.gaps.iter().map(|gap| gap.records).sum();
    assert_eq!(lost, gone.len() as u64, "{done:?}");
    let kept: u64 = set_aside(dir).expect("readable").iter().filter_map(|file| file.records_lost).sum();
    assert_eq!(kept, lost, "what is gone stays to be seen");

    let fixture = try_open(dir).expect("opens");
    assert_eq!(fixture.wal.durable_end().lsn, 100, "no number is given twice");
    let left: Vec<u32> = (0..100).filter(|number| !gone.contains(number)).collect();
    assert_eq!(numbers(&fixture), left);
    for number in 100..160u32 {
        let mut record = number.to_le_bytes().to_vec();
        record.resize(100, 0);
        assert_eq!(fixture.append(&[record]), [Ok(())]);
    }
    fixture.close();
    let fixture = try_open(dir).expect("opens again");
    assert_eq!(numbers(&fixture), left.into_iter().chain(100..160).collect::<Vec<_>>());
    fixture.close();
    done
}

#[test]
fn a_flipped_byte_in_the_last_block_is_not_taken_for_a_torn_write() {
    let (folder, end) = log();
    flip(folder.path(), end.segment, last_blocks(end, 1).start + 60);
    let error = refused(folder.path());
    let place = last_blocks(end, 1).start;
    assert!(
        matches!(error, OpenError::Lost { segment, offset, records: 1 } if (segment, offset) == (end.segment, place)),
        "{error}"
    );
    assert!(error.to_string().contains("tally log salvage"), "{error}");
    let done = salvaged(folder.path(), &[99]);
    assert_eq!(done.gaps, [Gap { segment: end.segment, offset: place, bytes: 128, records: 1 }]);
}

#[test]
fn zeroed_last_blocks_are_not_taken_for_unwritten_space() {
    let (folder, end) = log();
    zero(folder.path(), end.segment, last_blocks(end, 5));
    assert!(matches!(refused(folder.path()), OpenError::Lost { records: 5, .. }));
    salvaged(folder.path(), &[95, 96, 97, 98, 99]);
}

#[test]
fn a_segment_cut_short_is_refused_wherever_it_is_cut() {
    // In the last one between records, in its unwritten space, before everything; and one in the middle.
    for (back, keep) in [(0, 64 + 3 * 128), (0, SEGMENT_BYTES - 1), (0, 0), (1, 64 + 128)] {
        let (folder, end) = log();
        let number = end.segment - back;
        let path = segment::path(folder.path(), number);
        let file = OpenOptions::new().write(true).open(&path).expect("a segment");
        file.set_len(keep).expect("cut");
        let error = refused(folder.path());
        assert!(
            matches!(&error, OpenError::Short { path: named, expected: SEGMENT_BYTES, found } if (named, *found) == (&path, keep)),
            "{error}"
        );
        let whole = u32::try_from(keep.saturating_sub(64) / 128).expect("small");
        let first = u32::try_from(number).expect("small") * 31;
        let behind = (first + 31).min(100);
        salvaged(folder.path(), &(first + whole..behind).collect::<Vec<_>>());
    }
}

#[test]
fn what_stands_behind_damage_is_kept() {
    // A record, a block's header, the seal that ends a segment, the header of a segment: what is gone with each.
    for (number, byte, gone) in
        [(0, 64 + 60, vec![0]), (1, 64 + 128 + 3, vec![32]), (1, 64 + 31 * 128 + 8, vec![]), (1, 20, vec![])]
    {
        let (folder, _) = log();
        flip(folder.path(), number, byte);
        let error = refused(folder.path());
        assert!(
            matches!(error, OpenError::Read(ReadError::Damaged { segment, .. }) if segment == number),
            "{error}"
        );
        assert!(error.to_string().contains("tally log salvage"), "{error}");
        salvaged(folder.path(), &gone);
    }
}

#[test]
fn a_missing_segment_takes_its_own_records_and_no_others() {
    for number in [1, 3] {
        let (folder, end) = log();
        assert_eq!(end.segment, 3);
        std::fs::remove_file(segment::path(folder.path(), number)).expect("removed");
        refused(folder.path());
        let first = u32::try_from(number).expect("small") * 31;
        salvaged(folder.path(), &(first..(first + 31).min(100)).collect::<Vec<_>>());
    }
}

#[test]
fn a_torn_write_is_set_aside_and_says_so() {
    let (folder, end) = log();
    let dir = folder.path();
    // A block that was never acknowledged, but for its last byte.
    let mut torn = vec![7; 400];
    let seal = block::Seal {
        log_id: durable_end::read(dir).expect("readable").expect("there").log_id,
        segment: end.segment,
    };
    block::finish(&mut torn, seal, block::Kind::Records, 3, end.lsn);
    torn.pop();
    let file = segment::open(dir, end.segment).expect("the last segment");
    file.write_all_at(&torn, end.offset).expect("written");
    let seen = check(dir, SEGMENT_BYTES, Position::START).expect("no reason not to start").expect("seen");
    assert_eq!(
        (seen.segment, seen.offset, seen.bytes, seen.records),
        (end.segment, end.offset, 399, Some(3))
    );

    let fixture = try_open(dir).expect("opens");
    assert_eq!(numbers(&fixture).len(), 100);
    let kept = set_aside(dir).expect("readable");
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].offset, kept[0].records_lost), (end.offset, None));
    assert_eq!(std::fs::read(&kept[0].path).expect("readable"), torn);
    fixture.close();
    let fixture = try_open(dir).expect("opens");
    fixture.close();
    assert_eq!(set_aside(dir).expect("readable").len(), 1, "the next start finds nothing more");
    assert_eq!(check(dir, SEGMENT_BYTES, Position::START).expect("sound"), None);
}

/// A copy of the folder as a kill would leave it, once the writer had nothing to do.
fn killed(fixture: &Fixture, dir: &Path) -> tempfile::TempDir {
    let end = fixture.wal.durable_end();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while durable_end::read(dir).expect("readable").is_none_or(|stored| stored.end != end) {
        assert!(std::time::Instant::now() < deadline, "the end is not noted");
        std::thread::yield_now();
    }
    let copy = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(dir).expect("readable") {
        let entry = entry.expect("readable");
        // The next segment may be on its way.
        let _ = std::fs::copy(entry.path(), copy.path().join(entry.file_name()));
    }
    copy
}

#[test]
fn a_kill_leaves_a_clean_end_in_recycled_segments_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture::open(config(folder.path()), Position::START);
    let mut settled = Position::START;
    for round in 0..100u8 {
        assert_eq!(fixture.append(&[vec![round; 150]]), [Ok(())]);
        let end = fixture.wal.durable_end();
        let copy = killed(&fixture, folder.path());
        assert_eq!(check(copy.path(), SEGMENT_BYTES, settled).expect("sound"), None, "after {round}");
        if round % 5 == 4 {
            zero(copy.path(), end.segment, end.offset - 184..end.offset);
            let error = check(copy.path(), SEGMENT_BYTES, settled).expect_err("a record is gone");
            let lost = matches!(error, OpenError::Lost { records: 1, .. });
            // At the start of a segment, the damage is behind the seal of the one before.
            assert!(lost, "{error}");
            settled = end;
            fixture.wal.trim(settled);
        }
    }
    assert!(settled.segment > 3, "segments were used again");
    fixture.close();
}

#[test]
fn a_folder_of_the_version_before_opens_with_the_old_bytes_of_recycled_segments() {
    let (folder, end) = log();
    let dir = folder.path();
    std::fs::remove_file(durable_end::path(dir)).expect("removed");
    // That version neither cleared nor flagged what it used again.
    let old = std::fs::read(segment::path(dir, 0)).expect("readable");
    for (number, from) in [(end.segment, end.offset), (end.segment + 1, 64)] {
        let from = usize::try_from(from).expect("small");
        let file = segment::open(dir, number).expect("a segment");
        file.write_all_at(&old[from..], from as u64).expect("written");
    }
    let fixture = try_open(dir).expect("opens");
    assert_eq!(numbers(&fixture).len(), 100);
    assert_eq!(set_aside(dir).expect("readable"), []);
    for _ in 0..100 {
        assert_eq!(fixture.append(&[vec![1; 100]]), [Ok(())]);
    }
    fixture.close();
    assert_eq!(check(dir, SEGMENT_BYTES, Position::START).expect("sound"), None);
}

#[test]
fn what_is_no_segment_of_the_log_is_refused_by_name() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 5] = [
        ("a folder", |dir| {
            std::fs::remove_file(segment::path(dir, 1)).expect("removed");
            std::fs::create_dir(segment::path(dir, 1)).expect("made");
        }),
        ("a link", |dir| {
            let elsewhere = dir.join("elsewhere");
            std::fs::rename(segment::path(dir, 1), &elsewhere).expect("moved");
            std::os::unix::fs::symlink(&elsewhere, segment::path(dir, 1)).expect("linked");
        }),
        ("another name", |dir| std::fs::write(dir.join("17.wal"), b"x").expect("written")),
        ("a segment of another log", |dir| {
            let (other, _) = log();
            std::fs::copy(segment::path(other.path(), 1), segment::path(dir, 1)).expect("copied");
        }),
        ("another log", |dir| {
            let (other, end) = log();
            for number in 0..=end.segment {
                std::fs::copy(segment::path(other.path(), number), segment::path(dir, number))
                    .expect("copied");
            }
        }),
    ];
    for (what, damage) in cases {
        let (folder, _) = log();
        damage(folder.path());
        let error = refused(folder.path());
        assert!(
            matches!(
                error,
                OpenError::NotASegment { .. }
                    | OpenError::Foreign { .. }
                    | OpenError::Read(ReadError::Damaged { .. })
            ),
            "{what}: {error}"
        );
    }
}
