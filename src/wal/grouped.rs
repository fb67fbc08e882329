//! How many of a queue's records were taken in groups.

/// Most of one appender's grouped records that are not decided: one group of the largest size and some small ones. They
/// don't count against single records, so that a bulk request refuses nobody else.
const RECORDS_MAX: u32 = 16_384;

/// The grouped records of one appender's queue.
#[derive(Debug, Default)]
pub(super) struct Grouped {
    /// A group is being taken: the writer waits for its end, so that all of it is in one block.
    pub(super) open: bool,
    /// Those that join the next batch.
    pub(super) pending: u32,
    in_flight: u32,
}

impl Grouped {
    /// Whether a group of that many may be begun.
    pub(super) fn fits(&self, records: u32) -> bool {
        self.undecided().saturating_add(records) <= RECORDS_MAX
    }

    pub(super) fn undecided(&self) -> u32 {
        self.pending + self.in_flight
    }

    /// The batch is being written.
    pub(super) fn taken(&mut self) {
        self.in_flight = std::mem::take(&mut self.pending);
    }

    /// The batch is decided.
    pub(super) fn decided(&mut self) {
        self.in_flight = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, task::Poll};

    use super::super::{AppendError, Config, Position, Ticket, TicketStatus, Wal};

    const SEGMENT_BYTES: u64 = 4 << 20;

    fn open(folder: &Path) -> Wal {
        let config = Config {
            dir: folder.to_owned(),
            segment_bytes: SEGMENT_BYTES,
            spool_bytes_max: 16 << 20,
            disk_free_bytes_min: 0,
            appenders: 2,
        };
        Wal::open(config, Position::START).expect("the log opens")
    }

    /// One round of both pumps.
    async fn pump(wal: &Wal) {
        for index in 0..2 {
            let mut pump = std::pin::pin!(wal.appender(index).pump());
            std::future::poll_fn(|context| {
                let _ = pump.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
        }
    }

    async fn durable(wal: &Wal, ticket: Ticket) {
        tokio::spawn(wal.appender(0).pump());
        tokio::spawn(wal.appender(1).pump());
        wal.wait(ticket).await.expect("durable");
    }

    #[tokio::test]
    async fn the_writer_leaves_a_queue_alone_while_a_group_is_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let wal = open(folder.path());
        let appenders = [wal.appender(0), wal.appender(1)];
        let group = appenders[0].group(3, 300).expect("room");
        let first = group.append(|out| out.extend_from_slice(b"1")).expect("taken");
        let other = appenders[1].append(|out| out.extend_from_slice(b"other")).expect("taken");
        // Both queues are announced, and the writer has been through all of them before this one is durable.
        pump(&wal).await;
        while wal.status_of(other) == TicketStatus::Pending {
            std::thread::yield_now();
        }
        assert_eq!(wal.status_of(first), TicketStatus::Pending);
        for n in [b"2", b"3"] {
            assert_eq!(group.append(|out| out.extend_from_slice(n)).expect("taken"), first, "one block");
        }
        drop(group);
        durable(&wal, first).await;
        let mut reader = wal.reader(Position::START).expect("readable");
        let mut read = Vec::new();
        while let Some(entry) = reader.next().expect("intact") {
            read.push(entry.payload.to_vec());
        }
        assert_eq!(read, [b"other".as_slice(), b"1", b"2", b"3"]);
        wal.close();
    }

    #[tokio::test]
    async fn a_group_without_room_is_refused_whole_and_refuses_no_single_record() {
        let folder = tempfile::tempdir().expect("a folder");
        let wal = open(folder.path());
        let appender = wal.appender(0);
        let too_large = usize::try_from(SEGMENT_BYTES).expect("small");
        assert_eq!(appender.group(1, too_large).err(), Some(AppendError::TooLarge));
        let group = appender.group(6_000, 0).map(drop);
        assert_eq!(group, Ok(()));
        // Groups that follow each other before the first is written fill their own bound.
        let mut last = None;
        let mut taken = 0;
        while let Ok(group) = appender.group(1_000, 0) {
            for _ in 0..1_000 {
                last = Some(group.append(|_| {}).expect("taken"));
            }
            taken += 1_000;
        }
        assert!(taken > 4_096, "{taken}");
        let single = appender.append(|_| {}).expect("taken all the same");
        durable(&wal, last.expect("some")).await;
        durable(&wal, single).await;
        assert!(appender.group(1_000, 0).is_ok(), "room again");
        wal.close();
    }

    #[tokio::test]
    async fn a_log_that_closes_waits_for_the_group() {
        let folder = tempfile::tempdir().expect("a folder");
        let wal = open(folder.path());
        let appender = wal.appender(0);
        let group = appender.group(2, 20).expect("room");
        let first = group.append(|out| out.push(1)).expect("taken");
        let closing = std::thread::spawn({
            let wal = wal.clone();
            move || wal.close()
        });
        while appender.append(|_| {}) != Err(AppendError::Closed) {
            std::thread::yield_now();
        }
        assert_eq!(group.append(|out| out.push(2)), Ok(first));
        drop(group);
        closing.join().expect("no panic");
        assert_eq!(wal.status_of(first), TicketStatus::Durable);
    }
}
