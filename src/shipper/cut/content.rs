//! What goes into a cut, and how it is halved.

use crate::{
    core::{ConversionId, CountedAdjustment, CountedClick, CountedConversion, Kind, Refusal},
    dedup::SettledKey,
};

/// What goes into a cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Clicks that count.
    pub clicks: Vec<CountedClick>,
    /// Conversions that count, and what earned them.
    pub conversions: Vec<CountedConversion>,
    /// Adjustments that count, and what they change.
    pub adjustments: Vec<CountedAdjustment>,
    /// Duplicates that were told only after they were acknowledged.
    pub late: Vec<LateDuplicate>,
    /// Refused hits.
    pub refusals: Vec<Refusal>,
}

/// A record that turned out to be a duplicate after it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateDuplicate {
    /// Its row in `rejections`.
    pub refusal: Refusal,
    /// Its key, and the id of the record that counts.
    pub key: SettledKey,
}

impl LateDuplicate {
    /// What it was.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.refusal.late_kind().unwrap_or(Kind::Conversion)
    }
}

impl Content {
    /// How many rows it has: of several tables, one for each record.
    #[must_use]
    pub fn records(&self) -> usize {
        self.clicks.len()
            + self.conversions.len()
            + self.adjustments.len()
            + self.late.len()
            + self.refusals.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records() == 0
    }

    /// The keys that ClickHouse answers for once it has all this, with the records that count under them.
    pub fn keys(&self) -> impl Iterator<Item = SettledKey> {
        let clicks = self.clicks.iter().filter_map(|counted| {
            Some(SettledKey { key: counted.click.key?, counted: counted.click.id.as_counted() })
        });
        let conversions = self.conversions.iter().filter_map(|counted| {
            Some(SettledKey { key: counted.conversion.key?.0, counted: counted.conversion.id })
        });
        let adjustments = self.adjustments.iter().filter_map(|counted| {
            let adjustment = &counted.adjustment;
            Some(SettledKey { key: adjustment.key?, counted: ConversionId(adjustment.id.0) })
        });
        clicks.chain(conversions).chain(adjustments).chain(self.late.iter().map(|late| late.key))
    }

    /// Two halves: the first kind and the others while there are several kinds, then by row. The second is empty only for
    /// a single row.
    #[must_use]
    pub fn halves(mut self) -> (Self, Self) {
        let all = self.records();
        let clicks = Self { clicks: std::mem::take(&mut self.clicks), ..Self::default() };
        let conversions = Self { conversions: std::mem::take(&mut self.conversions), ..Self::default() };
        let adjustments = Self { adjustments: std::mem::take(&mut self.adjustments), ..Self::default() };
        let late = Self { late: std::mem::take(&mut self.late), ..Self::default() };
        let kinds = [clicks, conversions, adjustments, late, self];
        let mut kinds = kinds.into_iter().filter(|kind| !kind.is_empty());
        let first = kinds.next().unwrap_or_default();
        if first.records() == all { first.by_row() } else { (first, kinds.fold(Self::default(), Self::and)) }
    }

    fn by_row(mut self) -> (Self, Self) {
        let second = Self {
            clicks: back(&mut self.clicks),
            conversions: back(&mut self.conversions),
            adjustments: back(&mut self.adjustments),
            late: back(&mut self.late),
            refusals: back(&mut self.refusals),
        };
        (self, second)
    }

    fn and(mut self, other: Self) -> Self {
        self.clicks.extend(other.clicks);
        self.conversions.extend(other.conversions);
        self.adjustments.extend(other.adjustments);
        self.late.extend(other.late);
        self.refusals.extend(other.refusals);
        self
    }
}

/// Takes the second half.
fn back<T>(rows: &mut Vec<T>) -> Vec<T> {
    rows.split_off(rows.len().div_ceil(2))
}

#[cfg(test)]
mod tests {
    use crate::shipper::samples::everything;

    use super::*;

    #[test]
    fn halves_end_at_single_rows() {
        fn rows_of(content: Content, found: &mut Vec<Content>) {
            let (first, second) = content.halves();
            for half in [first, second] {
                match half.records() {
                    0 => panic!("a half without rows"),
                    1 => found.push(half),
                    _ => rows_of(half, found),
                }
            }
        }
        let mut found = Vec::new();
        rows_of(everything(), &mut found);
        assert_eq!(found.len(), everything().records());
        assert_eq!(found.into_iter().fold(Content::default(), Content::and), everything());
        let single = Content { refusals: vec![crate::shipper::samples::refusal(1)], ..Content::default() };
        assert!(single.halves().1.is_empty());
    }
}
