//! Accounts, API keys, goals and links.
//!
//! The truth is `catalog.redb` in the data folder; a copy goes to ClickHouse ([`CatalogCopy`]). A change is durable
//! before anybody can see it: it is committed first, the snapshot swapped after. Readers load the snapshot
//! without a lock and are never held up by a change, which costs as much as it changes.
//!
//! What is deleted stays until the copy knows of it, and is then purged: its number is never given out again, and old
//! conversions are named by the copy.

mod changes;
mod copy;
mod entries;
mod key_file;
mod legacy;
mod rows;
mod secrets;
mod snapshot;
mod store;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
pub use changes::{AccountDraft, AccountPatch, EntryKind, GoalDraft, GoalPatch, LinkDraft, LinkPatch};
pub use copy::{CatalogCopy, CopyError, keep_copied};
pub use legacy::FILE_NAME as LEGACY_FILE_NAME;
use parking_lot::Mutex;
pub use rows::FileError;
pub use snapshot::{Snapshot, Target};
pub use store::StoreError;
use tokio::sync::watch;

use self::{
    changes::Limits,
    key_file::KeyFile,
    legacy::Legacy,
    store::{RawRow, Store},
};

use crate::{
    clock::Clock,
    core::{Account, AccountId, ApiKey, CatalogRows, Plan, PlanRefusal, Row},
    secret::Secret,
};

/// The catalog's file in the data folder.
pub const FILE_NAME: &str = "catalog.redb";
/// The file that holds the first key, and nothing else.
pub const KEY_FILE_NAME: &str = "api-key";
/// The number of the first key of all, which manages the accounts.
pub const FIRST_KEY: u32 = 1;

/// The catalog of one data folder.
pub struct Catalog {
    snapshot: ArcSwap<Snapshot>,
    /// Held while a change is made durable: changes come one after another.
    store: Mutex<Store>,
    limits: Limits,
    key_file: KeyFile,
    /// The version in force, for those who copy it.
    version: watch::Sender<u64>,
}

/// An opened catalog.
pub struct Opened {
    /// The catalog.
    pub catalog: Catalog,
    /// The first key, if it was made just now: to be shown once.
    pub first_key: Option<Secret>,
}

