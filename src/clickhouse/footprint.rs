//! What a batch touches: all that looking at it and mending need to know, noted when it is cut.

use std::collections::BTreeSet;

use super::derived::{Rollup, SideTable};
use crate::core::{
    BatchId, CountedAdjustment, CountedClick, CountedConversion, LinkId, Refusal, UnixMillis, rows::Table,
};

/// What a batch touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Its rows in each table, in the order of [`Table::ALL`].
    pub rows: [u64; Table::ALL.len()],
    /// Its rows in each side table, in the order of [`SideTable::ALL`].
    pub side: [u64; SideTable::ALL.len()],
    /// What it touches of each rollup, in the order of [`Rollup::ALL`].
    pub touched: [Touched; Rollup::ALL.len()],
    /// The first instant at which one of its rows was received.
    pub from: UnixMillis,
    /// The last one.
    pub to: UnixMillis,
}

/// What a batch touches of a rollup: all groups of these accounts, goals or links, and hours may differ by it, and no
/// others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Accounts, sorted.
    pub accounts: Vec<u32>,
    /// Goals or links, whichever the rollup is sorted by, sorted.
    pub owners: Vec<u32>,
    /// Hours since the epoch, sorted.
    pub hours: Vec<u32>,
}

/// A batch whose outcome is not known.
#[derive(Clone, Copy, Debug)]
pub struct Doubtful<'a> {
    /// Its id.
    pub batch: BatchId,
    /// What it touches.
    pub of: &'a Footprint,
    /// What is surely still there of it, if it ever was.
    pub kept: Kept,
}

/// Since when rows are surely kept. Older ones may have been dropped by their table's time to live, so that nothing can
/// be held against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Refused hits.
    pub rejections_since: UnixMillis,
    /// Clicks.
    pub clicks_since: UnixMillis,
}

/// What was found of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Its rows in each table, in the order of [`Table::ALL`].
    pub rows: [u64; Table::ALL.len()],
    /// Its rows in each side table, in the order of [`SideTable::ALL`].
    pub side: [u64; SideTable::ALL.len()],
    /// Groups of each rollup that differ from the raw rows, in the order of [`Rollup::ALL`].
    pub groups_off: [u64; Rollup::ALL.len()],
}

impl Kept {
    /// Retention keeps refused hits for 90 days, and clicks for two days longer than the setting says: a day less than
    /// that, for clocks that differ.
    #[must_use]
    pub fn at(now: UnixMillis, click_retention_days: u32) -> Self {
        const DAY: i64 = 24 * 3600 * 1000;
        let clicks_days = i64::from(click_retention_days) + 1;
        Self { rejections_since: now.plus(-89 * DAY), clicks_since: now.plus(-clicks_days * DAY) }
    }
}

impl Finding {
    /// Whether the batch is whole and everything that is derived from it adds up.
    #[must_use]
    pub fn is_whole(&self, of: &Footprint) -> bool {
        self.raw_is_whole(of) && self.side == of.side && self.groups_off.iter().all(|groups| *groups == 0)
    }

    /// Whether the raw rows are whole.
    #[must_use]
    pub fn raw_is_whole(&self, of: &Footprint) -> bool {
        self.rows == of.rows
    }

    /// Whether there is no trace of the batch.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        *self == Self::default()
    }
}

/// Notes what rows touch, one after the other.
#[derive(Debug)]
pub struct FootprintBuilder {
    rows: [u64; Table::ALL.len()],
    side: [u64; SideTable::ALL.len()],
    touched: [Touching; Rollup::ALL.len()],
    from: UnixMillis,
    to: UnixMillis,
}

#[derive(Debug, Default)]
struct Touching {
    accounts: BTreeSet<u32>,
    owners: BTreeSet<u32>,
    hours: BTreeSet<u32>,
    /// Rows come in runs: what the one before touched is noted already.
    last: Option<(u32, u32, u32)>,
}

impl Default for FootprintBuilder {
    fn default() -> Self {
        let (rows, side, touched) = Default::default();
        Self { rows, side, touched, from: UnixMillis(i64::MAX), to: UnixMillis(i64::MIN) }
    }
}

