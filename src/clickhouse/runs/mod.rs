//! Runs of attribution over history: their list, and which is in force.
//!
//! What a run decides stands in `attributions` under its number; a run that failed or is not in force is read by nobody.

mod chunks;
mod decide;
mod difference;

pub use self::{chunks::Chunk, decide::Rules, difference::Difference};
use super::{Database, Failure};
use crate::core::{Model, RunId, UnixMillis};

/// A run, as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its number, from 1.
    pub id: RunId,
    /// Conversions from then on were decided anew.
    pub since: UnixMillis,
    /// The window that it used, in seconds.
    pub window_seconds: u32,
    /// Which of several clicks wins.
    pub model: Model,
    /// How far it came.
    pub state: RunState,
    /// Whether it is in force.
    pub is_current: bool,
    /// When it was started.
    pub started_at: UnixMillis,
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It is being computed, or was when its process ended.
    Running,
    /// It is whole.
    Done,
    /// It broke off; its rows count for nothing.
    Failed,
}

impl RunState {
    const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Failed];

    /// The name in ClickHouse and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct RunRow {
    run_id: u32,
    since: i64,
    window_seconds: u32,
    model: String,
    state: String,
    current: bool,
    started_at: i64,
}

/// Later than all rows before it: of a run's rows the greatest version counts.
const NEXT_VERSION: &str = "(SELECT max(version) + 1 FROM attribution_runs)";

impl Database {
    /// Every run, oldest first.
    pub async fn attribution_runs(&self) -> Result<Vec<Run>, Failure> {
        let sql = "SELECT run_id, since, window_seconds, toString(model) AS model, toString(state) AS state, current, \
                   started_at FROM attribution_runs FINAL ORDER BY run_id";
        let rows: Vec<RunRow> = self.read(self.query(sql).fetch_all()).await?;
        rows.iter().map(run).collect()
    }

    /// Notes that a run has begun.
    pub async fn begin_run(&self, run: &Run) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO attribution_runs (run_id, since, window_seconds, model, state, current, started_at, version) \
             SELECT {{run: UInt32}}, fromUnixTimestamp64Milli({{since: Int64}}, 'UTC'), {{window: UInt32}}, \
                 {{model: String}}, {{state: String}}, false, fromUnixTimestamp64Milli({{started: Int64}}, 'UTC'), \
                 {NEXT_VERSION}"
        );
        let query = self
            .writing(&sql)
            .param("run", run.id.0)
            .param("since", run.since.0)
            .param("window", run.window_seconds)
            .param("model", run.model.as_str())
            .param("state", run.state.as_str())
            .param("started", run.started_at.0);
        self.long(query.execute()).await
    }

    /// Notes how a run ended.
    pub async fn end_run(&self, run: RunId, state: RunState) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO attribution_runs (run_id, since, window_seconds, model, state, current, started_at, version) \
             SELECT run_id, since, window_seconds, model, {{state: String}}, current, started_at, {NEXT_VERSION} \
             FROM attribution_runs FINAL WHERE run_id = {{run: UInt32}}"
        );
        self.long(self.writing(&sql).param("run", run.0).param("state", state.as_str()).execute()).await
    }

    /// Puts a run in force, or none (0), in one atomic block: at no time are two, or none, in force by accident.
    pub async fn put_in_force(&self, run: RunId) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO attribution_runs (run_id, since, window_seconds, model, state, current, started_at, version) \
             SELECT run_id, since, window_seconds, model, state, run_id = {{run: UInt32}}, started_at, {NEXT_VERSION} \
             FROM attribution_runs FINAL"
        );
        self.long(self.writing(&sql).param("run", run.0).execute()).await
    }

    /// Takes the rows of a run that failed out again. They count for nothing, but fill the disk.
    pub async fn remove_run_rows(&self, run: RunId) -> Result<(), Failure> {
        for table in ["attributions", "attributed_hourly", "attributed_by_click_hourly"] {
            let sql = format!("ALTER TABLE {table} DELETE WHERE run_id = {{run: UInt32}}");
            let query = self.writing(&sql).with_setting("mutations_sync", "2").param("run", run.0);
            self.long(query.execute()).await?;
        }
        Ok(())
    }

    /// A statement that writes, of which nothing may be taken for a repetition of another one.
    fn writing(&self, sql: &str) -> clickhouse::query::Query {
        self.long_query(sql).with_setting("insert_deduplicate", "0").with_setting("async_insert", "0")
    }
}

fn run(row: &RunRow) -> Result<Run, Failure> {
    Ok(Run {
        id: RunId(row.run_id),
        since: UnixMillis(row.since),
        window_seconds: row.window_seconds,
        model: Model::parse(&row.model).ok_or_else(|| Failure::unreadable("model"))?,
        state: RunState::ALL
            .into_iter()
            .find(|state| state.as_str() == row.state)
            .ok_or_else(|| Failure::unreadable("state"))?,
        is_current: row.current,
        started_at: UnixMillis(row.started_at),
    })
}
