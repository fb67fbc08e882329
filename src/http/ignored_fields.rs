//! Names that came with the hits of a goal and mean nothing here, counted since the daemon started: health tells of them.

use dashmap::DashMap;

use crate::core::GoalId;

/// Most goals that are counted.
const GOALS_MAX: usize = 10_000;
/// Most names of one goal.
const NAMES_MAX: usize = 20;

/// The counts of every goal, bounded.
#[derive(Debug, Default)]
pub struct IgnoredFields(DashMap<GoalId, OfGoal>);

/// What came with the hits of one goal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfGoal {
    /// Hits that had such a field.
    pub(super) hits: u64,
    /// How often each name came, in the order in which they came first.
    pub(super) names: Vec<(String, u64)>,
}

impl IgnoredFields {
    /// Counts the names of one hit.
    pub(super) fn count(&self, goal: GoalId, names: &[String]) {
        if names.is_empty() || self.0.len() >= GOALS_MAX && !self.0.contains_key(&goal) {
            return;
        }
        let mut of_goal = self.0.entry(goal).or_default();
        of_goal.hits += 1;
        for name in names {
            match of_goal.names.iter().position(|(known, _)| known == name) {
                Some(at) => of_goal.names[at].1 += 1,
                None if of_goal.names.len() < NAMES_MAX => of_goal.names.push((name.clone(), 1)),
                None => {}
            }
        }
    }

    /// What came with the hits of these goals: all of them together, the most frequent names first.
    pub(super) fn of(&self, goals: impl Iterator<Item = GoalId>) -> OfGoal {
        let mut sum = OfGoal::default();
        for of_goal in goals.filter_map(|goal| self.0.get(&goal)) {
            sum.hits += of_goal.hits;
            for (name, count) in &of_goal.names {
                match sum.names.iter_mut().find(|(known, _)| known == name) {
                    Some((_, total)) => *total += count,
                    None => sum.names.push((name.clone(), *count)),
                }
            }
        }
        sum.names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_by_goal_and_bounded() {
        let ignored = IgnoredFields::default();
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        ignored.count(GoalId(1), &names(&["payout", "txid"]));
        ignored.count(GoalId(1), &names(&["txid"]));
        ignored.count(GoalId(2), &names(&["cid"]));
        ignored.count(GoalId(3), &[]);
        let of = ignored.of([GoalId(1), GoalId(3)].into_iter());
        assert_eq!(of, OfGoal { hits: 2, names: vec![("txid".into(), 2), ("payout".into(), 1)] });
        let many: Vec<_> = (0..100).map(|n| format!("n{n}")).collect();
        ignored.count(GoalId(2), &many);
        assert_eq!(ignored.of([GoalId(2)].into_iter()).names.len(), NAMES_MAX);
    }
}
