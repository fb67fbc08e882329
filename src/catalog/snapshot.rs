//! The catalog in memory, never changed once published.
//!
//! Its maps share what did not change with the versions before and after, so that a change costs as much as it changes,
//! however many entries there are, and readers load a version without a lock.

use std::sync::Arc;

use rpds::{HashTrieMap, HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::{FIRST_KEY, changes::EntryKind, entries::Entry, secrets::Presented};
use crate::core::{
    Account, AccountId, ApiKey, CatalogRows, Currency, Goal, GoalId, Link, LinkId, Money, Plan, Row,
};

/// Most slugs of deleted links that are kept from being given out, per account.
const RETIRED_SLUGS_MAX: usize = 100_000;

/// Rows by their number.
pub(super) type Rows<T> = RedBlackTreeMapSync<u32, Arc<Row<T>>>;
/// Looked up by text that strangers send: hashed with a key.
type ByText<T> = HashTrieMapSync<String, T, ahash::RandomState>;
/// An entry by the version of its last change.
pub(super) type VersionKey = (u64, EntryKind, u32);

/// The catalog at one version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) version: u64,
    /// The greatest number that was ever given out, by kind: those of purged entries stay taken.
    pub(super) last_ids: [u32; EntryKind::ALL.len()],
    pub(super) accounts: Rows<Account>,
    pub(super) api_keys: Rows<ApiKey>,
    pub(super) goals: Rows<Goal>,
    pub(super) links: Rows<Link>,
    /// Entries that are not deleted, by account.
    owned: RedBlackTreeSetSync<(AccountId, EntryKind, u32)>,
    counts: RedBlackTreeMapSync<(AccountId, EntryKind), Counts>,
    by_version: RedBlackTreeSetSync<VersionKey>,
    /// Deleted entries, which stay until the copy in ClickHouse knows that they are.
    deleted: RedBlackTreeSetSync<VersionKey>,
    /// Live goals whose owners are to be told of conversions.
    told: RedBlackTreeMapSync<u32, Called>,
    /// Live goals by their token: the hot path's only look-up.
    targets: ByText<Target>,
    /// Links by their slug.
    slugs: ByText<Arc<Row<Link>>>,
    /// The same in lower case, of slugs that are not: people and programs write addresses as they like. Of several that
    /// differ in case alone, as they could be made before, the first.
    slugs_in_lower_case: ByText<Arc<Row<Link>>>,
    /// Slugs of deleted links in lower case, and whose they were: a slug is not given to another link.
    pub(super) retired_slugs: ByText<(AccountId, u64)>,
    /// The same by account, the oldest first.
    retired_in_order: RedBlackTreeSetSync<(AccountId, u64, String)>,
    retired_counts: RedBlackTreeMapSync<AccountId, usize>,
    /// What a change has touched, to be made durable before the snapshot is published.
    pub(super) journal: Vec<Touched>,
}

/// What a change has touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// A row, which may be gone.
    Row(EntryKind, u32),
    /// A slug that was retired, or released.
    Slug(String),
}

/// How many entries of one kind an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Which take up room: neither deleted nor revoked.
    pub(super) live: usize,
    /// Deleted and not purged yet.
    pub(super) deleted: usize,
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

impl Default for Snapshot {
    fn default() -> Self {
        Self::new(CatalogRows::default(), [0; EntryKind::ALL.len()], Vec::new())
    }
}

