//! Changes to goals.

use super::{EntryKind, check_plan, put};
use crate::{
    catalog::{Catalog, ChangeError, secrets, snapshot::Snapshot},
    core::{
        AccountId, Currency, Goal, GoalId, GoalType, Money, UnixMillis,
        webhook::{PostbackMethod, PostbackSettings},
    },
};

/// A goal to be made. Its fields are within their limits already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoalDraft {
    /// Shown to people.
    pub name: String,
    /// What it counts.
    pub goal_type: GoalType,
    /// The value of a conversion that brings none.
    pub value: Option<Money>,
    /// The currency of a conversion that brings none.
    pub currency: Option<Currency>,
    /// How old the click that earns a conversion may be.
    pub attribution_window_days: u16,
    /// Where the owner wants to be told.
    pub postback_url: Option<String>,
    /// How.
    pub postback_method: PostbackMethod,
    /// Whether the token alone may say who converted, and when.
    pub trust_client_fields: bool,
}

/// What to change of a goal; the outer `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoalPatch {
    /// Shown to people.
    pub name: Option<String>,
    /// What it counts.
    pub goal_type: Option<GoalType>,
    /// The value of a conversion that brings none.
    pub value: Option<Option<Money>>,
    /// The currency of a conversion that brings none.
    pub currency: Option<Option<Currency>>,
    /// How old the click that earns a conversion may be.
    pub attribution_window_days: Option<u16>,
    /// Where the owner wants to be told.
    pub postback_url: Option<Option<String>>,
    /// How.
    pub postback_method: Option<PostbackMethod>,
    /// Whether the token alone may say who converted, and when.
    pub trust_client_fields: Option<bool>,
}

/// Each of these writes and syncs the catalog's file: call them where blocking is allowed.
impl Catalog {
    /// Makes a goal.
    pub fn create_goal(
        &self,
        account_id: AccountId,
        draft: GoalDraft,
        now: UnixMillis,
    ) -> Result<Goal, ChangeError> {
        self.change(|snapshot| {
            check_plan(snapshot, account_id)?.allows_window(draft.attribution_window_days)?;
            self.limits.check_room(snapshot, account_id, EntryKind::Goal)?;
            let goal = Goal {
                id: GoalId(snapshot.next_id(EntryKind::Goal)),
                account_id,
                name: draft.name,
                goal_type: draft.goal_type,
                value: draft.value,
                currency: draft.currency,
                attribution_window_days: draft.attribution_window_days,
                postback_url: draft.postback_url,
                postback: PostbackSettings {
                    method: draft.postback_method,
                    secret: Some(secrets::new_signing_secret()?),
                    ..PostbackSettings::default()
                },
                trust_client_fields: draft.trust_client_fields,
                postback_token: secrets::new_token()?,
                created_at: now,
            };
            Ok(snapshot.put_goal(goal, false))
        })
    }

    /// Changes a goal.
    pub fn change_goal(&self, account: AccountId, id: GoalId, patch: GoalPatch) -> Result<Goal, ChangeError> {
        self.change(|snapshot| {
            let plan = check_plan(snapshot, account)?;
            if let Some(days) = patch.attribution_window_days {
                plan.allows_window(days)?;
            }
            let mut goal = live(snapshot, account, id)?;
            put(&mut goal.name, patch.name);
            put(&mut goal.goal_type, patch.goal_type);
            put(&mut goal.value, patch.value);
            put(&mut goal.currency, patch.currency);
            put(&mut goal.attribution_window_days, patch.attribution_window_days);
            // Whoever names the endpoint again wants it to be called again.
            goal.postback.disabled &= patch.postback_url.is_none();
            put(&mut goal.postback_url, patch.postback_url);
            put(&mut goal.postback.method, patch.postback_method);
            put(&mut goal.trust_client_fields, patch.trust_client_fields);
            Ok(snapshot.put_goal(goal, false))
        })
    }

    /// Gives a goal a new token; the old one is unknown from then on.
    pub fn rotate_token(&self, account: AccountId, id: GoalId) -> Result<Goal, ChangeError> {
        self.change(|snapshot| {
            let mut goal = live(snapshot, account, id)?;
            goal.postback_token = secrets::new_token()?;
            Ok(snapshot.put_goal(goal, false))
        })
    }

    /// Gives a goal a new secret that postbacks are signed with; the one before stays in force for a day.
    pub fn rotate_postback_secret(
        &self,
        account: AccountId,
        id: GoalId,
        now: UnixMillis,
    ) -> Result<Goal, ChangeError> {
        self.change(|snapshot| {
            let mut goal = live(snapshot, account, id)?;
            goal.postback.rotate(secrets::new_signing_secret()?, now);
            Ok(snapshot.put_goal(goal, false))
        })
    }

    /// Stops calling a goal's endpoint, which answered that it is gone, until its URL is set again. Nothing changes where
    /// the goal has another URL by now.
    pub fn disable_postbacks(&self, account: AccountId, id: GoalId, url: &str) -> Result<(), ChangeError> {
        let same = |goal: &Goal| goal.postback_url.as_deref() == Some(url) && !goal.postback.disabled;
        if !self.snapshot().goal(account, id).is_some_and(same) {
            return Ok(());
        }
        let changed = self.change(|snapshot| {
            let mut goal = live(snapshot, account, id)?;
            goal.postback.disabled |= same(&goal);
            Ok(snapshot.put_goal(goal, false))
        });
        changed.map(|_| ())
    }

    /// Deletes a goal: its token is unknown from then on, its conversions stay. Returns the goal as it was.
    pub fn delete_goal(&self, account: AccountId, id: GoalId) -> Result<Goal, ChangeError> {
        self.change(|snapshot| {
            let goal = live(snapshot, account, id)?;
            Ok(snapshot.put_goal(goal, true))
        })
    }
}

