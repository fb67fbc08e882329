//! What a failed request means to whoever sent it.

use clickhouse::error::Error;

/// Why a request failed, as what to do about it. Decided by the server's numeric code, never by its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server did not take it, and not because of the data: slow down and send it again.
    #[error("ClickHouse can't take it now: {message}")]
    Retry {
        /// The server's code, if it answered.
        code: Option<i32>,
        /// For the log.
        message: String,
    },
    /// The server refuses this data or this query: sending it again won't help.
    #[error("ClickHouse refused it: {message}")]
    Reject {
        /// The server's code; `None`: the answer could not be read as what was asked for.
        code: Option<i32>,
        /// For the log.
        message: String,
    },
    /// Nobody knows whether it happened: the same insert may be sent again only with the same token.
    #[error("ClickHouse's answer is not known: {message}")]
    Unknown {
        /// The server's code, if it answered.
        code: Option<i32>,
        /// For the log.
        message: String,
    },
}

impl Failure {
    /// The names of the classes in metrics.
    pub const CLASSES: [&'static str; 3] = ["retry", "reject", "unknown"];

    /// The class's name in metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// The server's code, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        let (Self::Retry { code, .. } | Self::Reject { code, .. } | Self::Unknown { code, .. }) = self;
        *code
    }

    /// Whether a query was stopped since it took more time, memory or rows than its settings let it: too many rows, a
    /// time-out, too slow, memory, bytes, the size of a set, rows or bytes of a result.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        matches!(self.code(), Some(158..=160 | 191 | 241 | 307 | 396))
    }

    /// No answer came in time.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::Unknown { code: None, message: "timed out".to_owned() }
    }

    /// An answer without its end.
    pub(super) fn broken_off() -> Self {
        Self::Unknown { code: None, message: "the answer broke off".to_owned() }
    }

    /// An answer that can't be read: a defect or another schema.
    pub(super) fn unreadable(what: &str) -> Self {
        Self::Reject { code: None, message: format!("unexpected answer: {what}") }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::BadResponse(text) => by_code(server_code(&text), cut(text)),
            Error::Network(source) if never_sent(&*source) => {
                Self::Retry { code: None, message: cut(chain(&*source)) }
            }
            Error::Network(source) => Self::Unknown { code: None, message: cut(chain(&*source)) },
            Error::TimedOut => Self::timed_out(),
            Error::Decompression(_) | Error::Other(_) => {
                Self::Unknown { code: None, message: cut(chain(&error)) }
            }
            _ => Self::Reject { code: None, message: cut(chain(&error)) },
        }
    }
}

/// The class of a server's code. What is not listed is unknown: that costs a look, never a row.
fn by_code(code: Option<i32>, message: String) -> Failure {
    match code {
        // Too many parts or queries, memory, read-only, no space, shutting down; and what an operator must mend while
        // the spool grows: a missing table, column or database, a wrong password, a missing right, a quota.
        Some(
            252 | 202 | 203 | 241 | 242 | 243 | 364 | 16 | 46 | 47 | 60 | 81 | 192..=195 | 201 | 497 | 516,
        ) => Failure::Retry { code, message },
        // The data: does not parse, does not fit the column, or a constraint or a view refuses it. 36 and 62: a query of
        // ours that carries no data, and a defect.
        Some(
            6 | 26 | 27 | 32 | 33 | 36 | 38 | 41 | 43 | 53 | 62 | 69 | 70 | 72 | 117 | 130 | 131 | 190 | 321
            | 349 | 376 | 395 | 407 | 432 | 467 | 469 | 675 | 676 | 691,
        ) => Failure::Reject { code, message },
        _ => Failure::Unknown { code, message },
    }
}

/// `Code: 252. DB::Exception: …` and the header's `Code: 252` both start so.
fn server_code(text: &str) -> Option<i32> {
    let after = text.trim_start().strip_prefix("Code:")?.trim_start();
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..end].parse().ok()
}

/// The connection itself was refused: the request never left.
fn never_sent(source: &(dyn std::error::Error + 'static)) -> bool {
    source
        .downcast_ref::<hyper_util::client::legacy::Error>()
        .is_some_and(hyper_util::client::legacy::Error::is_connect)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Messages go to logs and dead letters: a server may answer with megabytes, and of a row that violates a constraint it
/// quotes the values, a person's among them.
fn cut(mut text: String) -> String {
    const MESSAGE_BYTES_MAX: usize = 1000;
    const VALUES: &str = "Column values:";
    if let Some(at) = text.find(VALUES) {
        text.truncate(at + VALUES.len());
        text.push_str(" not logged");
    }
    if text.len() > MESSAGE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(text: &str) -> &'static str {
        Failure::from(Error::BadResponse(text.to_owned())).class()
    }

    #[test]
    fn classes_follow_the_code() {
        assert_eq!(class_of("Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)"), "retry");
        assert_eq!(class_of("Code: 241. DB::Exception: Memory limit"), "retry");
        assert_eq!(class_of("Code: 60. DB::Exception: Unknown table"), "retry");
        assert_eq!(class_of("Code: 469. DB::Exception: Constraint `x` is violated"), "reject");
        assert_eq!(class_of("Code: 33"), "reject");
        assert_eq!(class_of("Code: 159. DB::Exception: Timeout exceeded"), "unknown");
        assert_eq!(class_of("Code: 1002. DB::Exception: whatever 252"), "unknown");
        assert_eq!(class_of("502 Bad Gateway, Code: 33"), "unknown");
        assert_eq!(class_of(""), "unknown");
        assert_eq!(Failure::from(Error::TimedOut).class(), "unknown");
        assert_eq!(Failure::from(Error::NotEnoughData).class(), "reject");
    }

    #[test]
    fn the_values_of_a_refused_row_are_not_logged() {
        let text = "Code: 469. DB::Exception: Constraint `c` for table tally.conversions is violated at row 1. \
                    Expression: (value < 5). Column values: order_id = 'JANE-1', value = 9. (VIOLATED_CONSTRAINT)";
        let Failure::Reject { message, .. } = Failure::from(Error::BadResponse(text.into())) else {
            panic!("refused");
        };
        assert!(message.contains("value < 5") && !message.contains("JANE-1"), "{message}");
    }

    #[test]
    fn messages_are_bounded() {
        let Failure::Unknown { message, .. } = Failure::from(Error::BadResponse("ä".repeat(5000))) else {
            panic!("unknown");
        };
        assert!(message.len() < 1010);
    }
}
