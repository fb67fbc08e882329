//! Whose turn it is: endpoints that stand for one, those that are looked at later, and how much room there is.
//!
//! Each lane has a queue and room of its own: endpoints that hang fill theirs and nobody else's.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::endpoint::{Endpoint, Lane};
use crate::core::{ConversionId, GoalId, UnixMillis};

/// Attempts at a time in each lane, over all its endpoints.
const ROOM: [usize; Lane::ALL.len()] = [1024, 512, 512];
/// Fast endpoints that are remembered while there is nothing for them.
const REMEMBERED_MAX: usize = 10_000;

/// An endpoint's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) goal: GoalId,
    pub(super) lane: Lane,
    /// How many attempts it may begin, if the endpoint bears as many.
    pub(super) room: usize,
}

/// All endpoints with something to do.
#[derive(Default)]
pub(super) struct Roster {
    endpoints: HashMap<GoalId, Endpoint>,
    lanes: [VecDeque<GoalId>; Lane::ALL.len()],
    timers: BTreeSet<(UnixMillis, GoalId)>,
    running: [usize; Lane::ALL.len()],
}

impl Roster {
    /// The goal's endpoint, if it has something to do.
    pub(super) fn get_mut(&mut self, goal: GoalId) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(&goal)
    }

    /// Attempts on their way.
    pub(super) fn running(&self) -> usize {
        self.running.iter().sum()
    }

    /// Whether nothing is under way for the goal, nor will be by itself.
    pub(super) fn is_idle(&self, goal: GoalId) -> bool {
        self.endpoints.get(&goal).is_none_or(Endpoint::is_idle)
    }

    /// Conversions whose attempts are on their way, or whose outcomes are not kept yet.
    pub(super) fn taken(&self) -> impl Iterator<Item = ConversionId> {
        self.endpoints.values().flat_map(|endpoint| endpoint.taken.iter().copied())
    }

    /// The goal stands for a turn.
    pub(super) fn stand(&mut self, goal: GoalId, now: UnixMillis) {
        let endpoint = self.endpoints.entry(goal).or_default();
        if !endpoint.stands {
            endpoint.stands = true;
            self.lanes[endpoint.lane(now) as usize].push_back(goal);
        }
    }

    /// The goal stands for a turn at that time, or before.
    pub(super) fn look_at(&mut self, at: UnixMillis, goal: GoalId) {
        let Some(endpoint) = self.endpoints.get_mut(&goal) else { return };
        match endpoint.timer {
            Some(earlier) if earlier <= at => return,
            Some(later) => {
                self.timers.remove(&(later, goal));
            }
            None => {}
        }
        endpoint.timer = Some(at);
        self.timers.insert((at, goal));
    }

    /// When the next one is to be looked at.
    pub(super) fn next_look(&self) -> Option<UnixMillis> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Those whose time has come stand for a turn.
    pub(super) fn look(&mut self, now: UnixMillis) {
        while let Some(&(at, goal)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(endpoint) = self.endpoints.get_mut(&goal) {
                endpoint.timer = None;
            }
            self.stand(goal, now);
        }
    }

    /// Takes the next endpoint of a lane with room off its queue.
    pub(super) fn next_turn(&mut self, now: UnixMillis) -> Option<Turn> {
        for lane in Lane::ALL {
            let room = ROOM[lane as usize].saturating_sub(self.running[lane as usize]);
            while let (true, Some(goal)) = (room > 0, self.lanes[lane as usize].front().copied()) {
                self.lanes[lane as usize].pop_front();
                let Some(endpoint) = self.endpoints.get_mut(&goal) else { continue };
                let belongs = endpoint.lane(now);
                if belongs == lane {
                    endpoint.stands = false;
                    return Some(Turn { goal, lane, room });
                }
                // It is thought of otherwise by now.
                self.lanes[belongs as usize].push_back(goal);
            }
        }
        None
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, turn: Turn, conversion: ConversionId, now: UnixMillis) {
        self.running[turn.lane as usize] += 1;
        self.endpoints.entry(turn.goal).or_default().begin(conversion, now);
    }

    /// An attempt that began in that lane has ended.
    pub(super) fn end(&mut self, lane: Lane) {
        self.running[lane as usize] = self.running[lane as usize].saturating_sub(1);
    }

    /// There is nothing for the goal. One that is fast is remembered: the next time it need not prove itself again.
    pub(super) fn let_go(&mut self, goal: GoalId, now: UnixMillis) {
        let Some(endpoint) = self.endpoints.get_mut(&goal) else { return };
        if let Some(at) = endpoint.timer.take() {
            self.timers.remove(&(at, goal));
        }
        if endpoint.is_idle() && (endpoint.lane(now) != Lane::Fast || self.endpoints.len() > REMEMBERED_MAX) {
            self.endpoints.remove(&goal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::endpoint::Sign, *};

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn id(number: u32) -> ConversionId {
        ConversionId(uuid::Uuid::from_u128(number.into()))
    }

    /// As many attempts as the endpoint may have.
    fn turn(roster: &mut Roster, now: UnixMillis) -> Option<Turn> {
        let turn = roster.next_turn(now)?;
        let free = roster.get_mut(turn.goal).expect("there").free(now).min(turn.room);
        for number in 0..u32::try_from(free).expect("small") {
            roster.begin(turn, id(turn.goal.0 * 100 + number), now);
        }
        Some(turn)
    }

    fn answer(roster: &mut Roster, turn: Turn, sign: Sign, millis: u32, now: UnixMillis) {
        roster.end(turn.lane);
        roster.get_mut(turn.goal).expect("there").learn(sign, millis, None, now, 0.0);
    }

    #[test]
    fn however_many_hang_the_fast_ones_have_their_room() {
        let mut roster = Roster::default();
        roster.stand(GoalId(1), NOW);
        let first = turn(&mut roster, NOW).expect("a turn");
        answer(&mut roster, first, Sign::Good, 5, NOW);
        for goal in 2..3_000 {
            roster.stand(GoalId(goal), NOW);
        }
        while turn(&mut roster, NOW).is_some() {}
        assert_eq!(roster.running(), ROOM[Lane::New as usize], "each has one attempt, and hangs");
        roster.stand(GoalId(1), NOW);
        assert_eq!(turn(&mut roster, NOW).map(|turn| (turn.goal, turn.lane)), Some((GoalId(1), Lane::Fast)));
    }

    #[test]
    fn those_known_to_be_slow_leave_the_room_of_the_unknown() {
        let mut roster = Roster::default();
        for goal in 1..=2_000 {
            roster.stand(GoalId(goal), NOW);
            if let Some(turn) = turn(&mut roster, NOW) {
                answer(&mut roster, turn, Sign::Good, 10_000, NOW);
            }
            roster.stand(GoalId(goal), NOW);
        }
        while turn(&mut roster, NOW).is_some() {}
        assert_eq!(roster.running(), ROOM[Lane::Slow as usize]);
        roster.stand(GoalId(9_999), NOW);
        assert_eq!(turn(&mut roster, NOW).map(|turn| turn.goal), Some(GoalId(9_999)));
    }

    #[test]
    fn a_turn_is_taken_where_the_endpoint_belongs_by_now() {
        let mut roster = Roster::default();
        roster.stand(GoalId(1), NOW);
        let first = turn(&mut roster, NOW).expect("a turn");
        roster.stand(GoalId(1), NOW);
        answer(&mut roster, first, Sign::Bad, 5, NOW);
        assert_eq!(roster.next_turn(NOW).map(|turn| turn.lane), Some(Lane::Slow));
        assert_eq!(roster.next_turn(NOW), None, "once");
    }

    #[test]
    fn fast_ones_are_remembered_and_others_forgotten() {
        let mut roster = Roster::default();
        for (goal, sign) in [(1, Sign::Good), (2, Sign::Bad)] {
            roster.stand(GoalId(goal), NOW);
            let turn = turn(&mut roster, NOW).expect("a turn");
            answer(&mut roster, turn, sign, 5, NOW);
            roster.get_mut(GoalId(goal)).expect("there").taken.clear();
            roster.look_at(NOW.plus(9), GoalId(goal));
            roster.let_go(GoalId(goal), NOW);
        }
        assert!(roster.get_mut(GoalId(1)).is_some() && roster.get_mut(GoalId(2)).is_none());
        assert_eq!(roster.next_look(), None);
        assert!(roster.is_idle(GoalId(1)) && roster.is_idle(GoalId(2)));
    }

    #[test]
    fn whoever_is_to_be_looked_at_stands_when_it_is_time() {
        let mut roster = Roster::default();
        roster.stand(GoalId(1), NOW);
        roster.next_turn(NOW);
        roster.look_at(NOW.plus(20), GoalId(1));
        roster.look_at(NOW.plus(10), GoalId(1));
        roster.look_at(NOW.plus(30), GoalId(1));
        assert_eq!(roster.next_look(), Some(NOW.plus(10)));
        roster.look(NOW.plus(9));
        assert_eq!(roster.next_turn(NOW), None);
        roster.look(NOW.plus(10));
        assert_eq!(roster.next_turn(NOW).map(|turn| turn.goal), Some(GoalId(1)));
        assert_eq!(roster.next_look(), None);
    }
}
