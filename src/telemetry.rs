//! What the daemon says about itself: log lines and metrics.
//!
//! Metrics that the hot path touches are handles taken once ([`Metrics`]); the two or three histograms that every hit
//! meets are [`Histogram`]s, fixed buckets in atomics, since the exporter's own keep every sample until they are
//! drained.

mod histogram;

use std::{io::IsTerminal as _, sync::Arc};

pub use histogram::{Histogram, SECONDS_BUCKETS};
use metrics::{Counter, Unit, counter, describe_counter};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tracing_subscriber::{EnvFilter, util::TryInitError};

use crate::config::LogFormat;

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Log lines can't be set up.
    #[error("logging can't be set up: {0}")]
    Logs(#[from] TryInitError),
    /// The level is not one.
    #[error("not a log level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Metrics can't be set up.
    #[error("metrics can't be set up: {0}")]
    Metrics(#[from] BuildError),
}

/// Starts logging to standard error.
pub fn install_logs(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::try_new(level)?);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
        LogFormat::Text => lines.finish().try_init()?,
    }
    Ok(())
}

/// Renders all metrics, for the operators' listener.
#[derive(Clone)]
pub struct Exposition {
    prometheus: PrometheusHandle,
    process: metrics_process::Collector,
    histograms: Arc<[NamedHistogram]>,
}

/// A [`Histogram`] with what the exposition says of it.
pub struct NamedHistogram {
    /// The metric's name.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// The buckets.
    pub histogram: Arc<Histogram>,
}

/// Buckets, in seconds, of the exporter's histograms whose names end in `_seconds`.
const SLOW_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets of the exporter's histograms whose names end in `_records` or `_rows`.
const COUNTS: [f64; 14] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 8192.0, 65_536.0, 524_288.0];
/// Buckets of the exporter's histograms whose names end in `_bytes`.
const SIZES: [f64; 10] = [
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    use metrics_exporter_prometheus::Matcher::Suffix;
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Suffix("_seconds".into()), &SLOW_SECONDS)?
        .set_buckets_for_metric(Suffix("_records".into()), &COUNTS)?
        .set_buckets_for_metric(Suffix("_rows".into()), &COUNTS)?
        .set_buckets_for_metric(Suffix("_bytes".into()), &SIZES)?
        .build_recorder())
}

/// Makes `metrics`' macros record, for the whole process. Call it once, before any handle is taken.
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(BuildError::from)?;
    Ok(handle)
}

impl Exposition {
    /// Over an installed recorder, and histograms of our own.
    #[must_use]
    pub fn new(prometheus: PrometheusHandle, histograms: Vec<NamedHistogram>) -> Self {
        let process = metrics_process::Collector::default();
        process.describe();
        Self { prometheus, process, histograms: histograms.into() }
    }

    /// The text that Prometheus scrapes, format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        let mut text = self.prometheus.render();
        for NamedHistogram { name, help, histogram } in self.histograms.iter() {
            histogram.render(name, help, &mut text);
        }
        text
    }

    /// Moves recorded samples into their buckets. Call it every few seconds, or memory grows between scrapes.
    pub fn run_upkeep(&self) {
        self.prometheus.run_upkeep();
    }
}

/// Handles of what HTTP counts, taken once.
pub struct Metrics {
    /// Refused for what they said: `4xx`.
    pub hits_rejected: Counter,
    /// Reported clicks that were refused for what they said.
    pub clicks_rejected: Counter,
    /// Refused hits and duplicates of a known goal that were only counted, since their goal or account had too many.
    pub rejections_unrecorded: Counter,
    /// Hits with fields that mean nothing here.
    pub hits_with_ignored_fields: Counter,
    /// Visitors who were redirected and whose click was not recorded, since their account's links had too many.
    pub clicks_rate_limited: Counter,
    /// Requests, by [`RequestClass`].
    pub requests: [Counter; RequestClass::ALL.len()],
    /// From the first byte read by a handler to its answer, for hits that were made durable or known already.
    pub ack_seconds: Arc<Histogram>,
}

/// What a request was for, as coarse as dashboards need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestClass {
    /// `POST` of a conversion.
    Track,
    /// `GET`, `HEAD` and `OPTIONS` of a token.
    Pixel,
    /// A visit through a link.
    Redirect,
    /// The API.
    Api,
    /// Anything else.
    Other,
}

