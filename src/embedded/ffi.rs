#![expect(unsafe_code, reason = "libchdb has a C interface; this file is the only one that touches it")]
//! The C interface of libchdb, made safe.
//!
//! What the rest of the engine process relies on:
//! - An [`Engine`] holds the one data path that libchdb allows in a process, by a root connection that
//!   lives as long as the `Engine`: the engine inside stops with its last connection.
//! - A [`Connection`] is one ClickHouse session. It runs one statement at a time, which `&mut self`
//!   enforces, and may move between threads.
//! - Whatever libchdb allocates is freed by a `Drop` here; nothing borrowed from it outlives it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use libloading::Library;

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

#[repr(C)]
struct RawAnalysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

type RawConnection = *mut c_void;
type RawResult = *mut c_void;
type RawInsert = *mut c_void;
type Text = *const c_char;
type QueryFn = unsafe extern "C" fn(
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
struct Symbols {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut RawConnection,
    close: unsafe extern "C" fn(*mut RawConnection),
    query: QueryFn,
    stream_query: QueryFn,
    stream_insert: QueryFn,
    fetch: unsafe extern "C" fn(RawConnection, RawResult) -> RawResult,
    cancel: unsafe extern "C" fn(RawConnection, RawResult),
    destroy_result: unsafe extern "C" fn(RawResult),
    buffer: unsafe extern "C" fn(RawResult) -> *const u8,
    length: unsafe extern "C" fn(RawResult) -> usize,
    error: unsafe extern "C" fn(RawResult) -> *const c_char,
    rows: unsafe extern "C" fn(RawResult) -> u64,
    storage_rows: unsafe extern "C" fn(RawResult) -> u64,
    storage_bytes: unsafe extern "C" fn(RawResult) -> u64,
    rows_written: unsafe extern "C" fn(RawResult) -> u64,
    bytes_written: unsafe extern "C" fn(RawResult) -> u64,
    append: unsafe extern "C" fn(RawInsert, *const c_void, usize) -> c_int,
    done: unsafe extern "C" fn(RawInsert) -> RawResult,
    insert_error: unsafe extern "C" fn(RawInsert) -> *const c_char,
    cancel_insert: unsafe extern "C" fn(RawInsert),
    destroy_insert: unsafe extern "C" fn(RawInsert),
    classify: unsafe extern "C" fn(RawConnection, Text, usize, Text, usize, *mut RawAnalysis) -> c_int,
    // Last, so that the code is unmapped after nothing can call it any more.
    _library: Library,
}

impl Symbols {
    fn load(path: &Path) -> Result<Self, StartError> {
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

/// The running engine: libchdb, loaded, with its root connection.
pub(crate) struct Engine {
    symbols: Arc<Symbols>,
    args: Vec<CString>,
    /// Kept open: the engine stops when the last connection closes.
    _root: Connection,
}

impl Engine {
    /// Loads the library and starts the engine with ClickHouse's own arguments (`--path=…` and so on).
    pub(crate) fn start(library: &Path, args: &[String]) -> Result<Self, StartError> {
        let symbols = Arc::new(Symbols::load(library)?);
        let mut c_args = vec![CString::new("clickhouse")?];
        for arg in args {
            c_args.push(CString::new(arg.as_str())?);
        }
        let root = Connection::open(&symbols, &c_args).ok_or(StartError::Refused)?;
        Ok(Self { symbols, args: c_args, _root: root })
    }

    /// A fresh session, about 0.2 ms.
    pub(crate) fn connect(&self) -> Result<Connection, EngineError> {
        Connection::open(&self.symbols, &self.args).ok_or_else(|| {
            EngineError("Code: 210. DB::Exception: The engine refused a session. (NETWORK_ERROR)".into())
        })
    }
}

/// One session of the engine.
pub(crate) struct Connection {
    symbols: Arc<Symbols>,
    raw: NonNull<RawConnection>,
}

// SAFETY: chdb.h demands that the statements of one connection follow one another, not that they come from
// one thread. Every call takes `&mut self`, or `&self` on data that only this value owns.
unsafe impl Send for Connection {}
// SAFETY: no method takes `&self` and calls into libchdb, so sharing a reference does nothing. `Engine`
// (which holds a `Connection` only to keep it open) needs it.
unsafe impl Sync for Connection {}

impl Connection {
    fn open(symbols: &Arc<Symbols>, args: &[CString]) -> Option<Self> {
        let mut pointers: Vec<*mut c_char> = args.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).ok()?;
        // SAFETY: `pointers` holds `count` NUL-terminated strings that outlive the call; libchdb copies them.
        let raw = NonNull::new(unsafe { (symbols.connect)(count, pointers.as_mut_ptr()) })?;
        // SAFETY: a pointer that is not NULL points to a connection handle.
        if unsafe { *raw.as_ptr() }.is_null() {
            return None;
        }
        Some(Self { symbols: Arc::clone(symbols), raw })
    }

    fn handle(&self) -> RawConnection {
        // SAFETY: checked in `open`, valid until `close` in `Drop`.
        unsafe { *self.raw.as_ptr() }
    }

    /// Runs one statement and buffers its whole result.
    pub(crate) fn query(&mut self, sql: &[u8], format: &str, params: &Params) -> Result<Block, EngineError> {
        let raw = self.call(self.symbols.query, sql, format, params);
        Block::take(&self.symbols, raw)
    }

    /// Starts a statement whose result comes in pieces. Takes SELECT, WITH and FROM only.
    pub(crate) fn stream(
        &mut self,
        sql: &[u8],
        format: &str,
        params: &Params,
    ) -> Result<SelectStream<'_>, EngineError> {
        let raw = self.call(self.symbols.stream_query, sql, format, params);
        // A handle may carry an error from the start; `take` frees it then.
        let handle = Block::take(&self.symbols, raw)?;
        Ok(SelectStream { connection: self, handle, ended: false })
    }

    /// Starts an INSERT whose rows are appended. The statement must not contain `FORMAT x`.
    pub(crate) fn insert(
        &mut self,
        sql: &[u8],
        format: &str,
        params: &Params,
    ) -> Result<InsertStream<'_>, EngineError> {
        let raw = self.call(self.symbols.stream_insert, sql, format, params);
        let Some(raw) = NonNull::new(raw) else {
            return Err(EngineError(
                "Code: 210. DB::Exception: The engine gave no insert stream. (NETWORK_ERROR)".into(),
            ));
        };
        let stream = InsertStream { connection: self, raw, finished: false };
        match stream.error() {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// Says what a text is, without running it.
    pub(crate) fn classify(&mut self, sql: &[u8]) -> Option<Analysis> {
        let mut raw = RawAnalysis {
            struct_size: u32::try_from(size_of::<RawAnalysis>()).ok()?,
            statement_count: 0,
            flags: 0,
            query_class: 4,
        };
        // SAFETY: `sql` is `len` readable bytes, the database may be NULL, `raw` says its own size.
        let state = unsafe {
            (self.symbols.classify)(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                std::ptr::null(),
                0,
                &raw mut raw,
            )
        };
        let class = match raw.query_class {
            0 => Class::ReadOnly,
            1 | 2 => Class::Mutating,
            3 => Class::Control,
            _ => Class::Unknown,
        };
        (state == 0).then_some(Analysis { statements: raw.statement_count, class })
    }

    fn call(&self, function: QueryFn, sql: &[u8], format: &str, params: &Params) -> *mut c_void {
        let names: Vec<Text> = params.0.iter().map(|(name, _)| name.as_ptr().cast()).collect();
        let name_lens: Vec<usize> = params.0.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<Text> = params.0.iter().map(|(_, value)| value.as_ptr().cast()).collect();
        let value_lens: Vec<usize> = params.0.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: every pointer is given with its length and outlives the call, after which libchdb keeps
        // none of them (chdb.h: parameters are captured during the call).
        unsafe {
            function(
                self.handle(),
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lens.as_ptr(),
                values.as_ptr(),
                value_lens.as_ptr(),
                params.0.len(),
            )
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: opened in `open`, closed once, and streams borrow the connection so none is open.
        unsafe { (self.symbols.close)(self.raw.as_ptr()) }
    }
}

/// Server-side parameters: `{name:Type}` in the text, values as ClickHouse writes them in HTTP.
#[derive(Debug, Default, Clone)]
pub(crate) struct Params(pub(crate) Vec<(String, String)>);

/// A result, or a piece of one.
pub(crate) struct Block {
    symbols: Arc<Symbols>,
    raw: NonNull<c_void>,
}

// SAFETY: a result is a plain buffer that nothing else refers to.
unsafe impl Send for Block {}

impl Block {
    fn take(symbols: &Arc<Symbols>, raw: RawResult) -> Result<Self, EngineError> {
        let Some(raw) = NonNull::new(raw) else {
            return Err(EngineError(
                "Code: 210. DB::Exception: The engine gave no result. (NETWORK_ERROR)".into(),
            ));
        };
        let block = Self { symbols: Arc::clone(symbols), raw };
        // SAFETY: `raw` is a live result; the text lives until it is destroyed and is copied here.
        match unsafe { text((symbols.error)(raw.as_ptr())) } {
            Some(message) => Err(EngineError(message)),
            None => Ok(block),
        }
    }

    /// The bytes, in the format asked for.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: buffer and length belong together and stay valid until the result is destroyed, which the
        // borrow of `self` prevents.
        unsafe {
            let length = (self.symbols.length)(self.raw.as_ptr());
            let buffer = (self.symbols.buffer)(self.raw.as_ptr());
            if length == 0 || buffer.is_null() { &[] } else { std::slice::from_raw_parts(buffer, length) }
        }
    }

    /// What the engine counted so far.
    pub(crate) fn counts(&self) -> Counts {
        let raw = self.raw.as_ptr();
        // SAFETY: plain getters on a live result.
        unsafe {
            Counts {
                result_rows: (self.symbols.rows)(raw),
                read_rows: (self.symbols.storage_rows)(raw),
                read_bytes: (self.symbols.storage_bytes)(raw),
                written_rows: (self.symbols.rows_written)(raw),
                written_bytes: (self.symbols.bytes_written)(raw),
            }
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: destroyed once.
        unsafe { (self.symbols.destroy_result)(self.raw.as_ptr()) }
    }
}

/// The numbers of `X-ClickHouse-Summary`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) result_rows: u64,
    pub(crate) read_rows: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_rows: u64,
    pub(crate) written_bytes: u64,
}

/// A running SELECT.
pub(crate) struct SelectStream<'a> {
    connection: &'a mut Connection,
    handle: Block,
    ended: bool,
}

impl SelectStream<'_> {
    /// The next piece; `None` after the last. An error ends the stream.
    pub(crate) fn next(&mut self) -> Result<Option<Block>, EngineError> {
        if self.ended {
            return Ok(None);
        }
        // SAFETY: connection and stream handle are live, and `&mut self` keeps calls in order.
        let raw =
            unsafe { (self.connection.symbols.fetch)(self.connection.handle(), self.handle.raw.as_ptr()) };
        match Block::take(&self.connection.symbols, raw) {
            Ok(block) if block.bytes().is_empty() => {
                self.ended = true;
                Ok(None)
            }
            Ok(block) => Ok(Some(block)),
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }
}

impl Drop for SelectStream<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: the handle is live and not yet at its end.
            unsafe { (self.connection.symbols.cancel)(self.connection.handle(), self.handle.raw.as_ptr()) }
        }
    }
}

