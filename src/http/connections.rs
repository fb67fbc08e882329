//! Who may hold a connection: how many are open, whose they are, and which of them make room when there are too many.
//!
//! What must hold:
//! - At most `max` connections are open. Below that nothing else matters: an address may hold any number of them.
//! - At the limit, idle connections make room for new ones. Those of an address that holds more than its share go first,
//!   of the address with the most; then the one that has been idle for longest, whosever it is.
//! - Where none is idle, an unfinished request or an answer that is not taken makes room, but only of an address that holds
//!   more than the one that comes. A request that is being worked on is never cut.
//! - A trusted proxy stands for many clients: its connections count against no share.
//!
//! Everything here happens when a connection comes or ends. A request touches its own [`Place`] only: no lock.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::Context,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use ipnet::IpNet;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use super::network::Network;

/// Of the places, what an address may hold while there are too few: a tenth.
const SHARE_DIVISOR: usize = 10;
/// And so many in any case: a browser opens six.
const SHARE_MIN: usize = 8;
/// Idle connections that make room at a time, of a large number: looking for them means looking at all.
const TOGETHER_DIVISOR: usize = 256;
const TOGETHER_MAX: usize = 32;
/// How often a full house is looked through again: a connection that becomes idle tells nobody.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(25);
/// How often the log says that connections make room.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// The connections of one listener.
pub(super) struct Connections {
    max: usize,
    trusted: Vec<IpNet>,
    open: Mutex<Open>,
    /// A connection has ended.
    left: Notify,
    meters: Option<Meters>,
}

#[derive(Default)]
struct Open {
    places: HashMap<u64, (Network, Arc<Place>)>,
    counts: HashMap<Network, usize>,
    next: u64,
    said: Option<Instant>,
}

struct Meters {
    open: Gauge,
    shed_idle: Counter,
    shed_unfinished: Counter,
    refused: Counter,
}

/// Who has to make room for a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// These, which were told so.
    Making(usize),
    /// Nobody can: wait until one ends.
    Wait,
    /// Nobody can, and the address that comes has more than its share already.
    Refused,
}

/// An open connection's place. Dropping it gives the place back.
pub(super) struct Admitted {
    connections: Arc<Connections>,
    id: u64,
    pub(super) place: Arc<Place>,
}

/// What an open connection is at. Written by the connection's own task, read when a place is needed.
#[derive(Default)]
pub struct Place {
    stage: AtomicU8,
    /// Milliseconds after the process' first connection, at which that began.
    since: AtomicU64,
    /// Requests whose answers are not all written.
    requests: AtomicU32,
    /// Bytes came that may be the beginning of a request's head.
    heard: AtomicBool,
    /// The body of the request under way has not come whole.
    receiving: AtomicBool,
    /// The other end does not take what it asked for.
    stalled: AtomicBool,
    /// One of [`Leave`].
    leave: AtomicU8,
    waker: AtomicWaker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Between two requests, or before the first one is there.
    Idle = 0,
    /// The other end is to send or to take something.
    Unfinished = 1,
    /// A request is worked on here.
    Working = 2,
}

/// What a connection was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leave {
    /// To stay.
    No = 0,
    /// To end once it is idle.
    WhenIdle = 1,
    /// To end also where it waits for the other end.
    WhenUnfinished = 2,
}

/// A request under way, from its head to the last byte of its answer.
pub(super) struct Request(Arc<Place>);

impl Connections {
    /// At most so many, of the public listener: with metrics.
    pub(super) fn public(max: usize, trusted: Vec<IpNet>) -> Arc<Self> {
        #[expect(clippy::cast_precision_loss, reason = "a gauge of connections")]
        gauge!("tally_http_connections_max").set(max as f64);
        Self::new(max, trusted, Some(Meters::new()))
    }

    /// The same without metrics.
    pub(super) fn plain(max: usize) -> Arc<Self> {
        Self::new(max, Vec::new(), None)
    }

    fn new(max: usize, trusted: Vec<IpNet>, meters: Option<Meters>) -> Arc<Self> {
        Arc::new(Self { max, trusted, open: Mutex::default(), left: Notify::new(), meters })
    }

