//! The catalog as rows, between the catalog on disk and its copy in ClickHouse.

use super::{Account, ApiKey, Goal, Link};

/// One entry of the catalog with the catalog version of its last change: of two copies, the greater version counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// The catalog's version at this entry's last change; never 0.
    pub version: u64,
    /// Deleted: kept, so that its number is never given out again and old conversions can be named.
    pub deleted: bool,
    /// The entry.
    pub entry: T,
}

/// Entries of the catalog: all of them, or those that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogRows {
    /// The catalog's version that these rows lead to.
    pub version: u64,
    /// Accounts.
    pub accounts: Vec<Row<Account>>,
    /// API keys.
    pub api_keys: Vec<Row<ApiKey>>,
    /// Goals.
    pub goals: Vec<Row<Goal>>,
    /// Links.
    pub links: Vec<Row<Link>>,
}
