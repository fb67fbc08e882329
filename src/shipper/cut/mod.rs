//! A cut: one batch as it was decided once and for all. Its file is durable before its first send and never changes.

mod content;
mod file;

use std::hash::Hasher as _;

use bytes::Bytes;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

pub use self::content::{Content, LateDuplicate};
use crate::{
    clickhouse::{Footprint, FootprintBuilder, Rollup},
    core::{
        Attribution, BatchId, CountedConversion, GoalId, Kind, PerKind,
        rows::{self, RowError, Table},
    },
    dedup::SettledKey,
    wal::Position,
};

/// A batch: rows, where they come from, and what they touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its id; every row carries it.
    pub batch_id: BatchId,
    /// The refused cut that this is a piece of.
    pub parent: Option<BatchId>,
    /// Where its rows come from.
    pub origin: Origin,
    /// Its rows for each table, in the order of [`Table::ALL`]: the very bytes that are sent. In `rejections`, late
    /// duplicates come before refused hits.
    rows: [Bytes; Table::ALL.len()],
    /// What it touches, and how many rows it has.
    pub footprint: Footprint,
    /// Its late duplicates, in the order of their rows.
    late: Vec<Late>,
    /// What its tokens are made of.
    tokens: Tokens,
}

/// What is kept of a late duplicate beside its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Late {
    kind: Kind,
    key: SettledKey,
}

/// What a cut's tokens are made of. A token says to ClickHouse that rows are there already, so that it must never stand for
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tokens {
    /// The id: cuts of format 1, some of whose tokens ClickHouse knows already.
    Id,
    /// The id and the rows: whatever happens to ids, one token has one content.
    IdAndRows,
}

/// Where a cut's rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The log.
    Log {
        /// From here,
        from: Position,
        /// to here.
        to: Position,
    },
    /// Dead letters that an operator sent on their way again: the names of their files.
    DeadLetters(Vec<String>),
}

/// The bytes are not a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// Not whole, or not ours.
    #[error("the cut is damaged")]
    Damaged,
    /// Written by a newer tally.
    #[error("the cut has format {0}, which this version of tally does not know")]
    Version(u8),
}

impl From<RowError> for CutError {
    fn from(_: RowError) -> Self {
        Self::Damaged
    }
}

impl Cut {
    /// Encodes the rows and notes what they touch.
    #[must_use]
    pub fn new(batch_id: BatchId, parent: Option<BatchId>, origin: Origin, content: &Content) -> Self {
        let mut touched = FootprintBuilder::default();
        let mut clicks = Vec::new();
        for counted in &content.clicks {
            rows::encode_click(counted, batch_id, &mut clicks);
            touched.click(counted);
        }
        let (mut conversions, mut attributions) = (Vec::new(), Vec::new());
        for counted in &content.conversions {
            rows::encode_conversion(counted, batch_id, &mut conversions);
            rows::encode_attribution(counted, batch_id, &mut attributions);
            touched.conversion(counted);
        }
        let mut adjustments = Vec::new();
        for counted in &content.adjustments {
            rows::encode_adjustment(counted, batch_id, &mut adjustments);
            touched.adjustment(counted);
        }
        let mut rejections = Vec::new();
        for refusal in content.late.iter().map(|late| &late.refusal).chain(&content.refusals) {
            rows::encode_rejection(refusal, batch_id, &mut rejections);
            touched.rejection(refusal);
        }
        let rows = Table::ALL.map(|table| {
            Bytes::from(std::mem::take(match table {
                Table::Clicks => &mut clicks,
                Table::Conversions => &mut conversions,
                Table::Attributions => &mut attributions,
                Table::Adjustments => &mut adjustments,
                Table::Rejections => &mut rejections,
            }))
        });
        let late = content.late.iter().map(|late| Late { kind: late.kind(), key: late.key }).collect();
        Self { batch_id, parent, origin, rows, footprint: touched.build(), late, tokens: Tokens::IdAndRows }
    }

    /// How many records it stands for. An attributed conversion has rows in two tables and is one.
    #[must_use]
    pub fn records(&self) -> u64 {
        let attributions = self.footprint.rows[Table::Attributions as usize];
        self.footprint.rows.iter().sum::<u64>() - attributions
    }

    /// How many acknowledged records of a kind it inserts.
    #[must_use]
    pub fn inserted(&self, kind: Kind) -> u64 {
        let table = match kind {
            Kind::Conversion => Table::Conversions,
            Kind::Click => Table::Clicks,
            Kind::Adjustment => Table::Adjustments,
        };
        self.footprint.rows[table as usize]
    }

    /// How many acknowledged records of each kind turned out to be duplicates.
    #[must_use]
    pub fn late(&self) -> PerKind<u64> {
        let mut count = PerKind::default();
        for late in &self.late {
            count[late.kind] += 1;
        }
        count
    }

