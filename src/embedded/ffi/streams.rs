//! What a statement gives or takes: results whole or in pieces, and rows to insert.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use super::symbols::{RawResult, Symbols};
use super::{Connection, Counts, EngineError};

/// A result, or a piece of one.
pub(crate) struct Block {
    symbols: Arc<Symbols>,
    raw: NonNull<c_void>,
}

// SAFETY: a result is a plain buffer that nothing else refers to.
unsafe impl Send for Block {}

impl Block {
    pub(super) fn take(symbols: &Arc<Symbols>, raw: RawResult) -> Result<Self, EngineError> {
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

/// A running SELECT.
pub(crate) struct SelectStream<'a> {
    connection: &'a mut Connection,
    handle: Block,
    ended: bool,
}

impl<'a> SelectStream<'a> {
    pub(super) fn new(connection: &'a mut Connection, handle: Block) -> Self {
        Self { connection, handle, ended: false }
    }

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

impl<'a> InsertStream<'a> {
    /// A stream may carry an error from the start; it is freed then.
    pub(super) fn new(connection: &'a mut Connection, raw: NonNull<c_void>) -> Result<Self, EngineError> {
        let stream = Self { connection, raw, finished: false };
        match stream.error() {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

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