/// A running INSERT. Dropped without [`InsertStream::finish`], it is abandoned.
pub(crate) struct InsertStream<'a> {
    connection: &'a mut Connection,
    raw: NonNull<c_void>,
    finished: bool,
}

impl InsertStream<'_> {
    /// Appends encoded rows; may block while the engine is busy. Pieces need not end with a row.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), EngineError> {
        // SAFETY: `data` is readable for its length and copied by the engine.
        let state =
            unsafe { (self.connection.symbols.append)(self.raw.as_ptr(), data.as_ptr().cast(), data.len()) };
        if state == 0 {
            return Ok(());
        }
        Err(self.error().unwrap_or_else(|| {
            EngineError("Code: 210. DB::Exception: The insert was cut off. (NETWORK_ERROR)".into())
        }))
    }

    /// Ends the data and commits.
    pub(crate) fn finish(mut self) -> Result<Counts, EngineError> {
        self.finished = true;
        // SAFETY: the stream is live and finished once.
        let raw = unsafe { (self.connection.symbols.done)(self.raw.as_ptr()) };
        Block::take(&self.connection.symbols, raw).map(|block| block.counts())
    }

    fn error(&self) -> Option<EngineError> {
        // SAFETY: the text belongs to the live stream and is copied.
        unsafe { text((self.connection.symbols.insert_error)(self.raw.as_ptr())) }.map(EngineError)
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is live; cancelling precedes the one destruction.
        unsafe {
            if !self.finished {
                (self.connection.symbols.cancel_insert)(self.raw.as_ptr());
            }
            (self.connection.symbols.destroy_insert)(self.raw.as_ptr());
        }
    }
}

/// Copies a C string.
///
/// # Safety
/// `raw` is NULL or a NUL-terminated string that lives through the call.
unsafe fn text(raw: *const c_char) -> Option<String> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    Some(unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned())
}

/// Ends the process at once, without exit handlers: with a live engine they crash it.
pub(crate) fn exit_now(code: c_int) -> ! {
    unsafe extern "C" {
        fn _exit(code: c_int) -> !;
    }
    // SAFETY: `_exit` has no preconditions.
    unsafe { _exit(code) }
}