impl Snapshot {
    /// From all rows, the greatest numbers that were given out, and the slugs that are retired.
    pub(super) fn new(
        rows: CatalogRows,
        last_ids: [u32; EntryKind::ALL.len()],
        retired: Vec<(String, AccountId, u64)>,
    ) -> Self {
        let mut snapshot = Self {
            version: rows.version,
            last_ids,
            accounts: Rows::new_sync(),
            api_keys: Rows::new_sync(),
            goals: Rows::new_sync(),
            links: Rows::new_sync(),
            owned: RedBlackTreeSetSync::new_sync(),
            counts: RedBlackTreeMapSync::new_sync(),
            by_version: RedBlackTreeSetSync::new_sync(),
            deleted: RedBlackTreeSetSync::new_sync(),
            told: RedBlackTreeMapSync::new_sync(),
            targets: HashTrieMap::new_with_hasher_and_ptr_kind(ahash::RandomState::new()),
            slugs: HashTrieMap::new_with_hasher_and_ptr_kind(ahash::RandomState::new()),
            slugs_in_lower_case: HashTrieMap::new_with_hasher_and_ptr_kind(ahash::RandomState::new()),
            retired_slugs: HashTrieMap::new_with_hasher_and_ptr_kind(ahash::RandomState::new()),
            retired_in_order: RedBlackTreeSetSync::new_sync(),
            retired_counts: RedBlackTreeMapSync::new_sync(),
            journal: Vec::new(),
        };
        for (slug, account, version) in retired {
            snapshot.insert_retired(slug, account, version);
        }
        for row in rows.accounts {
            snapshot.insert(row);
        }
        for row in rows.api_keys {
            snapshot.insert(row);
        }
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
        self.insert(self.row(account.clone(), false));
        let goals: Vec<_> =
            self.owned_ids(id, EntryKind::Goal).filter_map(|id| self.goals.get(&id)).cloned().collect();
        for row in goals {
            self.aim(&row);
        }
        self.journal.push(Touched::Row(EntryKind::Account, id.0));
        account
    }

    /// Adds a key or replaces it.
    pub(super) fn put_key(&mut self, key: ApiKey, deleted: bool) -> ApiKey {
        self.insert(self.row(key.clone(), deleted));
        self.journal.push(Touched::Row(EntryKind::Key, key.id));
        key
    }

    /// Adds a goal or replaces it, its token with it.
    pub(super) fn put_goal(&mut self, goal: Goal, deleted: bool) -> Goal {
        self.insert_goal(self.row(goal.clone(), deleted));
        self.journal.push(Touched::Row(EntryKind::Goal, goal.id.0));
        goal
    }

    /// Adds a link or replaces it; its slug never changes.
    pub(super) fn put_link(&mut self, link: Link, deleted: bool) -> Link {
        self.insert_link(self.row(link.clone(), deleted));
        self.journal.push(Touched::Row(EntryKind::Link, link.id.0));
        if deleted {
            self.retire_slug(&link);
        }
        link
    }

    /// The next number of that kind, which is taken from now on.
    pub(super) fn next_id(&mut self, kind: EntryKind) -> u32 {
        let last = &mut self.last_ids[kind as usize];
        *last = last.saturating_add(1);
        *last
    }

    /// Removes deleted entries whose last change is not after that version, `most` at a time.
    pub(super) fn purge(&mut self, version: u64, most: usize) {
        let due = self.deleted.range(..=(version, EntryKind::LAST, u32::MAX));
        let due: Vec<VersionKey> = due.take(most).copied().collect();
        for (_, kind, id) in due {
            match kind {
                EntryKind::Account => self.remove::<Account>(id),
                EntryKind::Key => self.remove::<ApiKey>(id),
                EntryKind::Goal => self.remove::<Goal>(id),
                EntryKind::Link => self.remove::<Link>(id),
            }
            self.journal.push(Touched::Row(kind, id));
        }
    }

    fn row<T>(&self, entry: T, deleted: bool) -> Row<T> {
        Row { version: self.version, deleted, entry }
    }

    /// Puts a row into its map and into what is counted and found by it.
    fn insert<T: Entry>(&mut self, row: Row<T>) -> (Option<Arc<Row<T>>>, Arc<Row<T>>) {
        let id = row_id(&row);
        let row = Arc::new(row);
        let old = T::rows(self).get(&id).cloned();
        if let Some(old) = &old {
            self.forget(old);
        }
        let key = (row.version, T::KIND, id);
        self.by_version.insert_mut(key);
        if row.deleted {
            self.deleted.insert_mut(key);
        } else {
            self.owned.insert_mut((row.entry.owner(), T::KIND, id));
        }
        self.count(&row, |count| *count += 1);
        let last = &mut self.last_ids[T::KIND as usize];
        *last = id.max(*last);
        T::rows_mut(self).insert_mut(id, Arc::clone(&row));
        (old, row)
    }

    fn remove<T: Entry>(&mut self, id: u32) {
        if let Some(row) = T::rows(self).get(&id).cloned() {
            self.forget(&row);
            T::rows_mut(self).remove_mut(&id);
        }
    }

