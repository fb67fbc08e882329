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

    /// Whether the record still belongs to this batch.
    #[must_use]
    pub(super) fn admits(&self, record: &Record, bytes: usize, limits: Limits) -> bool {
        let first = self.records.is_empty();
        let fits = self.records.len() < limits.rows_max && (first || self.bytes + bytes <= limits.bytes_max);
        fits && self.month.is_none_or(|ours| ours == month_of(record.received_at()))
    }

    /// Takes a record that it admits.
    pub(super) fn push(&mut self, record: Record, bytes: usize, end: Position) {
        self.month = Some(month_of(record.received_at()));
        self.bytes += bytes;
        self.records.push(record);
        self.to = end;
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
            let record = Record::Conversion(conversion(n));
            assert!(batch.admits(&record, 10, LIMITS));
            batch.push(record, 10, at(6 + u64::from(n)));
        }
        assert!(!batch.admits(&Record::Refusal(refusal(3)), 10, LIMITS));
        assert_eq!((batch.from, batch.to, batch.records.len()), (at(5), at(8), 3));

        let mut batch = Batch::new(at(0));
        assert!(batch.admits(&Record::Refusal(refusal(0)), 5000, LIMITS), "one always fits");
        batch.push(Record::Refusal(refusal(0)), 5000, at(1));
        assert!(!batch.admits(&Record::Refusal(refusal(1)), 1, LIMITS));
    }

    #[test]
    fn ends_at_the_border_of_a_month() {
        let mut last = refusal(0);
        last.received_at = UnixMillis(NOVEMBER - 1);
        let mut batch = Batch::new(at(0));
        batch.push(Record::Refusal(last.clone()), 1, at(1));
        assert!(!batch.admits(&Record::Refusal(refusal(0)), 1, LIMITS));
        assert!(batch.admits(&Record::Refusal(last), 1, LIMITS), "the same month");
        assert_eq!(month_of(UnixMillis(NOVEMBER)), 202_611);
        assert_eq!(month_of(UnixMillis(NOVEMBER - 1)), 202_610);
    }
}
