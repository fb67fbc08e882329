//! Who holds the engine's connections.
//!
//! All of them come from this machine, so an address tells nobody apart. What does is the first request: a connection
//! that has not named a user is a stranger's. Of those there are few, and the oldest makes room for the next; so
//! strangers take neither the places of tally's own connections nor the engine's file descriptors.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::settings::User;
use super::slots::Workload;

const STRANGERS_MAX: usize = 64;
const READER_MAX: usize = 128;
const WRITER_MAX: usize = 512;
/// Of the writer's connections these are kept from reports: for inserts, look-ups and everything else.
const WRITER_RESERVED: usize = 128;

/// All connections.
#[derive(Default)]
pub(crate) struct Connections(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// Oldest first.
    strangers: VecDeque<Arc<Place>>,
    writer: usize,
    reader: usize,
}

/// What is known of one connection.
#[derive(Default)]
struct Place {
    user: Mutex<Option<User>>,
    shed: Notify,
}

/// One connection; it gives its place back when it is dropped.
pub(crate) struct Connection {
    all: Arc<Connections>,
    place: Arc<Place>,
}

impl Connections {
    /// A new connection; the oldest stranger goes if there are too many.
    pub(crate) fn accept(all: &Arc<Self>) -> Connection {
        let place = Arc::new(Place::default());
        let mut held = all.0.lock();
        held.strangers.push_back(Arc::clone(&place));
        if held.strangers.len() > STRANGERS_MAX
            && let Some(oldest) = held.strangers.pop_front()
        {
            oldest.shed.notify_one();
        }
        drop(held);
        Connection { all: Arc::clone(all), place }
    }
}

impl Held {
    fn count(&mut self, user: User) -> &mut usize {
        match user {
            User::Writer => &mut self.writer,
            User::Reader => &mut self.reader,
        }
    }
}

impl Connection {
    /// Waits until it has to make room.
    pub(crate) async fn shed(&self) {
        self.place.shed.notified().await;
    }

    /// Notes whose it is; `false`: this user has too many.
    pub(crate) fn belongs_to(&self, user: User, workload: Workload) -> bool {
        let mut known = self.place.user.lock();
        if *known == Some(user) {
            return true;
        }
        let max = match (user, workload) {
            (User::Reader, _) => READER_MAX,
            (User::Writer, Workload::Report) => WRITER_MAX - WRITER_RESERVED,
            (User::Writer, _) => WRITER_MAX,
        };
        let mut held = self.all.0.lock();
        if *held.count(user) >= max {
            return false;
        }
        *held.count(user) += 1;
        match known.replace(user) {
            Some(before) => *held.count(before) -= 1,
            None => held.strangers.retain(|place| !Arc::ptr_eq(place, &self.place)),
        }
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let user = *self.place.user.lock();
        let mut held = self.all.0.lock();
        match user {
            Some(user) => *held.count(user) -= 1,
            None => held.strangers.retain(|place| !Arc::ptr_eq(place, &self.place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_shed(connection: &Connection) -> bool {
        tokio::time::timeout(Duration::ZERO, connection.shed()).await.is_ok()
    }

    #[tokio::test]
    async fn strangers_make_room_and_users_keep_theirs() {
        let all = Arc::new(Connections::default());
        let own = Connections::accept(&all);
        assert!(
            own.belongs_to(User::Writer, Workload::Insert) && own.belongs_to(User::Writer, Workload::Report)
        );
        let strangers: Vec<_> = (0..=STRANGERS_MAX).map(|_| Connections::accept(&all)).collect();
        assert!(is_shed(&strangers[0]).await, "the oldest goes");
        assert!(!is_shed(&strangers[1]).await && !is_shed(&own).await);
        drop(strangers);
        assert!(all.0.lock().strangers.is_empty());

        let reports: Vec<_> = std::iter::repeat_with(|| Connections::accept(&all))
            .take_while(|connection| connection.belongs_to(User::Writer, Workload::Report))
            .collect();
        assert_eq!(reports.len(), WRITER_MAX - WRITER_RESERVED - 1);
        assert!(Connections::accept(&all).belongs_to(User::Writer, Workload::Insert));
        let readers: Vec<_> = std::iter::repeat_with(|| Connections::accept(&all))
            .take_while(|connection| connection.belongs_to(User::Reader, Workload::Reader))
            .collect();
        assert_eq!(readers.len(), READER_MAX);
        drop((reports, readers, own));
        let held = all.0.lock();
        assert_eq!((held.writer, held.reader, held.strangers.len()), (0, 0, 0));
    }
}
