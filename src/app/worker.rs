//! What one worker of the public listener serves.

use std::sync::Arc;

use hyper::{Request, body::Incoming};

use super::glue::Glue;
use crate::{
    http::{self, Answer, Connection, Services, server::Handler},
    intake::{Gate, Intake},
    wal::Appender,
};

/// The handlers of one worker, over its own appender and its own connections to ClickHouse.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) services: Arc<Services<Intake, Glue>>,
    pub(super) appender: Appender,
}

impl Handler for Worker {
    async fn handle(&self, request: Request<Incoming>, connection: &Connection) -> Answer {
        http::handle(&self.services, connection, request).await
    }

    fn gate(&self) -> Gate {
        self.services.intake.gate()
    }

    fn background(&self) -> impl Future<Output = ()> + Send + 'static {
        self.appender.pump()
    }
}
