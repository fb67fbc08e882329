//! Gathering records into a batch: as many as fit, of one month.

use jiff::{Timestamp, tz::Offset};

use crate::{
    core::{Record, UnixMillis},
    wal::Position,
};

/// How large a batch may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records.
    pub rows_max: usize,
    /// Bytes, as they lie in the log.
    pub bytes_max: usize,
}

/// Records that go into one batch, and where they stand in the log.
#[derive(Debug)]
pub(super) struct Batch {
    /// The records, in the log's order.
    pub(super) records: Vec<Record>,
    /// Where they begin.
    pub(super) from: Position,
    /// Where they end.
    pub(super) to: Position,
    bytes: usize,
    month: Option<i32>,
}

impl Batch {
    /// An empty one, from there on.
    #[must_use]
    pub(super) fn new(from: Position) -> Self {
        Self { records: Vec::new(), from, to: from, bytes: 0, month: None }
    }

    /// Takes a record, or gives it back: it belongs to the next batch.
    pub(super) fn push(
        &mut self,
        record: Record,
        bytes: usize,
        end: Position,
        limits: Limits,
    ) -> Result<(), Record> {
        let month = month_of(received_at(&record));
        let full = self.records.len() >= limits.rows_max
            || (!self.records.is_empty() && self.bytes + bytes > limits.bytes_max);
        if full || self.month.is_some_and(|ours| ours != month) {
            return Err(record);
        }
        self.month = Some(month);
        self.bytes += bytes;
        self.records.push(record);
        self.to = end;
        Ok(())
    }
}

/// When a record came.
#[must_use]
pub(super) fn received_at(record: &Record) -> UnixMillis {
    match record {
        Record::Conversion(conversion) => conversion.received_at,
        Record::Refusal(refusal) => refusal.received_at,
    }
}

/// The month of an instant in UTC, as ClickHouse's `toYYYYMM` counts it: the partition of its rows.
fn month_of(at: UnixMillis) -> i32 {
    Timestamp::from_millisecond(at.0).map_or(0, |at| {
        let date = Offset::UTC.to_datetime(at).date();
        i32::from(date.year()) * 100 + i32::from(date.month())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipper::samples::{NOVEMBER, conversion, refusal};

    const LIMITS: Limits = Limits { rows_max: 3, bytes_max: 1000 };

    fn at(lsn: u64) -> Position {
        Position { lsn, ..Position::START }
    }

    #[test]
    fn ends_at_its_bounds() {
        let mut batch = Batch::new(at(5));
        for n in 0..3 {
            batch.push(Record::Conversion(conversion(n)), 10, at(6 + u64::from(n)), LIMITS).expect("fits");
        }
        assert!(batch.push(Record::Refusal(refusal(3)), 10, at(9), LIMITS).is_err());
        assert_eq!((batch.from, batch.to, batch.records.len()), (at(5), at(8), 3));

        let mut batch = Batch::new(at(0));
        batch.push(Record::Refusal(refusal(0)), 5000, at(1), LIMITS).expect("one always fits");
        assert!(batch.push(Record::Refusal(refusal(1)), 1, at(2), LIMITS).is_err());
    }

    #[test]
    fn ends_at_the_border_of_a_month() {
        let mut last = refusal(0);
        last.received_at = UnixMillis(NOVEMBER - 1);
        let mut batch = Batch::new(at(0));
        batch.push(Record::Refusal(last.clone()), 1, at(1), LIMITS).expect("fits");
        assert!(batch.push(Record::Refusal(refusal(0)), 1, at(2), LIMITS).is_err());
        batch.push(Record::Refusal(last), 1, at(2), LIMITS).expect("the same month");
        assert_eq!(month_of(UnixMillis(NOVEMBER)), 202_611);
        assert_eq!(month_of(UnixMillis(NOVEMBER - 1)), 202_610);
    }
}