impl RequestClass {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Track, Self::Pixel, Self::Redirect, Self::Api, Self::Other];

    fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Pixel => "pixel",
            Self::Redirect => "redirect",
            Self::Api => "api",
            Self::Other => "other",
        }
    }
}

impl Metrics {
    /// Describes the metrics and takes their handles from the recorder in force.
    #[must_use]
    pub fn new() -> Self {
        describe_counter!("tally_hits_total", Unit::Count, "Hits by what became of them.");
        describe_counter!("tally_clicks_total", Unit::Count, "Clicks by what became of them.");
        describe_counter!("tally_adjustments_total", Unit::Count, "Adjustments by what became of them.");
        describe_counter!(
            "tally_clicks_unrecorded_total",
            Unit::Count,
            "Visitors who were redirected and whose click could not be recorded."
        );
        describe_counter!(
            "tally_rejections_total",
            Unit::Count,
            "Hits refused or not counted again, by error code."
        );
        describe_counter!(
            "tally_rejections_unrecorded_total",
            Unit::Count,
            "Refused hits that were counted but not recorded, since their goal or account had too many."
        );
        describe_counter!(
            "tally_clicks_rate_limited_total",
            Unit::Count,
            "Visitors who were redirected and whose click was not recorded, since the links of their account had too many."
        );
        describe_counter!(
            "tally_hits_ignored_total",
            Unit::Count,
            "Requests for a token's pixel that are no visits: HEAD, prefetches, crawlers and link previews."
        );
        describe_counter!(
            "tally_hits_with_ignored_fields_total",
            Unit::Count,
            "Hits with fields that mean nothing here; GET /api/v1/analytics/health names them."
        );
        describe_counter!("tally_http_requests_total", Unit::Count, "Requests by what they were for.");
        Self {
            hits_rejected: counter!("tally_hits_total", "outcome" => "rejected"),
            clicks_rejected: counter!("tally_clicks_total", "outcome" => "rejected"),
            clicks_rate_limited: counter!("tally_clicks_rate_limited_total"),
            rejections_unrecorded: counter!("tally_rejections_unrecorded_total"),
            hits_with_ignored_fields: counter!("tally_hits_with_ignored_fields_total"),
            requests: RequestClass::ALL
                .map(|class| counter!("tally_http_requests_total", "class" => class.as_str())),
            ack_seconds: Arc::new(Histogram::new(&SECONDS_BUCKETS)),
        }
    }

    /// Counts a hit that was not counted as a conversion, by the error's code: a closed set.
    pub fn rejected(&self, code: &'static str) {
        counter!("tally_rejections_total", "code" => code).increment(1);
    }

    /// Counts a look at a token's address that is no visit: by why.
    pub fn looked_at(&self, reason: &'static str) {
        counter!("tally_hits_ignored_total", "reason" => reason).increment(1);
    }

    /// Counts a request.
    pub fn requested(&self, class: RequestClass) {
        self.requests[class as usize].increment(1);
    }

    /// Our own histograms, for [`Exposition::new`].
    #[must_use]
    pub fn histograms(&self) -> Vec<NamedHistogram> {
        vec![NamedHistogram {
            name: "tally_ack_seconds",
            help: "Time to acknowledge a hit, the log's sync included.",
            histogram: Arc::clone(&self.ack_seconds),
        }]
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_exposition_has_every_metric_with_its_help() {
        let recorder = recorder().expect("buckets");
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let metrics = Metrics::new();
            metrics.hits_rejected.increment(2);
            metrics.rejected("rate_limited");
            metrics.requested(RequestClass::Api);
            metrics.ack_seconds.record([Duration::from_micros(700)]);
            metrics::histogram!("tally_insert_seconds").record(0.2);
            let text = Exposition::new(handle, metrics.histograms()).render();
            for line in [
                "tally_hits_total{outcome=\"rejected\"} 2",
                "tally_rejections_total{code=\"rate_limited\"} 1",
                "tally_http_requests_total{class=\"api\"} 1",
                "# TYPE tally_ack_seconds histogram",
                "tally_ack_seconds_bucket{le=\"0.001\"} 1",
                "tally_ack_seconds_count 1",
                "tally_insert_seconds_bucket{le=\"0.25\"} 1",
                "process_open_fds",
            ] {
                assert!(text.contains(line), "{line} in\n{text}");
            }
        });
    }
}
