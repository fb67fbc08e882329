//! What the shipper needs of the database. One real implementation, and one in the tests that fails on purpose.

use std::{collections::HashMap, future::Future};

use crate::{
    clickhouse::{Adjusted, Database, Failure, Finding, Footprint, Insert, KeyQuery, KnownKey},
    core::{AccountId, BatchId, ConversionId},
};

/// Where batches go. See [`Database`] for what each call does.
pub trait Warehouse {
    /// Sends rows under a token.
    fn insert(&self, insert: Insert<'_>) -> impl Future<Output = Result<(), Failure>>;
    /// Which keys are known.
    fn lookup(&self, keys: &[KeyQuery]) -> impl Future<Output = Result<Vec<Option<KnownKey>>, Failure>>;
    /// The conversions that adjustments are about.
    fn adjusted(
        &self,
        conversions: &[(AccountId, ConversionId)],
    ) -> impl Future<Output = Result<HashMap<(AccountId, ConversionId), Adjusted>, Failure>>;
    /// What is there of a batch.
    fn inspect(&self, batch: BatchId, of: &Footprint) -> impl Future<Output = Result<Finding, Failure>>;
    /// Makes the hourly statistics equal to the raw rows.
    fn rebuild_hours(&self, of: &Footprint) -> impl Future<Output = Result<(), Failure>>;
    /// Makes a batch's keys equal to its raw rows.
    fn rebuild_keys(&self, batch: BatchId, of: &Footprint) -> impl Future<Output = Result<(), Failure>>;
    /// Takes a batch out again.
    fn withdraw(&self, batch: BatchId, of: &Footprint) -> impl Future<Output = Result<(), Failure>>;
    /// Makes sure that no earlier attempt is running.
    fn stop_attempts(&self, comment_prefix: &str) -> impl Future<Output = Result<(), Failure>>;
}

impl Warehouse for Database {
    async fn insert(&self, insert: Insert<'_>) -> Result<(), Failure> {
        Self::insert(self, insert).await
    }

    async fn lookup(&self, keys: &[KeyQuery]) -> Result<Vec<Option<KnownKey>>, Failure> {
        self.lookup_keys_at(keys).await
    }

    async fn adjusted(
        &self,
        conversions: &[(AccountId, ConversionId)],
    ) -> Result<HashMap<(AccountId, ConversionId), Adjusted>, Failure> {
        Self::adjusted(self, conversions).await
    }

    async fn inspect(&self, batch: BatchId, of: &Footprint) -> Result<Finding, Failure> {
        Self::inspect(self, batch, of).await
    }

    async fn rebuild_hours(&self, of: &Footprint) -> Result<(), Failure> {
        Self::rebuild_hours(self, of).await
    }

    async fn rebuild_keys(&self, batch: BatchId, of: &Footprint) -> Result<(), Failure> {
        Self::rebuild_keys(self, batch, of).await
    }

    async fn withdraw(&self, batch: BatchId, of: &Footprint) -> Result<(), Failure> {
        Self::withdraw(self, batch, of).await
    }

    async fn stop_attempts(&self, comment_prefix: &str) -> Result<(), Failure> {
        Self::stop_attempts(self, comment_prefix).await
    }
}
