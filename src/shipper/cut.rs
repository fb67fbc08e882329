//! A cut: one batch as it was decided once and for all. Its file is durable before its first send and never changes.
//!
//! ```text
//! "tallyCUT" version:u8 header_bytes:u32 header rows… crc:u32        little-endian
//! ```
//!
//! The header is postcard of [`HeaderV1`]; the rows of `conversions`, then those of `rejections`, are the very bytes
//! that are sent. The checksum covers everything before it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    clickhouse::Footprint,
    core::{
        BatchId, ConversionId, CountedAdjustment, CountedClick, CountedConversion, Kind, OrderKey, Refusal,
        Unattributed, UnixMillis,
        rows::{self, Table},
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
    /// Rows of `conversions`.
    pub conversions: Bytes,
    /// Rows of `rejections`: refused hits and late duplicates.
    pub rejections: Bytes,
    /// What it touches, and how many rows it has.
    pub footprint: Footprint,
    /// The keys of its late duplicates, in the order of their rows, with the conversions that count.
    pub late: Vec<SettledKey>,
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

/// A record that turned out to be a duplicate after it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateDuplicate {
    /// Its row in `rejections`.
    pub refusal: Refusal,
    /// Its key, and the id of the record that counts.
    pub key: SettledKey,
}

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

const MAGIC: [u8; 8] = *b"tallyCUT";
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct HeaderV1 {
    batch_id: u64,
    parent: Option<u64>,
    range: Option<[u64; 6]>,
    files: Vec<String>,
    conversions_bytes: u64,
    rejections_bytes: u64,
    conversions: u64,
    keyed: u64,
    rejections: u64,
    accounts: Vec<u32>,
    goals: Vec<u32>,
    hours: Vec<u32>,
    from_ms: i64,
    to_ms: i64,
    late: Vec<(u128, u128)>,
}

impl Cut {
    /// Encodes the rows and notes what they touch.
    #[must_use]
    pub fn new(batch_id: BatchId, parent: Option<BatchId>, origin: Origin, content: &Content) -> Self {
        let mut footprint =
            Footprint { from: UnixMillis(i64::MAX), to: UnixMillis(i64::MIN), ..Footprint::default() };
        let (mut accounts, mut goals, mut hours) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut conversions = Vec::new();
        for counted in &content.conversions {
            let conversion = &counted.conversion;
            rows::encode_conversion(counted, batch_id, &mut conversions);
            footprint.keyed += u64::from(conversion.key.is_some());
            accounts.insert(conversion.account_id.0);
            goals.insert(conversion.goal_id.0);
            let hour = conversion.received_at.hour_start_seconds();
            hours.insert(u32::try_from(hour.max(0)).unwrap_or(u32::MAX));
            note_time(&mut footprint, conversion.received_at);
        }
        footprint.accounts = accounts.into_iter().collect();
        footprint.goals = goals.into_iter().collect();
        footprint.hours = hours.into_iter().collect();
        let mut rejections = Vec::new();
        // Late duplicates first: `late` and their rows keep the same order.
        for refusal in content.late.iter().map(|late| &late.refusal).chain(&content.refusals) {
            rows::encode_rejection(refusal, batch_id, &mut rejections);
            note_time(&mut footprint, refusal.received_at);
        }
        footprint.conversions = content.conversions.len() as u64;
        footprint.rejections = (content.late.len() + content.refusals.len()) as u64;
        let late = content.late.iter().map(|late| late.key).collect();
        let (conversions, rejections) = (conversions.into(), rejections.into());
        Self { batch_id, parent, origin, conversions, rejections, footprint, late }
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.footprint.conversions + self.footprint.rejections
    }

