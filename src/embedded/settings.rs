//! Which of a request's URL parameters become settings of its session, and with which values.
//!
//! A parameter is either the HTTP interface's own (consumed by `request`), a query parameter (`param_x`), or a
//! setting. Settings are applied by one `SET` on the fresh session. The reader gets an allowlist, and limits
//! that it can only lower.

/// The user of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// tally: everything, DDL included.
    Writer,
    /// Dashboards: reads what the role `reader` was granted.
    Reader,
}

/// A setting that this user may not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Cannot modify '{0}' setting in readonly mode")]
pub(crate) struct Refused(pub(crate) String);

/// What the reader's queries may use, each of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderLimits {
    pub(crate) memory_bytes: u64,
    pub(crate) threads: u64,
}

/// A dashboard's panel that takes longer is of no use to anybody.
const EXECUTION_SECONDS_MAX: u64 = 120;
const RESULT_ROWS_MAX: u64 = 1_000_000;
/// Of the result in columns; a buffered JSON text is a few times that.
pub(crate) const BUFFERED_RESULT_BYTES_MAX: u64 = 128 << 20;
const TEMPORARY_BYTES_MAX: u64 = 1 << 30;

/// Parameters of the HTTP interface, which the engine does not know.
const HTTP_ONLY: [&str; 20] = [
    "query",
    "database",
    "default_format",
    "user",
    "password",
    "session_id",
    "session_timeout",
    "session_check",
    "close_session",
    "compress",
    "decompress",
    "query_id",
    "client_protocol_version",
    "wait_end_of_query",
    "buffer_size",
    "quota_key",
    "stacktrace",
    "enable_http_compression",
    "http_zlib_compression_level",
    // Ours: how a query is found again to be cancelled.
    MARKER,
];

/// A setting without effect here (there is no query cache), which marks a query in `system.processes`.
pub(crate) const MARKER: &str = "query_cache_tag";

/// Settings that the reader may change to any value: they change how a result looks, or nothing at all.
const READER_FREE: [&str; 15] = [
    "session_timezone",
    "date_time_output_format",
    "join_use_nulls",
    "extremes",
    "max_block_size",
    "cancel_http_readonly_queries_on_client_close",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "http_write_exception_in_output_format",
    "add_http_cors_header",
    "group_by_use_nulls",
    "aggregate_functions_null_for_empty",
    "use_client_time_zone",
    "prefer_column_name_to_alias",
    "final",
];

/// Whether a parameter is not a setting.
pub(crate) fn is_http_only(name: &str) -> bool {
    HTTP_ONLY.contains(&name) || name.starts_with("param_")
}

/// The `SET` statement of a session: `settings` are the request's, in order.
pub(crate) fn set_statement(
    user: User,
    settings: &[(String, String)],
    marker: &str,
    log_comment: &str,
    buffered: bool,
    limits: ReaderLimits,
) -> Result<String, Refused> {
    // Ours first, so that the writer can overrule them; what must hold for the reader comes last.
    let mut all: Vec<(&str, String)> = vec![
        ("implicit_select", "0".into()),
        ("async_insert", "0".into()),
        ("log_comment", log_comment.into()),
    ];
    if buffered {
        all.push(("max_result_bytes", BUFFERED_RESULT_BYTES_MAX.to_string()));
        all.push(("result_overflow_mode", "throw".into()));
    }
    let mut seconds = EXECUTION_SECONDS_MAX;
    let mut rows = RESULT_ROWS_MAX;
    for (name, value) in settings.iter().filter(|(name, _)| name != "log_comment") {
        match user {
            User::Writer => all.push((name, value.clone())),
            User::Reader => match name.as_str() {
                // Grafana sends this one always; fractions are rounded up.
                "max_execution_time" => seconds = lower(seconds, value),
                "max_result_rows" => rows = lower(rows, value),
                // Already so, or already lower than anything asked for.
                "readonly"
                | "result_overflow_mode"
                | "max_threads"
                | "max_memory_usage"
                | "max_result_bytes" => {}
                free if READER_FREE.contains(&free) || free.starts_with("output_format_") => {
                    all.push((name, value.clone()));
                }
                _ => return Err(Refused(name.clone())),
            },
        }
    }
    all.push((MARKER, marker.into()));
    if user == User::Reader {
        all.extend([
            ("max_execution_time", seconds.to_string()),
            ("timeout_overflow_mode", "throw".into()),
            ("max_result_rows", rows.to_string()),
            ("max_result_bytes", BUFFERED_RESULT_BYTES_MAX.to_string()),
            ("result_overflow_mode", "throw".into()),
            ("max_memory_usage", limits.memory_bytes.to_string()),
            ("max_threads", limits.threads.to_string()),
            ("max_temporary_data_on_disk_size_for_query", TEMPORARY_BYTES_MAX.to_string()),
            ("readonly", "1".into()),
        ]);
    }
    let list: Vec<String> = all
        .iter()
        .enumerate()
        // The last one of a name wins.
        .filter(|(index, (name, _))| !all[index + 1..].iter().any(|(later, _)| later == name))
        .map(|(_, (name, value))| format!("{} = {}", name_of(name), quote(value)))
        .collect();
    Ok(format!("SET {}", list.join(", ")))
}

