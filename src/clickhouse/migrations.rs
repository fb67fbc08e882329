//! The schema's history: files that run once each, in order, forward only.
//!
//! A migration that ran is remembered with its checksum, so that a database and a binary that do not belong together
//! are noticed before a row is written. Statements are idempotent: what stopped half-way runs again whole.

use sha2::{Digest as _, Sha256};

use super::{Database, Failure};

/// One file of `schema/`.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number: 1 and up, without gaps.
    pub version: u32,
    /// The file's name.
    pub name: &'static str,
    /// The file's text.
    pub sql: &'static str,
}

/// Every migration that this binary knows.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "0001_conversions.sql",
        sql: include_str!("../../schema/0001_conversions.sql"),
    },
    Migration {
        version: 2,
        name: "0002_rejections.sql",
        sql: include_str!("../../schema/0002_rejections.sql"),
    },
    Migration { version: 3, name: "0003_catalog.sql", sql: include_str!("../../schema/0003_catalog.sql") },
    Migration { version: 4, name: "0004_clicks.sql", sql: include_str!("../../schema/0004_clicks.sql") },
    Migration {
        version: 5,
        name: "0005_attribution.sql",
        sql: include_str!("../../schema/0005_attribution.sql"),
    },
    Migration {
        version: 6,
        name: "0006_deliveries.sql",
        sql: include_str!("../../schema/0006_deliveries.sql"),
    },
    Migration {
        version: 7,
        name: "0007_projections.sql",
        sql: include_str!("../../schema/0007_projections.sql"),
    },
    Migration {
        version: 8,
        name: "0008_retention.sql",
        sql: include_str!("../../schema/0008_retention.sql"),
    },
];

/// Why the schema can't be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database is ahead of this binary.
    #[error(
        "the database is at schema {found}, this version of tally knows {known}: use the newer tally that wrote it, or \
         restore a backup of the database from before the upgrade"
    )]
    Newer {
        /// The database's version.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// A migration ran with another text than the one in this binary.
    #[error(
        "table schema_migrations says that migration {name} ran with another text than this version of tally has: the \
         database is not tally's, or was changed by hand; use the tally that wrote it, or restore the database from a \
         backup"
    )]
    Changed {
        /// The migration's file.
        name: &'static str,
    },
    /// A migration is not recorded although a later one is.
    #[error(
        "table schema_migrations has no row of migration {name}, but one of a later migration: rows were deleted; restore \
         the table or the database from a backup, or insert the row again (version {version}, name '{name}', checksum \
         '{checksum}') if the migration's tables are there"
    )]
    Unrecorded {
        /// Its number.
        version: u32,
        /// The migration's file.
        name: &'static str,
        /// Of its text.
        checksum: String,
    },
    /// A statement failed. What ran before it stays; the next start goes on from here.
    #[error("migration {name}: {failure}")]
    Statement {
        /// The migration's file.
        name: &'static str,
        /// What the server said.
        failure: Failure,
    },
    /// The history could not be read or written.
    #[error(transparent)]
    Failed(#[from] Failure),
}

#[derive(clickhouse::Row, serde::Deserialize)]
pub(super) struct Applied {
    pub(super) version: u32,
    checksum: String,
}

const HISTORY: &str = "CREATE TABLE IF NOT EXISTS schema_migrations
(
    version UInt32 COMMENT 'The migration''s number',
    name String COMMENT 'Its file',
    checksum String COMMENT 'SHA-256 of the file',
    applied_at DateTime('UTC') DEFAULT now() COMMENT 'When it ran (UTC)'
)
ENGINE = MergeTree ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Migrations of tally''s schema that ran'";