impl FootprintBuilder {
    /// A row of `clicks`.
    pub fn click(&mut self, counted: &CountedClick) {
        let click = &counted.click;
        self.row(Table::Clicks, click.received_at);
        self.side(SideTable::OrderKeys, click.key.is_some());
        self.side(SideTable::ClicksByVisitor, click.is_matchable());
        self.touch(Rollup::Clicks, click.account_id.0, number(click.link_id), click.clicked_at);
    }

    /// A row of `conversions`, and of `attributions` if a click earned it.
    pub fn conversion(&mut self, counted: &CountedConversion) {
        let conversion = &counted.conversion;
        let (account, at) = (conversion.account_id.0, conversion.converted_at);
        self.row(Table::Conversions, conversion.received_at);
        self.side(SideTable::OrderKeys, conversion.key.is_some());
        self.touch(Rollup::Conversions, account, conversion.goal_id.0, at);
        if let Ok(earned) = &counted.attribution.outcome {
            self.row(Table::Attributions, conversion.received_at);
            self.touch(Rollup::Attributed, account, number(earned.link_id), at);
            self.touch(Rollup::AttributedByClick, account, number(earned.link_id), earned.clicked_at);
        }
    }

    /// A row of `adjustments`.
    pub fn adjustment(&mut self, counted: &CountedAdjustment) {
        let adjustment = &counted.adjustment;
        self.row(Table::Adjustments, adjustment.received_at);
        self.side(SideTable::OrderKeys, adjustment.key.is_some());
        let link = counted.earned.as_ref().and_then(|earned| earned.link_id);
        self.touch(Rollup::Adjustments, adjustment.account_id.0, number(link), counted.converted_at);
    }

    /// A row of `rejections`.
    pub fn rejection(&mut self, refusal: &Refusal) {
        self.row(Table::Rejections, refusal.received_at);
    }

    /// What they touch together.
    #[must_use]
    pub fn build(self) -> Footprint {
        let list = |set: BTreeSet<u32>| set.into_iter().collect();
        let touched = self.touched.map(|touching| Touched {
            accounts: list(touching.accounts),
            owners: list(touching.owners),
            hours: list(touching.hours),
        });
        Footprint { rows: self.rows, side: self.side, touched, from: self.from, to: self.to }
    }

    fn row(&mut self, table: Table, received_at: UnixMillis) {
        self.rows[table as usize] += 1;
        self.from = self.from.min(received_at);
        self.to = self.to.max(received_at);
    }

    fn side(&mut self, table: SideTable, there: bool) {
        self.side[table as usize] += u64::from(there);
    }

    fn touch(&mut self, rollup: Rollup, account: u32, owner: u32, at: UnixMillis) {
        let hour = u32::try_from(at.seconds().div_euclid(3600).max(0)).unwrap_or(u32::MAX);
        let touching = &mut self.touched[rollup as usize];
        if touching.last.replace((account, owner, hour)) != Some((account, owner, hour)) {
            touching.accounts.insert(account);
            touching.owners.insert(owner);
            touching.hours.insert(hour);
        }
    }
}

fn number(link: Option<LinkId>) -> u32 {
    link.map_or(0, |link| link.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::retention::removed_before;

    #[test]
    fn arrays_are_in_the_order_of_the_lists() {
        assert!(Table::ALL.iter().enumerate().all(|(n, table)| *table as usize == n));
        assert!(SideTable::ALL.iter().enumerate().all(|(n, table)| *table as usize == n));
        assert!(Rollup::ALL.iter().enumerate().all(|(n, rollup)| *rollup as usize == n));
    }

    #[test]
    fn rows_are_kept_a_day_longer_than_is_relied_on() {
        const DAY: i64 = 24 * 3600 * 1000;
        let now = UnixMillis(DAY * 20_000);
        let kept = Kept::at(now, 400);
        for (table, since) in [
            ("rejections", kept.rejections_since),
            ("clicks", kept.clicks_since),
            ("clicks_by_visitor", kept.clicks_since),
        ] {
            assert_eq!(removed_before(table, now, 400), Some(since.plus(-DAY)), "{table}");
        }
    }
}