    /// How many acknowledged records of a kind it inserts.
    #[must_use]
    pub fn inserted(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Conversion => self.footprint.conversions,
            Kind::Click | Kind::Adjustment => 0,
        }
    }

    /// How many acknowledged records of a kind turned out to be duplicates.
    #[must_use]
    pub fn late_of(&self, kind: Kind) -> u64 {
        if kind == Kind::Conversion { self.late.len() as u64 } else { 0 }
    }

    /// How many refused hits it brings.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.footprint.rejections - self.late.len() as u64
    }

    /// Whether its rows were dead letters.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        matches!(self.origin, Origin::DeadLetters(_))
    }

    /// The parts to send: tables with rows.
    pub fn parts(&self) -> impl Iterator<Item = (Table, &Bytes)> {
        [(Table::Conversions, &self.conversions), (Table::Rejections, &self.rejections)]
            .into_iter()
            .filter(|(_, rows)| !rows.is_empty())
    }

    /// Reads the rows back.
    pub fn content(&self) -> Result<Content, CutError> {
        let mut content = Content::default();
        let mut rest = &self.conversions[..];
        while !rest.is_empty() {
            let row = rows::decode_conversion(&mut rest).map_err(|_| CutError::Damaged)?;
            content
                .conversions
                .push(CountedConversion::unattributed(row.conversion, Unattributed::NoVisitor));
        }
        let mut rest = &self.rejections[..];
        let mut late = self.late.iter();
        while !rest.is_empty() {
            let refusal = rows::decode_rejection(&mut rest).map_err(|_| CutError::Damaged)?;
            match late.next() {
                Some(&key) => content.late.push(LateDuplicate { refusal, key }),
                None => content.refusals.push(refusal),
            }
        }
        Ok(content)
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let of = &self.footprint;
        let header = HeaderV1 {
            batch_id: self.batch_id.0,
            parent: self.parent.map(|parent| parent.0),
            range: match self.origin {
                Origin::Log { from, to } => {
                    Some([from.lsn, from.segment, from.offset, to.lsn, to.segment, to.offset])
                }
                Origin::DeadLetters(_) => None,
            },
            files: match &self.origin {
                Origin::Log { .. } => Vec::new(),
                Origin::DeadLetters(files) => files.clone(),
            },
            conversions_bytes: self.conversions.len() as u64,
            rejections_bytes: self.rejections.len() as u64,
            conversions: of.conversions,
            keyed: of.keyed,
            rejections: of.rejections,
            accounts: of.accounts.clone(),
            goals: of.goals.clone(),
            hours: of.hours.clone(),
            from_ms: of.from.0,
            to_ms: of.to.0,
            late: self.late.iter().map(|late| (late.key.0, late.counted.0.as_u128())).collect(),
        };
        let mut bytes = Vec::with_capacity(self.conversions.len() + self.rejections.len() + 4096);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&[0; 4]);
        let start = bytes.len();
        // Writing to memory has no error to report; a short header would not decode.
        let _ = postcard::to_io(&header, &mut bytes);
        let header_bytes = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
        bytes[start - 4..start].copy_from_slice(&header_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.conversions);
        bytes.extend_from_slice(&self.rejections);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what [`Cut::encode`] wrote.
    pub fn decode(bytes: &Bytes) -> Result<Self, CutError> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(CutError::Damaged)?;
        let rest = body.strip_prefix(&MAGIC).ok_or(CutError::Damaged)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(CutError::Damaged);
        }
        let (&version, rest) = rest.split_first().ok_or(CutError::Damaged)?;
        if version != VERSION {
            return Err(CutError::Version(version));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(CutError::Damaged)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| CutError::Damaged)?;
        let (header, rows) = rest.split_at_checked(length).ok_or(CutError::Damaged)?;
        let header: HeaderV1 = postcard::from_bytes(header).map_err(|_| CutError::Damaged)?;
        let conversions_bytes = usize::try_from(header.conversions_bytes).map_err(|_| CutError::Damaged)?;
        let rejections_bytes = usize::try_from(header.rejections_bytes).map_err(|_| CutError::Damaged)?;
        if conversions_bytes.checked_add(rejections_bytes) != Some(rows.len())
            || header.late.len() as u64 > header.rejections
        {
            return Err(CutError::Damaged);
        }
        let (conversions, rejections) = rows.split_at(conversions_bytes);
        Ok(Self {
            batch_id: BatchId(header.batch_id),
            parent: header.parent.map(BatchId),
            origin: match header.range {
                Some([lsn, segment, offset, to_lsn, to_segment, to_offset]) => Origin::Log {
                    from: Position { lsn, segment, offset },
                    to: Position { lsn: to_lsn, segment: to_segment, offset: to_offset },
                },
                None => Origin::DeadLetters(header.files),
            },
            conversions: bytes.slice_ref(conversions),
            rejections: bytes.slice_ref(rejections),
            footprint: Footprint {
                conversions: header.conversions,
                keyed: header.keyed,
                rejections: header.rejections,
                accounts: header.accounts,
                goals: header.goals,
                hours: header.hours,
                from: UnixMillis(header.from_ms),
                to: UnixMillis(header.to_ms),
            },
            late: header
                .late
                .into_iter()
                .map(|(key, counted)| SettledKey {
                    key: OrderKey(key),
                    counted: ConversionId(Uuid::from_u128(counted)),
                })
                .collect(),
        })
    }
}

