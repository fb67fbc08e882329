//! Bytes of every format on disk, as a released version wrote them: `tests/fixtures/formats/`.

/// Compares bytes with the committed ones of that name. They are never changed: what a released version wrote is read for
/// ever, so a change of the encoding needs a new version, a reader for both, and a fixture of its own.
/// `TALLY_WRITE_FIXTURES=1` writes those that are not there yet.
macro_rules! assert_golden {
    ($name:literal, $bytes:expr) => {{
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/formats/", $name);
        let bytes: &[u8] = $bytes;
        if std::env::var_os("TALLY_WRITE_FIXTURES").is_some() && !std::path::Path::new(path).exists() {
            std::fs::write(path, bytes).expect("written");
        }
        let golden = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let at = golden.iter().zip(bytes).position(|(golden, byte)| golden != byte);
        assert!(
            golden == bytes,
            "the format of {} is another from byte {} on: {} bytes, released were {}",
            $name,
            at.unwrap_or(golden.len().min(bytes.len())),
            bytes.len(),
            golden.len()
        );
    }};
}
