//! Changes to accounts and their keys.

use super::{EntryKind, put};
use crate::{
    catalog::{Catalog, ChangeError, FIRST_KEY, entries::NO_OWNER, secrets, snapshot::Snapshot},
    core::{Account, AccountId, ApiKey, Plan, UnixMillis},
    secret::Secret,
};

/// An account to be made. Its fields are within their limits already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDraft {
    /// Its unique name.
    pub name: String,
    /// What it may do.
    pub plan: Plan,
    /// Hits a minute per postback token; 0: no limit; `None`: the daemon's setting.
    pub rate_limit_per_minute: Option<u32>,
}

/// What to change of an account; the outer `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountPatch {
    /// Its unique name.
    pub name: Option<String>,
    /// What it may do.
    pub plan: Option<Plan>,
    /// Hits a minute per postback token.
    pub rate_limit_per_minute: Option<Option<u32>>,
}

/// Each of these writes and syncs the catalog's file: call them where blocking is allowed. The secrets that they return are kept
/// nowhere.
impl Catalog {
    /// Makes an account with a key.
    pub fn create_account(
        &self,
        draft: AccountDraft,
        now: UnixMillis,
    ) -> Result<(Account, Secret), ChangeError> {
        self.change(|snapshot| {
            self.limits.check_room(snapshot, NO_OWNER, EntryKind::Account)?;
            let account = Account {
                id: AccountId(snapshot.next_id(EntryKind::Account)),
                name: draft.name,
                plan: draft.plan,
                rate_limit_per_minute: draft.rate_limit_per_minute,
            };
            check_name(snapshot, &account)?;
            let (_, secret) = self.add_key(snapshot, account.id, "first".into(), now)?;
            Ok((snapshot.put_account(account), secret))
        })
    }

    /// Changes an account. What its goals' hits meet changes at once; a goal whose window a smaller plan does not allow
    /// keeps it on paper and works with the usual one, until the account may have it again.
    pub fn change_account(&self, id: AccountId, patch: AccountPatch) -> Result<Account, ChangeError> {
        self.change(|snapshot| {
            let mut account = live(snapshot, id)?;
            put(&mut account.name, patch.name);
            put(&mut account.plan, patch.plan);
            put(&mut account.rate_limit_per_minute, patch.rate_limit_per_minute);
            check_name(snapshot, &account)?;
            Ok(snapshot.put_account(account))
        })
    }

    /// Makes another key for an account.
    pub fn create_key(
        &self,
        id: AccountId,
        name: String,
        now: UnixMillis,
    ) -> Result<(ApiKey, Secret), ChangeError> {
        self.change(|snapshot| {
            live(snapshot, id)?;
            self.add_key(snapshot, id, name, now)
        })
    }

    /// Revokes a key: it opens nothing from then on. Once the first key of all is revoked, accounts are managed by nobody
    /// until `tally keys rotate` gives it another secret.
    pub fn revoke_key(&self, account: AccountId, id: u32) -> Result<ApiKey, ChangeError> {
        self.change(|snapshot| {
            let key = key_of(snapshot, account, id)?;
            let revoked = snapshot.put_key(ApiKey { revoked: true, ..key }, false);
            // The oldest are listed no longer, so that no account fills the catalog with them.
            let is_old = |key: &&ApiKey| key.revoked && key.id != FIRST_KEY;
            let old: Vec<ApiKey> = snapshot.keys(account).filter(is_old).cloned().collect();
            for key in old.iter().take(old.len().saturating_sub(self.limits.revoked_keys)) {
                snapshot.put_key(key.clone(), true);
            }
            Ok(revoked)
        })
    }

    /// Gives a key another secret; the old one opens nothing from then on. A revoked key stays revoked. The key file
    /// follows the first key.
    pub fn rotate_key(&self, account: AccountId, id: u32) -> Result<(ApiKey, Secret), ChangeError> {
        self.rotate(id, |snapshot| {
            let key = key_of(snapshot, account, id)?;
            if key.revoked { Err(ChangeError::Unknown(EntryKind::Key)) } else { Ok(key) }
        })
    }

    /// Gives the first key of all another secret, whether it was revoked or not: for whoever owns the data folder.
    pub fn recover_first_key(&self) -> Result<(ApiKey, Secret), ChangeError> {
        self.rotate(FIRST_KEY, |snapshot| {
            let row = snapshot.api_keys.get(&FIRST_KEY).ok_or(ChangeError::Unknown(EntryKind::Key))?;
            Ok(ApiKey { revoked: false, ..row.entry.clone() })
        })
    }

