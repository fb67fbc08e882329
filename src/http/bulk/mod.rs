//! Bulk calls: one JSON object a line (NDJSON), and a result a line.
//!
//! A line that is wrong is answered with its own error and does not keep the others from being taken. What is too much
//! is refused whole.

mod lines;
mod results;

pub(super) use self::{
    lines::{Line, is_bulk, lines},
    results::{LineResult, Results},
};

/// Largest body of a bulk call.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;
/// Lines that are worked on before other connections of the worker get a turn.
const LINES_A_TURN: usize = 256;

/// Lets others have a turn after every so many lines.
pub(super) async fn breathe(line: usize) {
    if line % LINES_A_TURN == LINES_A_TURN - 1 {
        tokio::task::yield_now().await;
    }
}
