//! `system.settings` as the reader is to see it: changeable is what its requests may change.
//!
//! With `readonly = 1` the engine calls every setting read-only. Clients look there before they send one
//! (`clickhouse-connect` raises an error of its own then), so the table is replaced by one whose column `readonly` says
//! what `reader_settings` permits. It decides nothing: the statement runs with the reader's rights all the same.

use super::reader_settings::changeable;
use super::settings::quote;
use super::statement::{Kind, Token, tokens};

/// What ends a FROM clause without an alias.
const CLAUSES: [&str; 9] =
    ["WHERE", "PREWHERE", "ORDER", "LIMIT", "GROUP", "FORMAT", "SETTINGS", "UNION", "OFFSET"];

/// The text with every `FROM system.settings` replaced.
pub(crate) fn as_seen_by_reader(text: &[u8]) -> Vec<u8> {
    let tokens = tokens(text);
    let is = |token: &Token, word: &str| {
        let content = &text[token.start..token.end];
        content.trim_ascii_start().eq_ignore_ascii_case(word.as_bytes())
    };
    // Quoted or not, in their exact case: other names are other tables.
    let names = |token: &Token, name: &str| {
        let content = &text[token.start..token.end];
        content == name.as_bytes()
            || content == format!("`{name}`").as_bytes()
            || content == format!("\"{name}\"").as_bytes()
    };
    let mut seen = Vec::with_capacity(text.len());
    let mut copied = 0;
    for (index, window) in tokens.windows(4).enumerate() {
        let [from, database, dot, table] = window else { continue };
        if !(is(from, "FROM") && names(database, "system") && is(dot, ".") && names(table, "settings")) {
            continue;
        }
        seen.extend_from_slice(&text[copied..database.start]);
        seen.extend_from_slice(TABLE.0.as_bytes());
        seen.extend_from_slice(changeable().map(quote).collect::<Vec<_>>().join(", ").as_bytes());
        seen.extend_from_slice(TABLE.1.as_bytes());
        let next = tokens.get(index + 4);
        if next.is_none_or(|next| next.kind != Kind::Word || CLAUSES.iter().any(|clause| is(next, clause))) {
            seen.extend_from_slice(b" AS settings");
        }
        copied = table.end;
    }
    seen.extend_from_slice(&text[copied..]);
    seen
}

/// What stands in the table's place, around the list of names.
const TABLE: (&str, &str) =
    ("(SELECT * REPLACE (toUInt8(name NOT IN (", ")) AS readonly) FROM system.settings)");

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        String::from_utf8(as_seen_by_reader(text.as_bytes())).expect("text")
    }

    #[test]
    fn only_the_table_itself_is_replaced() {
        for untouched in [
            "SELECT 'FROM system.settings'",
            "SELECT 1 -- FROM system.settings",
            "SELECT * FROM system.settings_profiles",
            "SELECT settings FROM system.tables",
        ] {
            assert_eq!(of(untouched), untouched);
        }
        let seen = of("SELECT name, readonly FROM `system`.settings LIMIT 10");
        assert!(seen.starts_with("SELECT name, readonly FROM (SELECT * REPLACE ("), "{seen}");
        assert!(seen.ends_with("FROM system.settings) AS settings LIMIT 10"), "{seen}");
        assert!(of("SELECT s.name FROM system.settings AS s").ends_with("system.settings) AS s"));
        assert!(of("SELECT (SELECT 1 FROM system.settings)").ends_with(") AS settings)"));
    }
}
