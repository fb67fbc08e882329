//! The two users of the embedded engine, generated once and kept in `DIR/writer.url` and `DIR/reader.url`.
//!
//! Each file holds one URL and nothing else, mode 0600. They are the only record of port and passwords, so
//! that both survive restarts of the child and of the daemon.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rand::RngExt;

/// The user that tally itself writes with.
pub(crate) const WRITER: &str = "tally";
/// The user for dashboards.
pub(crate) const READER: &str = "reader";
/// The database that both URLs name.
pub(crate) const DATABASE: &str = "tally";

const WRITER_FILE: &str = "writer.url";
const READER_FILE: &str = "reader.url";

/// Port and passwords.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// 0: not chosen yet.
    pub(crate) port: u16,
    pub(crate) writer_password: String,
    pub(crate) reader_password: String,
}

/// Passwords stay out of logs, whoever formats this.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Credentials").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files back; what is missing or unreadable as a URL is generated anew.
    pub(crate) fn load(folder: &Path) -> io::Result<Self> {
        let read = |name: &str, user: &str| -> io::Result<Option<(u16, String)>> {
            match fs::read_to_string(folder.join(name)) {
                Ok(text) => Ok(parse(&text, user)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        let writer = read(WRITER_FILE, WRITER)?;
        let reader = read(READER_FILE, READER)?;
        Ok(Self {
            port: writer.as_ref().map_or(0, |(port, _)| *port),
            writer_password: writer.map_or_else(password, |(_, password)| password),
            reader_password: reader.map_or_else(password, |(_, password)| password),
        })
    }

    /// Writes both files, each by rename, so that a reader sees the old or the new one.
    pub(crate) fn store(&self, folder: &Path) -> io::Result<()> {
        replace(&folder.join(WRITER_FILE), &self.writer_url())?;
        replace(&folder.join(READER_FILE), &self.reader_url())
    }

    pub(crate) fn writer_url(&self) -> String {
        url(WRITER, &self.writer_password, self.port)
    }

    pub(crate) fn reader_url(&self) -> String {
        url(READER, &self.reader_password, self.port)
    }
}

fn url(user: &str, password: &str, port: u16) -> String {
    format!("http://{user}:{password}@127.0.0.1:{port}/?database={DATABASE}")
}

fn parse(text: &str, user: &str) -> Option<(u16, String)> {
    let rest = text.trim_end().strip_prefix("http://")?.strip_prefix(user)?.strip_prefix(':')?;
    let (password, rest) = rest.split_once("@127.0.0.1:")?;
    let port = rest.strip_suffix(&format!("/?database={DATABASE}"))?.parse().ok()?;
    let plain = password.len() >= 16 && password.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain && port != 0).then(|| (port, password.to_owned()))
}

/// 32 characters of 62: 190 bits, and nothing that a URL would have to escape.
fn password() -> String {
    rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect()
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("url.new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // A left-over file keeps its old mode through `open`.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut first = Credentials::load(folder.path()).expect("generated");
        assert_eq!(first.port, 0);
        assert_ne!(first.writer_password, first.reader_password);
        first.port = 4321;
        first.store(folder.path()).expect("stored");
        assert_eq!(Credentials::load(folder.path()).expect("loaded"), first);
        for name in [WRITER_FILE, READER_FILE] {
            let mode = fs::metadata(folder.path().join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(!format!("{first:?}").contains(&first.writer_password));
    }

    #[test]
    fn a_damaged_file_is_replaced_rather_than_trusted() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(WRITER_FILE), "http://tally:@127.0.0.1:1/?database=tally")
            .expect("written");
        let loaded = Credentials::load(folder.path()).expect("generated");
        assert_eq!((loaded.port, loaded.writer_password.len()), (0, 32));
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_survived(text in "(http://)?(tally)?:?[a-zA-Z0-9]{0,40}(@127.0.0.1:)?[0-9]{0,6}(/\\?database=tally)?\\PC{0,3}") {
            if let Some((port, password)) = parse(&text, WRITER) {
                // What is taken is what would be written.
                proptest::prop_assert_eq!(url(WRITER, &password, port), text.trim_end());
            }
        }
    }
}
