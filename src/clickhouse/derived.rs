//! What the views make of the raw rows, as one list: side tables, which hold a row for each of certain raw rows, and
//! rollups, which hold sums by the hour. Looking, mending and auditing are built from this list alone, and a test holds it
//! to the views of the schema.

use crate::core::rows::Table;

/// A table that views fill with a row for each of certain raw rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideTable {
    /// The keys of conversions, clicks and adjustments.
    OrderKeys,
    /// Clicks that a conversion may be matched to.
    ClicksByVisitor,
}

impl SideTable {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::OrderKeys, Self::ClicksByVisitor];

    /// Its name in ClickHouse.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OrderKeys => "order_keys",
            Self::ClicksByVisitor => "clicks_by_visitor",
        }
    }

    /// The views that fill it.
    pub(super) fn feeds(self) -> impl Iterator<Item = &'static Feed> {
        FEEDS.iter().filter(move |feed| feed.target == self)
    }
}

/// Hourly sums of raw rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollup {
    /// Conversions by goal.
    Conversions,
    /// Clicks by link and campaign.
    Clicks,
    /// Attributed conversions by link, goal and campaign.
    Attributed,
    /// The same by the hour of the click.
    AttributedByClick,
    /// What adjustments change.
    Adjustments,
}

impl Rollup {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Conversions, Self::Clicks, Self::Attributed, Self::AttributedByClick, Self::Adjustments];

    pub(super) fn spec(self) -> &'static RollupSpec {
        match self {
            Self::Conversions => &CONVERSIONS_HOURLY,
            Self::Clicks => &CLICKS_HOURLY,
            Self::Attributed => &ATTRIBUTED_HOURLY,
            Self::AttributedByClick => &ATTRIBUTED_BY_CLICK_HOURLY,
            Self::Adjustments => &ADJUSTMENTS_HOURLY,
        }
    }
}

/// A view that copies rows into a side table.
pub(super) struct Feed {
    pub(super) view: &'static str,
    pub(super) source: Table,
    pub(super) target: SideTable,
    /// The target's columns, and what they are made of; empty: of the same column.
    pub(super) columns: &'static [(&'static str, &'static str)],
    /// Which rows.
    pub(super) condition: &'static str,
}

/// A view that counts rows by the hour.
pub(super) struct RollupSpec {
    pub(super) view: &'static str,
    pub(super) source: Table,
    pub(super) target: &'static str,
    /// The source's instant whose hour counts.
    pub(super) at: &'static str,
    /// What stands beside the account in the keys of both tables.
    pub(super) owner: &'static str,
    /// What is grouped by: the target's columns, and what they are made of; empty: of the same column.
    pub(super) groups: &'static [(&'static str, &'static str)],
    /// What is measured, in the view's order.
    pub(super) measures: &'static [Measure],
    /// Which rows of source and target are the shipper's; others are written by somebody else.
    pub(super) ours: Option<&'static str>,
}

/// A column of a rollup.
pub(super) enum Measure {
    /// A sum: compared exactly.
    Sum(&'static str, &'static str),
    /// A state of something approximate: made anew with the sums, never compared.
    State(&'static str, &'static str),
}

use Measure::{State, Sum};

