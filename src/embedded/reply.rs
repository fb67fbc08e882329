//! What a request is answered with: ClickHouse's status codes, headers and error texts.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::encoding::{Encoder, Encoding};
use super::ffi::{Counts, EngineError};
use super::formats::content_type;

/// Results up to this size are held back until they end: their errors get a status and they a length.
const HOLD_BYTES: usize = 64 << 10;
/// The same for `wait_end_of_query`; a longer result is streamed all the same.
const HOLD_WAIT_END_BYTES: usize = 32 << 20;
/// Pieces on their way to a slow client.
const CHANNEL_PIECES: usize = 4;

/// The head of an answer and how its body comes.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: AnswerBody,
}

/// A whole body, or pieces.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Whole(Bytes),
    Pieces(mpsc::Receiver<Piece>),
}

/// A part of a body, in either direction.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The body is complete. A channel that closes without it was cut off, and so is its body.
    End,
}

/// The client does not want the rest.
#[derive(Debug)]
pub(crate) struct Gone;

/// Writes one answer from a worker's thread.
pub(crate) struct Reply {
    head: Option<oneshot::Sender<Answer>>,
    pieces: Option<mpsc::Sender<Piece>>,
    held: Vec<u8>,
    hold_bytes: usize,
    encoder: Option<Encoder>,
    encoding: Encoding,
    format: String,
    query_id: String,
    timezone: String,
    exception_tag: String,
    counts: Counts,
    stall_max: Option<Duration>,
}

impl Reply {
    pub(crate) fn new(
        head: oneshot::Sender<Answer>,
        query_id: String,
        timezone: String,
        encoding: Encoding,
        wait_end: bool,
    ) -> Self {
        Self {
            head: Some(head),
            pieces: None,
            held: Vec::new(),
            hold_bytes: if wait_end { HOLD_WAIT_END_BYTES } else { HOLD_BYTES },
            encoder: Encoder::new(encoding).ok(),
            encoding,
            format: "TabSeparated".into(),
            query_id,
            timezone,
            exception_tag: tag(),
            counts: Counts::default(),
            stall_max: None,
        }
    }

    /// A client that does not take its result for so long is gone.
    pub(crate) fn set_stall_max(&mut self, limit: Duration) {
        self.stall_max = Some(limit);
    }

    /// Names the result's format, before its first byte.
    pub(crate) fn set_format(&mut self, format: &str) {
        format.clone_into(&mut self.format);
    }

    pub(crate) fn set_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// Whether the client went away before the answer began.
    pub(crate) fn is_gone(&self) -> bool {
        self.head.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    /// Sends a piece of the result; waits for a slow client.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), Gone> {
        self.held.extend_from_slice(piece);
        if self.held.len() > self.hold_bytes { self.send_held() } else { Ok(()) }
    }

    /// Ends a result. The connection to the engine must be released before: the client's next request may come
    /// at once and name the same session.
    pub(crate) fn finish(mut self) {
        if self.head.is_some() {
            let body = std::mem::take(&mut self.held);
            let encoded = self.encode(&body).and_then(|mut start| {
                start.extend(self.encoder.take().ok_or(Gone)?.finish().map_err(|_| Gone)?);
                Ok(start)
            });
            // An empty body stays empty: an INSERT's answer has none, compressed or not.
            let encoded = if body.is_empty() { Ok(Vec::new()) } else { encoded };
            match encoded {
                Ok(encoded) => {
                    let compressed = !encoded.is_empty();
                    self.send_head(StatusCode::OK, AnswerBody::Whole(encoded.into()), compressed);
                }
                Err(Gone) => self
                    .fail(&EngineError("Code: 432. DB::Exception: cannot compress (UNKNOWN_CODEC)".into())),
            }
            return;
        }
        if self.send_rest().is_ok() {
            let _ = self.send(Piece::End);
        }
    }

    /// What is held, and the end of its encoding.
    fn send_rest(&mut self) -> Result<(), Gone> {
        self.send_held()?;
        let end = self.encoder.take().ok_or(Gone)?.finish().map_err(|_| Gone)?;
        if end.is_empty() { Ok(()) } else { self.send(Piece::Data(end.into())) }
    }

