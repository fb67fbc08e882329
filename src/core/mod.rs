//! The domain, pure: no IO, no async, no clock, no globals, no serde on domain types.

mod account;
mod catalog;
mod currency;
mod goal;
mod hit;
mod ids;
mod money;
mod order;
pub mod payload;
mod privacy;
mod report;
pub mod rows;
mod time;

pub use account::{Account, ApiKey, Plan, PlanRefusal};
pub use catalog::{CatalogRows, Row};
pub use currency::{Currency, CurrencyError};
pub use goal::{ATTRIBUTION_WINDOW_DAYS_DEFAULT, Goal, GoalType, PostbackToken};
pub use hit::{Conversion, Record, Refusal, Source};
pub use ids::{AccountId, BatchId, ClickId, ConversionId, GoalId, INTEGER_MAX};
pub use money::{Money, MoneyError};
pub use order::{DedupScope, OrderId, OrderIdError, OrderKey};
pub use privacy::IpStorage;
pub use report::{
    ConversionLookup, ConversionQuery, ConversionReport, CurrencyTotal, MoneySum, RefusalPage, RefusalQuery,
    ReportError, ReportPoint,
};
pub use time::UnixMillis;
