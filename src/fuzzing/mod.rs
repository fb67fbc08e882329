//! Every decoder that meets the outside or the disk, as a function of bytes: what the fuzz targets in `fuzz/` call, and
//! what `make test` calls with their corpora. Each function panics where a promise of its decoder is broken: that any
//! bytes are answered, that memory is bounded by them, that what was read is written and read again as the same.

pub use crate::{
    core::payload::fuzz::log_payload,
    dedup::fuzz::filter_snapshot,
    embedded::fuzz::{compressed_blocks, engine_request, multipart_form},
    http::fuzz::{api_input, hit},
    past_clicks::fuzz::click_index,
    postback::fuzz::outbox_entry,
    shipper::fuzz::{checkpoint, dead_letter, sealed_batch},
    wal::fuzz::{log_block, log_segment},
};

/// A target: its name, which is that of its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 14] = [
    ("api_input", api_input),
    ("checkpoint", checkpoint),
    ("click_index", click_index),
    ("compressed_blocks", compressed_blocks),
    ("dead_letter", dead_letter),
    ("engine_request", engine_request),
    ("filter_snapshot", filter_snapshot),
    ("hit", hit),
    ("log_block", log_block),
    ("log_payload", log_payload),
    ("log_segment", log_segment),
    ("multipart_form", multipart_form),
    ("outbox_entry", outbox_entry),
    ("sealed_batch", sealed_batch),
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The corpora hold what the fuzzer found worth keeping, among it whatever once broke a promise.
    #[test]
    fn the_corpora_are_answered() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, target) in TARGETS {
            let corpus = fs::read_dir(root.join("corpus").join(name));
            let mut inputs = 0;
            for entry in corpus.unwrap_or_else(|error| panic!("the corpus of {name}: {error}")) {
                let path = entry.expect("readable").path();
                let bytes = fs::read(&path).expect("readable");
                for bytes in [&bytes[..], &bytes[..bytes.len() / 2]] {
                    let answered = std::panic::catch_unwind(|| target(bytes));
                    assert!(answered.is_ok(), "{} breaks a promise", path.display());
                }
                inputs += 1;
            }
            assert!(inputs > 0, "the corpus of {name} is empty");
            let source = format!("fuzz_targets/{name}.rs");
            assert!(root.join(&source).exists(), "fuzz/{source} is not there");
        }
    }
}