    /// Waits for a slow client.
    fn send(&self, piece: Piece) -> Result<(), Gone> {
        let pieces = self.pieces.as_ref().ok_or(Gone)?;
        let Some(limit) = self.stall_max else { return pieces.blocking_send(piece).map_err(|_| Gone) };
        let sent = Handle::current().block_on(tokio::time::timeout(limit, pieces.send(piece)));
        sent.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Ends with an error: as a status if nothing was sent yet, else framed at the end of the body.
    pub(crate) fn fail(mut self, error: &EngineError) {
        let message = error_text(error);
        if self.head.is_none() {
            let tag = &self.exception_tag;
            // Even after a broken compressor the client must not take this for a complete result.
            let framed = format!(
                "\r\n__exception__\r\n{tag}\r\n{message}\n{} {tag}\r\n__exception__\r\n",
                message.len() + 1
            );
            self.held.extend_from_slice(framed.as_bytes());
            // Without `Piece::End`, as a ClickHouse server does: who does not know the frame sees a body without end.
            let _ = self.send_rest();
            return;
        }
        self.held.clear();
        let status = status(error.code());
        self.send_error(status, error.code(), message);
    }

    fn send_error(&mut self, status: StatusCode, code: u32, message: String) {
        self.format = "TabSeparated".into();
        let mut headers = self.headers(false);
        headers.push(("x-clickhouse-exception-code", code.to_string()));
        if let Some(head) = self.head.take() {
            let _ =
                head.send(Answer { status, headers, body: AnswerBody::Whole(Bytes::from(message + "\n")) });
        }
    }

    fn send_held(&mut self) -> Result<(), Gone> {
        let held = std::mem::take(&mut self.held);
        let encoded = self.encode(&held)?;
        if self.head.is_some() {
            let (pieces, receiver) = mpsc::channel(CHANNEL_PIECES);
            self.pieces = Some(pieces);
            self.send_head(StatusCode::OK, AnswerBody::Pieces(receiver), true);
        }
        if encoded.is_empty() {
            return Ok(());
        }
        self.send(Piece::Data(encoded.into()))
    }

    fn encode(&mut self, piece: &[u8]) -> Result<Vec<u8>, Gone> {
        self.encoder.as_mut().ok_or(Gone)?.write(piece).map_err(|_| Gone)
    }

    fn send_head(&mut self, status: StatusCode, body: AnswerBody, compressed: bool) {
        let headers = self.headers(compressed);
        if let Some(head) = self.head.take() {
            let _ = head.send(Answer { status, headers, body });
        }
    }

    fn headers(&self, compressed: bool) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("content-type", content_type(&self.format).to_owned()),
            ("x-clickhouse-server-display-name", "tally".to_owned()),
            ("x-clickhouse-query-id", self.query_id.clone()),
            ("x-clickhouse-format", self.format.clone()),
            ("x-clickhouse-timezone", self.timezone.clone()),
            ("x-clickhouse-exception-tag", self.exception_tag.clone()),
            ("x-clickhouse-summary", summary(self.counts)),
        ];
        if compressed && let Some(encoding) = self.encoding.header() {
            headers.push(("content-encoding", encoding.to_owned()));
        }
        headers
    }
}

/// A refusal that never reached the engine.
pub(crate) fn refusal(code: u32, name: &str, message: &str) -> Answer {
    let error = EngineError(format!("Code: {code}. DB::Exception: {message}. ({name})"));
    Answer {
        status: status(code),
        headers: vec![
            ("content-type", "text/plain; charset=UTF-8".to_owned()),
            ("x-clickhouse-exception-code", code.to_string()),
        ],
        body: AnswerBody::Whole(Bytes::from(error_text(&error) + "\n")),
    }
}

/// ClickHouse's own table of status codes, as far as clients look at it.
pub(crate) fn status(code: u32) -> StatusCode {
    match code {
        // Text that does not parse, and values that do not fit.
        6 | 26 | 27 | 33 | 36 | 38 | 41 | 43 | 53 | 62 | 69 | 72 | 117 | 130 | 131 | 167 | 168 | 386
        | 456 | 457 => StatusCode::BAD_REQUEST,
        // Wrong credentials.
        192 | 193 | 194 | 516 => StatusCode::FORBIDDEN,
        // Unknown tables, columns, functions, types, databases, settings, formats.
        16 | 46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 => StatusCode::NOT_FOUND,
        307 => StatusCode::PAYLOAD_TOO_LARGE,
        48 => StatusCode::NOT_IMPLEMENTED,
        202 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
        159 => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Clients look for `(version ` at the end; the engine leaves it out now and then.
fn error_text(error: &EngineError) -> String {
    let text = error.0.trim_end();
    if text.contains("(version ") { text.to_owned() } else { format!("{text} (version 26.7 (embedded))") }
}

fn summary(counts: Counts) -> String {
    let Counts { result_rows, read_rows, read_bytes, written_rows, written_bytes } = counts;
    format!(
        "{{\"read_rows\":\"{read_rows}\",\"read_bytes\":\"{read_bytes}\",\"written_rows\":\"{written_rows}\",\
         \"written_bytes\":\"{written_bytes}\",\"total_rows_to_read\":\"0\",\"result_rows\":\"{result_rows}\",\
         \"result_bytes\":\"0\"}}"
    )
}

/// Sixteen characters that no result contains by chance.
fn tag() -> String {
    use rand::RngExt;
    rand::rng()
        .sample_iter(rand::distr::Alphanumeric)
        .take(16)
        .map(|byte| char::from(byte).to_ascii_lowercase())
        .collect()
}
