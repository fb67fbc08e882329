//! The formats that hold records, as released: log payload, sealed batch, checkpoint, dead letters.

use super::{
    cut::{Content, Cut, tests::sample},
    dead_letters::{self, Letter},
    folder::Folder,
    samples::{adjustment, click, conversion, everything, refusal},
    *,
};
use crate::core::{ClickId, Conversion, Matching, RunId, UnixMillis, rows::Table};

/// Records of each kind, with everything that they may hold and with nothing of it.
fn records() -> Vec<Record> {
    let known = Conversion {
        matching: Matching::Keys(vec![u64::MAX, 3]),
        click_id: Some(ClickId(9)),
        unverified: true,
        ..conversion(41)
    };
    let bare = Conversion { key: None, order_id: None, ip: None, user_agent: String::new(), ..conversion(2) };
    let private = Conversion { matching: Matching::PrivateAddress, ..conversion(40) };
    vec![
        Record::Conversion(known),
        Record::Conversion(bare),
        Record::Conversion(private),
        Record::Click(click(1)),
        Record::Refusal(refusal(1)),
        Record::Adjustment(adjustment(1)),
    ]
}

#[test]
fn records_of_the_log_stay() {
    let mut all = Vec::new();
    for record in records() {
        let mut bytes = Vec::new();
        payload::encode(&record, &mut bytes);
        all.extend_from_slice(&u32::try_from(bytes.len()).expect("small").to_le_bytes());
        all.extend_from_slice(&bytes);
        assert_eq!(payload::decode(&bytes).expect("own bytes"), record);
    }
    assert_golden!("log-records-1", &all);
}

#[test]
fn sealed_batches_stay() {
    assert_golden!("sealed-batch-2", &sample().encode());
    let origin = Origin::DeadLetters(vec!["11-0.json".to_owned()]);
    let replayed = Cut::new(BatchId(13), None, origin, &Content { late: vec![], ..everything() });
    let bytes = replayed.encode();
    assert_golden!("sealed-batch-of-dead-letters-2", &bytes);
    assert_eq!(Cut::decode(&bytes.into()), Ok(replayed));
}

/// Format 1 has the same bytes and other tokens: ClickHouse may know them already.
#[test]
fn sealed_batches_of_format_1_are_read_and_keep_their_tokens() {
    for name in ["sealed-batch-1", "sealed-batch-of-dead-letters-1"] {
        let path = format!("{}/tests/fixtures/formats/{name}", env!("CARGO_MANIFEST_DIR"));
        let bytes = bytes::Bytes::from(std::fs::read(path).expect("there"));
        let cut = Cut::decode(&bytes).expect("format 1");
        assert_eq!(cut.encode(), bytes);
        assert_eq!(cut.token(Table::Clicks, 3), format!("tally-{}-clicks-3", cut.batch_id.0));
    }
}

#[test]
fn checkpoints_stay() {
    let mut checkpoint = Checkpoint {
        position: Position { lsn: 1 << 40, segment: 77, offset: 4096 },
        settled: BatchId(1_793_491_200_000_001),
        ahead: PerKind([3, 2, 1]),
        ..Checkpoint::NEW
    };
    for (n, kind) in (1..).zip(Kind::ALL) {
        checkpoint.totals.kinds[kind] =
            KindTotals { accepted: n * 6, inserted: n * 3, duplicates: n * 2, dead_lettered: n };
    }
    (checkpoint.totals.refusals, checkpoint.totals.refusals_dead_lettered) = (8, 9);
    let bytes = checkpoint.encode();
    assert_golden!("checkpoint-1", &bytes);
    assert_eq!(Checkpoint::decode(&bytes).expect("own bytes"), checkpoint);
}

#[test]
fn dead_letters_stay() {
    let Content { clicks, conversions, adjustments, refusals, late } = everything();
    let none = Content::default;
    let first = [
        Content { clicks: clicks[..1].to_vec(), ..none() },
        Content { conversions: conversions[..1].to_vec(), ..none() },
        Content { adjustments: adjustments[..1].to_vec(), ..none() },
        Content { refusals: refusals[..1].to_vec(), ..none() },
        Content { late: late[..1].to_vec(), ..none() },
    ];
    let [click, conversion, adjustment, refusal, late] = first.map(|content| {
        let json = dead_letters::write(&content, "no", Some(469), UnixMillis(1_793_491_200_000));
        assert!(matches!(
            dead_letters::read("1-0", &json).expect("own bytes"),
            Letter::Record(_) | Letter::LateDuplicate { .. }
        ));
        json
    });
    assert_golden!("dead-letter-click-1.json", &click);
    assert_golden!("dead-letter-conversion-1.json", &conversion);
    assert_golden!("dead-letter-adjustment-1.json", &adjustment);
    assert_golden!("dead-letter-rejection-1.json", &refusal);
    assert_golden!("dead-letter-late-duplicate-1.json", &late);
}

#[test]
fn numbers_in_small_files_stay() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(data.path());
    folder.create().expect("made");
    folder.store_attribution_run(RunId(7)).expect("stored");
    assert_eq!(std::fs::read(data.path().join("attribution-run")).expect("there"), b"7\n");
    assert_eq!(folder.next_generation(BatchId(5)).expect("stored"), 1);
    assert_eq!(std::fs::read(data.path().join("cuts/5.generation")).expect("there"), b"1\n");
    folder.store_cut(&sample()).expect("stored");
    assert!(data.path().join("cuts/12.cut").exists());
}