    /// A place for a new connection, once there is one; `None`: this address holds more than its share, and nobody makes
    /// room. Called by one task only.
    pub(super) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Admitted> {
        let network = Network::of(peer);
        loop {
            if let Some(admitted) = self.enter(network) {
                return Some(admitted);
            }
            match self.make_room(network) {
                Room::Refused => {
                    self.meters.iter().for_each(|meters| meters.refused.increment(1));
                    return None;
                }
                // Those that were told end in a moment, unless a request came just then; others become idle.
                Room::Making(_) | Room::Wait => {
                    let _ = timeout(LOOK_AGAIN_AFTER, self.left.notified()).await;
                }
            }
        }
    }

    /// Tells idle connections to end although there are places: what is short is something else.
    pub(super) fn shed_idle(&self) {
        let open = self.open.lock();
        let idle = open.idle(|_| true);
        self.tell(&idle[..idle.len().min(TOGETHER_MAX)], Leave::WhenIdle);
    }

    fn enter(self: &Arc<Self>, network: Network) -> Option<Admitted> {
        let mut open = self.open.lock();
        if open.places.len() >= self.max {
            return None;
        }
        let (id, place) = (open.next, Arc::new(Place::new()));
        open.next += 1;
        open.places.insert(id, (network, place.clone()));
        *open.counts.entry(network).or_default() += 1;
        self.meters.iter().for_each(|meters| meters.open.increment(1));
        Some(Admitted { connections: self.clone(), id, place })
    }

    fn make_room(&self, comes: Network) -> Room {
        let mut open = self.open.lock();
        let share = (self.max / SHARE_DIVISOR).max(SHARE_MIN);
        let own = open.counts.get(&comes).copied().unwrap_or_default();
        let together = (self.max / TOGETHER_DIVISOR).clamp(1, TOGETHER_MAX);

        let fullest = open.fullest(Stage::Idle, |network, count| count > share && !self.is_trusted(network));
        let mut idle = open.idle(|network| fullest.is_none_or(|fullest| fullest == network));
        idle.truncate(together);
        if !idle.is_empty() {
            let told = self.tell(&idle, Leave::WhenIdle);
            open.say(self.max, "idle connections make room for new ones");
            return Room::Making(told);
        }
        let fuller = |network, count| count > own + 1 && !self.is_trusted(network);
        if let Some(fullest) = open.fullest(Stage::Unfinished, fuller) {
            let unfinished = open.at(Stage::Unfinished, |network| network == fullest);
            let told = self.tell(&unfinished[..1], Leave::WhenUnfinished);
            open.say(self.max, "unfinished requests of one address make room for others");
            return Room::Making(told);
        }
        if own > share && !self.is_trusted(comes) {
            open.say(self.max, "an address with more than its share is refused further ones");
            return Room::Refused;
        }
        Room::Wait
    }

    fn tell(&self, places: &[Arc<Place>], leave: Leave) -> usize {
        for place in places {
            place.tell(leave);
            self.meters.iter().for_each(|meters| {
                let shed = if leave == Leave::WhenIdle { &meters.shed_idle } else { &meters.shed_unfinished };
                shed.increment(1);
            });
        }
        places.len()
    }

    fn is_trusted(&self, network: Network) -> bool {
        network.is_in(&self.trusted)
    }

    fn give_back(&self, id: u64) {
        let mut open = self.open.lock();
        if let Some((network, _)) = open.places.remove(&id)
            && let Some(count) = open.counts.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                open.counts.remove(&network);
            }
        }
        drop(open);
        self.meters.iter().for_each(|meters| meters.open.decrement(1));
        self.left.notify_one();
    }
}

impl Open {
    /// Of the addresses that fit and have a connection at that stage, the one with the most connections.
    fn fullest(&self, stage: Stage, fits: impl Fn(Network, usize) -> bool) -> Option<Network> {
        let of_stage = self.places.values().filter(|(_, place)| place.may_be_told(stage));
        let counted = of_stage.map(|(network, _)| (*network, self.counts.get(network).copied().unwrap_or(0)));
        counted
            .filter(|&(network, count)| fits(network, count))
            .max_by_key(|&(_, count)| count)
            .map(|(n, _)| n)
    }