/// The `SET` that takes a kept session back to where it was.
pub(crate) fn reset_statement(settings: &[(String, String)]) -> String {
    let names = settings.iter().map(|(name, _)| name.as_str());
    let list: Vec<String> = names
        .chain(["log_comment", "max_result_bytes", "result_overflow_mode"])
        .map(|name| format!("{} = DEFAULT", name_of(name)))
        .collect();
    format!("SET {}", list.join(", "))
}

/// A value as a SQL string.
pub(crate) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A name as a SQL identifier.
pub(crate) fn name_of(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// 0 means 'no limit' in ClickHouse, and asks for ours.
fn lower(limit: u64, asked: &str) -> u64 {
    let whole = asked.split('.').next().unwrap_or_default().parse::<u64>().unwrap_or(limit);
    let rounded_up = whole.saturating_add(u64::from(asked.contains('.')));
    if rounded_up == 0 { limit } else { limit.min(rounded_up) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ReaderLimits = ReaderLimits { memory_bytes: 7, threads: 2 };

    fn set(user: User, settings: &[(&str, &str)]) -> Result<String, Refused> {
        let settings: Vec<_> = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        set_statement(user, &settings, "m", "c", false, LIMITS)
    }

    #[test]
    fn the_readers_limits_come_last_and_can_only_be_lowered() {
        let statement =
            set(User::Reader, &[("max_execution_time", "64"), ("max_result_rows", "0")]).expect("allowed");
        assert!(statement.contains("`max_execution_time` = '64'") && statement.contains("'1000000'"));
        assert!(statement.ends_with("`readonly` = '1'"), "{statement}");
        let statement =
            set(User::Reader, &[("max_execution_time", "999999"), ("readonly", "0")]).expect("allowed");
        assert!(statement.contains("'120'") && !statement.contains("`readonly` = '0'"));
    }

    #[test]
    fn the_reader_cannot_set_what_is_not_listed() {
        assert_eq!(
            set(User::Reader, &[("additional_result_filter", "1")]),
            Err(Refused("additional_result_filter".into()))
        );
        assert!(set(User::Writer, &[("additional_result_filter", "1")]).is_ok());
    }

    proptest! {
        /// Whatever a value holds, it stays inside its quotes.
        #[test]
        fn values_cannot_break_out(value in "['\\\\a\n`;]{0,20}") {
            let quoted = quote(&value);
            let inner = &quoted[1..quoted.len() - 1];
            let mut chars = inner.chars();
            let mut read = String::new();
            while let Some(char) = chars.next() {
                prop_assert_ne!(char, '\'');
                read.push(if char == '\\' { chars.next().expect("escaped") } else { char });
            }
            prop_assert_eq!(read, value);
        }
    }
}
