//! The operators' listener: metrics and health.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, Request, StatusCode, body::Body, header::HeaderValue};
use serde::Serialize;

use super::{
    error::{ApiError, ErrorCode},
    framing,
    readiness::{Degraded, NotReady, Readiness},
    response::{self, Answer},
};
use crate::telemetry::Exposition;

/// What the operators' listener serves.
#[derive(Clone)]
pub struct Ops {
    /// Whether hits are welcome.
    pub readiness: Arc<Readiness>,
    /// The metrics.
    pub exposition: Exposition,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
}

impl Ops {
    /// Answers one request of the operators' listener.
    pub fn handle<B: Body>(&self, request: &Request<B>) -> Answer {
        let checked = framing::check(request.version(), request.headers());
        // No body is read here.
        let closes = checked.is_err() || !request.body().is_end_stream();
        let mut answer = match checked {
            Ok(()) => self.dispatch(request),
            Err(error) => response::error(&error),
        };
        if closes {
            response::close(&mut answer);
        }
        answer
    }

    fn dispatch<B>(&self, request: &Request<B>) -> Answer {
        let known = matches!(request.uri().path(), "/metrics" | "/livez" | "/readyz");
        if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response::error(&ApiError {
                allow: "GET, HEAD".into(),
                ..ApiError::new(ErrorCode::MethodNotAllowed)
            });
        }
        match request.uri().path() {
            "/metrics" => {
                let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response::with_body(StatusCode::OK, format, Bytes::from(self.exposition.render()))
            }
            "/livez" => {
                health(StatusCode::OK, &Health { status: "alive", reasons: Vec::new(), degraded: Vec::new() })
            }
            "/readyz" => {
                let reasons: Vec<_> = self.readiness.reasons().map(NotReady::as_str).collect();
                let degraded = self.readiness.degraded().map(Degraded::as_str).collect();
                if reasons.is_empty() {
                    health(StatusCode::OK, &Health { status: "ready", reasons, degraded })
                } else {
                    health(
                        StatusCode::SERVICE_UNAVAILABLE,
                        &Health { status: "not_ready", reasons, degraded },
                    )
                }
            }
            _ => response::error(&ErrorCode::NotFound.into()),
        }
    }
}

fn health(status: StatusCode, health: &Health) -> Answer {
    response::json(status, serde_json::to_vec(health).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Empty};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    async fn get(ops: &Ops, method: &str, path: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "t")
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let answer = ops.handle(&request);
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("in memory").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn readiness_says_why_not_and_what_does_not_work() {
        let handle = PrometheusBuilder::new().build_recorder().handle();
        let ops = Ops { readiness: Arc::default(), exposition: Exposition::new(handle, Vec::new()) };
        assert_eq!(
            get(&ops, "GET", "/readyz").await,
            (
                503,
                r#"{"status":"not_ready","reasons":["recovering"],"degraded":["engine_down","schema_pending"]}"#
                    .into()
            )
        );
        ops.readiness.set(NotReady::Recovering, false);
        ops.readiness.set_degraded(Degraded::SchemaPending, false);
        assert_eq!(
            get(&ops, "GET", "/readyz").await,
            (200, r#"{"status":"ready","degraded":["engine_down"]}"#.into())
        );
        ops.readiness.set_degraded(Degraded::EngineDown, false);
        assert_eq!(get(&ops, "GET", "/readyz").await, (200, r#"{"status":"ready"}"#.into()));
        ops.readiness.set(NotReady::SpoolFull, true);
        ops.readiness.set(NotReady::Poisoned, true);
        assert!(get(&ops, "GET", "/readyz").await.1.contains(r#"["poisoned","spool_full"]"#));
        assert_eq!(get(&ops, "GET", "/livez").await.0, 200);
        assert_eq!(get(&ops, "GET", "/metrics").await.0, 200);
        assert_eq!(get(&ops, "POST", "/metrics").await.0, 405);
        assert_eq!(get(&ops, "GET", "/").await.0, 404);
    }
}
