//! Whose database it is, and whether it holds what its data folder says.

use uuid::Uuid;

use super::{Database, Failure};
use crate::core::{BatchId, Kind, PerKind, rows::Table};

/// What is known of a database before anything in it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseIdentity {
    /// The newest migration that ran; 0: none, so that the database is empty.
    pub schema: u32,
    /// The installation that it belongs to, if one has claimed it.
    pub installation_id: Option<Uuid>,
    /// Whether several have.
    pub ambiguous: bool,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS installation
(
    installation_id UUID COMMENT 'The data folder that this database belongs to: the id in its installation.json',
    claimed_at DateTime('UTC') DEFAULT now() COMMENT 'When the row was written (UTC)'
)
ENGINE = MergeTree ORDER BY claimed_at
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'The data folder that writes this database; there is one'";

/// The raw tables whose rows are acknowledged hits.
const COUNTED: [(Kind, Table); Kind::ALL.len()] = [
    (Kind::Conversion, Table::Conversions),
    (Kind::Click, Table::Clicks),
    (Kind::Adjustment, Table::Adjustments),
];

impl Database {
    /// Whose database it is. Changes nothing.
    pub async fn identity(&self) -> Result<DatabaseIdentity, Failure> {
        let tables = "SELECT name FROM system.tables WHERE database = {database: String} \
                      AND name IN ('schema_migrations', 'installation')";
        let tables = self.client().clone().with_database("default").query_raw(tables);
        let tables: Vec<String> =
            self.read(tables.param("database", &self.endpoint().database).fetch_all()).await?;
        let has = |name: &str| tables.iter().any(|table| table == name);
        let schema = if has("schema_migrations") {
            self.applied().await?.iter().map(|applied| applied.version).max().unwrap_or(0)
        } else {
            0
        };
        let mut ids: Vec<Uuid> = Vec::new();
        if has("installation") {
            let rows = self.query("SELECT DISTINCT toString(installation_id) FROM installation LIMIT 2");
            for id in self.read(rows.fetch_all::<String>()).await? {
                ids.push(id.parse().map_err(|_| Failure::unreadable("an installation id"))?);
            }
        }
        Ok(DatabaseIdentity { schema, installation_id: ids.first().copied(), ambiguous: ids.len() > 1 })
    }

    /// Makes the database that installation's, and no other's. The schema is there.
    pub async fn claim(&self, installation_id: Uuid) -> Result<(), Failure> {
        self.long(self.long_query("DROP TABLE IF EXISTS installation SYNC").execute()).await?;
        self.long(self.long_query(TABLE).execute()).await?;
        let insert = "INSERT INTO installation (installation_id) SELECT toUUID({id: String})";
        let insert = self.long_query(insert).with_setting("async_insert", "0");
        self.long(insert.param("id", installation_id.to_string()).execute()).await
    }

    /// How many rows of each kind there are.
    pub async fn rows_per_kind(&self) -> Result<PerKind<u64>, Failure> {
        let mut rows = PerKind::default();
        for (kind, table) in COUNTED {
            let count = format!("SELECT count() FROM {}", table.name());
            rows[kind] = self.read(self.query(&count).fetch_one()).await?;
        }
        Ok(rows)
    }

    /// The newest batches with acknowledged hits that are newer than `after`, oldest first, at most a thousand.
    pub async fn batches_after(&self, after: BatchId) -> Result<Vec<BatchId>, Failure> {
        let each = COUNTED.map(|(_, table)| {
            format!("SELECT batch_id FROM {} WHERE batch_id > {{after: UInt64}}", table.name())
        });
        let sql = format!(
            "SELECT DISTINCT batch_id FROM ({}) ORDER BY batch_id DESC LIMIT 1000",
            each.join(" UNION ALL ")
        );
        let ids: Vec<u64> = self.long(self.long_query(&sql).param("after", after.0).fetch_all()).await?;
        Ok(ids.into_iter().rev().map(BatchId).collect())
    }
}