    /// Takes a row out of what is counted and found by it.
    fn forget<T: Entry>(&mut self, row: &Row<T>) {
        let id = row_id(row);
        let key = (row.version, T::KIND, id);
        self.by_version.remove_mut(&key);
        self.deleted.remove_mut(&key);
        self.owned.remove_mut(&(row.entry.owner(), T::KIND, id));
        self.count(row, |count| *count = count.saturating_sub(1));
    }

    fn count<T: Entry>(&mut self, row: &Row<T>, change: impl FnOnce(&mut usize)) {
        let key = (row.entry.owner(), T::KIND);
        let mut counts = self.counts(key.0, key.1);
        if row.deleted {
            change(&mut counts.deleted);
        } else if row.entry.takes_room() {
            change(&mut counts.live);
        }
        self.counts.insert_mut(key, counts);
    }

    /// How many entries of that kind an account has; accounts themselves belong to account 0.
    pub(super) fn counts(&self, account: AccountId, kind: EntryKind) -> Counts {
        self.counts.get(&(account, kind)).copied().unwrap_or_default()
    }

    /// The numbers of an account's entries, oldest first, without the deleted ones.
    fn owned_ids(&self, account: AccountId, kind: EntryKind) -> impl Iterator<Item = u32> {
        self.owned.range((account, kind, 0)..=(account, kind, u32::MAX)).map(|(_, _, id)| *id)
    }

    fn insert_goal(&mut self, row: Row<Goal>) {
        let (old, row) = self.insert(row);
        if let Some(old) = old {
            self.targets.remove_mut(&old.entry.postback_token.0);
        }
        let id = row.entry.id.0;
        self.told.remove_mut(&id);
        if !row.deleted && row.entry.postback_url.is_some() {
            let called = if row.entry.postback.disabled { Called::Disabled } else { Called::Yes };
            self.told.insert_mut(id, called);
        }
        self.aim(&row);
    }

    /// Lets a live goal's token name it.
    fn aim(&mut self, row: &Row<Goal>) {
        let goal = &row.entry;
        if let (false, Some(account)) = (row.deleted, self.accounts.get(&goal.account_id.0)) {
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
            self.targets.insert_mut(goal.postback_token.0.clone(), target);
        }
    }

    fn insert_link(&mut self, row: Row<Link>) {
        let (_, row) = self.insert(row);
        let lower = row.entry.slug.to_ascii_lowercase();
        let first = self.slugs_in_lower_case.get(&lower).map(|first| first.entry.id);
        if row.deleted {
            self.slugs.remove_mut(&row.entry.slug);
            if first == Some(row.entry.id) {
                self.slugs_in_lower_case.remove_mut(&lower);
            }
            return;
        }
        if lower != row.entry.slug && first.is_none_or(|first| row.entry.id <= first) {
            self.slugs_in_lower_case.insert_mut(lower, Arc::clone(&row));
        }
        self.slugs.insert_mut(row.entry.slug.clone(), row);
    }

    /// Keeps a deleted link's slug from being given to another; an account that retires more than so many releases its
    /// oldest.
    fn retire_slug(&mut self, link: &Link) {
        let (account, slug) = (link.account_id, link.slug.to_ascii_lowercase());
        self.insert_retired(slug.clone(), account, self.version);
        self.journal.push(Touched::Slug(slug));
        if self.retired_counts.get(&account).is_some_and(|count| *count > RETIRED_SLUGS_MAX) {
            let oldest = self.retired_in_order.range((account, 0, String::new())..).next().cloned();
            if let Some(oldest) = oldest {
                self.retired_in_order.remove_mut(&oldest);
                self.retired_slugs.remove_mut(&oldest.2);
                self.retired_counts.insert_mut(account, RETIRED_SLUGS_MAX);
                self.journal.push(Touched::Slug(oldest.2));
            }
        }
    }