pub(super) const FEEDS: [Feed; 4] = [
    Feed {
        view: "order_keys_feed",
        source: Table::Conversions,
        target: SideTable::OrderKeys,
        columns: &[
            ("goal_id", ""),
            ("order_key", ""),
            ("conversion_id", ""),
            ("value", ""),
            ("currency", ""),
            ("received_at", ""),
            ("batch_id", ""),
        ],
        condition: "order_key != 0",
    },
    Feed {
        view: "click_keys_feed",
        source: Table::Clicks,
        target: SideTable::OrderKeys,
        columns: &[
            ("goal_id", "toUInt32(0)"),
            ("order_key", "click_key"),
            ("conversion_id", "toUUID('00000000-0000-0000-0000-000000000000')"),
            ("value", "toDecimal64(0, 6)"),
            ("currency", "'XXX'"),
            ("received_at", ""),
            ("batch_id", ""),
        ],
        condition: "click_key != 0",
    },
    Feed {
        view: "adjustment_keys_feed",
        source: Table::Adjustments,
        target: SideTable::OrderKeys,
        columns: &[
            ("goal_id", "toUInt32(0)"),
            ("order_key", "adjustment_key"),
            ("conversion_id", "adjustment_id"),
            ("value", "toDecimal64(0, 6)"),
            ("currency", "'XXX'"),
            ("received_at", ""),
            ("batch_id", ""),
        ],
        condition: "adjustment_key != 0",
    },
    Feed {
        view: "clicks_by_visitor_feed",
        source: Table::Clicks,
        target: SideTable::ClicksByVisitor,
        columns: &[
            ("account_id", ""),
            ("visitor_key", ""),
            ("clicked_at", ""),
            ("received_at", ""),
            ("click_id", ""),
            ("link_id", ""),
            (
                "labels",
                "concat(utm_source, '\\n', utm_medium, '\\n', utm_campaign, '\\n', utm_term, '\\n', utm_content, '\\n', \
                 variant, '\\n', toString(toUInt8(labelled)))",
            ),
            ("batch_id", ""),
        ],
        condition: "traffic = 'human' AND visitor_key != 0 AND NOT private_address",
    },
];

const CONVERSIONS_HOURLY: RollupSpec = RollupSpec {
    view: "conversions_hourly_feed",
    source: Table::Conversions,
    target: "conversions_hourly",
    at: "converted_at",
    owner: "goal_id",
    groups: &[
        ("account_id", ""),
        ("goal_id", ""),
        ("hour", "toDateTime(toStartOfHour(converted_at), 'UTC')"),
        ("currency", ""),
    ],
    measures: &[
        Sum("conversions", "count()"),
        Sum("value", "sum(value)"),
        State("visitors", "uniqStateIf(visitor_key, visitor_key != 0)"),
    ],
    ours: None,
};

const CLICKS_HOURLY: RollupSpec = RollupSpec {
    view: "clicks_hourly_feed",
    source: Table::Clicks,
    target: "clicks_hourly",
    at: "clicked_at",
    owner: "link_id",
    groups: &[
        ("account_id", ""),
        ("link_id", ""),
        ("hour", "toDateTime(toStartOfHour(clicked_at), 'UTC')"),
        ("utm_source", "if(labelled, clicks.utm_source, '(other)')"),
        ("utm_medium", "if(labelled, clicks.utm_medium, '(other)')"),
        ("utm_campaign", "if(labelled, clicks.utm_campaign, '(other)')"),
        ("variant", "if(labelled, clicks.variant, '(other)')"),
    ],
    measures: &[
        Sum("clicks", "count()"),
        Sum("human_clicks", "countIf(traffic = 'human')"),
        State("visitors", "uniqStateIf(if(visitor_key = 0, click_id, visitor_key), traffic = 'human')"),
    ],
    ours: None,
};

const ATTRIBUTED_HOURLY: RollupSpec = RollupSpec {
    view: "attributed_hourly_feed",
    source: Table::Attributions,
    target: "attributed_hourly",
    at: "converted_at",
    owner: "link_id",
    groups: &[
        ("run_id", ""),
        ("attribution_run", ""),
        ("account_id", ""),
        ("link_id", ""),
        ("goal_id", ""),
        ("hour", "toDateTime(toStartOfHour(converted_at), 'UTC')"),
        ("utm_source", "if(labelled, attributions.utm_source, '(other)')"),
        ("utm_medium", "if(labelled, attributions.utm_medium, '(other)')"),
        ("utm_campaign", "if(labelled, attributions.utm_campaign, '(other)')"),
        ("variant", "if(labelled, attributions.variant, '(other)')"),
        ("currency", ""),
    ],
    measures: &[
        Sum("conversions", "count()"),
        Sum("by_click_id", "countIf(method = 'click_id')"),
        Sum("by_ip_user_agent", "countIf(method = 'ip_user_agent')"),
        Sum("value", "sum(value)"),
        Sum("seconds_to_convert", "sum(attributions.seconds_to_convert)"),
        State(
            "seconds_to_convert_quantiles",
            "quantilesTDigestState(0.5, 0.95)(attributions.seconds_to_convert)",
        ),
        State("visitors", "uniqState(if(method = 'click_id' OR visitor_key = 0, click_id, visitor_key))"),
    ],
    ours: Some("run_id = 0"),
};