impl Database {
    /// Creates the database and runs what has not run yet. Returns the names of the migrations that ran.
    pub async fn migrate(&self) -> Result<Vec<&'static str>, MigrationError> {
        self.migrate_by(MIGRATIONS).await
    }

    /// The migrations that `migrate` would run.
    pub async fn migrations_pending(&self) -> Result<Vec<&'static str>, MigrationError> {
        let applied = self.applied().await?;
        Ok(still_to_run(MIGRATIONS, &applied)?.iter().map(|migration| migration.name).collect())
    }

    async fn migrate_by(&self, all: &[Migration]) -> Result<Vec<&'static str>, MigrationError> {
        let server = self.client().clone().with_database("default");
        let there = "SELECT count() FROM system.databases WHERE name = {database: String}";
        let there = server.query_raw(there).param("database", &self.endpoint().database);
        // Not every user may create one, and an operator may have done so already.
        if self.read(there.fetch_one::<u64>()).await? == 0 {
            // The name is made of letters, digits and underscores: `Endpoint::parse` and nothing else makes one.
            let create = format!("CREATE DATABASE IF NOT EXISTS `{}`", self.endpoint().database);
            self.long(server.query_raw(&create).execute()).await?;
        }
        self.long(self.long_query(HISTORY).execute()).await?;
        let applied = self.applied().await?;
        let mut ran = Vec::new();
        for migration in still_to_run(all, &applied)? {
            for statement in statements(migration.sql) {
                self.long(self.long_query(statement).execute())
                    .await
                    .map_err(|failure| MigrationError::Statement { name: migration.name, failure })?;
            }
            let insert = "INSERT INTO schema_migrations (version, name, checksum) \
                          SELECT {version: UInt32}, {name: String}, {checksum: String}";
            let insert = self
                .long_query(insert)
                .with_setting("async_insert", "0")
                .param("version", migration.version)
                .param("name", migration.name)
                .param("checksum", checksum(migration.sql));
            self.long(insert.execute()).await?;
            ran.push(migration.name);
        }
        Ok(ran)
    }

    pub(super) async fn applied(&self) -> Result<Vec<Applied>, Failure> {
        let query = "SELECT version, any(checksum) AS checksum FROM schema_migrations GROUP BY version ORDER BY version";
        self.read(self.query(query).fetch_all()).await
    }
}

fn still_to_run<'a>(all: &'a [Migration], applied: &[Applied]) -> Result<&'a [Migration], MigrationError> {
    let known = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let found = applied.iter().map(|row| row.version).max().unwrap_or(0);
    if found > known {
        return Err(MigrationError::Newer { found, known });
    }
    let mut done = 0;
    for (migration, row) in all.iter().zip(applied) {
        let (version, name, checksum) = (migration.version, migration.name, checksum(migration.sql));
        if row.version != version {
            return Err(MigrationError::Unrecorded { version, name, checksum });
        }
        if row.checksum != checksum {
            return Err(MigrationError::Changed { name });
        }
        done += 1;
    }
    Ok(&all[done..])
}

fn checksum(sql: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(sql.as_bytes()).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The statements of a file, without the semicolons between them. Knows quoted text and `--` comments, which is all
/// that our files hold.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    let (mut cuts, mut start, mut quoted, mut comment) = (Vec::new(), 0, false, false);
    let bytes = sql.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' => comment = false,
            b'-' if !quoted && bytes.get(at + 1) == Some(&b'-') => comment = true,
            b'\'' if !comment => quoted = !quoted,
            b';' if !quoted && !comment => {
                cuts.push(&sql[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    cuts.push(&sql[start..]);
    cuts.into_iter().map(str::trim).filter(|statement| {
        statement.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_from_one() {
        for (migration, version) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.version, version);
            assert!(migration.name.starts_with(&format!("{version:04}_")));
        }
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_text() {
        let sql = "-- a; b's\nSELECT 'it''s; one' -- c;\n;\nSELECT 2;\n-- end;\n";
        let found: Vec<_> = statements(sql).collect();
        assert_eq!(found, ["-- a; b's\nSELECT 'it''s; one' -- c;", "SELECT 2"]);
        assert_eq!(statements(MIGRATIONS[0].sql).count(), 5);
    }

    #[test]
    fn only_forward() {
        let all = [
            Migration { version: 1, name: "0001", sql: "a" },
            Migration { version: 2, name: "0002", sql: "b" },
        ];
        let row = |version, sql| Applied { version, checksum: checksum(sql) };
        let names = |applied: &[Applied]| {
            still_to_run(&all, applied).map(|rest| rest.iter().map(|m| m.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).expect("fresh"), ["0001", "0002"]);
        assert_eq!(names(&[row(1, "a")]).expect("half"), ["0002"]);
        assert!(names(&[row(1, "a"), row(2, "b")]).expect("done").is_empty());
        assert!(matches!(names(&[row(1, "x")]), Err(MigrationError::Changed { name: "0001" })));
        assert!(matches!(names(&[row(2, "b")]), Err(MigrationError::Unrecorded { name: "0001", .. })));
        assert!(matches!(
            names(&[row(1, "a"), row(2, "b"), row(3, "c")]),
            Err(MigrationError::Newer { found: 3, known: 2 })
        ));
    }
}
