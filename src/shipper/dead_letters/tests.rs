//! What was written reads back, and any edit is answered.

use proptest::prelude::*;

use super::*;
use crate::{
    core::{ClickId, Conversion, CountedConversion, Matching, Unattributed},
    shipper::samples::{conversion, counted, everything},
};

fn content(conversions: Vec<CountedConversion>) -> Content {
    Content { conversions, ..Content::default() }
}

/// A letter for each record of [`everything`].
fn letters() -> Vec<(Content, Letter)> {
    let Content { clicks, conversions, adjustments, late, refusals } = everything();
    let clicks = clicks.into_iter().map(|counted| {
        let record = Record::Click(counted.click.clone());
        (Content { clicks: vec![counted], ..Content::default() }, Letter::from(record))
    });
    let private = Conversion { matching: Matching::PrivateAddress, ..conversion(40) };
    let known = Conversion {
        matching: Matching::Keys(vec![u64::MAX, 3]),
        click_id: Some(ClickId(9)),
        ..conversion(41)
    };
    let more = [private, known].map(|c| CountedConversion::unattributed(c, Unattributed::NoCandidate));
    let conversions = conversions.into_iter().chain(more).map(|counted| {
        let record = Record::Conversion(counted.conversion.clone());
        (Content { conversions: vec![counted], ..Content::default() }, Letter::from(record))
    });
    let adjustments = adjustments.into_iter().map(|counted| {
        let record = Record::Adjustment(counted.adjustment.clone());
        (Content { adjustments: vec![counted], ..Content::default() }, Letter::from(record))
    });
    let late = late.into_iter().map(|late| {
        let letter = Letter::LateDuplicate { refusal: late.refusal.clone(), key: late.key.key };
        (Content { late: vec![late], ..Content::default() }, letter)
    });
    let refusals = refusals.into_iter().map(|refusal| {
        let record = Record::Refusal(refusal.clone());
        (Content { refusals: vec![refusal], ..Content::default() }, Letter::from(record))
    });
    clicks.chain(conversions).chain(adjustments).chain(late).chain(refusals).collect()
}

#[test]
fn what_is_written_reads_back() {
    for (content, letter) in letters() {
        let json = write(&content, "no", Some(469), UnixMillis(0));
        assert_eq!(read("1-0", &json).expect("own"), letter);
    }
}

#[test]
fn a_person_can_read_it() {
    let json = write(&content(vec![counted(1)]), "Constraint is violated", Some(469), UnixMillis(0));
    let text = String::from_utf8(json).expect("text");
    for part in
        ["\"value\": \"1.000001\"", "\"order_id\": \"ORDER-1\"", "\"code\": 469", "1970-01-01T00:00:00Z"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_bad_edit_is_named() {
    let json = write(&content(vec![counted(1)]), "no", None, UnixMillis(0));
    let text = String::from_utf8(json).expect("text").replace("1.000001", "ten");
    let error = read("5-0", text.as_bytes()).expect_err("bad").to_string();
    assert_eq!(error, "dead letter 5-0: value: not a decimal number");
    assert!(read("5-0", b"{").is_err());
}

#[test]
fn replay_moves_all_or_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(root.path());
    folder.create().expect("made");
    let json = write(&content(vec![counted(1)]), "no", None, UnixMillis(0));
    folder.store_dead_letter("1-0", &json).expect("stored");
    folder.store_dead_letter("2-0", b"{}").expect("stored");
    assert!(replay(&folder, None).is_err());
    assert!(matches!(replay(&folder, Some(&["9-0".to_owned()])), Err(DeadLetterError::Missing(_))));
    assert_eq!(folder.replays().expect("listed").len(), 0);
    assert_eq!(replay(&folder, Some(&["1-0".to_owned()])).expect("moved"), 1);
    assert_eq!(folder.replays().expect("listed"), ["1-0"]);
    assert_eq!(folder.dead_letters().expect("listed"), ["2-0"]);
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read("1-0", &bytes);
    }

    /// As an operator's slip would leave it: one byte of a good file is another, or the rest is gone.
    #[test]
    fn any_edit_is_answered(at: prop::sample::Index, byte: u8, which: prop::sample::Index) {
        let letters = letters();
        let mut json = write(&letters[which.index(letters.len())].0, "no", Some(469), UnixMillis(0));
        let at = at.index(json.len());
        json[at] = byte;
        let _ = read("1-0", &json);
        json.truncate(at);
        prop_assert!(read("1-0", &json).is_err());
    }
}