const ATTRIBUTED_BY_CLICK_HOURLY: RollupSpec = RollupSpec {
    view: "attributed_by_click_hourly_feed",
    source: Table::Attributions,
    target: "attributed_by_click_hourly",
    at: "clicked_at",
    owner: "link_id",
    groups: &[
        ("run_id", ""),
        ("attribution_run", ""),
        ("account_id", ""),
        ("link_id", ""),
        ("goal_id", ""),
        ("hour", "toDateTime(toStartOfHour(clicked_at), 'UTC')"),
        ("converted_on", "toDate(converted_at)"),
        ("utm_source", "if(labelled, attributions.utm_source, '(other)')"),
        ("utm_medium", "if(labelled, attributions.utm_medium, '(other)')"),
        ("utm_campaign", "if(labelled, attributions.utm_campaign, '(other)')"),
        ("variant", "if(labelled, attributions.variant, '(other)')"),
        ("currency", ""),
    ],
    measures: &[
        Sum("conversions", "count()"),
        Sum("value", "sum(value)"),
        Sum("seconds_to_convert", "sum(attributions.seconds_to_convert)"),
        State(
            "seconds_to_convert_quantiles",
            "quantilesTDigestState(0.5, 0.95)(attributions.seconds_to_convert)",
        ),
        State("visitors", "uniqState(if(method = 'click_id' OR visitor_key = 0, click_id, visitor_key))"),
    ],
    ours: Some("run_id = 0"),
};

const ADJUSTMENTS_HOURLY: RollupSpec = RollupSpec {
    view: "adjustments_hourly_feed",
    source: Table::Adjustments,
    target: "adjustments_hourly",
    at: "converted_at",
    owner: "link_id",
    groups: &[
        ("account_id", ""),
        ("link_id", ""),
        ("goal_id", ""),
        ("hour", "toDateTime(toStartOfHour(converted_at), 'UTC')"),
        ("method", ""),
        ("utm_source", "if(labelled OR method = 'none', adjustments.utm_source, '(other)')"),
        ("utm_medium", "if(labelled OR method = 'none', adjustments.utm_medium, '(other)')"),
        ("utm_campaign", "if(labelled OR method = 'none', adjustments.utm_campaign, '(other)')"),
        ("variant", "if(labelled OR method = 'none', adjustments.variant, '(other)')"),
        ("currency", ""),
    ],
    measures: &[
        Sum("adjustments", "count()"),
        Sum("net_value_change", "sum(adjustments.net_value_change)"),
        Sum("net_conversions_change", "sum(toInt64(adjustments.net_conversions_change))"),
    ],
    ours: None,
};

impl Feed {
    /// The view's statement, over rows for which `more` holds too.
    pub(super) fn select(&self, more: &str) -> String {
        let columns = list(self.columns.iter().map(|column| made_of(*column)));
        let and = if more.is_empty() { String::new() } else { format!(" AND {more}") };
        format!("SELECT {columns} FROM {} WHERE {}{and}", self.source.name(), self.condition)
    }

    /// The names of the target's columns.
    pub(super) fn columns(&self) -> String {
        list(self.columns.iter().map(|(name, _)| (*name).to_owned()))
    }
}

impl RollupSpec {
    /// The view's statement, over rows for which `condition` holds.
    pub(super) fn select(&self, condition: &str) -> String {
        self.select_measures(condition, |_| true)
    }

    /// The same without what is not compared.
    fn select_sums(&self, condition: &str) -> String {
        self.select_measures(condition, |measure| matches!(measure, Sum(..)))
    }

    fn select_measures(&self, condition: &str, wanted: impl Fn(&Measure) -> bool) -> String {
        let groups = self.groups.iter().map(|group| made_of(*group));
        let measures = self.measures.iter().filter(|measure| wanted(measure)).map(|measure| match measure {
            Sum(name, expression) | State(name, expression) => format!("{expression} AS {name}"),
        });
        let columns = list(groups.chain(measures));
        let filter = if condition.is_empty() { String::new() } else { format!(" WHERE {condition}") };
        format!("SELECT {columns} FROM {}{filter} GROUP BY {}", self.source.name(), self.names())
    }