fn live(snapshot: &Snapshot, account: AccountId, id: GoalId) -> Result<Goal, ChangeError> {
    snapshot.goal(account, id).cloned().ok_or(ChangeError::Unknown(EntryKind::Goal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{AccountPatch, Opened, tests::Still},
        core::{Plan, PlanRefusal},
    };

    fn draft(name: &str) -> GoalDraft {
        GoalDraft {
            name: name.into(),
            goal_type: GoalType::Purchase,
            value: Money::parse("99").ok(),
            currency: Some(Currency::USD),
            attribution_window_days: 30,
            postback_url: Some("https://example.com/hook".into()),
            postback_method: PostbackMethod::Post,
            trust_client_fields: false,
        }
    }

    fn open(folder: &tempfile::TempDir) -> Catalog {
        let Opened { catalog, .. } = Catalog::open(folder.path(), &Still(1_000), None).expect("opened");
        catalog
    }

    const ME: AccountId = AccountId(1);

    #[test]
    fn changes_survive_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let kept = catalog.create_goal(ME, draft("kept"), UnixMillis(5)).expect("made");
        let gone = catalog.create_goal(ME, draft("gone"), UnixMillis(6)).expect("made");
        assert_eq!((kept.id, gone.id), (GoalId(1), GoalId(2)));
        let patch = GoalPatch { name: Some("renamed".into()), value: Some(None), ..GoalPatch::default() };
        let kept = catalog.change_goal(ME, kept.id, patch).expect("changed");
        assert_eq!((kept.name.as_str(), kept.value, kept.currency), ("renamed", None, Some(Currency::USD)));
        catalog.delete_goal(ME, gone.id).expect("deleted");
        let rotated = catalog.rotate_token(ME, kept.id).expect("rotated");
        drop(catalog);

        let catalog = open(&folder);
        let snapshot = catalog.snapshot();
        assert_eq!(snapshot.goals(ME).collect::<Vec<_>>(), [&rotated]);
        assert_eq!(snapshot.target(&rotated.postback_token.0).map(|target| target.goal_id), Some(kept.id));
        assert_eq!(snapshot.target(&kept.postback_token.0), None, "the old token");
        assert_eq!(snapshot.target(&gone.postback_token.0), None, "deleted");
        let next = catalog.create_goal(ME, draft("next"), UnixMillis(7)).expect("made");
        assert_eq!(next.id, GoalId(3), "a deleted goal's number stays taken");
    }

    #[test]
    fn another_account_sees_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let goal = catalog.create_goal(ME, draft("a"), UnixMillis(5)).expect("made");
        let other = AccountId(2);
        assert!(catalog.snapshot().goal(other, goal.id).is_none());
        assert!(matches!(catalog.delete_goal(other, goal.id), Err(ChangeError::Unknown(EntryKind::Goal))));
        assert_eq!(catalog.snapshot().goals(other).count(), 0);
    }

    #[test]
    fn plans_are_enforced() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let with_plan = |plan| {
            let patch = AccountPatch { plan: Some(plan), ..AccountPatch::default() };
            catalog.change_account(ME, patch).expect("changed");
        };
        with_plan(Plan::Starter);
        let refused = catalog.create_goal(ME, draft("a"), UnixMillis(5));
        assert!(matches!(refused, Err(ChangeError::Plan(PlanRefusal::Tracking))));
        with_plan(Plan::Pro);
        let week = GoalDraft { attribution_window_days: 7, ..draft("a") };
        let refused = catalog.create_goal(ME, week, UnixMillis(5));
        assert!(matches!(refused, Err(ChangeError::Plan(PlanRefusal::Window))));
        assert!(catalog.create_goal(ME, draft("a"), UnixMillis(5)).is_ok());
    }

    #[test]
    fn signing_secrets_rotate_and_an_endpoint_that_is_gone_rests_until_it_is_named_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let goal = catalog.create_goal(ME, draft("a"), UnixMillis(5)).expect("made");
        let rotated = catalog.rotate_postback_secret(ME, goal.id, UnixMillis(6)).expect("rotated");
        let live: Vec<_> = rotated.postback.live(UnixMillis(7)).copied().collect();
        assert_eq!((live.len(), Some(live[1])), (2, goal.postback.secret));

        catalog.disable_postbacks(ME, goal.id, "https://example.com/another").expect("nothing to do");
        assert!(!catalog.snapshot().goal(ME, goal.id).expect("there").postback.disabled);
        catalog.disable_postbacks(ME, goal.id, "https://example.com/hook").expect("disabled");
        drop(catalog);
        let catalog = open(&folder);
        let kept = catalog.snapshot().goal(ME, goal.id).expect("there").postback.clone();
        assert!(kept.disabled && kept.live(UnixMillis(7)).count() == 2, "all of it survives a restart");
        let patch = GoalPatch { name: Some("b".into()), ..GoalPatch::default() };
        assert!(catalog.change_goal(ME, goal.id, patch).expect("changed").postback.disabled);
        let patch = GoalPatch { postback_url: Some(goal.postback_url), ..GoalPatch::default() };
        assert!(!catalog.change_goal(ME, goal.id, patch).expect("changed").postback.disabled);
    }

    #[test]
    fn only_what_changed_is_copied() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let goal = catalog.create_goal(ME, draft("a"), UnixMillis(5)).expect("made");
        let before = catalog.snapshot().version();
        catalog.delete_goal(ME, goal.id).expect("deleted");
        let rows = catalog.snapshot().rows_since(before, 10);
        assert_eq!((rows.accounts.len(), rows.api_keys.len(), rows.goals.len()), (0, 0, 1));
        assert!(rows.goals[0].deleted && rows.goals[0].version == rows.version);
    }
}
