//! The catalog on disk: one file of an embedded store with transactions, so that a change writes what it changes.
//!
//! ```text
//! accounts, api_keys, goals, links    number -> the row as JSON
//! numbers                             format, version, and the greatest number given out of each kind
//! retired_slugs                       slug -> whose it was, and in which version it was retired
//! ```
//!
//! A commit is durable when it returns. After one that failed the file is closed, opened again by the next change, and
//! what it holds counts: a commit may have arrived although it said otherwise.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
    backends::FileBackend,
};

use super::{
    changes::EntryKind,
    entries::Entry,
    rows::{self, FileError, Stored},
    snapshot::{Snapshot, Touched},
};
use crate::{
    core::{Account, AccountId, ApiKey, CatalogRows, Goal, Link, Row},
    durable_file,
};

type RowTable = TableDefinition<'static, u32, &'static [u8]>;

const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const RETIRED_SLUGS: TableDefinition<&str, (u32, u64)> = TableDefinition::new("retired_slugs");
/// The version of this layout. Tables and fields of rows may be added without another.
const FORMAT: u64 = 2;
/// Memory for pages.
const CACHE_BYTES: usize = 8 << 20;

/// The open file.
pub(super) struct Store {
    path: PathBuf,
    /// None: a commit has failed, and the next change opens it again.
    database: Option<Database>,
}

/// A row's bytes, by what it is.
pub(super) type RawRow = (EntryKind, u32, Vec<u8>);

/// Why the file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system, or a file that the store does not understand.
    #[error(
        "can't be used: {0}; restore it from a backup, or remove it to have it restored from ClickHouse's copy"
    )]
    Store(#[from] redb::Error),
    /// Its content.
    #[error(transparent)]
    Content(#[from] FileError),
}

macro_rules! from_redb {
    ($($error:ident)*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Store(error.into())
            }
        })*
    };
}
from_redb! { DatabaseError TransactionError TableError StorageError CommitError }

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Store(redb::Error::Io(error))
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Content(error.into())
    }
}

impl Store {
    /// Opens the file that is there, and reads all of it.
    pub(super) fn open(path: &Path) -> Result<(Self, Snapshot), StoreError> {
        let database = open_database(path, false)?;
        let snapshot = load(&database)?;
        Ok((Self { path: path.to_owned(), database: Some(database) }, snapshot))
    }

    /// Makes the file with these rows, whole or not at all, for the owner alone.
    pub(super) fn create(
        path: &Path,
        version: u64,
        content: &[RawRow],
    ) -> Result<(Self, Snapshot), StoreError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(durable_file::UNFINISHED);
        let beside = PathBuf::from(beside);
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        {
            let database = open_database(&beside, true)?;
            let change = database.begin_write()?;
            {
                // The slugs of deleted links stay taken when these are purged.
                let mut slugs = change.open_table(RETIRED_SLUGS)?;
                for (_, _, bytes) in content.iter().filter(|(kind, _, _)| *kind == EntryKind::Link) {
                    let link = rows::read::<Link>(bytes)?;
                    if link.deleted {
                        let slug = link.entry.slug.to_ascii_lowercase();
                        slugs.insert(slug.as_str(), (link.entry.account_id.0, link.version))?;
                    }
                }
            }
            for kind in EntryKind::ALL {
                let mut table = change.open_table(table(kind))?;
                for (_, id, bytes) in content.iter().filter(|(of, _, _)| *of == kind) {
                    table.insert(id, bytes.as_slice())?;
                }
            }
            {
                let mut numbers = change.open_table(NUMBERS)?;
                numbers.insert("format", FORMAT)?;
                numbers.insert("version", version)?;
            }
            change.commit()?;
        }
        std::fs::rename(&beside, path)?;
        durable_file::sync_parent(path)?;
        Self::open(path)
    }

    /// Opens the file again after a failure; what it holds then, if a change arrived that said otherwise.
    pub(super) fn reopen(&mut self, known: u64) -> io::Result<Option<Snapshot>> {
        if self.database.is_some() {
            return Ok(None);
        }
        let (store, snapshot) = Self::open(&self.path).map_err(io::Error::other)?;
        *self = store;
        Ok((snapshot.version != known).then_some(snapshot))
    }

    /// Makes durable what the snapshot's journal names, and empties it. An error: nothing of it counts.
    pub(super) fn write(&mut self, next: &mut Snapshot) -> io::Result<()> {
        let Some(database) = self.database.take() else {
            return Err(io::Error::other("the catalog's file is not open"));
        };
        // Where it fails the database is dropped, and so closed.
        commit(&database, next).map_err(io::Error::other)?;
        next.journal.clear();
        self.database = Some(database);
        Ok(())
    }
}

