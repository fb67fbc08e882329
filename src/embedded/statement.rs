//! Takes a statement's text apart just far enough to run it: is it an INSERT whose rows follow, which FORMAT
//! does it name, can it be streamed?
//!
//! Nothing here decides what is *allowed*: that takes ClickHouse's own parser (`guard`).

/// How a text is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// SELECT and its kin: the engine can stream the result.
    Select {
        /// The text without its FORMAT clause.
        sql: Vec<u8>,
        /// What the clause named.
        format: Option<String>,
    },
    /// An INSERT whose rows follow the text.
    Insert {
        /// The text up to `FORMAT x` or `VALUES`.
        sql: Vec<u8>,
        /// `x`, or `Values`.
        format: String,
        /// Where in the text the rows begin.
        data_at: usize,
    },
    /// Anything else.
    Other {
        /// The text without its FORMAT clause.
        sql: Vec<u8>,
        /// What the clause named.
        format: Option<String>,
    },
}

/// Splits a text. For an INSERT, a prefix that reaches into the rows is enough.
pub(crate) fn split(text: &[u8]) -> Statement {
    let tokens = outer_tokens(text);
    let word = |index: usize| match tokens.get(index) {
        Some(Token { start, end, kind: Kind::Word, .. }) => Some(&text[*start..*end]),
        _ => None,
    };
    let is = |index: usize, keyword: &str| {
        word(index).is_some_and(|it| it.eq_ignore_ascii_case(keyword.as_bytes()))
    };

    if is(0, "INSERT") {
        for index in 1..tokens.len() {
            if is(index, "SELECT") || is(index, "WITH") || is(index, "FROM") || is(index, "WATCH") {
                break;
            }
            if is(index, "VALUES") {
                let sql = text[..tokens[index].start].to_vec();
                return Statement::Insert { sql, format: "Values".into(), data_at: tokens[index].end };
            }
            if is(index, "FORMAT")
                && let Some(name) = word(index + 1)
            {
                let format = String::from_utf8_lossy(name).into_owned();
                let sql = text[..tokens[index].start].to_vec();
                return Statement::Insert { sql, format, data_at: rows_start(text, tokens[index + 1].end) };
            }
        }
    }
    let (sql, format) = cut_format(text, &tokens);
    if is(0, "SELECT") || is(0, "WITH") || is(0, "FROM") {
        Statement::Select { sql, format }
    } else {
        Statement::Other { sql, format }
    }
}

/// Whether a text is an INSERT.
pub(crate) fn begins_with_insert(text: &[u8]) -> bool {
    let first = outer_tokens(text).first().copied();
    first.is_some_and(|token| text[token.start..token.end].eq_ignore_ascii_case(b"INSERT"))
}

/// The second word of a text, which says what a SHOW shows.
pub(crate) fn second_word(text: &[u8]) -> Option<String> {
    let token = outer_tokens(text).get(1).copied().filter(|token| token.kind == Kind::Word)?;
    Some(String::from_utf8_lossy(&text[token.start..token.end]).into_owned())
}

/// ClickHouse's rule: after the format's name come blanks, then one line end, then the rows.
fn rows_start(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | 0x0c)) {
        at += 1;
    }
    if text.get(at) == Some(&b'\r') {
        at += 1;
    }
    if text.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

/// Takes `FORMAT x` off the end of a text; SETTINGS after it stay.
fn cut_format(text: &[u8], tokens: &[Token]) -> (Vec<u8>, Option<String>) {
    let content = |token: &Token| &text[token.start..token.end];
    let word = |token: &Token, keyword: &[u8]| {
        token.kind == Kind::Word && content(token).eq_ignore_ascii_case(keyword)
    };
    for (index, pair) in tokens.windows(2).enumerate().rev() {
        let [keyword, name] = pair else { break };
        let ends = match tokens.get(index + 2) {
            None => true,
            Some(next) => word(next, b"SETTINGS") || content(next) == b";",
        };
        if index > 0
            && ends
            && word(keyword, b"FORMAT")
            && name.kind == Kind::Word
            && !word(name, b"SETTINGS")
        {
            let format = String::from_utf8_lossy(content(name)).into_owned();
            let sql = [&text[..keyword.start], &text[name.end..]].concat();
            return (sql, Some(format));
        }
    }
    (text.to_vec(), None)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Other,
}

/// A word, a quoted text or a sign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
    /// Inside how many parentheses it stands.
    depth: usize,
}

