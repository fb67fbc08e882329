//! What an answer waits for.

use std::time::Instant;

use super::{
    Decided, Intake,
    counters::Acknowledged,
    gate::{Gate, Held},
    items::Item,
};

/// So many kinds of outcome stand on one ticket.
const OUTCOMES: usize = 3;

impl Intake {
    /// Lets the answer wait for the records that it stands on.
    pub(super) fn hold<'a, S: Item>(
        &self,
        gate: &Gate,
        since: Instant,
        decided: impl IntoIterator<Item = &'a Decided<S::Id>>,
    ) where
        S::Id: 'a,
    {
        let mut run: [Option<Held>; OUTCOMES] = [const { None }; OUTCOMES];
        for one in decided {
            let (acknowledged, ticket) = match one {
                Decided::New { ticket, unverified: false, .. } => (Acknowledged::New, Some(*ticket)),
                Decided::New { ticket, .. } => (Acknowledged::Unverified, Some(*ticket)),
                Decided::Duplicate { ticket, .. } => (Acknowledged::Duplicate, *ticket),
            };
            let Some(ticket) = ticket else {
                self.shared.counters.outcomes[S::KIND].acknowledged(acknowledged, 1);
                continue;
            };
            // A group has one ticket, so that all of it is held at once.
            match &mut run[acknowledged as usize] {
                Some(held) if held.ticket == ticket => held.records += 1,
                other => {
                    let next = Held { ticket, kind: S::KIND, acknowledged, records: 1, since };
                    if let Some(done) = other.replace(next) {
                        gate.hold(done);
                    }
                }
            }
        }
        run.into_iter().flatten().for_each(|held| gate.hold(held));
    }
}