    /// The groups whose sums differ from those of the raw rows, with the differences (raw less rollup) as `d0`, `d1`, …
    /// in the order of [`Self::sums`].
    pub(super) fn differences(&self, source_condition: &str, target_condition: &str) -> String {
        let (names, target) = (self.names(), self.target);
        let each =
            |of: &dyn Fn(usize, &str) -> String| list(self.sums().enumerate().map(|(n, name)| of(n, name)));
        let raw = each(&|n, name| format!("toDecimal128({name}, 6) AS s{n}"));
        let rolled = each(&|n, name| format!("-toDecimal128(sum({name}), 6) AS s{n}"));
        let sums = each(&|n, _| format!("sum(s{n}) AS d{n}"));
        let differ = (0..self.sums().count()).map(|n| format!("d{n} != 0")).collect::<Vec<_>>().join(" OR ");
        let filter = |condition: &str| {
            if condition.is_empty() { String::new() } else { format!(" WHERE {condition}") }
        };
        format!(
            "SELECT {names}, {sums} FROM (SELECT {names}, {raw} FROM ({}) UNION ALL \
             SELECT {names}, {rolled} FROM {target}{} GROUP BY {names}) GROUP BY {names} HAVING {differ}",
            self.select_sums(source_condition),
            filter(target_condition),
        )
    }

    /// The names of what it is grouped by.
    pub(super) fn names(&self) -> String {
        list(self.groups.iter().map(|(name, _)| (*name).to_owned()))
    }

    /// The names of its sums.
    pub(super) fn sums(&self) -> impl Iterator<Item = &'static str> {
        self.measures.iter().filter_map(|measure| match measure {
            Sum(name, _) => Some(*name),
            State(..) => None,
        })
    }

    /// The names of all its columns, in the order of [`Self::select`].
    pub(super) fn columns(&self) -> String {
        let measures = self.measures.iter().map(|measure| match measure {
            Sum(name, _) | State(name, _) => (*name).to_owned(),
        });
        list(self.groups.iter().map(|(name, _)| (*name).to_owned()).chain(measures))
    }
}

fn made_of((name, expression): (&str, &str)) -> String {
    if expression.is_empty() { name.to_owned() } else { format!("{expression} AS {name}") }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::MIGRATIONS;

    fn one_line(sql: &str) -> String {
        sql.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The statement of every materialized view of the schema, by the view's name.
    fn views() -> Vec<(String, String)> {
        let sql: String = MIGRATIONS.iter().map(|migration| migration.sql).collect();
        let views = sql.split("CREATE MATERIALIZED VIEW IF NOT EXISTS ").skip(1);
        views
            .map(|view| {
                let view = one_line(view.split(';').next().expect("an end"));
                let (name, rest) = view.split_once(" TO ").expect("a target");
                (name.to_owned(), rest.replacen(" AS SELECT ", ": SELECT ", 1))
            })
            .collect()
    }

    #[test]
    fn the_list_is_the_schemas_views() {
        let feeds =
            FEEDS.iter().map(|feed| (feed.view, format!("{}: {}", feed.target.name(), feed.select(""))));
        let rollups = Rollup::ALL.map(Rollup::spec);
        let rollups = rollups.iter().map(|spec| (spec.view, format!("{}: {}", spec.target, spec.select(""))));
        let mut ours: Vec<_> = feeds.chain(rollups).map(|(view, sql)| (view.to_owned(), sql)).collect();
        let mut theirs = views();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn what_is_scanned_for_is_part_of_the_groups() {
        for spec in Rollup::ALL.map(Rollup::spec) {
            let names: Vec<_> = spec.groups.iter().map(|(name, _)| *name).collect();
            assert!(
                ["account_id", "hour", spec.owner].iter().all(|name| names.contains(name)),
                "{}",
                spec.view
            );
            let hour = format!("toDateTime(toStartOfHour({}), 'UTC')", spec.at);
            assert!(spec.groups.contains(&("hour", hour.as_str())), "{}", spec.view);
        }
    }
}
