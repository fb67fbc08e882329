//! The catalog in memory, never changed once built.

use std::{collections::BTreeMap, sync::Arc};

use ahash::AHashMap;

use super::{FIRST_KEY, secrets::Presented};
use crate::core::{
    Account, AccountId, ApiKey, CatalogRows, Currency, Goal, GoalId, Link, LinkId, Money, Plan, Row,
};

/// The catalog at one version. Rows are shared with the versions before and after.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) version: u64,
    pub(super) accounts: BTreeMap<AccountId, Arc<Row<Account>>>,
    pub(super) api_keys: BTreeMap<u32, Arc<Row<ApiKey>>>,
    pub(super) goals: BTreeMap<GoalId, Arc<Row<Goal>>>,
    pub(super) links: BTreeMap<LinkId, Arc<Row<Link>>>,
    /// Live goals whose owners are to be told of conversions.
    told: AHashMap<GoalId, Called>,
    /// Live goals by their token: the hot path's only look-up.
    targets: AHashMap<String, Target>,
    /// Links by their slug, deleted ones among them: a slug is never given to another link.
    slugs: AHashMap<String, Arc<Row<Link>>>,
    /// The same in lower case, of slugs that are not: people and programs write addresses as they like. Of several that
    /// differ in case alone, as they could be made before, the first.
    slugs_in_lower_case: AHashMap<String, Arc<Row<Link>>>,
}

/// Whether an endpoint is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Called {
    Yes,
    /// It answered that it is gone.
    Disabled,
}

/// What a hit needs to know of the goal that its token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose goal it is.
    pub account_id: AccountId,
    /// The goal.
    pub goal_id: GoalId,
    /// The value of a hit that brings none.
    pub value: Option<Money>,
    /// The currency of a hit that brings none.
    pub currency: Option<Currency>,
    /// How old the click that earns a conversion may be, as the account's plan allows it.
    pub window_seconds: u32,
    /// Whether the token alone may say who converted, and when.
    pub trust_client_fields: bool,
    /// What the account may do.
    pub plan: Plan,
    /// Hits a minute; 0: no limit; `None`: the daemon's setting.
    pub rate_limit_per_minute: Option<u32>,
}

impl Snapshot {
    pub(super) fn new(rows: CatalogRows) -> Self {
        let mut snapshot = Self { version: rows.version, ..Self::default() };
        snapshot.accounts = rows.accounts.into_iter().map(|row| (row.entry.id, Arc::new(row))).collect();
        snapshot.api_keys = rows.api_keys.into_iter().map(|row| (row.entry.id, Arc::new(row))).collect();
        for row in rows.goals {
            snapshot.insert_goal(row);
        }
        for row in rows.links {
            snapshot.insert_link(row);
        }
        snapshot
    }

    /// Adds an account or replaces it, and tells its goals.
    pub(super) fn put_account(&mut self, account: Account) -> Account {
        let id = account.id;
        self.accounts.insert(id, Arc::new(self.row(account.clone(), false)));
        let goals: Vec<_> = self.goals.values().filter(|row| row.entry.account_id == id).cloned().collect();
        for row in goals {
            self.aim(&row);
        }
        account
    }

    /// Adds a key or replaces it.
    pub(super) fn put_key(&mut self, key: ApiKey) -> ApiKey {
        self.api_keys.insert(key.id, Arc::new(self.row(key.clone(), false)));
        key
    }

    /// Adds a goal or replaces it, its token with it.
    pub(super) fn put_goal(&mut self, goal: Goal, deleted: bool) -> Goal {
        self.insert_goal(self.row(goal.clone(), deleted));
        goal
    }

    /// Adds a link or replaces it; its slug never changes.
    pub(super) fn put_link(&mut self, link: Link, deleted: bool) -> Link {
        self.insert_link(self.row(link.clone(), deleted));
        link
    }

    /// An entry that changed in this version.
    fn row<T>(&self, entry: T, deleted: bool) -> Row<T> {
        Row { version: self.version, deleted, entry }
    }

    fn insert_goal(&mut self, row: Row<Goal>) {
        let row = Arc::new(row);
        if let Some(old) = self.goals.insert(row.entry.id, Arc::clone(&row)) {
            self.targets.remove(&old.entry.postback_token.0);
        }
        self.told.remove(&row.entry.id);
        if !row.deleted && row.entry.postback_url.is_some() {
            let called = if row.entry.postback.disabled { Called::Disabled } else { Called::Yes };
            self.told.insert(row.entry.id, called);
        }
        self.aim(&row);
    }

    /// Lets a live goal's token name it.
    fn aim(&mut self, row: &Row<Goal>) {
        let goal = &row.entry;
        if let (false, Some(account)) = (row.deleted, self.accounts.get(&goal.account_id)) {
            let target = Target {
                account_id: goal.account_id,
                goal_id: goal.id,
                value: goal.value,
                currency: goal.currency,
                window_seconds: account.entry.plan.window_seconds(goal.attribution_window_days),
                trust_client_fields: goal.trust_client_fields,
                plan: account.entry.plan,
                rate_limit_per_minute: account.entry.rate_limit_per_minute,
            };
            self.targets.insert(goal.postback_token.0.clone(), target);
        }
    }