    fn insert_retired(&mut self, slug: String, account: AccountId, version: u64) {
        if self.retired_slugs.contains_key(&slug) {
            return;
        }
        let count = self.retired_counts.get(&account).copied().unwrap_or(0);
        self.retired_counts.insert_mut(account, count + 1);
        self.retired_in_order.insert_mut((account, version, slug.clone()));
        self.retired_slugs.insert_mut(slug, (account, version));
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

    /// Every key, oldest first, revoked ones among them.
    pub fn all_keys(&self) -> impl Iterator<Item = &ApiKey> {
        self.api_keys.values().filter(|row| !row.deleted).map(|row| &row.entry)
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
        self.owned_ids(account, EntryKind::Key).filter_map(|id| self.api_keys.get(&id)).map(|row| &row.entry)
    }

    /// The account of that number.
    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id.0).map(|row| &row.entry)
    }

    /// The account's goal of that number, unless it was deleted.
    #[must_use]
    pub fn goal(&self, account: AccountId, id: GoalId) -> Option<&Goal> {
        let row = self.goals.get(&id.0)?;
        (row.entry.account_id == account && !row.deleted).then_some(&row.entry)
    }

    /// The goal of that number, whosever it is, unless it was deleted. For what acts for no caller.
    #[must_use]
    pub fn any_goal(&self, id: GoalId) -> Option<&Goal> {
        self.goals.get(&id.0).filter(|row| !row.deleted).map(|row| &row.entry)
    }

    /// Whether anybody is to be told of conversions of this goal.
    #[must_use]
    pub fn tells(&self, id: GoalId) -> bool {
        self.told.get(&id.0) == Some(&Called::Yes)
    }

    /// How many goals have an endpoint that is not called any more.
    #[must_use]
    pub fn postbacks_disabled(&self) -> usize {
        self.told.values().filter(|called| **called == Called::Disabled).count()
    }

    /// The account's goals, oldest first, without the deleted ones.
    pub fn goals(&self, account: AccountId) -> impl Iterator<Item = &Goal> {
        self.owned_ids(account, EntryKind::Goal).filter_map(|id| self.goals.get(&id)).map(|row| &row.entry)
    }

    /// The account's link of that number, unless it was deleted.
    #[must_use]
    pub fn link(&self, account: AccountId, id: LinkId) -> Option<&Link> {
        let row = self.links.get(&id.0)?;
        (row.entry.account_id == account && !row.deleted).then_some(&row.entry)
    }

    /// The account's links, oldest first, without the deleted ones.
    pub fn links(&self, account: AccountId) -> impl Iterator<Item = &Link> {
        self.owned_ids(account, EntryKind::Link).filter_map(|id| self.links.get(&id)).map(|row| &row.entry)
    }

    /// Whether a link has that slug, or had it, in any case.
    pub(super) fn has_slug(&self, slug: &str) -> bool {
        self.link_by_slug(slug).is_some() || self.retired_slugs.contains_key(&slug.to_ascii_lowercase())
    }

    /// The link that a slug names, in any case, unless it was deleted.
    #[must_use]
    pub fn link_by_slug(&self, slug: &str) -> Option<&Link> {
        let row = self.slugs.get(slug).or_else(|| {
            let lower = slug.to_ascii_lowercase();
            self.slugs.get(&lower).or_else(|| self.slugs_in_lower_case.get(&lower))
        });
        row.map(|row| &row.entry)
    }

    /// The rows that changed after `version`, the oldest change first: `most` of them, and all of the last change among
    /// them. Their version is that of the last of them.
    #[must_use]
    pub fn rows_since(&self, version: u64, most: usize) -> CatalogRows {
        let mut rows = CatalogRows { version, ..CatalogRows::default() };
        let changed = self.by_version.range((version.saturating_add(1), EntryKind::Account, 0)..);
        for (count, (version, kind, id)) in changed.enumerate() {
            if count >= most && *version != rows.version {
                return rows;
            }
            rows.version = *version;
            match kind {
                EntryKind::Account => rows.accounts.extend(copy(&self.accounts, *id)),
                EntryKind::Key => rows.api_keys.extend(copy(&self.api_keys, *id)),
                EntryKind::Goal => rows.goals.extend(copy(&self.goals, *id)),
                EntryKind::Link => rows.links.extend(copy(&self.links, *id)),
            }
        }
        // The last changes may have left no row.
        rows.version = self.version;
        rows
    }
}

fn copy<T: Clone>(rows: &Rows<T>, id: u32) -> Option<Row<T>> {
    rows.get(&id).map(|row| Row::clone(row))
}

fn row_id<T: Entry>(row: &Row<T>) -> u32 {
    row.entry.id()
}