fn table(kind: EntryKind) -> RowTable {
    TableDefinition::new(match kind {
        EntryKind::Account => "accounts",
        EntryKind::Key => "api_keys",
        EntryKind::Goal => "goals",
        EntryKind::Link => "links",
    })
}

/// The name of the greatest number of a kind that was given out.
fn last_id(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Account => "last_account",
        EntryKind::Key => "last_api_key",
        EntryKind::Goal => "last_goal",
        EntryKind::Link => "last_link",
    }
}

fn open_database(path: &Path, create: bool) -> Result<Database, StoreError> {
    let file = OpenOptions::new().read(true).write(true).create_new(create).mode(0o600).open(path)?;
    if !create && file.metadata()?.len() == 0 {
        // The store would take it for a new one.
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty").into());
    }
    let builder = &mut Database::builder();
    Ok(builder.set_cache_size(CACHE_BYTES).create_with_backend(FileBackend::new(file)?)?)
}

fn load(database: &Database) -> Result<Snapshot, StoreError> {
    let read = database.begin_read()?;
    let numbers = read.open_table(NUMBERS)?;
    let number = |name: &str| Ok::<_, StoreError>(numbers.get(name)?.map_or(0, |number| number.value()));
    let format = number("format")?;
    if format != FORMAT {
        return Err(FileError::Format(format).into());
    }
    let mut last_ids = [0; EntryKind::ALL.len()];
    for (last, kind) in last_ids.iter_mut().zip(EntryKind::ALL) {
        *last = u32::try_from(number(last_id(kind))?).unwrap_or(u32::MAX);
    }
    let mut retired = Vec::new();
    for item in read.open_table(RETIRED_SLUGS)?.iter()? {
        let (slug, whose) = item?;
        let (account, version) = whose.value();
        retired.push((slug.value().to_owned(), AccountId(account), version));
    }
    let rows = CatalogRows {
        version: number("version")?,
        accounts: load_rows::<Account>(&read)?,
        api_keys: load_rows::<ApiKey>(&read)?,
        goals: load_rows::<Goal>(&read)?,
        links: load_rows::<Link>(&read)?,
    };
    Ok(Snapshot::new(rows, last_ids, retired))
}

fn load_rows<T: Stored + Entry>(read: &redb::ReadTransaction) -> Result<Vec<Row<T>>, StoreError> {
    let mut rows = Vec::new();
    for item in read.open_table(table(T::KIND))?.iter()? {
        rows.push(rows::read(item?.1.value())?);
    }
    Ok(rows)
}

fn commit(database: &Database, next: &Snapshot) -> Result<(), StoreError> {
    let change = database.begin_write()?;
    for touched in &next.journal {
        match touched {
            Touched::Row(EntryKind::Account, id) => put::<Account>(&change, next, *id)?,
            Touched::Row(EntryKind::Key, id) => put::<ApiKey>(&change, next, *id)?,
            Touched::Row(EntryKind::Goal, id) => put::<Goal>(&change, next, *id)?,
            Touched::Row(EntryKind::Link, id) => put::<Link>(&change, next, *id)?,
            Touched::Slug(slug) => {
                let mut slugs = change.open_table(RETIRED_SLUGS)?;
                match next.retired_slugs.get(slug) {
                    Some((account, version)) => _ = slugs.insert(slug.as_str(), (account.0, *version))?,
                    None => _ = slugs.remove(slug.as_str())?,
                }
            }
        }
    }
    {
        let mut numbers = change.open_table(NUMBERS)?;
        numbers.insert("version", next.version)?;
        for (last, kind) in next.last_ids.iter().zip(EntryKind::ALL) {
            numbers.insert(last_id(kind), u64::from(*last))?;
        }
    }
    change.commit()?;
    Ok(())
}

