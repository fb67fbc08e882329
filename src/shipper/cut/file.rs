//! A cut's bytes on disk.
//!
//! ```text
//! "tallyCUT" version:u8 header_bytes:u32 header rows… crc:u32        little-endian
//! ```
//!
//! The header is postcard of [`HeaderV1`]; the rows of each table that follow, in the order of [`Table::ALL`], are the
//! very bytes that are sent. The checksum covers everything before it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Cut, CutError, Late, Origin, Tokens};
use crate::{
    clickhouse::{Footprint, Rollup, SideTable, Touched},
    core::{BatchId, ConversionId, Kind, OrderKey, UnixMillis, rows::Table},
    dedup::SettledKey,
    wal::Position,
};

const MAGIC: [u8; 8] = *b"tallyCUT";
/// Cuts whose tokens are made of the id alone.
const VERSION_ID: u8 = 1;
/// The same bytes, but tokens are made of the rows as well.
const VERSION: u8 = 2;

#[derive(Serialize, Deserialize)]
struct HeaderV1 {
    batch_id: u64,
    parent: Option<u64>,
    range: Option<[u64; 6]>,
    files: Vec<String>,
    tables: [TableV1; Table::ALL.len()],
    side: [u64; SideTable::ALL.len()],
    touched: [TouchedV1; Rollup::ALL.len()],
    from_ms: i64,
    to_ms: i64,
    late: Vec<LateV1>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct TableV1 {
    bytes: u64,
    rows: u64,
}

#[derive(Serialize, Deserialize)]
struct TouchedV1 {
    accounts: Vec<u32>,
    owners: Vec<u32>,
    hours: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct LateV1 {
    /// The kind's place in [`Kind::ALL`].
    kind: u8,
    key: u128,
    counted: u128,
}

impl Cut {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let header = self.header();
        let rows_bytes: usize = self.rows.iter().map(Bytes::len).sum();
        let mut bytes = Vec::with_capacity(rows_bytes + 4096);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(match self.tokens {
            Tokens::Id => VERSION_ID,
            Tokens::IdAndRows => VERSION,
        });
        bytes.extend_from_slice(&[0; 4]);
        let start = bytes.len();
        // Writing to memory has no error to report; a short header would not decode.
        let _ = postcard::to_io(&header, &mut bytes);
        let header_bytes = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
        bytes[start - 4..start].copy_from_slice(&header_bytes.to_le_bytes());
        for rows in &self.rows {
            bytes.extend_from_slice(rows);
        }
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
        let tokens = match version {
            VERSION_ID => Tokens::Id,
            VERSION => Tokens::IdAndRows,
            newer => return Err(CutError::Version(newer)),
        };
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(CutError::Damaged)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| CutError::Damaged)?;
        let (header, mut rest) = rest.split_at_checked(length).ok_or(CutError::Damaged)?;
        let header: HeaderV1 = postcard::from_bytes(header).map_err(|_| CutError::Damaged)?;
        let mut rows: [Bytes; Table::ALL.len()] = Default::default();
        for (rows, table) in rows.iter_mut().zip(&header.tables) {
            let length = usize::try_from(table.bytes).map_err(|_| CutError::Damaged)?;
            let (own, others) = rest.split_at_checked(length).ok_or(CutError::Damaged)?;
            *rows = bytes.slice_ref(own);
            rest = others;
        }
        let cut = header.read(rows, tokens)?;
        let attributed = cut.footprint.rows[Table::Attributions as usize];
        let fits = cut.late.len() as u64 <= cut.footprint.rows[Table::Rejections as usize]
            && attributed <= cut.footprint.rows[Table::Conversions as usize];
        if rest.is_empty() && fits { Ok(cut) } else { Err(CutError::Damaged) }
    }

    fn header(&self) -> HeaderV1 {
        let of = &self.footprint;
        let (range, files) = match &self.origin {
            Origin::Log { from, to } => {
                (Some([from.lsn, from.segment, from.offset, to.lsn, to.segment, to.offset]), Vec::new())
            }
            Origin::DeadLetters(files) => (None, files.clone()),
        };
        HeaderV1 {
            batch_id: self.batch_id.0,
            parent: self.parent.map(|parent| parent.0),
            range,
            files,
            tables: Table::ALL.map(|table| TableV1 {
                bytes: self.rows[table as usize].len() as u64,
                rows: of.rows[table as usize],
            }),
            side: of.side,
            touched: of.touched.each_ref().map(|touched| TouchedV1 {
                accounts: touched.accounts.clone(),
                owners: touched.owners.clone(),
                hours: touched.hours.clone(),
            }),
            from_ms: of.from.0,
            to_ms: of.to.0,
            late: self.late.iter().map(LateV1::from).collect(),
        }
    }
}

impl HeaderV1 {
    fn read(self, rows: [Bytes; Table::ALL.len()], tokens: Tokens) -> Result<Cut, CutError> {
        let origin = match self.range {
            Some([lsn, segment, offset, to_lsn, to_segment, to_offset]) => Origin::Log {
                from: Position { lsn, segment, offset },
                to: Position { lsn: to_lsn, segment: to_segment, offset: to_offset },
            },
            None => Origin::DeadLetters(self.files),
        };
        let footprint = Footprint {
            rows: self.tables.map(|table| table.rows),
            side: self.side,
            touched: self.touched.map(|TouchedV1 { accounts, owners, hours }| Touched {
                accounts,
                owners,
                hours,
            }),
            from: UnixMillis(self.from_ms),
            to: UnixMillis(self.to_ms),
        };
        Ok(Cut {
            batch_id: BatchId(self.batch_id),
            parent: self.parent.map(BatchId),
            origin,
            rows,
            footprint,
            late: self.late.into_iter().map(LateV1::read).collect::<Result<_, _>>()?,
            tokens,
        })
    }
}

impl From<&Late> for LateV1 {
    fn from(late: &Late) -> Self {
        let SettledKey { key, counted } = late.key;
        Self { kind: late.kind as u8, key: key.0, counted: counted.0.as_u128() }
    }
}

impl LateV1 {
    fn read(self) -> Result<Late, CutError> {
        let kind = *Kind::ALL.get(usize::from(self.kind)).ok_or(CutError::Damaged)?;
        let counted = ConversionId(Uuid::from_u128(self.counted));
        Ok(Late { kind, key: SettledKey { key: OrderKey(self.key), counted } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::sample, *};

    #[test]
    fn reads_back_whole() {
        let cut = sample();
        assert_eq!(Cut::decode(&cut.encode().into()), Ok(cut));
    }

    /// What a released version wrote is read for ever: a change of these bytes needs a new version and both readers.
    #[test]
    fn the_format_stays() {
        let sealed = |tokens| {
            let bytes = Cut { tokens, ..sample() }.encode();
            (bytes.len(), crc32fast::hash(&bytes[..bytes.len() - 4]))
        };
        assert_eq!(sealed(Tokens::Id), (2437, 1_655_455_316));
        assert_eq!(sealed(Tokens::IdAndRows), (2437, 1_153_489_095));
    }

    /// ClickHouse may know the tokens of a cut that an earlier version sent: they must not change.
    #[test]
    fn a_cut_of_an_earlier_version_keeps_its_tokens() {
        let old = Cut { tokens: Tokens::Id, ..sample() };
        let read = Cut::decode(&old.encode().into()).expect("format 1");
        assert_eq!(read.token(Table::Clicks, 3), "tally-12-clicks-3");
        assert_eq!(read, old);
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