    fn rotate(
        &self,
        id: u32,
        find: impl FnOnce(&Snapshot) -> Result<ApiKey, ChangeError>,
    ) -> Result<(ApiKey, Secret), ChangeError> {
        let mut replaced = None;
        let rotated = self.change(|snapshot| {
            let key = find(snapshot)?;
            let (secret, sha256) = secrets::new_key(id)?;
            if id == FIRST_KEY {
                // Before the change: if that breaks off, the old key is known to whoever asked for this.
                replaced = Some(self.key_file.replace(secret.expose())?);
            }
            Ok((snapshot.put_key(ApiKey { sha256, ..key }, false), secret))
        });
        if let (Err(_), Some(old)) = (&rotated, replaced) {
            self.key_file.restore(old)?;
        }
        rotated
    }

    fn add_key(
        &self,
        snapshot: &mut Snapshot,
        account_id: AccountId,
        name: String,
        now: UnixMillis,
    ) -> Result<(ApiKey, Secret), ChangeError> {
        self.limits.check_room(snapshot, account_id, EntryKind::Key)?;
        let id = snapshot.next_id(EntryKind::Key);
        let (secret, sha256) = secrets::new_key(id)?;
        let key = ApiKey { id, account_id, name, sha256, created_at: now, revoked: false };
        Ok((snapshot.put_key(key, false), secret))
    }
}

fn key_of(snapshot: &Snapshot, account: AccountId, id: u32) -> Result<ApiKey, ChangeError> {
    let found = snapshot.keys(account).find(|key| key.id == id);
    found.cloned().ok_or(ChangeError::Unknown(EntryKind::Key))
}

fn check_name(snapshot: &Snapshot, account: &Account) -> Result<(), ChangeError> {
    let taken = snapshot.accounts().any(|other| other.name == account.name && other.id != account.id);
    if taken { Err(ChangeError::NameTaken) } else { Ok(()) }
}