/// Writes a row as the snapshot has it; one that it does not have is removed.
fn put<T: Stored + Entry>(change: &WriteTransaction, next: &Snapshot, id: u32) -> Result<(), StoreError> {
    let mut rows = change.open_table(table(T::KIND))?;
    match T::rows(next).get(&id) {
        Some(row) => {
            let old = rows.get(id)?.map(|old| old.value().to_vec());
            let bytes = rows::write(row, old.as_deref())?;
            rows.insert(id, bytes.as_slice())?;
        }
        None => _ = rows.remove(id)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    };

    use redb::StorageBackend;

    use super::*;
    use crate::{
        catalog::{Catalog, ChangeError, FILE_NAME, GoalPatch, LinkDraft, tests::Still},
        core::{Campaign, Destination, UnixMillis},
    };

    /// Counts what is written, and fails when it is told to.
    #[derive(Debug)]
    struct Watched {
        file: FileBackend,
        written: Arc<AtomicU64>,
        full: Arc<AtomicBool>,
    }

    impl StorageBackend for Watched {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            if self.full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.file.write(offset, data)
        }
    }

    fn watch(catalog: &Catalog) -> (Arc<AtomicU64>, Arc<AtomicBool>) {
        let (written, full) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let mut store = catalog.store.lock();
        store.database = None;
        let file = OpenOptions::new().read(true).write(true).open(&store.path).expect("opened");
        let file = FileBackend::new(file).expect("locked");
        let watched = Watched { file, written: written.clone(), full: full.clone() };
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(watched);
        store.database = Some(database.expect("opened"));
        (written, full)
    }

    const ME: AccountId = AccountId(1);

    fn link(n: u32) -> LinkDraft {
        LinkDraft {
            name: format!("Link {n}"),
            slug: None,
            destination: Destination::parse("https://shop.example/?cid={click_id}").expect("a destination"),
            variants: Vec::new(),
            append_click_id: true,
            campaign: Campaign::default(),
        }
    }

    #[test]
    fn a_change_writes_as_much_however_many_entries_there_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path(), &Still(1), None).expect("opened").catalog;
        let first = catalog.create_link(ME, link(0), UnixMillis(2)).expect("made");
        let (written, _) = watch(&catalog);
        let cost = |catalog: &Catalog| {
            let before = written.load(Ordering::Relaxed);
            let patch = crate::catalog::LinkPatch { name: Some("another".into()), ..Default::default() };
            catalog.change_link(ME, first.id, patch).expect("changed");
            written.load(Ordering::Relaxed) - before
        };
        let alone = (0..5).map(|_| cost(&catalog)).max().expect("some");
        {
            // As many at once as would take long one by one.
            let mut store = catalog.store.lock();
            let mut next = Snapshot::clone(&catalog.snapshot.load());
            next.version += 1;
            for n in 0..5_000 {
                let id = crate::core::LinkId(next.next_id(EntryKind::Link));
                next.put_link(crate::core::Link { id, slug: format!("s{n}"), ..first.clone() }, false);
            }
            store.write(&mut next).expect("written");
            catalog.snapshot.store(Arc::new(next));
        }
        let among_many = (0..5).map(|_| cost(&catalog)).max().expect("some");
        // A tree of more levels: some pages more, and nothing near the 2 MB that there are.
        assert!(among_many < 2 * alone + 64 * 1024, "{alone} bytes alone, {among_many} among 5,000");
    }

    #[test]
    fn a_change_that_can_not_be_written_is_not_visible_and_the_next_one_can() {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path(), &Still(1), None).expect("opened").catalog;
        let kept = catalog.create_link(ME, link(1), UnixMillis(2)).expect("made");
        let (_, full) = watch(&catalog);
        full.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            // The second try opens the file itself, which is not full.
            if catalog.delete_link(ME, kept.id).is_ok() {
                break;
            }
            assert!(catalog.snapshot().link(ME, kept.id).is_some(), "nothing has changed");
        }
        assert!(catalog.snapshot().link(ME, kept.id).is_none());
        drop(catalog);
        let catalog = Catalog::open(folder.path(), &Still(1), None).expect("opened again").catalog;
        assert!(catalog.snapshot().link(ME, kept.id).is_none());
        let unknown = catalog.change_goal(ME, crate::core::GoalId(9), GoalPatch::default());
        assert!(matches!(unknown, Err(ChangeError::Unknown(EntryKind::Goal))));
    }

    #[test]
    fn a_damaged_file_is_named_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Catalog::open(folder.path(), &Still(1), None).expect("opened"));
        let path = folder.path().join(FILE_NAME);
        for damaged in [&b""[..], b"not a store", &[0; 8192]] {
            std::fs::write(&path, damaged).expect("written");
            let error = Catalog::open(folder.path(), &Still(1), None).err().expect("refused").to_string();
            assert!(error.contains(FILE_NAME), "{error}");
            assert_eq!(std::fs::read(&path).expect("there"), damaged, "{error}");
        }
    }
}
