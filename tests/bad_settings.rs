//! A start that must not be: settings that can't be used, a folder in use, files that are damaged. Each says what is
//! wrong and where, and changes nothing.

mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use support::faults::daemon::{NO_CLICKHOUSE, Tally, folder, refusal};
use support::faults::wait_for;

const ALONE: [&str; 2] = ["--clickhouse-url", NO_CLICKHOUSE];

#[test]
fn all_bad_settings_are_reported_at_once() {
    let folder = folder();
    let data = folder.path().join("data");
    let file = folder.path().join("tally.toml");
    fs::write(&file, "workers = 0\ncolour = \"red\"\nclickhouse_url = \"ftp://me:hunter2@x/\"\n")
        .expect("written");
    let flags = [
        "--config",
        file.to_str().expect("text"),
        "--body-bytes-max",
        "1",
        "--ip-storage",
        "some",
        "--trusted-proxies",
        "10.0.0.0/99",
        "--spool-bytes-max",
        "many",
    ];
    let (code, said) = refusal(&data, &flags);
    assert_eq!(code, Some(2), "{said}");
    for name in [
        "body-bytes-max",
        "ip-storage",
        "trusted-proxies",
        "spool-bytes-max",
        "workers",
        "colour",
        "clickhouse_url",
    ] {
        assert!(said.contains(name), "{name} is missing in: {said}");
    }
    assert!(said.contains("7 settings can't be used"), "{said}");
    assert!(!said.contains("hunter2"), "a password is not repeated: {said}");
    assert!(!data.exists(), "nothing was begun");
    assert_eq!(refusal(&data, &["--no-such-flag"]).0, Some(2));
}

