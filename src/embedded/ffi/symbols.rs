//! The functions of libchdb, with the types of chdb.h.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

use libloading::Library;

use super::StartError;

#[repr(C)]
pub(super) struct RawAnalysis {
    pub(super) struct_size: u32,
    pub(super) statement_count: u32,
    pub(super) flags: u32,
    pub(super) query_class: u32,
}

pub(super) type RawConnection = *mut c_void;
pub(super) type RawResult = *mut c_void;
pub(super) type RawInsert = *mut c_void;
pub(super) type Text = *const c_char;
pub(super) type QueryFn = unsafe extern "C" fn(
    RawConnection,
    Text,
    usize,
    Text,
    usize,
    *const Text,
    *const usize,
    *const Text,
    *const usize,
    usize,
) -> *mut c_void;

/// The functions used, resolved once.
pub(super) struct Symbols {
    pub(super) connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut RawConnection,
    pub(super) close: unsafe extern "C" fn(*mut RawConnection),
    pub(super) query: QueryFn,
    pub(super) stream_query: QueryFn,
    pub(super) stream_insert: QueryFn,
    pub(super) fetch: unsafe extern "C" fn(RawConnection, RawResult) -> RawResult,
    pub(super) cancel: unsafe extern "C" fn(RawConnection, RawResult),
    pub(super) destroy_result: unsafe extern "C" fn(RawResult),
    pub(super) buffer: unsafe extern "C" fn(RawResult) -> *const u8,
    pub(super) length: unsafe extern "C" fn(RawResult) -> usize,
    pub(super) error: unsafe extern "C" fn(RawResult) -> *const c_char,
    pub(super) rows: unsafe extern "C" fn(RawResult) -> u64,
    pub(super) storage_rows: unsafe extern "C" fn(RawResult) -> u64,
    pub(super) storage_bytes: unsafe extern "C" fn(RawResult) -> u64,
    pub(super) rows_written: unsafe extern "C" fn(RawResult) -> u64,
    pub(super) bytes_written: unsafe extern "C" fn(RawResult) -> u64,
    pub(super) append: unsafe extern "C" fn(RawInsert, *const c_void, usize) -> c_int,
    pub(super) done: unsafe extern "C" fn(RawInsert) -> RawResult,
    pub(super) insert_error: unsafe extern "C" fn(RawInsert) -> *const c_char,
    pub(super) cancel_insert: unsafe extern "C" fn(RawInsert),
    pub(super) destroy_insert: unsafe extern "C" fn(RawInsert),
    pub(super) classify:
        unsafe extern "C" fn(RawConnection, Text, usize, Text, usize, *mut RawAnalysis) -> c_int,
    // Last, so that the code is unmapped after nothing can call it any more.
    _library: Library,
}

impl Symbols {
    pub(super) fn load(path: &Path) -> Result<Self, StartError> {
        // SAFETY: loading runs libchdb's initialisers; the path is the operator's choice of library. It
        // happens on the main thread before any other thread of ours exists, and is never unloaded while
        // the process lives (`Engine` is leaked into an `Arc` for the process's lifetime).
        let library = unsafe { Library::new(path)? };
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the type is that of the function's declaration in chdb.h of 26.7.
                *unsafe { library.get(concat!($name, "\0"))? }
            };
        }
        let set_signal_handlers: unsafe extern "C" fn(c_int) = symbol!("chdb_set_signal_handlers_enabled");
        // SAFETY: takes an int, has no preconditions, and must come before the first connection: otherwise
        // the engine installs handlers for nine signals.
        unsafe { set_signal_handlers(0) };
        Ok(Self {
            connect: symbol!("chdb_connect"),
            close: symbol!("chdb_close_conn"),
            query: symbol!("chdb_query_with_params_n"),
            stream_query: symbol!("chdb_stream_query_with_params_n"),
            stream_insert: symbol!("chdb_stream_insert_with_params_n"),
            fetch: symbol!("chdb_stream_fetch_result"),
            cancel: symbol!("chdb_stream_cancel_query"),
            destroy_result: symbol!("chdb_destroy_query_result"),
            buffer: symbol!("chdb_result_buffer"),
            length: symbol!("chdb_result_length"),
            error: symbol!("chdb_result_error"),
            rows: symbol!("chdb_result_rows_read"),
            storage_rows: symbol!("chdb_result_storage_rows_read"),
            storage_bytes: symbol!("chdb_result_storage_bytes_read"),
            rows_written: symbol!("chdb_result_rows_written"),
            bytes_written: symbol!("chdb_result_bytes_written"),
            append: symbol!("chdb_stream_append"),
            done: symbol!("chdb_stream_done"),
            insert_error: symbol!("chdb_stream_insert_error"),
            cancel_insert: symbol!("chdb_stream_cancel_insert"),
            destroy_insert: symbol!("chdb_destroy_insert_stream"),
            classify: symbol!("chdb_classify_query_n"),
            _library: library,
        })
    }
}
