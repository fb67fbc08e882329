//! The domain, pure: no IO, no async, no clock, no globals, no serde on domain types.

mod account;
mod adjustment;
#[cfg(test)]
mod arbitrary;
mod attribution;
mod bots;
mod campaign;
mod catalog;
mod click;
mod currency;
mod destination;
mod entry;
mod goal;
mod hit;
mod ids;
mod kind;
mod labels;
mod link;
mod money;
mod order;
pub mod payload;
mod privacy;
mod report;
pub mod rows;
mod time;
pub mod webhook;

pub use account::{Account, ApiKey, Plan, PlanRefusal};
pub use adjustment::{Adjustment, AdjustmentKind, Net, net};
pub use attribution::{
    Attribution, CANDIDATES_MAX, Candidate, ClickLabels, Earned, Method, Model, Question, RunId,
    Unattributed, Verdict, decide, explain,
};
pub use bots::is_bot;
pub use campaign::{Campaign, LABEL_BYTES_MAX, free_value, label};
pub use catalog::{CatalogRows, Row};
pub use click::{Click, ClickSource, SUBS, Traffic};
pub use currency::{Currency, CurrencyError};
pub use destination::{DESTINATION_BYTES_MAX, Destination, DestinationError, Visit, labels};
pub use entry::{CountedAdjustment, CountedClick, CountedConversion, Entry};
pub use goal::{ATTRIBUTION_WINDOW_DAYS_DEFAULT, Goal, GoalType, PostbackToken};
pub use hit::{CLICK_ID_FIELD, Conversion, Matching, Record, Refusal, Source};
pub use ids::{AccountId, AdjustmentId, BatchId, ClickId, ConversionId, GoalId, INTEGER_MAX, LinkId};
pub use kind::{Kind, PerKind};
pub use labels::{Day, LABELS_PER_DAY_MAX, Label, LabelBook};
pub use link::{Link, SLUG_BYTES_MAX, Variant, is_slug};
pub use money::{Money, MoneyError};
pub use order::{DedupScope, OrderId, OrderIdError, OrderKey};
pub use privacy::IpStorage;
pub use report::{
    Candidates, ClickPoint, ConversionLookup, ConversionQuery, ConversionReport, CurrencyTotal, MoneySum,
    RefusalPage, RefusalQuery, ReportError, ReportPoint, StoredConversion, TimeToConvert,
};
pub use time::UnixMillis;