    fn insert_link(&mut self, row: Row<Link>) {
        let row = Arc::new(row);
        self.slugs.insert(row.entry.slug.clone(), Arc::clone(&row));
        let lower = row.entry.slug.to_ascii_lowercase();
        if lower != row.entry.slug {
            let first = self.slugs_in_lower_case.get(&lower).map_or(row.entry.id, |first| first.entry.id);
            if row.entry.id <= first {
                self.slugs_in_lower_case.insert(lower, Arc::clone(&row));
            }
        }
        self.links.insert(row.entry.id, row);
    }

    /// The version of the last change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The goal that a postback token names. A token is a name that stands in public pages, not a secret: its look-up
    /// need not take constant time, and keyed hashing keeps it from being steered.
    #[must_use]
    pub fn target(&self, token: &str) -> Option<Target> {
        self.targets.get(token).copied()
    }

    /// The account for which an API key acts.
    #[must_use]
    pub fn authenticate(&self, key: &str) -> Option<AccountId> {
        self.key(key).map(|key| key.account_id)
    }

    /// Whether this is the first key of all, which manages the accounts.
    #[must_use]
    pub fn is_first_key(&self, key: &str) -> bool {
        self.key(key).is_some_and(|key| key.id == FIRST_KEY)
    }

    fn key(&self, text: &str) -> Option<&ApiKey> {
        let presented = Presented::parse(text)?;
        let row = self.api_keys.get(&presented.id)?;
        (presented.is(&row.entry) && !row.deleted).then_some(&row.entry)
    }

    /// Every account, oldest first.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values().map(|row| &row.entry)
    }

    /// The account's keys, oldest first, revoked ones among them.
    pub fn keys(&self, account: AccountId) -> impl Iterator<Item = &ApiKey> {
        self.api_keys.values().filter(move |row| row.entry.account_id == account).map(|row| &row.entry)
    }

    /// The account of that number.
    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id).map(|row| &row.entry)
    }

    /// The account's goal of that number, unless it was deleted.
    #[must_use]
    pub fn goal(&self, account: AccountId, id: GoalId) -> Option<&Goal> {
        let row = self.goals.get(&id)?;
        (row.entry.account_id == account && !row.deleted).then_some(&row.entry)
    }

    /// The goal of that number, whosever it is, unless it was deleted. For what acts for no caller.
    #[must_use]
    pub fn any_goal(&self, id: GoalId) -> Option<&Goal> {
        self.goals.get(&id).filter(|row| !row.deleted).map(|row| &row.entry)
    }

    /// Whether anybody is to be told of conversions of this goal.
    #[must_use]
    pub fn tells(&self, id: GoalId) -> bool {
        self.told.get(&id) == Some(&Called::Yes)
    }

    /// How many goals have an endpoint that is not called any more.
    #[must_use]
    pub fn postbacks_disabled(&self) -> usize {
        self.told.values().filter(|called| **called == Called::Disabled).count()
    }

    /// The account's goals, oldest first, without the deleted ones.
    pub fn goals(&self, account: AccountId) -> impl Iterator<Item = &Goal> {
        self.goals
            .values()
            .filter(move |row| row.entry.account_id == account && !row.deleted)
            .map(|row| &row.entry)
    }

    /// The account's link of that number, unless it was deleted.
    #[must_use]
    pub fn link(&self, account: AccountId, id: LinkId) -> Option<&Link> {
        let row = self.links.get(&id)?;
        (row.entry.account_id == account && !row.deleted).then_some(&row.entry)
    }

    /// The account's links, oldest first, without the deleted ones.
    pub fn links(&self, account: AccountId) -> impl Iterator<Item = &Link> {
        self.links
            .values()
            .filter(move |row| row.entry.account_id == account && !row.deleted)
            .map(|row| &row.entry)
    }

    /// Whether a link has that slug, or had it, in any case.
    pub(super) fn has_slug(&self, slug: &str) -> bool {
        self.row_by_slug(slug).is_some()
    }

    /// The link that a slug names, in any case, unless it was deleted.
    #[must_use]
    pub fn link_by_slug(&self, slug: &str) -> Option<&Link> {
        let row = self.row_by_slug(slug)?;
        (!row.deleted).then_some(&row.entry)
    }

    fn row_by_slug(&self, slug: &str) -> Option<&Arc<Row<Link>>> {
        self.slugs.get(slug).or_else(|| {
            let lower = slug.to_ascii_lowercase();
            self.slugs.get(&lower).or_else(|| self.slugs_in_lower_case.get(&lower))
        })
    }

    /// Every row that changed after `version`; 0: all of them.
    #[must_use]
    pub fn rows_since(&self, version: u64) -> CatalogRows {
        CatalogRows {
            version: self.version,
            accounts: changed(self.accounts.values(), version),
            api_keys: changed(self.api_keys.values(), version),
            goals: changed(self.goals.values(), version),
            links: changed(self.links.values(), version),
        }
    }
}

fn changed<'a, T: Clone + 'a>(rows: impl Iterator<Item = &'a Arc<Row<T>>>, since: u64) -> Vec<Row<T>> {
    rows.filter(|row| row.version > since).map(|row| Row::clone(row)).collect()
}
