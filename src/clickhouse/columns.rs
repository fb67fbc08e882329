//! The columns that our migrations give each table, to be held against those that are there.

use super::migrations::MIGRATIONS;

/// A column of a table, as a migration makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    /// As it is written in the file.
    pub(super) declared: &'static str,
}

/// Every column of every table that the migrations create. A line of our files holds one column.
pub(super) fn columns() -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for migration in MIGRATIONS {
        let mut table = None;
        for line in migration.sql.lines() {
            if let Some(name) = line.strip_prefix("CREATE TABLE IF NOT EXISTS ") {
                table = Some(name.trim());
            } else if line.starts_with(')') || line.starts_with("CREATE") || line.starts_with("ALTER") {
                table = None;
            }
            if let Some(added) = line.strip_prefix("ALTER TABLE ")
                && let Some((table, definition)) = added.split_once(" ADD COLUMN IF NOT EXISTS ")
            {
                columns.extend(column(table, definition));
            }
            if let (Some(table), Some(definition)) = (table, line.strip_prefix("    ")) {
                columns.extend(column(table, definition));
            }
        }
    }
    columns
}

/// Whether the server's spelling of a type is that of the file.
pub(super) fn is_same_type(one: &str, other: &str) -> bool {
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    letters(one) == letters(other)
}

fn column(table: &'static str, definition: &'static str) -> Option<Column> {
    let (name, rest) = definition.split_once(' ')?;
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        // An index, a projection, a constraint, or more of the line before.
        return None;
    }
    Some(Column { table, name, declared: type_of(rest) })
}

/// The type ends at the first word outside of parentheses and quotes that follows it, or at a comma.
fn type_of(text: &'static str) -> &'static str {
    let (mut depth, mut quoted) = (0usize, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\'' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.saturating_sub(1),
            b' ' | b',' | b';' if !quoted && depth == 0 => return &text[..at],
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_from_the_migrations() {
        let all = columns();
        let find = |table: &str, name: &str| {
            all.iter().find(|column| column.table == table && column.name == name).map(|c| c.declared)
        };
        assert_eq!(find("conversions", "conversion_id"), Some("UUID"));
        assert_eq!(find("conversions", "key_scope"), Some("Enum8('none' = 0, 'forever' = 1, 'day' = 2)"));
        assert_eq!(find("conversions_hourly", "visitors"), Some("AggregateFunction(uniq, UInt64)"));
        assert_eq!(find("rejections", "code"), Some("LowCardinality(String)"));
        assert!(all.len() > 100, "{}", all.len());
        assert!(is_same_type("Decimal(18,6)", "Decimal(18, 6)") && !is_same_type("UInt32", "UInt64"));
    }
}
