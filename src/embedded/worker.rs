//! Runs one request against the engine, on a blocking thread: session, settings, authorization, statement, result.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::encoding::Encoding;
use super::ffi::{Class, Connection, Engine, EngineError, Params};
use super::formats::{self, Header};
use super::reply::{Gone, Reply};
use super::request::Request;
use super::sessions::{Session, Sessions, command};
use super::settings::{self, QueryLimits, User};
use super::slots::{Slot, Slots, Workload};
use super::statement::{self, Statement};
use super::{guard, guard::Forbidden, hello, settings_table};

/// The text of a statement; an IN list of 100,000 ids has 4 MB.
pub(crate) const STATEMENT_BYTES_MAX: usize = 16 << 20;
/// How much of a body is read to find where an INSERT's rows begin.
const INSERT_HEAD_BYTES: u64 = 256 << 10;
/// A body of rows, decompressed. A batch is some MB; this only stops a runaway.
const ROWS_BYTES_MAX: u64 = 16 << 30;
const APPEND_BYTES: usize = 1 << 20;
/// A statement that gets no slot in this time is told to come again.
const SLOT_TIMEOUT: Duration = Duration::from_mins(1);

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) sessions: Sessions,
    pub(crate) slots: Slots,
    pub(crate) limits: QueryLimits,
    pub(crate) version: String,
    pub(crate) timezone: String,
}

/// One request and where its answer goes.
pub(crate) struct Job {
    pub(crate) user: User,
    pub(crate) workload: Workload,
    pub(crate) request: Request,
    pub(crate) query_id: String,
    /// Finds the running query in `system.processes`.
    pub(crate) marker: String,
    /// Set when nothing of this job runs any more.
    pub(crate) done: Arc<AtomicBool>,
    pub(crate) body: Box<dyn Read + Send>,
    pub(crate) reply: Reply,
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// How a job ends early.
enum Fail {
    Engine(EngineError),
    Gone,
}

impl From<EngineError> for Fail {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<Gone> for Fail {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// Runs a job to its end.
pub(crate) fn run(shared: &Shared, job: Job) {
    let Job { user, workload, mut request, query_id, marker, done, body, mut reply } = job;
    let done = SetOnDrop(done);
    let names = Names { query_id: &query_id, marker: &marker };
    let result = attempt(shared, (user, workload), &mut request, &names, body, &mut reply);
    // Before the answer ends, and even after a panic: from here on there is nothing to kill.
    drop(done);
    match result {
        Ok(()) => reply.finish(),
        Err(Fail::Engine(error)) => reply.fail(&error),
        Err(Fail::Gone) => {}
    }
}

/// How a query is found.
struct Names<'a> {
    query_id: &'a str,
    marker: &'a str,
}

fn attempt(
    shared: &Shared,
    (user, workload): (User, Workload),
    request: &mut Request,
    names: &Names<'_>,
    body: Box<dyn Read + Send>,
    reply: &mut Reply,
) -> Result<(), Fail> {
    let mut body = decoded(body, &request.body_encodings)?;
    let (statement, rows) = read_statement(request, &mut body)?;
    let default_format = request.default_format.clone();
    let format_of = |named: &Option<String>| {
        named.clone().or_else(|| default_format.clone()).unwrap_or_else(|| "TabSeparated".into())
    };
    let (sql, format, header) = match &statement {
        Statement::Select { sql, format } => (sql, format_of(format), formats::joinable(&format_of(format))),
        Statement::Other { sql, format } => (sql, format_of(format), None),
        Statement::Insert { sql, format, .. } => (sql, format.clone(), None),
    };
    let sql = sql.trim_ascii();
    if sql.is_empty() {
        return Err(error(62, "SYNTAX_ERROR", "Empty query").into());
    }
    let header = header
        .filter(|_| !request.settings.iter().any(|(name, _)| name == "output_format_json_array_of_rows"));

    // The reader's before anything of the statement runs, be it only to be authorized.
    let reader_slot = (user == User::Reader).then(|| wait_for_slot(shared, workload, reply)).transpose()?;
    let mut session = open_session(shared, user, request)?;
    let connection = &mut *session;
    let log_comment = request.log_comment.as_deref().unwrap_or(names.query_id);
    let buffered = header.is_none();
    let set = settings::set_statement(
        workload,
        &request.settings,
        names.marker,
        log_comment,
        buffered,
        shared.limits,
    )
    .map_err(|refused| error(164, "READONLY", &refused.to_string()))?;
    command(connection, &set)?;
    if let Some(database) = &request.database {
        if user == User::Reader && !guard::is_usable(database) {
            let message = "Not enough privileges: name the tables of this database in full";
            return Err(error(497, "ACCESS_DENIED", message).into());
        }
        command(connection, &format!("USE {}", settings::name_of(database)))?;
    }

    // A FORMAT-less INSERT does not parse for the engine's classifier without its rows, so it gets a format.
    let classified = match &statement {
        Statement::Insert { .. } => [sql, b" FORMAT ", format.as_bytes()].concat(),
        _ => sql.to_vec(),
    };
    let class = authorize(connection, user, request, &classified)?;
    let seen;
    let sql = match user {
        User::Writer => sql,
        User::Reader => {
            seen = settings_table::as_seen_by_reader(sql);
            seen.as_slice()
        }
    };
    // A KILL must not wait for what it is to kill.
    let waits = reader_slot.is_none() && class != Class::Control;
    let _writer_slot = waits.then(|| wait_for_slot(shared, workload, reply)).transpose()?;
    reply.set_format(&format);
    if hello::is_hello(sql, &format, request.client_revision) {
        reply.write(&hello::answer("tally", &shared.version, &shared.timezone))?;
        return Ok(());
    }
    match statement {
        Statement::Insert { .. } => insert(connection, sql, &format, &request.params, rows, body, reply)?,
        Statement::Select { .. } if let Some(header) = header => {
            select(connection, sql, &format, header, &request.params, reply)?;
        }
        _ => {
            let block = connection.query(sql, &format, &request.params)?;
            reply.set_counts(block.counts());
            reply.write(block.bytes())?;
        }
    }
    Ok(())
}

fn wait_for_slot<'a>(shared: &'a Shared, workload: Workload, reply: &Reply) -> Result<Slot<'a>, Fail> {
    let slot = shared.slots.of(workload).wait(SLOT_TIMEOUT, || reply.is_gone());
    if reply.is_gone() {
        return Err(Fail::Gone);
    }
    slot.ok_or_else(|| error(202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries").into())
}

/// A fresh session, or the one that the request names. The reader always gets a fresh one: in a reused session
/// `SET readonly = DEFAULT` would be a way out.
fn open_session<'a>(shared: &'a Shared, user: User, request: &Request) -> Result<Session<'a>, EngineError> {
    let mut session = match &request.session {
        Some((id, timeout)) if user == User::Writer => {
            let reset = settings::reset_statement(&request.settings);
            shared.sessions.open(&shared.engine, id, *timeout, reset)?
        }
        _ => Session::fresh(&shared.engine)?,
    };
    if user == User::Reader {
        command(&mut session, "SET ROLE reader")?;
    }
    Ok(session)
}

