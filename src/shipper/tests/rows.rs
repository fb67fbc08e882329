//! The rows of the database in memory, and what its views make of them.

use super::fake::{Group, SideRow};
use crate::{
    clickhouse::{Adjusted, KnownKey, Rollup, SideTable},
    core::{
        AccountId, ConversionId, CountedAdjustment, CountedClick, Currency, LinkId, Money, OrderKey, Refusal,
        UnixMillis,
        rows::{self, AttributionRow, ConversionRow, Table},
    },
};

/// A row with this text is refused.
pub(super) const REFUSED: &str = "refused by a constraint";

/// A raw row.
#[derive(Clone, Debug)]
pub(super) enum Row {
    Click(CountedClick),
    Conversion(ConversionRow),
    Attribution(AttributionRow),
    Adjustment(CountedAdjustment),
    Rejection(Refusal),
}

/// What the views make of a row.
pub(super) struct Derived {
    pub(super) side: Vec<SideRow>,
    /// Where it counts, and with which value.
    pub(super) groups: Vec<(Rollup, Group, i128)>,
}

impl Row {
    pub(super) fn table(&self) -> Table {
        match self {
            Self::Click(_) => Table::Clicks,
            Self::Conversion(_) => Table::Conversions,
            Self::Attribution(_) => Table::Attributions,
            Self::Adjustment(_) => Table::Adjustments,
            Self::Rejection(_) => Table::Rejections,
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        match self {
            Self::Click(row) => row.click.user_agent == REFUSED,
            Self::Conversion(row) => row.conversion.user_agent == REFUSED,
            Self::Attribution(row) => row.earned.variant == REFUSED,
            Self::Adjustment(row) => row.adjustment.reason == REFUSED,
            Self::Rejection(row) => row.message == REFUSED,
        }
    }
}

/// Reads rows as they are sent.
pub(super) fn read(table: Table, bytes: &[u8]) -> Vec<Row> {
    let (mut rest, mut read) = (bytes, Vec::new());
    while !rest.is_empty() {
        read.push(match table {
            Table::Clicks => Row::Click(rows::decode_click(&mut rest).expect("rows")),
            Table::Conversions => Row::Conversion(rows::decode_conversion(&mut rest).expect("rows")),
            Table::Attributions => Row::Attribution(rows::decode_attribution(&mut rest).expect("rows")),
            Table::Adjustments => Row::Adjustment(rows::decode_adjustment(&mut rest).expect("rows")),
            Table::Rejections => Row::Rejection(rows::decode_rejection(&mut rest).expect("rows")),
        });
    }
    read
}

pub(super) fn derived(row: &Row) -> Derived {
    let mut side = Vec::new();
    let mut key = |key: Option<OrderKey>, known| {
        side.extend(key.map(|key| SideRow { table: SideTable::OrderKeys, key: Some((key, known)) }));
    };
    let groups = match row {
        Row::Click(row) => {
            let click = &row.click;
            key(click.key, nothing(click.id.as_counted(), click.received_at));
            if click.is_matchable() {
                side.push(SideRow { table: SideTable::ClicksByVisitor, key: None });
            }
            let group = group(click.account_id, number(click.link_id), click.clicked_at);
            vec![(Rollup::Clicks, group, 0)]
        }
        Row::Conversion(row) => {
            let of = &row.conversion;
            let known = KnownKey {
                conversion_id: of.id,
                value: of.value,
                currency: of.currency,
                received_at: of.received_at,
            };
            key(of.key.map(|(key, _)| key), known);
            let group = group(of.account_id, of.goal_id.0, of.converted_at);
            vec![(Rollup::Conversions, group, of.value.micros().into())]
        }
        Row::Attribution(row) => {
            let group = |at| group(row.account_id, number(row.earned.link_id), at);
            let value = row.value.micros().into();
            vec![
                (Rollup::Attributed, group(row.converted_at), value),
                (Rollup::AttributedByClick, group(row.earned.clicked_at), value),
            ]
        }
        Row::Adjustment(row) => {
            let of = &row.adjustment;
            key(of.key, nothing(ConversionId(of.id.0), of.received_at));
            let link = row.earned.as_ref().and_then(|earned| earned.link_id);
            let group = group(of.account_id, number(link), row.converted_at);
            vec![(Rollup::Adjustments, group, row.net_value_change.into())]
        }
        Row::Rejection(_) => Vec::new(),
    };
    Derived { side, groups }
}

/// What an adjustment of a conversion needs to know.
pub(super) fn adjusted(row: &Row) -> Option<((AccountId, ConversionId), Adjusted)> {
    let Row::Conversion(ConversionRow { conversion: of, .. }) = row else { return None };
    let adjusted = Adjusted {
        goal_id: of.goal_id,
        value: of.value,
        currency: of.currency,
        converted_at: of.converted_at,
        earned: None,
        adjustments: Vec::new(),
    };
    Some(((of.account_id, of.id), adjusted))
}

/// What the key table says of what has no value.
fn nothing(conversion_id: ConversionId, received_at: UnixMillis) -> KnownKey {
    KnownKey { conversion_id, value: Money::ZERO, currency: Currency::USD, received_at }
}

fn group(account: AccountId, owner: u32, at: UnixMillis) -> Group {
    (account.0, owner, u32::try_from(at.seconds() / 3600).expect("after 1970"))
}

fn number(link: Option<LinkId>) -> u32 {
    link.map_or(0, |link| link.0)
}
