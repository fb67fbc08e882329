//! Which of a request's URL parameters become settings of its session, and with which values.
//!
//! A parameter is either the HTTP interface's own (consumed by `request`), a query parameter (`param_x`), or a
//! setting. Settings are applied by one `SET` on the fresh session. What the reader may set: `reader_settings`.

use super::reader_settings::{self, BUFFERED_RESULT_BYTES_MAX, ReaderLimits};
use super::slots::Workload;

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

/// What queries may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryLimits {
    /// Each of the reader's.
    pub(crate) reader: ReaderLimits,
    /// Each report.
    pub(crate) report_memory_bytes: u64,
}

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

/// Whether a parameter is not a setting.
pub(crate) fn is_http_only(name: &str) -> bool {
    HTTP_ONLY.contains(&name) || name.starts_with("param_")
}

/// The `SET` statement of a session: `settings` are the request's, in order.
pub(crate) fn set_statement(
    workload: Workload,
    settings: &[(String, String)],
    marker: &str,
    log_comment: &str,
    buffered: bool,
    limits: QueryLimits,
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
    let asked = settings
        .iter()
        .filter(|(name, _)| name != "log_comment")
        .map(|(name, value)| (name.as_str(), value.as_str()));
    match workload {
        // Where memory runs short, the largest of the others is stopped and never one of these.
        Workload::Insert | Workload::Lookup => all.push(("memory_overcommit_ratio_denominator", "0".into())),
        Workload::Report => all.push(("max_memory_usage", limits.report_memory_bytes.to_string())),
        Workload::Reader => {}
    }
    if workload == Workload::Reader {
        let reader =
            reader_settings::settings(asked, limits.reader).map_err(|name| Refused(name.to_owned()))?;
        all.push((MARKER, marker.into()));
        all.extend(reader);
    } else {
        all.extend(asked.map(|(name, value)| (name, value.to_owned())));
        all.push((MARKER, marker.into()));
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
        .chain(["max_memory_usage", "memory_overcommit_ratio_denominator"])
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: QueryLimits =
        QueryLimits { reader: ReaderLimits { memory_bytes: 7, threads: 2 }, report_memory_bytes: 9 };

    fn set(workload: Workload, settings: &[(&str, &str)]) -> Result<String, Refused> {
        let settings: Vec<_> = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        set_statement(workload, &settings, "m", "c", false, LIMITS)
    }

    #[test]
    fn the_reader_cannot_set_what_is_not_listed() {
        assert_eq!(
            set(Workload::Reader, &[("additional_result_filter", "1")]),
            Err(Refused("additional_result_filter".into()))
        );
        assert!(set(Workload::Report, &[("additional_result_filter", "1")]).is_ok());
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
