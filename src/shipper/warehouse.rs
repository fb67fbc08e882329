//! What the shipper needs of the database. One real implementation, and one in the tests that fails on purpose.

use std::{collections::HashMap, future::Future};

use crate::{
    clickhouse::{
        Adjusted, ClickPage, Database, Doubtful, Failure, Finding, Insert, KeyQuery, KnownKey, Visitors,
    },
    core::{AccountId, BatchId, Candidate, ClickId, ConversionId, Day, LabelBook},
};

/// Where batches go. See [`Database`] for what each call does.
pub trait Warehouse {
    /// Sends rows under a token.
    fn insert(&self, insert: Insert<'_>) -> impl Future<Output = Result<(), Failure>>;
    /// Which keys are known.
    fn lookup(&self, keys: &[KeyQuery]) -> impl Future<Output = Result<Vec<Option<KnownKey>>, Failure>>;
    /// Clicks by their numbers.
    fn clicks_named(
        &self,
        named: &[(AccountId, ClickId)],
    ) -> impl Future<Output = Result<Vec<Candidate>, Failure>>;
    /// Clicks by their visitors.
    fn clicks_of(&self, visitors: &Visitors<'_>) -> impl Future<Output = Result<Vec<Candidate>, Failure>>;
    /// Which table the clicks are in.
    fn clicks_origin(&self) -> impl Future<Output = Result<String, Failure>>;
    /// The months of the clicks of some batches.
    fn click_months(
        &self,
        after: BatchId,
        through: BatchId,
    ) -> impl Future<Output = Result<Vec<u32>, Failure>>;
    /// Some of these clicks.
    fn clicks_page(&self, page: &ClickPage) -> impl Future<Output = Result<Vec<Candidate>, Failure>>;
    /// The conversions that adjustments are about.
    fn adjusted(
        &self,
        conversions: &[(AccountId, ConversionId)],
    ) -> impl Future<Output = Result<HashMap<(AccountId, ConversionId), Adjusted>, Failure>>;
    /// The combinations of link, campaign and variant that statistics of a day name.
    fn label_book(&self, day: Day) -> impl Future<Output = Result<LabelBook, Failure>>;
    /// What is there of a batch.
    fn inspect(&self, doubtful: Doubtful<'_>) -> impl Future<Output = Result<Finding, Failure>>;
    /// Makes what is derived from a batch's raw rows equal to them, where it was found that it is not.
    fn mend(&self, doubtful: Doubtful<'_>, found: &Finding) -> impl Future<Output = Result<u64, Failure>>;
    /// Takes a batch out again.
    fn withdraw(&self, doubtful: Doubtful<'_>) -> impl Future<Output = Result<(), Failure>>;
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

    async fn clicks_named(&self, named: &[(AccountId, ClickId)]) -> Result<Vec<Candidate>, Failure> {
        Self::clicks_named(self, named).await
    }

    async fn clicks_of(&self, visitors: &Visitors<'_>) -> Result<Vec<Candidate>, Failure> {
        Self::clicks_of(self, visitors).await
    }

    async fn clicks_origin(&self) -> Result<String, Failure> {
        Self::clicks_origin(self).await
    }

    async fn click_months(&self, after: BatchId, through: BatchId) -> Result<Vec<u32>, Failure> {
        Self::click_months(self, after, through).await
    }

    async fn clicks_page(&self, page: &ClickPage) -> Result<Vec<Candidate>, Failure> {
        Self::clicks_page(self, page).await
    }

    async fn adjusted(
        &self,
        conversions: &[(AccountId, ConversionId)],
    ) -> Result<HashMap<(AccountId, ConversionId), Adjusted>, Failure> {
        Self::adjusted(self, conversions).await
    }

    async fn label_book(&self, day: Day) -> Result<LabelBook, Failure> {
        Self::label_book(self, day).await
    }

    async fn inspect(&self, doubtful: Doubtful<'_>) -> Result<Finding, Failure> {
        Self::inspect(self, doubtful).await
    }

    async fn mend(&self, doubtful: Doubtful<'_>, found: &Finding) -> Result<u64, Failure> {
        Self::mend(self, doubtful, found).await
    }

    async fn withdraw(&self, doubtful: Doubtful<'_>) -> Result<(), Failure> {
        Self::withdraw(self, doubtful).await
    }

    async fn stop_attempts(&self, comment_prefix: &str) -> Result<(), Failure> {
        Self::stop_attempts(self, comment_prefix).await
    }
}
