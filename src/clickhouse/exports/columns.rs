//! The columns of exports, in their order, which is part of the API.

use crate::core::{ExportFormat, ExportKind};

/// A column: its name, and the SQL that makes it.
pub(super) struct Column {
    name: &'static str,
    sql: Sql,
}

enum Sql {
    /// Numbers, times, and texts of our own.
    Own(&'static str),
    /// Text that came from outside; empty: none.
    Text(&'static str),
}

const fn own(name: &'static str, sql: &'static str) -> Column {
    Column { name, sql: Sql::Own(sql) }
}

const fn text(name: &'static str, sql: &'static str) -> Column {
    Column { name, sql: Sql::Text(sql) }
}

/// An IPv4 address is kept as one of IPv6 that ends with it.
const IP: &str = "multiIf(c.ip = toIPv6('::'), NULL, isIPv4String(substring(toString(c.ip), 8)), \
    substring(toString(c.ip), 8), toString(c.ip))";

/// `c`: the conversion; `e`: what it owes to a click (its method is `none` where that is nothing); `x`: the sum of its
/// adjustments.
const CONVERSIONS: &[Column] = &[
    own("conversion_id", "toString(c.conversion_id)"),
    own("goal_id", "c.goal_id"),
    text("order_id", "c.order_id"),
    own("value", "c.value"),
    own("net_value", "toDecimal64(c.value + x.net_value_change, 6)"),
    own("net_conversions", "toUInt8(1 + x.net_conversions_change)"),
    own("currency", "toString(c.currency)"),
    own("converted_at", "c.converted_at"),
    own("received_at", "c.received_at"),
    own("source", "toString(c.source)"),
    own("named_click_id", "nullIf(c.click_id, 0)"),
    own("attribution_method", "if(e.method = 'none', NULL, toString(e.method))"),
    own(
        "attribution_reason",
        // A later run with a shorter window takes a click away without a word.
        "multiIf(e.method != 'none', NULL, c.attribution_reason = '', 'outside_window', toString(c.attribution_reason))",
    ),
    own("click_id", "nullIf(e.click_id, 0)"),
    own("link_id", "nullIf(e.link_id, 0)"),
    own("clicked_at", "if(e.method = 'none', NULL, e.clicked_at)"),
    own("seconds_to_convert", "if(e.method = 'none', NULL, e.seconds_to_convert)"),
    text("utm_source", "toString(e.utm_source)"),
    text("utm_medium", "toString(e.utm_medium)"),
    text("utm_campaign", "toString(e.utm_campaign)"),
    text("utm_term", "toString(e.utm_term)"),
    text("utm_content", "toString(e.utm_content)"),
    text("variant", "toString(e.variant)"),
    own("ip", IP),
    text("user_agent", "c.user_agent"),
];

const CLICKS: &[Column] = &[
    own("click_id", "c.click_id"),
    own("link_id", "nullIf(c.link_id, 0)"),
    own("clicked_at", "c.clicked_at"),
    own("received_at", "c.received_at"),
    own("source", "toString(c.source)"),
    own("traffic", "toString(c.traffic)"),
    text("utm_source", "toString(c.utm_source)"),
    text("utm_medium", "toString(c.utm_medium)"),
    text("utm_campaign", "toString(c.utm_campaign)"),
    text("utm_term", "c.utm_term"),
    text("utm_content", "c.utm_content"),
    text("variant", "toString(c.variant)"),
    text("sub1", "c.sub1"),
    text("sub2", "c.sub2"),
    text("sub3", "c.sub3"),
    text("sub4", "c.sub4"),
    text("sub5", "c.sub5"),
    own("ip", IP),
    text("user_agent", "c.user_agent"),
];

/// What a spreadsheet may take for a formula, or for its start once it has trimmed the cell, when a text begins with it.
/// And the sign that is put in front of it then: so the first one of a text can be taken off again, whatever follows.
const RISKY: &str = "=+-@\\t\\r\\n\\'";

/// The columns of an export.
pub(super) fn columns(kind: ExportKind) -> &'static [Column] {
    match kind {
        ExportKind::Conversions => CONVERSIONS,
        ExportKind::Clicks => CLICKS,
    }
}

/// What follows SELECT.
pub(super) fn select_list(kind: ExportKind, format: ExportFormat) -> String {
    let columns = columns(kind).iter().map(|column| match column.sql {
        Sql::Own(sql) => format!("{sql} AS `{}`", column.name),
        Sql::Text(sql) if format == ExportFormat::Csv => format!(
            "if({sql} = '', NULL, concat(if(position('{RISKY}', substring({sql}, 1, 1)) > 0, '\\'', ''), {sql})) AS `{}`",
            column.name
        ),
        Sql::Text(sql) => format!("nullIf({sql}, '') AS `{}`", column.name),
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// The first line of CSV.
pub(super) fn header(kind: ExportKind) -> String {
    let names: Vec<_> = columns(kind).iter().map(|column| column.name).collect();
    names.join(",") + "\n"
}
