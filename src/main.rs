//! The `tally` command.

fn main() {
    // The hidden mode of the supervised child; see `tally::embedded`.
    if std::env::args_os().nth(1).is_some_and(|mode| mode == "engine") {
        tally::embedded::engine_main();
    }
}