/// Takes the body's encodings off, outermost first.
fn decoded(body: Box<dyn Read + Send>, encodings: &[Encoding]) -> Result<Box<dyn Read + Send>, Fail> {
    let mut body = body;
    for encoding in encodings {
        if *encoding != Encoding::Identity {
            body = encoding.reader(body).map_err(|cause| body_error(&cause))?;
        }
    }
    Ok(body)
}

/// Finds the statement in URL and body. What was read of an INSERT's rows comes with it, the rest stays in `body`.
fn read_statement(
    request: &mut Request,
    body: &mut Box<dyn Read + Send>,
) -> Result<(Statement, Vec<u8>), Fail> {
    if let Some(boundary) = request.form_boundary.take() {
        let form = read_bounded(body, Vec::new())?;
        request.take_form(&form, &boundary).map_err(|bad| error(36, "BAD_ARGUMENTS", &bad.to_string()))?;
    }
    let mut text = std::mem::take(&mut request.query);
    if !text.is_empty() {
        // As ClickHouse joins the two.
        text.push(b'\n');
    }
    let mut head = body.take(INSERT_HEAD_BYTES);
    let before = text.len();
    head.read_to_end(&mut text).map_err(|cause| body_error(&cause))?;
    let complete = (text.len() - before) < usize::try_from(INSERT_HEAD_BYTES).unwrap_or(usize::MAX);
    match statement::split(&text) {
        // Values written into a statement may be expressions and parameters; the engine's own parser takes them.
        Statement::Insert { format, .. } if complete && format.eq_ignore_ascii_case("VALUES") => {
            Ok((Statement::Other { sql: text, format: None }, Vec::new()))
        }
        Statement::Insert { sql, format, data_at } => {
            let rows = text.split_off(data_at.min(text.len()));
            Ok((Statement::Insert { sql, format, data_at: 0 }, rows))
        }
        found if complete => Ok((found, Vec::new())),
        _ => {
            let text = read_bounded(body, text)?;
            Ok((statement::split(&text), Vec::new()))
        }
    }
}

