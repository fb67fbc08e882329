//! What an answer waits for, and what is counted when it leaves.

use std::time::Instant;

use super::{
    Decided, Intake,
    gate::{Gate, Held},
    items::Item,
};

/// So many kinds of outcome stand on one ticket.
const OUTCOMES: usize = 3;

impl Intake {
    /// Lets the answer wait for the records that it stands on, and counts what becomes of them.
    pub(super) fn hold<'a, S: Item>(
        &self,
        gate: &Gate,
        since: Instant,
        decided: impl IntoIterator<Item = &'a Decided<S::Id>>,
    ) where
        S::Id: 'a,
    {
        let outcomes = S::outcomes(&self.shared.counters);
        let mut run: [Option<Held>; OUTCOMES] = [const { None }; OUTCOMES];
        for one in decided {
            let (place, acknowledged, accepted, ticket) = match one {
                Decided::New { ticket, unverified: false, .. } => (0, &outcomes.new, true, Some(*ticket)),
                Decided::New { ticket, .. } => (1, &outcomes.unverified, true, Some(*ticket)),
                Decided::Duplicate { ticket, .. } => (2, &outcomes.duplicate, false, *ticket),
            };
            let Some(ticket) = ticket else {
                acknowledged.increment(1);
                continue;
            };
            // A group has one ticket, so that all of it is held at once.
            match &mut run[place] {
                Some(held) if held.ticket == ticket => held.records += 1,
                other => {
                    let next = Held {
                        ticket,
                        records: 1,
                        since,
                        accepted: accepted.then_some(S::KIND),
                        acknowledged: acknowledged.clone(),
                        lost: outcomes.lost.clone(),
                    };
                    if let Some(done) = other.replace(next) {
                        gate.hold(done);
                    }
                }
            }
        }
        run.into_iter().flatten().for_each(|held| gate.hold(held));
    }
}