/// The tokens outside of all parentheses.
fn outer_tokens(text: &[u8]) -> Vec<Token> {
    let mut tokens = tokens(text);
    tokens.retain(|token| token.depth == 0);
    tokens
}

/// All tokens but parentheses. Comments vanish; a string or a quoted name is one token.
pub(super) fn tokens(text: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = text.get(at) {
        let start = at;
        let mut kind = Kind::Other;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => {
                at += 1;
                continue;
            }
            b'-' if text.get(at + 1) == Some(&b'-') => {
                at = find(text, at, b"\n").unwrap_or(text.len());
                continue;
            }
            b'#' if matches!(text.get(at + 1), Some(b' ' | b'!')) => {
                at = find(text, at, b"\n").unwrap_or(text.len());
                continue;
            }
            b'/' if text.get(at + 1) == Some(&b'*') => {
                at = find(text, at + 2, b"*/").map_or(text.len(), |end| end + 2);
                continue;
            }
            b'\'' | b'"' | b'`' => at = quoted_end(text, at),
            b'(' | b'[' | b'{' => {
                depth += 1;
                at += 1;
                continue;
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
                continue;
            }
            _ if byte.is_ascii_alphanumeric() || byte == b'_' => {
                kind = Kind::Word;
                while text.get(at).is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_') {
                    at += 1;
                }
            }
            _ => at += 1,
        }
        tokens.push(Token { start, end: at, kind, depth });
    }
    tokens
}

fn quoted_end(text: &[u8], start: usize) -> usize {
    let quote = text[start];
    let mut at = start + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            _ if byte == quote && text.get(at + 1) == Some(&quote) => at += 2,
            _ if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn find(text: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    text.get(from..)?.windows(needle.len()).position(|window| window == needle).map(|at| at + from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn select(sql: &str, format: Option<&str>) -> Statement {
        Statement::Select { sql: sql.into(), format: format.map(Into::into) }
    }

    #[test]
    fn a_format_at_the_end_is_taken_off() {
        assert_eq!(split(b"SELECT 1 FORMAT JSON"), select("SELECT 1 ", Some("JSON")));
        assert_eq!(split(b"select 1 format CSV;"), select("select 1 ;", Some("CSV")));
        assert_eq!(split(b"SELECT 1 FORMAT TSV SETTINGS a=1"), select("SELECT 1  SETTINGS a=1", Some("TSV")));
        assert_eq!(split(b"SELECT 'x FORMAT JSON'"), select("SELECT 'x FORMAT JSON'", None));
        assert_eq!(split(b"SELECT format('{}', a) FROM t"), select("SELECT format('{}', a) FROM t", None));
        assert_eq!(split(b"-- c\nSELECT 1 -- FORMAT CSV"), select("-- c\nSELECT 1 -- FORMAT CSV", None));
        let show = Statement::Other { sql: b"SHOW TABLES ".to_vec(), format: Some("JSON".into()) };
        assert_eq!(split(b"SHOW TABLES FORMAT JSON"), show);
    }

    #[test]
    fn an_insert_is_cut_where_its_rows_begin() {
        let text = b"INSERT INTO t (format, b) SETTINGS x='FORMAT' FORMAT RowBinary\n\x01\n";
        let Statement::Insert { sql, format, data_at } = split(text) else { panic!("an insert") };
        assert_eq!(
            (sql.as_slice(), format.as_str()),
            (&b"INSERT INTO t (format, b) SETTINGS x='FORMAT' "[..], "RowBinary")
        );
        assert_eq!(&text[data_at..], b"\x01\n");
        let Statement::Insert { format, data_at, .. } = split(b"insert into t values (1)") else {
            panic!("an insert")
        };
        assert_eq!((format.as_str(), data_at), ("Values", 20));
        assert!(matches!(split(b"INSERT INTO t SELECT 1 FORMAT JSON"), Statement::Other { .. }));
        assert!(matches!(split(b"INSERT INTO t FROM INFILE 'x' FORMAT CSV"), Statement::Other { .. }));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = split(&text);
        }

        #[test]
        fn rows_are_never_touched(rows in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = [b"INSERT INTO t FORMAT RowBinary\n", rows.as_slice()].concat();
            let Statement::Insert { data_at, .. } = split(&text) else { panic!("an insert") };
            prop_assert_eq!(&text[data_at..], rows.as_slice());
        }
    }
}
