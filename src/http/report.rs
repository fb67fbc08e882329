//! The way of every question to the database: the caller's account takes a permit, and what comes of failures.

use std::{sync::Arc, time::Duration};

use super::{
    error::{ApiError, ErrorCode},
    services::Services,
};
use crate::{
    core::{AccountId, ReportError},
    report_slots::{ReportPermit, ReportSlots, SlotBounds, TooManyReports},
};

/// When to come back where an account has as many reports under way as it may have.
const RETRY_AFTER_TOO_MANY: Duration = Duration::from_secs(2);
/// When to come back where the database can't answer.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(5);

/// The slots of questions to the database, by what they cost. The database's other slots are those of inserts and of
/// look-ups of keys.
#[derive(Clone)]
pub struct DatabaseSlots {
    /// For reports and lists, which read much.
    pub reports: Arc<ReportSlots>,
    /// For one conversion by its id, which is read fast: it does not wait for the account's reports.
    pub lookups: Arc<ReportSlots>,
}

impl DatabaseSlots {
    /// For a machine of that many processors.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self {
            reports: ReportSlots::new(SlotBounds::reports(cores)),
            lookups: ReportSlots::new(SlotBounds::lookups(cores)),
        }
    }
}

/// Waits for the account's turn to ask for a report or a list. After everything is checked that needs no database.
pub(super) async fn permit<I, R>(
    services: &Services<I, R>,
    account: AccountId,
) -> Result<ReportPermit, ApiError> {
    services.database_slots.reports.acquire(account).await.map_err(too_many)
}

/// Waits for the account's turn to ask for one conversion.
pub(super) async fn lookup_permit<I, R>(
    services: &Services<I, R>,
    account: AccountId,
) -> Result<ReportPermit, ApiError> {
    services.database_slots.lookups.acquire(account).await.map_err(too_many)
}

/// What a caller is told where the database fails.
pub(super) fn report_error(error: ReportError) -> ApiError {
    match error {
        ReportError::Unavailable => {
            ApiError::new(ErrorCode::DatabaseUnavailable).after(RETRY_AFTER_UNAVAILABLE)
        }
        ReportError::TooExpensive => ErrorCode::ReportTooExpensive.into(),
        ReportError::Refused => ErrorCode::Internal.into(),
    }
}

fn too_many(_: TooManyReports) -> ApiError {
    ApiError::new(ErrorCode::TooManyReports).after(RETRY_AFTER_TOO_MANY)
}
