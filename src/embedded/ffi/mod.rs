#![expect(unsafe_code, reason = "libchdb has a C interface; this folder is the only place that touches it")]
//! The C interface of libchdb, made safe.
//!
//! What the rest of the engine process relies on:
//! - An [`Engine`] holds the one data path that libchdb allows in a process, by a root connection that
//!   lives as long as the `Engine`: the engine inside stops with its last connection.
//! - A [`Connection`] is one ClickHouse session. It runs one statement at a time, which `&mut self`
//!   enforces, and may move between threads.
//! - Whatever libchdb allocates is freed by a `Drop` here; nothing borrowed from it outlives it.

mod connection;
mod streams;
mod symbols;

use std::ffi::c_int;

pub(crate) use self::connection::{Connection, Engine};

/// Why libchdb could not be brought up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The file is not a loadable libchdb of a known version: nothing that a retry would change.
    #[error("cannot load libchdb: {0}")]
    Load(#[from] libloading::Error),
    /// The engine refused the data path or an argument; its reason is on standard error.
    #[error("the engine did not start (its reason is on its standard error)")]
    Refused,
    /// An argument with a NUL byte.
    #[error("an argument contains a NUL byte")]
    Nul(#[from] std::ffi::NulError),
}

/// What the engine answered instead of a result: ClickHouse's own text, `Code: N. DB::Exception: …`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EngineError(pub(crate) String);

impl EngineError {
    /// ClickHouse's numeric code, 0 if the text has none.
    pub(crate) fn code(&self) -> u32 {
        self.0
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split('.').next())
            .and_then(|digits| digits.trim().parse().ok())
            .unwrap_or(0)
    }
}

/// What a statement does to state that outlives it, by ClickHouse's own parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// SELECT, SHOW, DESCRIBE, EXPLAIN, EXISTS, CHECK.
    ReadOnly,
    /// INSERT, DDL, ALTER and the like.
    Mutating,
    /// SET, USE, KILL, SYSTEM, `INTO OUTFILE`: about the session or the process.
    Control,
    /// Text that did not parse, or parsed into something unknown.
    Unknown,
}

/// The answer to 'what is this text?'.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Analysis {
    /// Executable statements in the text; 0 when it did not parse.
    pub(crate) statements: u32,
    /// What the most restricted of them does.
    pub(crate) class: Class,
}

/// Server-side parameters: `{name:Type}` in the text, values as ClickHouse writes them in HTTP.
#[derive(Debug, Default, Clone)]
pub(crate) struct Params(pub(crate) Vec<(String, String)>);

/// The numbers of `X-ClickHouse-Summary`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) result_rows: u64,
    pub(crate) read_rows: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_rows: u64,
    pub(crate) written_bytes: u64,
}

/// Ends the process at once, without exit handlers: with a live engine they crash it.
pub(crate) fn exit_now(code: c_int) -> ! {
    unsafe extern "C" {
        fn _exit(code: c_int) -> !;
    }
    // SAFETY: `_exit` has no preconditions.
    unsafe { _exit(code) }
}
