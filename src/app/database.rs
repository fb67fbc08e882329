//! Which ClickHouse it is: the embedded engine or a server.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    clickhouse::{Database, Endpoint, EndpointError, Timeouts},
    config::Config,
    embedded::{Embedded, EmbeddedConfig, StartError},
    tasks,
};

/// Where the numbers go.
pub(crate) struct Warehouse {
    endpoint: Endpoint,
    embedded: Option<Embedded>,
    /// Whether the engine may remove what a start before left of its database.
    unused: Arc<AtomicBool>,
}

/// There is no database to work with.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// The address is not one.
    #[error("clickhouse-url: {0}")]
    Endpoint(#[from] EndpointError),
    /// The password's file can't be read.
    #[error("clickhouse-password-file {path}: {source}", path = path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The embedded engine's folder can't be used.
    #[error(transparent)]
    Embedded(#[from] StartError),
}

/// The password in a file, without the line's end behind it.
fn password(path: &Path) -> Result<String, WarehouseError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| WarehouseError::Password { path: path.to_owned(), source })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

impl Warehouse {
    /// The server of `clickhouse-url`, or an engine that is being started. `unused`: nothing was ever inserted.
    pub(crate) fn start(config: &Config, unused: bool) -> Result<Self, WarehouseError> {
        let unused = Arc::new(AtomicBool::new(unused));
        if let Some(url) = &config.clickhouse_url {
            let mut endpoint = Endpoint::parse(url.expose())?;
            if let Some(path) = &config.clickhouse_password_file {
                endpoint.password = password(path)?;
            }
            return Ok(Self { endpoint, embedded: None, unused });
        }
        let mut settings = EmbeddedConfig::new(&config.data_dir);
        settings.libchdb.clone_from(&config.libchdb);
        if let Some(bytes) = config.clickhouse_memory_bytes_max {
            settings.memory_bytes_max = bytes;
        }
        settings.database_unused = unused.clone();
        let embedded = Embedded::start(settings)?;
        let writer = embedded.writer();
        let endpoint = Endpoint {
            url: writer.url,
            user: writer.user,
            password: writer.password,
            database: writer.database,
        };
        Ok(Self { endpoint, embedded: Some(embedded), unused })
    }

    /// A database of its own for one runtime.
    pub(crate) fn database(&self) -> Database {
        Database::new(self.endpoint.clone(), Timeouts::default())
    }

    /// Keeps count of the engine's restarts for as long as it runs.
    pub(crate) fn watch_restarts(&self) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        if let Some(embedded) = &self.embedded {
            let (mut state, counted) = (embedded.state(), count.clone());
            let count_up = async move {
                while state.changed().await.is_ok() {
                    if let crate::embedded::State::Up { generation } = *state.borrow_and_update() {
                        counted.store(generation.saturating_sub(1), Ordering::Relaxed);
                    }
                }
            };
            drop(tasks::spawn_finite("engine-restarts", count_up));
        }
        count
    }

    /// Whether it is the embedded engine.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// How often the engine had to be started again.
    pub(crate) fn failed_starts(&self) -> u64 {
        self.embedded.as_ref().map_or(0, Embedded::restarts)
    }

    /// Says that rows may be inserted from now on.
    pub(crate) fn unused_flag(&self) -> Arc<AtomicBool> {
        self.unused.clone()
    }

    /// Waits until the engine answers; a server is taken to.
    pub(crate) async fn ready(&self, within: Duration) -> Result<(), crate::embedded::NotReady> {
        match &self.embedded {
            Some(embedded) => embedded.ready(within).await,
            None => Ok(()),
        }
    }

    /// Ends the engine in order.
    pub(crate) async fn stop(self) {
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}