    fn idle(&self, of: impl Fn(Network) -> bool) -> Vec<Arc<Place>> {
        self.at(Stage::Idle, of)
    }

    /// Those at that stage, the oldest first.
    fn at(&self, stage: Stage, of: impl Fn(Network) -> bool) -> Vec<Arc<Place>> {
        let found = self.places.values().filter(|(network, place)| of(*network) && place.may_be_told(stage));
        let mut found: Vec<_> = found.map(|(_, place)| place.clone()).collect();
        found.sort_by_key(|place| place.since.load(Ordering::Relaxed));
        found
    }

    fn say(&mut self, max: usize, what: &str) {
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            tracing::warn!(connections_max = max, "all places are taken: {what}");
        }
    }
}

impl Meters {
    fn new() -> Self {
        describe_gauge!("tally_http_connections", Unit::Count, "Open connections on the public address.");
        describe_gauge!("tally_http_connections_max", Unit::Count, "Most of them.");
        describe_counter!(
            "tally_http_connections_shed_total",
            Unit::Count,
            "Connections that were closed to make room for new ones: idle, or with an unfinished request."
        );
        describe_counter!(
            "tally_http_connections_refused_total",
            Unit::Count,
            "New connections of addresses that held more than their share while there was no room."
        );
        let shed = |what: &'static str| counter!("tally_http_connections_shed_total", "what" => what);
        let open = gauge!("tally_http_connections");
        open.set(0);
        Self {
            open,
            shed_idle: shed("idle"),
            shed_unfinished: shed("unfinished"),
            refused: counter!("tally_http_connections_refused_total"),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.give_back(self.id);
    }
}

impl Place {
    fn new() -> Self {
        let place = Self { heard: AtomicBool::new(true), ..Self::default() };
        place.since.store(now(), Ordering::Relaxed);
        place
    }

    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.heard.store(false, Ordering::Relaxed);
        self.stage.store(Stage::Working as u8, Ordering::Relaxed);
        Request(self.clone())
    }

    /// Bytes came.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the body of the request under way is awaited.
    pub(super) fn receive(&self, awaited: bool) {
        self.receiving.store(awaited, Ordering::Relaxed);
    }

    /// Whether an answer waits for the other end to take it.
    pub(super) fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Whether no request is under way and the beginning of one is there.
    pub(super) fn is_head_begun(&self) -> bool {
        self.is_idle() && self.heard.load(Ordering::Relaxed)
    }

    /// Whether the other end has to act before anything goes on.
    pub(super) fn is_unfinished(&self) -> bool {
        self.receiving.load(Ordering::Relaxed) || self.stalled.load(Ordering::Relaxed)
    }

    /// Says what the connection is at, at the end of its turn. `quiet`: all its answers are out.
    pub(super) fn end_turn(&self, quiet: bool) {
        let stage = match (self.is_unfinished(), quiet && self.is_idle()) {
            (true, _) => Stage::Unfinished,
            (false, true) => Stage::Idle,
            (false, false) => Stage::Working,
        };
        if self.stage.load(Ordering::Relaxed) != stage as u8 {
            self.since.store(now(), Ordering::Relaxed);
            self.stage.store(stage as u8, Ordering::Relaxed);
        }
    }

    /// What it was told.
    pub(super) fn leave(&self) -> Leave {
        match self.leave.load(Ordering::Acquire) {
            0 => Leave::No,
            1 => Leave::WhenIdle,
            _ => Leave::WhenUnfinished,
        }
    }

