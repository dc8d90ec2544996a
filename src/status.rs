//! What the sidecar is doing at this moment: behind `GetStatus`, `/status` and the status page.
//!
//! Only counts, names of groups and topics, and what is missing: nothing here can hold a secret. Not here: figures over time (`metrics`).

use std::fmt::{self, Display};

use serde::Serialize;

use crate::{
    consume::Pool,
    lifecycle::{Lifecycle, Phase},
    publish::Publisher,
};

/// Where a snapshot is taken.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct Source {
    /// The process.
    pub lifecycle: Lifecycle,
    /// The publish side.
    pub publisher: Publisher,
    /// The subscribe side.
    pub pool: Pool,
}

/// One moment. In JSON the names are those of `GetStatusResponse`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Of this program.
    pub server_version: &'static str,
    /// Where it is in its life.
    pub phase: Phase,
    /// What it waits for before it serves.
    pub missing: Vec<&'static str>,
    /// How long the process has been running, in seconds.
    pub uptime_seconds: f64,
    /// Admitted for publishing and not answered yet.
    pub in_flight_records: u64,
    /// The bytes of those records.
    pub in_flight_bytes: u64,
    /// Publish streams that are open.
    pub publish_streams: u32,
    /// By group.
    pub subscriptions: Vec<Subscription>,
}

/// One live subscription.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Subscription {
    /// The consumer group.
    pub group: String,
    /// The topics.
    pub topics: Vec<String>,
    /// Streams that are attached here.
    pub streams: u32,
    /// Delivered and not settled yet.
    pub in_flight: u64,
}

impl Source {
    /// Takes a snapshot.
    pub fn now(&self) -> Snapshot {
        let (in_flight, _) = self.publisher.in_flight();
        let subscriptions = self.pool.status().into_iter().map(|session| Subscription {
            group: session.group,
            topics: session.topics,
            streams: u32::try_from(session.streams).unwrap_or(u32::MAX),
            in_flight: session.unsettled as u64,
        });
        Snapshot {
            server_version: env!("CARGO_PKG_VERSION"),
            phase: self.lifecycle.phase(),
            missing: self.lifecycle.missing(),
            uptime_seconds: self.lifecycle.uptime().as_secs_f64(),
            in_flight_records: in_flight.records,
            in_flight_bytes: in_flight.bytes,
            publish_streams: self.publisher.open_streams(),
            subscriptions: subscriptions.collect(),
        }
    }
}

/// The status page: for people, in a terminal or a browser.
impl Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Draining => "draining",
        };
        writeln!(
            f,
            "outrigger {}: {phase}, up for {:.0} s",
            self.server_version, self.uptime_seconds
        )?;
        if !self.missing.is_empty() {
            writeln!(f, "waiting for: {}", self.missing.join(", "))?;
        }
        writeln!(
            f,
            "\npublishing: {} streams; {} records, {} bytes in flight",
            self.publish_streams, self.in_flight_records, self.in_flight_bytes
        )?;
        if self.subscriptions.is_empty() {
            writeln!(f, "subscriptions: none")?;
        }
        for subscription in &self.subscriptions {
            writeln!(
                f,
                "subscription {} of {}: {} streams; {} records not settled",
                subscription.group,
                subscription.topics.join(", "),
                subscription.streams,
                subscription.in_flight
            )?;
        }
        writeln!(
            f,
            "\nmore: /status (this, as JSON), /config, /metrics, /livez, /readyz, /startupz"
        )
    }
}