fn read_bounded(body: &mut Box<dyn Read + Send>, mut text: Vec<u8>) -> Result<Vec<u8>, Fail> {
    let left = (STATEMENT_BYTES_MAX + 1).saturating_sub(text.len());
    body.take(left as u64).read_to_end(&mut text).map_err(|cause| body_error(&cause))?;
    if text.len() > STATEMENT_BYTES_MAX {
        return Err(error(307, "TOO_MANY_BYTES", "The statement is too long").into());
    }
    Ok(text)
}

/// Refuses what must not run: several statements, changes by GET, and what the reader may not do.
fn authorize(connection: &mut Connection, user: User, request: &Request, sql: &[u8]) -> Result<Class, Fail> {
    let analysis = connection
        .classify(sql)
        .ok_or_else(|| error(62, "SYNTAX_ERROR", "The engine could not analyse the statement"))?;
    if analysis.statements > 1 {
        return Err(error(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)").into());
    }
    if analysis.statements == 0 {
        // Running it could run a first of several statements; this only tells where the mistake is.
        let text = String::from_utf8_lossy(sql).into_owned();
        let params = Params(vec![("text".into(), escaped(&text))]);
        connection.query(b"SELECT formatQuery({text:String})", "Null", &params)?;
        return Err(error(62, "SYNTAX_ERROR", "Syntax error").into());
    }
    if request.is_get && analysis.class != Class::ReadOnly {
        let message =
            "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly";
        return Err(error(164, "READONLY", message).into());
    }
    if user == User::Reader {
        if analysis.class != Class::ReadOnly {
            return Err(error(164, "READONLY", "Cannot execute query in readonly mode").into());
        }
        let tree = connection.query(&[b"EXPLAIN AST\n", sql].concat(), "TSVRaw", &request.params)?;
        let second_word = statement::second_word(sql);
        let tree = String::from_utf8_lossy(tree.bytes());
        guard::authorize(&tree, second_word.as_deref()).map_err(|forbidden| match forbidden {
            Forbidden::Settings => error(164, "READONLY", &forbidden.to_string()),
            _ => error(497, "ACCESS_DENIED", &format!("Not enough privileges: {forbidden}")),
        })?;
    }
    Ok(analysis.class)
}

fn select(
    connection: &mut Connection,
    sql: &[u8],
    format: &str,
    header: Header,
    params: &Params,
    reply: &mut Reply,
) -> Result<(), Fail> {
    let mut stream = connection.stream(sql, format, params)?;
    let mut first = true;
    let mut total = super::ffi::Counts::default();
    while let Some(block) = stream.next()? {
        let counts = block.counts();
        total.result_rows += counts.result_rows;
        total.read_rows += counts.read_rows;
        total.read_bytes += counts.read_bytes;
        reply.set_counts(total);
        let bytes = block.bytes();
        let skip = if first { 0 } else { formats::header_bytes(header, bytes).unwrap_or(0) };
        first = false;
        reply.write(&bytes[skip..])?;
    }
    Ok(())
}

fn insert(
    connection: &mut Connection,
    sql: &[u8],
    format: &str,
    params: &Params,
    head: Vec<u8>,
    body: Box<dyn Read + Send>,
    reply: &mut Reply,
) -> Result<(), Fail> {
    let mut rows = io::Cursor::new(head).chain(body).take(ROWS_BYTES_MAX);
    let mut stream = connection.insert(sql, format, params)?;
    let mut piece = Vec::with_capacity(APPEND_BYTES);
    loop {
        piece.clear();
        // A broken body drops the stream unfinished: what was sent so far is not committed by us.
        rows.by_ref()
            .take(APPEND_BYTES as u64)
            .read_to_end(&mut piece)
            .map_err(|cause| body_error(&cause))?;
        if piece.is_empty() {
            break;
        }
        stream.append(&piece)?;
    }
    if rows.limit() == 0 {
        return Err(error(307, "TOO_MANY_BYTES", "The rows of one insert are too many").into());
    }
    reply.set_counts(stream.finish()?);
    Ok(())
}

/// A query parameter's value is written as in TSV.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
}

fn error(code: u32, name: &str, message: &str) -> EngineError {
    EngineError(format!("Code: {code}. DB::Exception: {message}. ({name})"))
}

fn body_error(cause: &io::Error) -> EngineError {
    error(33, "CANNOT_READ_ALL_DATA", &format!("Cannot read the request's body: {cause}"))
}