    /// How many refused hits it brings.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.footprint.rows[Table::Rejections as usize] - self.late.len() as u64
    }

    /// Whether its rows were dead letters.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        matches!(self.origin, Origin::DeadLetters(_))
    }

    /// The goals of its conversions.
    pub fn goals(&self) -> impl Iterator<Item = GoalId> {
        self.footprint.touched[Rollup::Conversions as usize].owners.iter().copied().map(GoalId)
    }

    /// The parts to send: tables with rows.
    pub fn parts(&self) -> impl Iterator<Item = (Table, &Bytes)> {
        Table::ALL.into_iter().zip(&self.rows).filter(|(_, rows)| !rows.is_empty())
    }

    /// The token under which a table's rows are sent: the same at every attempt of a generation.
    #[must_use]
    pub fn token(&self, table: Table, generation: u32) -> String {
        let (id, name) = (self.batch_id.0, table.name());
        match self.tokens {
            Tokens::Id => format!("tally-{id}-{name}-{generation}"),
            Tokens::IdAndRows => {
                let mut hasher = SipHasher13::new();
                hasher.write(self.rows_of(table));
                format!("tally-{id}-{name}-{generation}-{:032x}", hasher.finish128().as_u128())
            }
        }
    }

    /// Reads the rows back.
    pub fn content(&self) -> Result<Content, CutError> {
        let mut content = Content::default();
        let mut rest = self.rows_of(Table::Clicks);
        while !rest.is_empty() {
            content.clicks.push(rows::decode_click(&mut rest)?);
        }
        let (mut rest, mut attributions) =
            (self.rows_of(Table::Conversions), self.rows_of(Table::Attributions));
        while !rest.is_empty() {
            content.conversions.push(conversion(&mut rest, &mut attributions)?);
        }
        let mut rest = self.rows_of(Table::Adjustments);
        while !rest.is_empty() {
            content.adjustments.push(rows::decode_adjustment(&mut rest)?);
        }
        let mut rest = self.rows_of(Table::Rejections);
        let mut late = self.late.iter();
        while !rest.is_empty() {
            let refusal = rows::decode_rejection(&mut rest)?;
            match late.next() {
                Some(late) => content.late.push(LateDuplicate { refusal, key: late.key }),
                None => content.refusals.push(refusal),
            }
        }
        if attributions.is_empty() && late.next().is_none() { Ok(content) } else { Err(CutError::Damaged) }
    }

    fn rows_of(&self, table: Table) -> &[u8] {
        &self.rows[table as usize]
    }
}

/// Takes the first conversion off its rows, and what it owes to a click off theirs: both are in the same order.
fn conversion(conversions: &mut &[u8], attributions: &mut &[u8]) -> Result<CountedConversion, CutError> {
    let row = rows::decode_conversion(conversions)?;
    let outcome = match row.attribution {
        Err(reason) => Err(reason),
        Ok(method) => {
            let of = rows::decode_attribution(attributions)?;
            if of.conversion_id != row.conversion.id || of.earned.method != method {
                return Err(CutError::Damaged);
            }
            Ok(of.earned)
        }
    };
    let attribution = Attribution { outcome, candidates: row.candidates };
    Ok(CountedConversion { conversion: row.conversion, attribution, run: row.run })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::shipper::samples::{attributed, everything};

    pub(in crate::shipper) fn sample() -> Cut {
        let to = Position { lsn: 7, segment: 0, offset: 900 };
        Cut::new(BatchId(12), Some(BatchId(11)), Origin::Log { from: Position::START, to }, &everything())
    }

    #[test]
    fn rows_read_back_in_their_order() {
        let cut = sample();
        let content = cut.content().expect("own rows");
        assert_eq!(content, everything());
        assert_eq!(Cut::new(cut.batch_id, cut.parent, cut.origin.clone(), &content), cut);
    }

    #[test]
    fn one_token_has_one_content() {
        let of = |conversions: Vec<_>| {
            let content = Content { conversions, ..Content::default() };
            Cut::new(BatchId(1), None, Origin::DeadLetters(Vec::new()), &content)
        };
        let (one, same, other) = (of(vec![attributed(1)]), of(vec![attributed(1)]), of(vec![attributed(2)]));
        let token = |cut: &Cut| cut.token(Table::Conversions, 0);
        assert_eq!(token(&one), token(&same));
        assert_ne!(token(&one), token(&other), "although their ids are the same");
        assert_ne!(token(&one), one.token(Table::Conversions, 1));
        assert!(token(&one).starts_with("tally-1-conversions-0-"));
    }

    #[test]
    fn every_record_is_counted_under_its_kind() {
        let (cut, content) = (sample(), everything());
        assert_eq!(cut.records(), content.records() as u64);
        assert_eq!(cut.inserted(Kind::Click), content.clicks.len() as u64);
        assert_eq!(cut.inserted(Kind::Conversion), content.conversions.len() as u64);
        assert_eq!(cut.inserted(Kind::Adjustment), content.adjustments.len() as u64);
        assert_eq!(cut.late(), PerKind([1, 1, 1]));
        assert_eq!(cut.refusals(), content.refusals.len() as u64);
        let goals: std::collections::BTreeSet<_> =
            content.conversions.iter().map(|counted| counted.conversion.goal_id).collect();
        assert!(cut.goals().eq(goals));
    }

    #[test]
    fn an_attribution_of_another_conversion_is_damage() {
        let of = |conversions: Vec<_>| {
            let content = Content { conversions, ..Content::default() };
            Cut::new(BatchId(1), None, Origin::DeadLetters(Vec::new()), &content)
        };
        let mut cut = of(vec![attributed(1)]);
        cut.rows[Table::Attributions as usize] =
            of(vec![attributed(2)]).rows[Table::Attributions as usize].clone();
        assert_eq!(cut.content(), Err(CutError::Damaged));
    }
}
