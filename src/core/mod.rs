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
mod conversion_report;
mod currency;
mod destination;
mod entry;
mod export;
mod funnel;
mod goal;
mod health;
mod hit;
mod ids;
mod kind;
mod labels;
mod link;
mod money;
mod order;
pub mod payload;
mod percent;
mod privacy;
mod report;
pub mod rows;
mod time;
mod variants;
pub mod webhook;

pub use account::{Account, ApiKey, Plan, PlanRefusal};
pub use adjustment::{Adjustment, AdjustmentKind, Net, adjustment_fingerprint, net};
pub use attribution::{
    Attribution, CANDIDATES_MAX, Candidate, ClickLabels, Earned, Method, Model, Question, RunId,
    Unattributed, Verdict, decide, explain,
};
pub use bots::{is_bot, is_crawler};
pub use campaign::{Campaign, LABEL_BYTES_MAX, free_value, label};
pub use catalog::{CatalogRows, Row};
pub use click::{Click, ClickSource, SUBS, Traffic};
pub use conversion_report::{
    Basis, ConversionQuery, ConversionReport, CurrencySums, Group, GroupBy, GroupKey, Measures, MoneySum,
    TimeToConvert,
};
pub use currency::{Currency, CurrencyError};
pub use destination::{DESTINATION_BYTES_MAX, Destination, DestinationError, Visit, labels};
pub use entry::{CountedAdjustment, CountedClick, CountedConversion, Entry};
pub use export::{ExportFormat, ExportKey, ExportKind, ExportQuery, ExportRow};
pub use funnel::{
    FUNNEL_GOALS_MAX, FUNNEL_GOALS_MIN, FUNNEL_WINDOW_SECONDS_DEFAULT, FUNNEL_WINDOW_SECONDS_MAX,
    FunnelQuery, FunnelStep,
};
pub use goal::{ATTRIBUTION_WINDOW_DAYS_DEFAULT, Goal, GoalType, PostbackToken};
pub use health::{
    AttributionFacts, ClickFacts, ConversionFacts, HEALTH_EXAMPLES_MAX, Health, HealthFinding, HealthQuery,
    HealthReport, HealthSetup, RefusedFacts, Severity, examine,
};
pub use hit::{
    CLICK_ID_FIELD, CONFLICT_MESSAGE, Conversion, DUPLICATE, Matching, REQUEST_SUMMARY_START, Record,
    Refusal, Source,
};
pub use ids::{AccountId, AdjustmentId, BatchId, ClickId, ConversionId, GoalId, INTEGER_MAX, LinkId};
pub use kind::{Kind, PerKind};
pub use labels::{Day, LABELS_PER_DAY_MAX, Label, LabelBook};
pub use link::{Link, SLUG_BYTES_MAX, Variant, is_slug};
pub use money::{Money, MoneyError};
pub use order::{DedupScope, OrderId, OrderIdError, OrderKey};
pub use percent::percent;
pub use privacy::IpStorage;
pub use report::{Candidates, ConversionLookup, RefusalPage, RefusalQuery, ReportError, StoredConversion};
pub use time::UnixMillis;
pub use variants::{
    Arm, Best, EXPERIMENT_MINIMUM, ExperimentMinimum, VARIANT_OTHER, VariantCounts, VariantQuery,
    VariantReport, WithoutVerdict, judge, probabilities_best, wilson,
};
