//! Accounts, API keys, goals and links.
//!
//! The truth is `catalog.json` in the data folder; a copy goes to ClickHouse ([`CatalogCopy`]). A change is durable
//! before anybody can see it: the file is replaced first, the snapshot swapped after. Readers load the snapshot
//! without a lock and are never held up by a change.

mod changes;
mod copy;
mod file;
mod secrets;
mod snapshot;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
pub use changes::{AccountDraft, AccountPatch, EntryKind, GoalDraft, GoalPatch, LinkDraft, LinkPatch};
pub use copy::{CatalogCopy, CopyError, keep_copied};
pub use file::FileError;
use parking_lot::Mutex;
pub use snapshot::{Snapshot, Target};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    core::{Account, AccountId, ApiKey, CatalogRows, Plan, PlanRefusal, Row},
    durable_file,
    secret::Secret,
};

/// The catalog's file in the data folder.
pub const FILE_NAME: &str = "catalog.json";
/// The file that holds the first key, and nothing else.
pub const KEY_FILE_NAME: &str = "api-key";
/// The number of the first key of all, which manages the accounts.
pub const FIRST_KEY: u32 = 1;

/// The catalog of one data folder.
pub struct Catalog {
    path: PathBuf,
    snapshot: ArcSwap<Snapshot>,
    /// Held while a change is made durable: changes come one after another.
    change: Mutex<()>,
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
    /// There are as many entries as there may be.
    #[error("there are {most} {kind}s, which is the most there may be", most = .0.most(), kind = .0.as_str())]
    TooMany(EntryKind),
    /// A link has, or had, this slug.
    #[error("the slug is taken")]
    SlugTaken,
    /// Another account has this name.
    #[error("the name is taken")]
    NameTaken,
    /// The first key of all can't be revoked.
    #[error("the first key can't be revoked")]
    FirstKey,
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
        data_dir.join(FILE_NAME).exists()
    }

    /// Opens the folder's catalog. Where there is none it starts from `copy`, or else with the account `default` and
    /// one key, which is written to the folder's `api-key`.
    pub fn open(data_dir: &Path, clock: &dyn Clock, copy: Option<CatalogRows>) -> Result<Opened, OpenError> {
        let path = data_dir.join(FILE_NAME);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, error }
        };
        match std::fs::read(&path) {
            Ok(bytes) => {
                let rows =
                    file::read(&bytes).map_err(|error| OpenError::File { path: path.clone(), error })?;
                Ok(Opened { catalog: Self::new(path, rows), first_key: None })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (rows, first_key) = match copy.filter(|rows| !rows.accounts.is_empty()) {
                    Some(rows) => (rows, None),
                    None => {
                        first_rows(clock).map(|(rows, key)| (rows, Some(key))).map_err(OpenError::Random)?
                    }
                };
                // The key first: without the catalog it opens nothing, and the next start makes another.
                if let Some(key) = &first_key {
                    let key_path = data_dir.join(KEY_FILE_NAME);
                    durable_file::replace(&key_path, key.expose().as_bytes()).map_err(io(&key_path))?;
                }
                durable_file::replace(&path, &file::write(&rows)).map_err(io(&path))?;
                Ok(Opened { catalog: Self::new(path, rows), first_key })
            }
            Err(error) => Err(OpenError::Io { path, error }),
        }
    }

    fn new(path: PathBuf, rows: CatalogRows) -> Self {
        let (version, _) = watch::channel(rows.version);
        let snapshot = ArcSwap::from_pointee(Snapshot::new(rows));
        Self { path, snapshot, change: Mutex::new(()), version }
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

        let again = Catalog::open(folder.path(), &Still(8), None).expect("opened again");
        assert!(again.first_key.is_none());
        assert_eq!(again.catalog.snapshot().authenticate(key.expose()), Some(account));
    }

    #[test]
    fn a_lost_file_is_restored_from_the_copy() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = Catalog::open(folder.path(), &Still(7), None).expect("opened");
        let key = opened.first_key.expect("a key");
        let copy = opened.catalog.snapshot().rows_since(0);
        std::fs::remove_file(folder.path().join(FILE_NAME)).expect("removed");
        assert!(!Catalog::exists(folder.path()));
        let restored = Catalog::open(folder.path(), &Still(9), Some(copy)).expect("restored");
        assert!(restored.first_key.is_none());
        assert!(restored.catalog.snapshot().authenticate(key.expose()).is_some());
    }

    #[test]
    fn a_file_that_is_not_a_catalog_stops_the_start_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, b"{\"format\":1,\"ver").expect("written");
        assert!(matches!(Catalog::open(folder.path(), &Still(7), None), Err(OpenError::File { .. })));
        assert_eq!(std::fs::read(&path).expect("there"), b"{\"format\":1,\"ver");
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_catalog() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = Catalog::open(folder.path(), &Still(7), None).expect("opened").first_key.expect("a key");
        std::fs::write(folder.path().join("catalog.json.new"), b"half a fi").expect("written");
        let again = Catalog::open(folder.path(), &Still(8), None).expect("opened again");
        assert!(again.catalog.snapshot().authenticate(key.expose()).is_some());
    }
}
