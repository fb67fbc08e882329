//! The engine and its sessions.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use super::streams::{Block, InsertStream, SelectStream};
use super::symbols::{QueryFn, RawAnalysis, RawConnection, Symbols, Text};
use super::{Analysis, Class, EngineError, Params, StartError};

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
    pub(super) symbols: Arc<Symbols>,
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

    pub(super) fn handle(&self) -> RawConnection {
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
        Ok(SelectStream::new(self, handle))
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
        InsertStream::new(self, raw)
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