#[test]
fn a_folder_has_one_daemon() {
    let folder = folder();
    let data = folder.path().join("data");
    let tally = Tally::start_alone(&data);
    let goal = tally.goal();
    let (code, said) = refusal_beside(&data);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("is in use by another tally") && said.contains(data.to_str().expect("text")),
        "{said}"
    );
    // The first one has not noticed.
    assert_eq!(tally.hit(&goal, r#"{"value":1}"#).status, 201);
    // Its end frees the folder, however it ended.
    tally.kill();
    Tally::start_alone(&data);
}

/// A second daemon on the folder, whose log does not take the first one's place.
fn refusal_beside(data: &Path) -> (Option<i32>, String) {
    let link = data.with_extension("again");
    std::os::unix::fs::symlink(data, &link).expect("linked");
    let (code, said) = refusal(&link, &ALONE);
    (code, said.replace(link.to_str().expect("text"), data.to_str().expect("text")))
}

#[test]
fn damage_stops_the_start_and_is_named() {
    let folder = folder();
    let data = folder.path().join("data");
    let tally = Tally::start_alone(&data);
    let goal = tally.goal();
    for _ in 0..20 {
        assert_eq!(tally.hit(&goal, r#"{"value":1}"#).status, 201);
    }
    tally.kill();
    let segment = data.join("wal/00000000000000000000.wal");

    // In the middle of the log, with whole records behind it.
    let offset = 64 + 8 * 20;
    let (code, said) = with_damage(&data, &segment, offset, b"\xde\xad\xbe\xef");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("segment 0 of the log is damaged at byte "), "{said}");
    let (code, said) = with_damage(&data, &segment, 3, b"x");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("segment 0 of the log is damaged at byte 0: its header is broken"), "{said}");
    for (file, text, named) in [
        ("catalog.redb", &b"not a store"[..], "catalog.redb"),
        ("catalog.redb", b"", "catalog.redb"),
        ("secret.key", b"short", "secret.key"),
    ] {
        let (code, said) = with_content(&data, &data.join(file), text);
        assert_eq!(code, Some(1), "{file}: {said}");
        assert!(said.contains(named), "{file}: {said}");
    }

    // All is as it was, and so are the hits.
    let tally = Tally::start_alone(&data);
    wait_for("the count", || tally.metric("tally_hits_accepted_total") > 0);
    assert_eq!(tally.metric("tally_hits_accepted_total"), 20);
}

#[test]
fn a_damaged_checkpoint_stops_the_start_and_is_named() {
    let folder = folder();
    let data = folder.path().join("data");
    let tally = Tally::start(&data, &support::faults::daemon::Start::default());
    let goal = tally.goal();
    assert!(matches!(tally.hit(&goal, r#"{"value":1}"#).status, 201 | 202));
    wait_for("the first checkpoint", || tally.metric("tally_hits_inserted_total") == 1);
    assert!(tally.stop().success());
    let checkpoint = find(&data, "checkpoint");
    let whole = fs::read(&checkpoint).expect("a checkpoint");
    for damaged in [&whole[..whole.len() - 1], &[][..], &[0; 200], &[&whole[..], b"x"].concat()] {
        let (code, said) = with_content(&data, &checkpoint, damaged);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("checkpoint"), "{said}");
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        if at % 16 == 0 {
            let (code, said) = with_content(&data, &checkpoint, &damaged);
            assert!(code == Some(1) && said.contains("checkpoint"), "byte {at}: {said}");
        }
    }

    // A new catalog would give out numbers that are taken: without the copy there is no start.
    let catalog = data.join("catalog.redb");
    let kept = fs::read(&catalog).expect("there");
    fs::remove_file(&catalog).expect("removed");
    let (code, said) = refusal(&data, &ALONE);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("catalog.redb is missing"), "{said}");
    assert!(!catalog.exists(), "nothing was put in its place");
    fs::write(&catalog, kept).expect("written");
    Tally::start_alone(&data);
}

fn find(folder: &Path, name: &str) -> PathBuf {
    let found = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    found.into_iter().find(|path| path.file_name().is_some_and(|file| file == name)).expect("it is there")
}

/// What a start says while those bytes of a file are others; they are as they were after it.
fn with_damage(data: &Path, path: &Path, offset: u64, bytes: &[u8]) -> (Option<i32>, String) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("there");
    let mut kept = vec![0; bytes.len()];
    file.read_exact_at(&mut kept, offset).expect("read");
    file.write_all_at(bytes, offset).expect("written");
    let refused = refusal(data, &ALONE);
    let mut left = vec![0; bytes.len()];
    file.read_exact_at(&mut left, offset).expect("read");
    assert_eq!(left, bytes, "the damage is left for whoever looks into it");
    file.write_all_at(&kept, offset).expect("written");
    refused
}

fn with_content(data: &Path, path: &Path, content: &[u8]) -> (Option<i32>, String) {
    let kept = fs::read(path).expect("there");
    fs::write(path, content).expect("written");
    let refused = refusal(data, &ALONE);
    assert_eq!(fs::read(path).expect("there"), content, "the damage is left for whoever looks into it");
    fs::write(path, kept).expect("written");
    refused
}

#[test]
fn a_damaged_end_of_the_log_stops_the_start_until_it_is_salvaged() {
    type Damage = fn(&fs::File);
    let damages: [(&str, u64, Damage); 3] = [
        // A bit of the last block.
        ("acknowledged records that stood behind it are gone", 1, |file| {
            let end = written_end(file);
            let mut byte = [0];
            file.read_exact_at(&mut byte, end - 9).expect("read");
            file.write_all_at(&[byte[0] ^ 1], end - 9).expect("written");
        }),
        ("acknowledged records that stood behind it are gone", 5, |file| {
            // Half of what there is, wherever blocks begin.
            let end = written_end(file);
            let from = 64 + (end - 64) / 2;
            file.write_all_at(&vec![0; usize::try_from(end - from).expect("small")], from).expect("written");
        }),
        ("instead of 67108864: the rest of it is gone", 5, |file| {
            file.set_len(64 + (written_end(file) - 64) / 2).expect("cut");
        }),
    ];
    for (complaint, lost_min, damage) in damages {
        let folder = folder();
        let data = folder.path().join("data");
        let tally = Tally::start_alone(&data);
        let goal = tally.goal();
        for _ in 0..12 {
            assert_eq!(tally.hit(&goal, r#"{"value":1}"#).status, 201);
        }
        wait_for("the note of the log's end", || noted_lsn(&data) == 12);
        tally.kill();
        let segment = data.join("wal/00000000000000000000.wal");
        damage(&fs::OpenOptions::new().read(true).write(true).open(segment).expect("a segment"));

        let (code, said) = refusal(&data, &ALONE);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(complaint) && said.contains("tally log salvage"), "{said}");
        assert!(said.contains("wal/00000000000000000000.wal"), "{said}");

        let salvage = std::process::Command::new(env!("CARGO_BIN_EXE_tally"))
            .args(["log", "salvage", "--data-dir"])
            .arg(&data)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&salvage.stdout).into_owned();
        assert!(salvage.status.success(), "{said}{}", String::from_utf8_lossy(&salvage.stderr));

        let tally = Tally::start_alone(&data);
        wait_for("the count", || tally.metric("tally_hits_accepted_total") > 0);
        wait_for("the loss", || tally.metric("tally_wal_lost_records") > 0);
        let (kept, lost) =
            (tally.metric("tally_hits_accepted_total"), tally.metric("tally_wal_lost_records"));
        assert_eq!(kept + lost, 12, "{said}");
        assert!(lost >= lost_min, "{said}");
        assert!(said.contains(&format!("{lost} acknowledged records are gone")), "{said}");
    }
}

/// Behind the last byte of a segment that is not zero.
fn written_end(file: &fs::File) -> u64 {
    let mut bytes = vec![0; 1 << 20];
    file.read_exact_at(&mut bytes, 0).expect("read");
    bytes.iter().rposition(|&byte| byte != 0).expect("a block") as u64 + 1
}

/// The number of records up to which the log's end is noted.
fn noted_lsn(data: &Path) -> u64 {
    let bytes = fs::read(data.join("wal/durable-end")).expect("there");
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    [0, 512].map(|slot| word(slot + 32)).into_iter().max().expect("two slots")
}

/// Loading a library runs its code: a file of the current folder has no say in which one it is.
#[test]
fn the_current_folder_names_no_library() {
    let folder = folder();
    // A program with no library beside it, in a folder that somebody else filled.
    let program = folder.path().join("bin/tally");
    let foreign = folder.path().join("foreign");
    fs::create_dir_all(program.parent().expect("a folder")).expect("made");
    fs::hard_link(env!("CARGO_BIN_EXE_tally"), &program)
        .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_tally"), &program).map(drop))
        .expect("there");
    fs::create_dir_all(foreign.join(".libchdb")).expect("made");
    for library in [".libchdb/libchdb.so", "libchdb.so"] {
        fs::write(foreign.join(library), "not a library").expect("written");
    }
    let check = |library: Option<&str>, file: &str| {
        fs::write(foreign.join("tally.toml"), file).expect("written");
        let mut command = std::process::Command::new(&program);
        command.args(["check", "--data-dir"]).arg(folder.path().join("data")).current_dir(&foreign);
        match library {
            Some(library) => command.env("TALLY_LIBCHDB", library),
            None => command.env_remove("TALLY_LIBCHDB"),
        };
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = check(None, "");
    assert_eq!(code, Some(1), "{said}");
    let beside = program.with_file_name("libchdb.so");
    assert!(
        said.contains("libchdb.so was not found") && said.contains(beside.to_str().expect("text")),
        "{said}"
    );
    assert!(!said.contains("foreign") && !said.contains("cannot load"), "{said}");

    let named = foreign.join("libchdb.so");
    for (library, file) in [
        (Some("libchdb.so"), String::new()),
        (Some(".libchdb/libchdb.so"), String::new()),
        (None, "libchdb = \".libchdb/libchdb.so\"\n".to_owned()),
        // Not even by its absolute path, in a file that nobody named.
        (None, format!("libchdb = \"{}\"\n", named.display())),
    ] {
        let (code, said) = check(library, &file);
        assert_eq!(code, Some(2), "{library:?} {file}: {said}");
        assert!(said.contains("the absolute path of libchdb.so"), "{said}");
    }
}
