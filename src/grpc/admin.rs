//! `AdminService`: what the sidecar is and does, its drain and its log level. For callers on this machine, and whom the rules allow.

use std::{sync::Arc, time::Duration};

use tonic::{Request, Response, Status};

use super::{
    convert, identity,
    proto::{self, admin_service_server::AdminService},
    status::status,
};
use crate::{
    access::Access,
    consume::Pool,
    failure::{Failure, Reason},
    lifecycle::{Lifecycle, Phase},
    publish::Publisher,
    status::Source,
    telemetry::LogLevel,
};

/// See the module.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct Service {
    /// The process.
    pub lifecycle: Lifecycle,
    /// For the status.
    pub status: Source,
    /// For what is unanswered after a drain.
    pub publisher: Publisher,
    /// To stop deliveries.
    pub pool: Pool,
    /// The effective configuration, secrets hidden.
    pub config: Arc<str>,
    /// Who may.
    pub access: Access,
    /// Absent where the log is not ours to change.
    pub log: Option<LogLevel>,
}

impl Service {
    fn allow<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let caller = identity::of(request)?;
        self.access
            .admin(&caller)
            .map_err(|failure| status(&failure))
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        self.allow(&request)?;
        let now = self.status.now();
        let phase = match now.phase {
            Phase::Starting => proto::Phase::Starting,
            Phase::Serving => proto::Phase::Serving,
            Phase::Draining => proto::Phase::Draining,
        };
        let subscriptions =
            now.subscriptions
                .into_iter()
                .map(|subscription| proto::SubscriptionStatus {
                    group: subscription.group,
                    topics: subscription.topics,
                    streams: subscription.streams,
                    in_flight: subscription.in_flight,
                });
        Ok(Response::new(proto::GetStatusResponse {
            server_version: now.server_version.to_owned(),
            phase: phase.into(),
            uptime: Some(convert::duration(self.lifecycle.uptime())),
            in_flight_records: now.in_flight_records,
            in_flight_bytes: now.in_flight_bytes,
            publish_streams: now.publish_streams,
            subscriptions: subscriptions.collect(),
        }))
    }

    async fn get_config(
        &self,
        request: Request<proto::GetConfigRequest>,
    ) -> Result<Response<proto::GetConfigResponse>, Status> {
        self.allow(&request)?;
        Ok(Response::new(proto::GetConfigResponse {
            yaml: self.config.to_string(),
        }))
    }

    async fn drain(
        &self,
        request: Request<proto::DrainRequest>,
    ) -> Result<Response<proto::DrainResponse>, Status> {
        self.allow(&request)?;
        let within = match request.into_inner().deadline {
            None => None,
            Some(deadline) => match Duration::try_from(deadline) {
                Ok(within) if !within.is_zero() => Some(within),
                _ => {
                    let failure = Failure::invalid(
                        Reason::InvalidRequest,
                        "deadline",
                        "must be a positive duration",
                    );
                    return Err(status(&failure));
                }
            },
        };
        let deadline = self.lifecycle.quiet(within);
        // Answered a little before the deadline: what is left of it belongs to the signal that follows.
        let margin = (deadline.saturating_duration_since(std::time::Instant::now()) / 10)
            .min(Duration::from_secs(2));
        let unsettled = self.pool.quiesce(deadline - margin).await;
        let (in_flight, _) = self.publisher.in_flight();
        Ok(Response::new(proto::DrainResponse {
            complete: unsettled == 0,
            unsettled: unsettled as u64,
            unanswered: in_flight.records,
        }))
    }

    async fn set_log_level(
        &self,
        request: Request<proto::SetLogLevelRequest>,
    ) -> Result<Response<proto::SetLogLevelResponse>, Status> {
        self.allow(&request)?;
        let filter = request.into_inner().filter;
        let Some(log) = &self.log else {
            return Err(status(&Failure::not_available("AdminService.SetLogLevel")));
        };
        match log.set(&filter) {
            Ok(previous) => {
                tracing::info!(filter, previous, "log level changed");
                Ok(Response::new(proto::SetLogLevelResponse { previous }))
            }
            Err(error) => Err(status(&Failure::invalid(
                Reason::InvalidRequest,
                "filter",
                error.to_string(),
            ))),
        }
    }
}