impl Content {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conversions.is_empty() && self.late.is_empty() && self.refusals.is_empty()
    }

    /// Two halves: by kind while there are several kinds, then by row. The second is empty only for a single row.
    #[must_use]
    pub fn halves(mut self) -> (Self, Self) {
        let kinds = [!self.conversions.is_empty(), !self.late.is_empty(), !self.refusals.is_empty()];
        let mut second = Self::default();
        if kinds.iter().filter(|there| **there).count() > 1 {
            if self.conversions.is_empty() {
                second.refusals = std::mem::take(&mut self.refusals);
            } else {
                second.late = std::mem::take(&mut self.late);
                second.refusals = std::mem::take(&mut self.refusals);
            }
        } else {
            second.conversions = self.conversions.split_off(self.conversions.len().div_ceil(2));
            second.late = self.late.split_off(self.late.len().div_ceil(2));
            second.refusals = self.refusals.split_off(self.refusals.len().div_ceil(2));
        }
        (self, second)
    }
}

fn note_time(footprint: &mut Footprint, at: UnixMillis) {
    footprint.from = footprint.from.min(at);
    footprint.to = footprint.to.max(at);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shipper::samples::{counted, late_duplicate, refusal};

    fn sample() -> Cut {
        let content = Content {
            conversions: (0..5).map(counted).collect(),
            late: vec![late_duplicate(5, 0)],
            refusals: vec![refusal(6)],
            ..Content::default()
        };
        let to = Position { lsn: 7, segment: 0, offset: 900 };
        Cut::new(BatchId(12), Some(BatchId(11)), Origin::Log { from: Position::START, to }, &content)
    }

    #[test]
    fn reads_back_whole() {
        let cut = sample();
        let of = Kind::Conversion;
        assert_eq!((cut.rows(), cut.inserted(of), cut.late_of(of), cut.refusals()), (7, 5, 1, 1));
        assert_eq!(Cut::decode(&cut.encode().into()), Ok(cut.clone()));
        let content = cut.content().expect("own rows");
        assert_eq!(content.late, [late_duplicate(5, 0)]);
        assert_eq!(Cut::new(cut.batch_id, cut.parent, cut.origin.clone(), &content), cut);
    }

    /// What a released version wrote is read for ever: a change of these bytes needs a new version and both readers.
    #[test]
    fn the_format_stays() {
        let bytes = sample().encode();
        assert_eq!((bytes.len(), crc32fast::hash(&bytes[..bytes.len() - 4])), (984, 2_188_020_557));
    }

    #[test]
    fn halves_end_at_single_rows() {
        fn rows_of(content: Content, found: &mut Vec<usize>) {
            let (first, second) = content.halves();
            for half in [first, second] {
                match half.conversions.len() + half.late.len() + half.refusals.len() {
                    0 => panic!("a half without rows"),
                    1 => found.push(1),
                    _ => rows_of(half, found),
                }
            }
        }
        let mut found = Vec::new();
        rows_of(sample().content().expect("own rows"), &mut found);
        assert_eq!(found.len(), 7);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Cut::decode(&bytes.into());
        }

        #[test]
        fn damage_is_noticed(at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = sample().encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Cut::decode(&bytes.clone().into()).is_err());
            bytes.truncate(at);
            prop_assert!(Cut::decode(&bytes.into()).is_err());
        }

        #[test]
        fn a_good_checksum_over_nonsense_is_answered(body in proptest::collection::vec(any::<u8>(), 0..200), header in 0u32..200) {
            let mut bytes = MAGIC.to_vec();
            bytes.push(VERSION);
            bytes.extend(header.to_le_bytes());
            bytes.extend(body);
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            if let Ok(cut) = Cut::decode(&bytes.into()) {
                let _ = cut.content();
            }
        }
    }
}