    /// Wakes the task when it is told to leave.
    pub(super) fn wake_when_told(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    fn tell(&self, leave: Leave) {
        self.leave.fetch_max(leave as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    fn may_be_told(&self, stage: Stage) -> bool {
        let told = if stage == Stage::Idle { Leave::WhenIdle } else { Leave::WhenUnfinished };
        self.stage.load(Ordering::Relaxed) == stage as u8 && self.leave() < told
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.receive(false);
        // What was heard was its body.
        self.0.heard.store(false, Ordering::Relaxed);
    }
}

/// Milliseconds of a clock that only goes on.
fn now() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: &str = "203.0.113.1";

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn enter(connections: &Arc<Connections>, from: &str) -> Admitted {
        connections.enter(Network::of(address(from))).expect("a place")
    }

    fn room(connections: &Connections, from: &str) -> Room {
        connections.make_room(Network::of(address(from)))
    }

    fn told(admitted: &[Admitted]) -> Vec<usize> {
        let told = |one: &&(usize, &Admitted)| one.1.place.leave() != Leave::No;
        admitted.iter().enumerate().filter(|one| told(&one)).map(|(at, _)| at).collect()
    }

    #[test]
    fn the_oldest_idle_one_of_the_fullest_address_makes_room() {
        let connections = Connections::plain(12);
        let mut open = vec![enter(&connections, "203.0.113.7")];
        open.extend((0..11).map(|_| enter(&connections, STRANGER)));
        assert!(connections.enter(Network::of(address(STRANGER))).is_none(), "all places are taken");
        for (at, one) in open.iter().enumerate() {
            one.place.since.store(at as u64, Ordering::Relaxed);
        }
        let working = open[1].place.begin();
        assert_eq!(room(&connections, STRANGER), Room::Making(1));
        assert_eq!(
            told(&open),
            [2],
            "not the older one of an address within its share, nor one with a request"
        );
        assert_eq!(room(&connections, "198.51.100.1"), Room::Making(1));
        assert_eq!(told(&open), [2, 3], "one that was told is not told again");
        drop(working);
        open.remove(2);
        assert_eq!(connections.open.lock().counts[&Network::of(address(STRANGER))], 10);
        drop(enter(&connections, "198.51.100.1"));
        assert_eq!(connections.open.lock().counts.len(), 2, "and no address is remembered that has none");
    }

    #[test]
    fn a_trusted_proxy_has_no_share() {
        let connections = Connections::new(12, vec!["10.0.0.0/8".parse().expect("a network")], None);
        let mut open: Vec<_> = (0..11).map(|_| enter(&connections, "10.0.0.1")).collect();
        open.push(enter(&connections, STRANGER));
        for (at, one) in open.iter().enumerate() {
            one.place.since.store(100 - at as u64, Ordering::Relaxed);
        }
        assert_eq!(room(&connections, "10.0.0.1"), Room::Making(1));
        assert_eq!(told(&open), [11], "the one that has been idle for longest, whosever it is");
        let _working: Vec<_> = open.iter().map(|one| one.place.begin()).collect();
        for one in &open {
            one.place.receive(true);
            one.place.end_turn(true);
        }
        assert_eq!(room(&connections, "10.0.0.1"), Room::Wait, "however many it has");
        assert_eq!(room(&connections, "198.51.100.1"), Room::Wait);
        assert_eq!(told(&open), [11]);
    }

    #[test]
    fn unfinished_requests_make_room_for_those_who_hold_fewer() {
        let connections = Connections::plain(12);
        let open: Vec<_> = (0..12).map(|_| enter(&connections, STRANGER)).collect();
        let requests: Vec<_> = open.iter().map(|one| one.place.begin()).collect();
        assert_eq!(room(&connections, "198.51.100.1"), Room::Wait, "none is cut that is worked on");
        for one in &open[3..] {
            one.place.receive(true);
            one.place.end_turn(true);
        }
        assert_eq!(room(&connections, STRANGER), Room::Refused, "not for one of its own");
        assert!(told(&open).is_empty());
        assert_eq!(room(&connections, "198.51.100.1"), Room::Making(1));
        assert_eq!(told(&open).len(), 1);
        drop(requests);
        for one in &open {
            one.place.end_turn(true);
        }
        assert_eq!(room(&connections, STRANGER), Room::Making(1), "an idle one does");
    }

    #[tokio::test]
    async fn one_that_waits_gets_the_place_of_one_that_ends() {
        let connections = Connections::plain(1);
        let first = connections.admit(address(STRANGER)).await.expect("a place");
        let _request = first.place.begin();
        let waits = tokio::spawn({
            let connections = connections.clone();
            async move { connections.admit(address(STRANGER)).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(first);
        assert!(waits.await.expect("no panic"));
    }
}
