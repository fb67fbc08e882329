//! Forgetting a person: postbacks of their conversions that wait are dropped, and what endpoints answered to those that
//! left is blanked before it gets into the log of deliveries.
//!
//! Only one process can have the outbox open. Beside a running daemon it is asked by a file, and answers by another:
//!
//! ```text
//! DIR/forget/<id>.ids    conversions, one a line
//! DIR/forget/<id>.done   what was found of them
//! ```

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{FILE_NAME, Outbox, OutboxError, Postbacks};
use crate::{core::ConversionId, durable_file, tasks};

const FOLDER: &str = "forget";
const ASKED: &str = "ids";
const ANSWERED: &str = "done";
/// How long a daemon may take to answer: an attempt that is on its way ends first, and so does an insert.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// How often either side looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was found of a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Postbacks that waited and are dropped.
    pub withdrawn: u64,
    /// Answers that were on their way to the log and are blanked.
    pub blanked: u64,
}

/// It could not be done. It may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The files by which a daemon is asked.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon did not answer.
    #[error("the running daemon did not forget the postbacks that wait within a minute; nothing was erased")]
    Silent,
}

/// Forgets conversions in a data folder, whether a daemon runs on it or not.
pub async fn forget(data_dir: &Path, conversions: &[ConversionId]) -> Result<Forgotten, ForgetError> {
    let outbox = data_dir.join(FILE_NAME);
    if conversions.is_empty() || !outbox.exists() {
        return Ok(Forgotten::default());
    }
    match Outbox::open(&outbox) {
        Ok(outbox) => {
            let found = outbox.forget(&conversions.iter().copied().collect())?;
            Ok(Forgotten { withdrawn: found.withdrawn.values().sum(), blanked: found.blanked })
        }
        Err(error) if error.is_in_use() => ask(data_dir, conversions).await,
        Err(error) => Err(error.into()),
    }
}

async fn ask(data_dir: &Path, conversions: &[ConversionId]) -> Result<Forgotten, ForgetError> {
    let folder = data_dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let name = folder.join(Uuid::now_v7().to_string());
    let (asked, answered) = (name.with_extension(ASKED), name.with_extension(ANSWERED));
    let text = conversions.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    durable_file::replace(&asked, text.as_bytes()).map_err(at(&asked))?;
    let deadline = Instant::now() + ANSWER_WITHIN;
    while Instant::now() < deadline {
        match fs::read_to_string(&answered) {
            Ok(text) => {
                fs::remove_file(&answered).map_err(at(&answered))?;
                return answer(&text).ok_or_else(|| at(&answered)(malformed()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => sleep(LOOK_EVERY).await,
            Err(error) => return Err(at(&answered)(error)),
        }
    }
    // Taken back: nobody may act on it once it is said that nothing was done.
    let _ = fs::remove_file(&asked);
    Err(ForgetError::Silent)
}

impl Postbacks {
    /// Does what was asked for by files. To be called by whoever takes answers to the log, between two inserts: what it
    /// adds afterwards is blank.
    pub(super) async fn forget_as_asked(self: &Arc<Self>, stop: &CancellationToken) {
        for asked in requests(&self.forget_folder) {
            let postbacks = self.clone();
            let done = match tasks::blocking(move || postbacks.forget_file(&asked)).await {
                Ok(done) => done,
                Err(error) => {
                    tracing::error!(%error, "a person's postbacks could not be forgotten; trying again");
                    continue;
                }
            };
            // Those that are on their way end first; what becomes of them is forgotten too.
            while !self.forgotten.lock().is_empty() {
                if stop.is_cancelled() {
                    return;
                }
                sleep(LOOK_EVERY).await;
            }
            if let Err(error) = done.answer() {
                tracing::error!(%error, "a person's postbacks are forgotten, but it can't be said");
            }
        }
    }

    fn forget_file(&self, asked: &Path) -> Result<Done, ForgetError> {
        let text = fs::read_to_string(asked).map_err(at(asked))?;
        let ids = text.lines().map(|line| Uuid::try_parse(line).map(ConversionId));
        // All of them: a line that is passed over would be a person who is not forgotten.
        let ids = ids.collect::<Result<HashSet<_>, _>>().map_err(|_| at(asked)(malformed()))?;
        self.forgotten.lock().extend(ids.iter().map(|id| (*id, false)));
        let found = self.outbox.forget(&ids)?;
        for (goal, entries) in &found.withdrawn {
            self.count_off(*goal, *entries);
        }
        self.forgotten.lock().values_mut().for_each(|removed| *removed = true);
        let found = Forgotten { withdrawn: found.withdrawn.values().sum(), blanked: found.blanked };
        Ok(Done { asked: asked.to_owned(), found })
    }

    /// Drops the names of those that are on their way no longer.
    pub(super) fn end_forgetting(&self, taken: impl Iterator<Item = ConversionId>) {
        // The keeper holds it while it syncs: the next time will do.
        let Some(mut forgotten) = self.forgotten.try_lock() else { return };
        if !forgotten.is_empty() {
            let taken: HashSet<_> = taken.collect();
            forgotten.retain(|id, removed| !*removed || taken.contains(id));
        }
    }
}

/// A request that was met.
struct Done {
    asked: PathBuf,
    found: Forgotten,
}

impl Done {
    fn answer(&self) -> Result<(), ForgetError> {
        let answered = self.asked.with_extension(ANSWERED);
        let text = format!("{} {}\n", self.found.withdrawn, self.found.blanked);
        durable_file::replace(&answered, text.as_bytes()).map_err(at(&answered))?;
        fs::remove_file(&self.asked).map_err(at(&self.asked))
    }
}

/// The two numbers of [`Done::answer`].
fn answer(text: &str) -> Option<Forgotten> {
    let (withdrawn, blanked) = text.trim_end().split_once(' ')?;
    Some(Forgotten { withdrawn: withdrawn.parse().ok()?, blanked: blanked.parse().ok()? })
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not what tally writes there")
}

/// Where requests lie. Answers that nobody waits for any more go.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    let folder = data_dir.join(FOLDER);
    for answered in files(&folder, ANSWERED) {
        let _ = fs::remove_file(answered);
    }
    folder
}

fn requests(folder: &Path) -> Vec<PathBuf> {
    files(folder, ASKED)
}

/// None where there is no folder.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ForgetError + use<'_> {
    move |source| ForgetError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_one_is_not_zero() {
        assert_eq!(answer("3 1\n"), Some(Forgotten { withdrawn: 3, blanked: 1 }));
        for torn in ["", "3", "3 ", "3 x", "-1 0"] {
            assert_eq!(answer(torn), None, "{torn:?}");
        }
    }
}