fn live(snapshot: &Snapshot, id: AccountId) -> Result<Account, ChangeError> {
    snapshot.account(id).cloned().ok_or(ChangeError::Unknown(EntryKind::Account))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalog::{GoalDraft, changes::Limits, tests::Still},
        core::GoalType,
    };

    const NOW: UnixMillis = UnixMillis(5);

    fn draft(name: &str) -> AccountDraft {
        AccountDraft { name: name.into(), plan: Plan::Enterprise, rate_limit_per_minute: Some(5) }
    }

    fn open(folder: &tempfile::TempDir) -> Catalog {
        Catalog::open(folder.path(), &Still(1_000), None).expect("opened").catalog
    }

    #[test]
    fn accounts_and_keys_survive_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let (shop, first) = catalog.create_account(draft("shop"), NOW).expect("made");
        let (second_key, second) = catalog.create_key(shop.id, "ci".into(), NOW).expect("made");
        let (_, kept) = catalog.create_key(shop.id, "other".into(), NOW).expect("made");
        catalog.revoke_key(shop.id, second_key.id).expect("revoked");
        assert!(catalog.revoke_key(shop.id, second_key.id).is_ok(), "again");
        drop(catalog);

        let catalog = open(&folder);
        let snapshot = catalog.snapshot();
        assert_eq!(snapshot.account(shop.id), Some(&shop));
        assert_eq!(snapshot.authenticate(first.expose()), Some(shop.id));
        assert_eq!(snapshot.authenticate(kept.expose()), Some(shop.id));
        assert_eq!(snapshot.authenticate(second.expose()), None);
        let keys: Vec<_> = snapshot.keys(shop.id).map(|key| (key.name.as_str(), key.revoked)).collect();
        assert_eq!(keys, [("first", false), ("ci", true), ("other", false)]);
    }

    #[test]
    fn names_are_unique_and_keys_belong_to_one_account() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let (shop, _) = catalog.create_account(draft("shop"), NOW).expect("made");
        assert!(matches!(catalog.create_account(draft("shop"), NOW), Err(ChangeError::NameTaken)));
        let rename = |name: &str| AccountPatch { name: Some(name.into()), ..AccountPatch::default() };
        assert!(matches!(catalog.change_account(shop.id, rename("default")), Err(ChangeError::NameTaken)));
        assert!(catalog.change_account(shop.id, rename("shop")).is_ok(), "its own name");
        let unknown = AccountId(99);
        assert!(matches!(
            catalog.change_account(unknown, rename("x")),
            Err(ChangeError::Unknown(EntryKind::Account))
        ));
        assert!(matches!(
            catalog.create_key(unknown, "x".into(), NOW),
            Err(ChangeError::Unknown(EntryKind::Account))
        ));
        let others = catalog.revoke_key(shop.id, FIRST_KEY);
        assert!(matches!(others, Err(ChangeError::Unknown(EntryKind::Key))), "another account's key");
    }

    #[test]
    fn a_rotated_key_has_another_secret_and_the_first_is_no_exception() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = Catalog::open(folder.path(), &Still(1_000), None).expect("opened");
        let (catalog, old) = (opened.catalog, opened.first_key.expect("a key"));
        let (key, new) = catalog.rotate_key(AccountId(1), FIRST_KEY).expect("rotated");
        assert_eq!((key.id, key.revoked), (FIRST_KEY, false));
        drop(catalog);
        let catalog = open(&folder);
        assert_eq!(catalog.snapshot().authenticate(old.expose()), None);
        assert!(catalog.snapshot().is_first_key(new.expose()));
        let file = || std::fs::read_to_string(folder.path().join(crate::catalog::KEY_FILE_NAME));
        assert_eq!(file().expect("there"), new.expose(), "the key file follows");
        catalog.revoke_key(AccountId(1), FIRST_KEY).expect("revoked");
        assert_eq!(catalog.snapshot().authenticate(new.expose()), None);
        let again = catalog.rotate_key(AccountId(1), FIRST_KEY);
        assert!(matches!(again, Err(ChangeError::Unknown(EntryKind::Key))), "revoked it stays");
        let (_, recovered) = catalog.recover_first_key().expect("recovered");
        assert!(catalog.snapshot().is_first_key(recovered.expose()));
        assert_eq!(file().expect("there"), recovered.expose());
        let (shop, _) = catalog.create_account(draft("shop"), NOW).expect("made");
        let others = catalog.rotate_key(shop.id, FIRST_KEY);
        assert!(matches!(others, Err(ChangeError::Unknown(EntryKind::Key))), "another account's key");
        catalog.revoke_key(shop.id, 2).expect("revoked");
        assert!(matches!(catalog.rotate_key(shop.id, 2), Err(ChangeError::Unknown(EntryKind::Key))));
    }

    #[test]
    fn revoked_keys_take_up_no_room_and_the_oldest_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut catalog = open(&folder);
        catalog.limits = Limits { keys: 2, revoked_keys: 3, ..Limits::USUAL };
        let (shop, _) = catalog.create_account(draft("shop"), NOW).expect("made");
        for _ in 0..10 {
            let (key, _) = catalog.create_key(shop.id, "k".into(), NOW).expect("made");
            let full = catalog.create_key(shop.id, "k".into(), NOW);
            assert!(matches!(full, Err(ChangeError::TooMany { kind: EntryKind::Key, most: 2 })));
            catalog.revoke_key(shop.id, key.id).expect("revoked");
        }
        catalog.purge(catalog.snapshot().version()).expect("purged");
        let listed: Vec<_> = catalog.snapshot().keys(shop.id).map(|key| (key.id, key.revoked)).collect();
        assert_eq!(listed, [(2, false), (10, true), (11, true), (12, true)]);
        drop(catalog);
        let (key, _) = open(&folder).create_key(shop.id, "k".into(), NOW).expect("made");
        assert_eq!(key.id, 13, "a purged key's number stays taken");
    }

    #[test]
    fn a_plan_takes_effect_on_goals_that_are_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = open(&folder);
        let (shop, _) = catalog.create_account(draft("shop"), NOW).expect("made");
        let goal = GoalDraft {
            name: "g".into(),
            goal_type: GoalType::Custom,
            value: None,
            currency: None,
            attribution_window_days: 7,
            postback_url: None,
            postback_method: crate::core::webhook::PostbackMethod::Post,
            trust_client_fields: false,
        };
        let goal = catalog.create_goal(shop.id, goal, NOW).expect("made");
        let gone = catalog.rotate_token(shop.id, goal.id).expect("rotated");
        let target = || catalog.snapshot().target(&gone.postback_token.0).expect("a target");
        assert_eq!((target().plan, target().window_seconds), (Plan::Enterprise, 604_800));
        let patch = AccountPatch {
            plan: Some(Plan::Pro),
            rate_limit_per_minute: Some(None),
            ..AccountPatch::default()
        };
        catalog.change_account(shop.id, patch).expect("changed");
        assert_eq!((target().plan, target().window_seconds), (Plan::Pro, 2_592_000));
        assert_eq!(target().rate_limit_per_minute, None);
        assert_eq!(catalog.snapshot().target(&goal.postback_token.0), None, "rotated tokens stay unknown");
        let patch = AccountPatch { plan: Some(Plan::Enterprise), ..AccountPatch::default() };
        catalog.change_account(shop.id, patch).expect("changed");
        assert_eq!(target().window_seconds, 604_800, "the goal's own window again");
        catalog.delete_goal(shop.id, goal.id).expect("deleted");
        catalog.change_account(shop.id, AccountPatch::default()).expect("changed");
        assert_eq!(catalog.snapshot().target(&gone.postback_token.0), None, "deleted goals stay deleted");
    }
}
