//! ClickHouse: the schema, inserts that can be repeated, look-ups, reports, exports, and a look at what a batch left behind.
//!
//! Everything goes through the official client; every request has a time-out; every value is bound, never spliced in.
//! What a failure means is decided by the server's numeric code ([`Failure`]).

mod adjusted;
mod candidates;
mod catalog;
mod check;
mod columns;
mod database;
mod deliveries;
mod derived;
mod endpoint;
mod erase;
mod exports;
mod failure;
mod footprint;
mod inspect;
mod installation;
mod keys;
mod labels;
mod migrations;
mod parts;
mod rejected_requests;
mod reports;
mod retention;
mod runs;
mod tables;

pub use adjusted::Adjusted;
pub use candidates::{ClickPage, Visitors};
pub use check::CheckError;
pub use database::{Database, Insert, Timeouts};
pub use derived::{Rollup, SideTable};
pub use endpoint::{Endpoint, EndpointError};
pub use erase::{Erased, Person, Traces};
pub use exports::ExportStream;
pub use failure::Failure;
pub use footprint::{Doubtful, Finding, Footprint, FootprintBuilder, Kept, Touched};
pub use installation::DatabaseIdentity;
pub use keys::{KEYS_PER_QUERY_MAX, KeyQuery, KnownKey};
pub use migrations::{MIGRATIONS, Migration, MigrationError};
pub use retention::Expired;
pub use runs::{Chunk, Difference, Rules, Run, RunState};
pub use tables::{GroupOff, Side, Tables};