/// The catalog can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file can't be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its file is not one.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: FileError,
    },
    /// Its store can't be used.
    #[error("{path} {error}", path = path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        error: StoreError,
    },
    /// The folder had a catalog, and there is no copy of it.
    #[error("{path} is missing from a data folder that is in use: restore it from a backup", path = path.display())]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// A change that is not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The account's plan does not allow it.
    #[error(transparent)]
    Plan(#[from] PlanRefusal),
    /// The account has no such entry, or has deleted it.
    #[error("there is no such {kind}", kind = .0.as_str())]
    Unknown(EntryKind),
    /// There are as many entries as the account may have.
    #[error("there are {most} {kind}s, which is the most there may be", kind = .kind.as_str())]
    TooMany {
        /// Of what.
        kind: EntryKind,
        /// How many.
        most: usize,
    },
    /// So much was deleted that the copy in ClickHouse does not know of that it has to be waited for.
    #[error("too many {kind}s were deleted since ClickHouse's copy of the catalog was written", kind = .0.as_str())]
    CopyBehind(EntryKind),
    /// A link has, or had, this slug.
    #[error("the slug is taken")]
    SlugTaken,
    /// Another account has this name.
    #[error("the name is taken")]
    NameTaken,
    /// It could not be made durable; nothing has changed.
    #[error("the catalog can't be written: {0}")]
    Storage(#[from] io::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

impl Catalog {
    /// Whether the folder has a catalog. If not, a copy may be loaded and handed to [`Catalog::open`].
    #[must_use]
    pub fn exists(data_dir: &Path) -> bool {
        data_dir.join(FILE_NAME).exists() || legacy::holds_catalog(data_dir)
    }

    /// Opens the folder's catalog. Where there is none it starts from `copy`, or else with the account `default` and
    /// one key, which is written to the folder's `api-key`. A catalog that an older version of tally kept in
    /// `catalog.json` is taken over.
    pub fn open(data_dir: &Path, clock: &dyn Clock, copy: Option<CatalogRows>) -> Result<Opened, OpenError> {
        let path = data_dir.join(FILE_NAME);
        let (store, snapshot, first_key) = if path.exists() {
            let (store, snapshot) = Store::open(&path).map_err(store_error(&path))?;
            (store, snapshot, None)
        } else {
            let (version, rows, first_key) = first_content(data_dir, clock, copy)?;
            // The key first: without the catalog it opens nothing, and the next start makes another.
            if let Some(key) = &first_key {
                let path = data_dir.join(KEY_FILE_NAME);
                let written = KeyFile::of(data_dir).replace(key.expose());
                written.map_err(|error| OpenError::Io { path, error })?;
            }
            let (store, snapshot) = Store::create(&path, version, &rows).map_err(store_error(&path))?;
            (store, snapshot, first_key)
        };
        let legacy = data_dir.join(legacy::FILE_NAME);
        legacy::retire(data_dir).map_err(|error| OpenError::Io { path: legacy, error })?;
        Ok(Opened { catalog: Self::new(store, snapshot, KeyFile::of(data_dir)), first_key })
    }

    fn new(store: Store, snapshot: Snapshot, key_file: KeyFile) -> Self {
        let (version, _) = watch::channel(snapshot.version());
        let snapshot = ArcSwap::from_pointee(snapshot);
        Self { snapshot, store: Mutex::new(store), limits: Limits::USUAL, key_file, version }
    }

    /// After a commit that failed: what the file holds counts.
    fn catch_up(&self, store: &mut Store) -> Result<(), ChangeError> {
        let known = self.snapshot.load().version();
        if let Some(snapshot) = store.reopen(known)? {
            tracing::warn!("a change of the catalog that was reported as failed has arrived");
            self.version.send_replace(snapshot.version());
            self.snapshot.store(Arc::new(snapshot));
        }
        Ok(())
    }

    /// The catalog as it is now. Don't hold it across an await.
    #[must_use]
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Follows the version in force.
    #[must_use]
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

fn store_error(path: &Path) -> impl FnOnce(StoreError) -> OpenError {
    let path = path.to_owned();
    move |error| OpenError::Store { path, error }
}

/// What a store begins with, and the first key if it is a new one.
fn first_content(
    data_dir: &Path,
    clock: &dyn Clock,
    copy: Option<CatalogRows>,
) -> Result<(u64, Vec<RawRow>, Option<Secret>), OpenError> {
    let path = data_dir.join(legacy::FILE_NAME);
    let legacy = match std::fs::read(&path) {
        Ok(bytes) => legacy::read(&bytes).map_err(|error| OpenError::File { path, error })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Legacy::Absent,
        Err(error) => return Err(OpenError::Io { path, error }),
    };
    let (rows, first_key) = match (legacy, copy.filter(|rows| !rows.accounts.is_empty())) {
        (Legacy::Rows(version, rows), _) => return Ok((version, rows, None)),
        (_, Some(rows)) => (rows, None),
        (Legacy::Marker, None) => return Err(OpenError::Lost { path: data_dir.join(FILE_NAME) }),
        (Legacy::Absent, None) => {
            first_rows(clock).map(|(rows, key)| (rows, Some(key))).map_err(OpenError::Random)?
        }
    };
    let raw = raw_rows(&rows).map_err(|error| store_error(&data_dir.join(FILE_NAME))(error.into()))?;
    Ok((rows.version, raw, first_key))
}

fn raw_rows(rows: &CatalogRows) -> Result<Vec<RawRow>, serde_json::Error> {
    fn add<T: rows::Stored + entries::Entry>(
        of: &[Row<T>],
        raw: &mut Vec<RawRow>,
    ) -> Result<(), serde_json::Error> {
        for row in of {
            raw.push((T::KIND, row.entry.id(), rows::write(row, None)?));
        }
        Ok(())
    }
    let mut raw = Vec::new();
    add(&rows.accounts, &mut raw)?;
    add(&rows.api_keys, &mut raw)?;
    add(&rows.goals, &mut raw)?;
    add(&rows.links, &mut raw)?;
    Ok(raw)
}

/// The catalog of a first start.
fn first_rows(clock: &dyn Clock) -> Result<(CatalogRows, Secret), getrandom::Error> {
    let account_id = AccountId(1);
    let account = Account {
        id: account_id,
        name: "default".into(),
        plan: Plan::Enterprise,
        rate_limit_per_minute: None,
    };
    let (key, sha256) = secrets::new_key(FIRST_KEY)?;
    let api_key = ApiKey {
        id: FIRST_KEY,
        account_id,
        name: "first".into(),
        sha256,
        created_at: clock.now(),
        revoked: false,
    };
    let rows = CatalogRows {
        version: 1,
        accounts: vec![Row { version: 1, deleted: false, entry: account }],
        api_keys: vec![Row { version: 1, deleted: false, entry: api_key }],
        goals: Vec::new(),
        links: Vec::new(),
    };
    Ok((rows, key))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::core::UnixMillis;

    /// A clock that stands still.
    pub(crate) struct Still(pub(crate) i64);

    impl Clock for Still {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0)
        }
    }

    #[test]
    fn the_first_start_makes_an_account_and_a_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = Catalog::open(folder.path(), &Still(7), None).expect("opened");
        let key = opened.first_key.expect("a key");
        let path = folder.path().join(KEY_FILE_NAME);
        assert_eq!(std::fs::read_to_string(&path).expect("written"), key.expose());
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let account = opened.catalog.snapshot().authenticate(key.expose()).expect("let in");
        assert_eq!(opened.catalog.snapshot().account(account).expect("there").plan, Plan::Enterprise);
        drop(opened.catalog);

        let again = Catalog::open(folder.path(), &Still(8), None).expect("opened again");
        assert!(again.first_key.is_none());
        assert_eq!(again.catalog.snapshot().authenticate(key.expose()), Some(account));
    }

    #[test]
    fn a_lost_file_is_restored_from_the_copy() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = Catalog::open(folder.path(), &Still(7), None).expect("opened");
        let key = opened.first_key.expect("a key");
        let copy = opened.catalog.snapshot().rows_since(0, 100);
        drop(opened.catalog);
        std::fs::remove_file(folder.path().join(FILE_NAME)).expect("removed");
        assert!(!Catalog::exists(folder.path()));
        let restored = Catalog::open(folder.path(), &Still(9), Some(copy)).expect("restored");
        assert!(restored.first_key.is_none());
        assert!(restored.catalog.snapshot().authenticate(key.expose()).is_some());
    }

    #[test]
    fn without_a_copy_a_lost_catalog_stops_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Catalog::open(folder.path(), &Still(7), None).expect("opened"));
        std::fs::remove_file(folder.path().join(FILE_NAME)).expect("removed");
        assert!(matches!(Catalog::open(folder.path(), &Still(9), None), Err(OpenError::Lost { .. })));
    }

    #[test]
    fn a_file_that_is_not_a_catalog_stops_the_start_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(legacy::FILE_NAME);
        std::fs::write(&path, b"{\"format\":1,\"ver").expect("written");
        assert!(Catalog::exists(folder.path()));
        assert!(matches!(Catalog::open(folder.path(), &Still(7), None), Err(OpenError::File { .. })));
        assert_eq!(std::fs::read(&path).expect("there"), b"{\"format\":1,\"ver");
    }

    /// A folder that an older version left, with fields that only a newer one knows.
    #[test]
    fn a_catalog_in_one_file_is_taken_over_with_all_its_fields() {
        const OLD: &str = r#"{"format":1,"version":9,
            "accounts":[{"version":1,"deleted":false,"id":1,"name":"default","plan":"enterprise","rate_limit_per_minute":null,"region":"eu"}],
            "api_keys":[{"version":1,"deleted":false,"id":1,"account_id":1,"name":"first","sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","created_at_ms":5,"revoked":false}],
            "goals":[],
            "links":[{"version":8,"deleted":false,"id":1,"account_id":1,"name":"n","slug":"kept","destination_url":"https://a.example/","variants":[],"append_click_id":false,"utm_source":"","utm_medium":"","utm_campaign":"","utm_term":"","utm_content":"","created_at_ms":1},
                     {"version":9,"deleted":true,"id":7,"account_id":1,"name":"n","slug":"gone","destination_url":"https://a.example/","variants":[],"append_click_id":false,"utm_source":"","utm_medium":"","utm_campaign":"","utm_term":"","utm_content":"","created_at_ms":1}]}"#;
        let folder = tempfile::tempdir().expect("a folder");
        let legacy = folder.path().join(legacy::FILE_NAME);
        std::fs::write(&legacy, OLD).expect("written");
        // A kill before the rename left a half of the new file.
        std::fs::write(folder.path().join("catalog.redb.new"), b"half a fi").expect("written");
        let opened = Catalog::open(folder.path(), &Still(7), None).expect("taken over");
        assert!(opened.first_key.is_none());
        let catalog = opened.catalog;
        assert_eq!(catalog.snapshot().version(), 9);
        assert!(catalog.snapshot().link_by_slug("kept").is_some() && catalog.snapshot().has_slug("gone"));
        let backup = std::fs::read_to_string(folder.path().join(legacy::BACKUP_NAME)).expect("kept");
        assert_eq!(backup, OLD);
        let patch = AccountPatch { name: Some("renamed".into()), ..AccountPatch::default() };
        catalog.change_account(AccountId(1), patch).expect("changed");
        catalog.purge(9).expect("purged");
        drop(catalog);

        let catalog = Catalog::open(folder.path(), &Still(8), None).expect("opened again").catalog;
        assert_eq!(catalog.snapshot().account(AccountId(1)).expect("there").name, "renamed");
        assert!(catalog.snapshot().has_slug("gone"), "although the link is purged");
        let links = catalog.snapshot().rows_since(0, 100).links;
        assert_eq!(links.iter().map(|row| row.entry.id.0).collect::<Vec<_>>(), [1]);
        drop(catalog);
        let file = std::fs::read(folder.path().join(FILE_NAME)).expect("there");
        let text = String::from_utf8_lossy(&file);
        assert!(
            text.contains(r#""region":"eu""#) && text.contains("renamed"),
            "a newer version's field stays"
        );
        assert!(!Catalog::exists(tempfile::tempdir().expect("another").path()));
    }
}
