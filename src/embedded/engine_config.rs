//! The engine's configuration files: memory and cache caps, and the roles that sessions run as.
//!
//! libchdb authenticates nobody: every session is its user `default`. That user has two roles, and a reader's
//! session is reduced to the role `reader` by `SET ROLE` before anything of the client's runs (which may not
//! name roles itself: such statements are refused). ClickHouse then checks the role's grants as for any user.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// System tables that show other users' statements, which may hold secrets. The reader's statements that name them are
/// refused (`guard`); should one get through, it finds no rows.
const WRITER_ONLY_SYSTEM_TABLES: [&str; 15] = [
    "mutations",
    "part_log",
    "backups",
    "processes",
    "errors",
    "stack_trace",
    "query_log",
    "query_thread_log",
    "query_views_log",
    "query_cache",
    "text_log",
    "crash_log",
    "asynchronous_inserts",
    "asynchronous_insert_log",
    "named_collections",
];

/// Writes `config.xml` and `users.xml` into `folder` and returns the former's path.
///
/// `reader_grants` are statements without their `TO`: `GRANT SELECT ON tally.*`, `REVOKE SELECT ON tally.api_keys`.
pub(crate) fn write(folder: &Path, memory_bytes_max: u64, reader_grants: &[String]) -> io::Result<PathBuf> {
    let users_path = folder.join("users.xml");
    let config_path = folder.join("config.xml");
    fs::write(&users_path, users(reader_grants))?;
    fs::write(&config_path, config(&users_path, memory_bytes_max))?;
    Ok(config_path)
}

fn config(users_path: &Path, memory: u64) -> String {
    let users_path = escape(&users_path.display().to_string());
    let (small, large) = (memory / 64, memory / 16);
    format!(
        "<clickhouse>
  <users_config>{users_path}</users_config>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>{large}</mark_cache_size>
  <index_mark_cache_size>{small}</index_mark_cache_size>
  <primary_index_cache_size>{large}</primary_index_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <index_uncompressed_cache_size>{small}</index_uncompressed_cache_size>
  <query_condition_cache_size>{small}</query_condition_cache_size>
  <vector_similarity_index_cache_size>{small}</vector_similarity_index_cache_size>
  <text_index_tokens_cache_size>{small}</text_index_tokens_cache_size>
  <text_index_header_cache_size>{small}</text_index_header_cache_size>
  <text_index_postings_cache_size>{small}</text_index_postings_cache_size>
  <iceberg_metadata_files_cache_size>{small}</iceberg_metadata_files_cache_size>
  <parquet_metadata_cache_size>{small}</parquet_metadata_cache_size>
  <compiled_expression_cache_size>{small}</compiled_expression_cache_size>
  <mmap_cache_size>100</mmap_cache_size>
  <merge_tree>
    <old_parts_lifetime>480</old_parts_lifetime>
    <finished_mutations_to_keep>1</finished_mutations_to_keep>
  </merge_tree>
</clickhouse>
"
    )
}

fn users(reader_grants: &[String]) -> String {
    let grants: Vec<String> =
        reader_grants.iter().map(|grant| format!("<query>{}</query>", escape(grant))).collect();
    let grants = grants.concat();
    let filters = WRITER_ONLY_SYSTEM_TABLES
        .map(|table| format!("<{table}><filter>has(currentRoles(), 'writer')</filter></{table}>"))
        .concat();
    format!(
        "<clickhouse>
  <profiles><default></default></profiles>
  <quotas><default></default></quotas>
  <roles>
    <writer><grants><query>GRANT ALL ON *.*</query></grants></writer>
    <reader><grants>
      <query>GRANT SHOW DATABASES ON *.*</query>{grants}
    </grants></reader>
  </roles>
  <users>
    <default>
      <password></password>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT writer</query><query>GRANT reader</query></grants>
      <databases><system>{filters}</system></databases>
    </default>
  </users>
</clickhouse>
"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
