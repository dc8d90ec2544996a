//! `outrigger subscriptions`: where the groups of a sidecar stand.
//!
//! One group is asked of `SubscriberService` alone; which groups there are, `AdminService` knows.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tonic::Code;

use super::{
    client::{Sidecar, refusal, runtime},
    fail, say,
};
use crate::grpc::proto::{
    self, admin_service_client::AdminServiceClient,
    subscriber_service_client::SubscriberServiceClient,
};

const HELP: &str = "\
LAG is what is not committed, up to the end of the partition; IN FLIGHT is delivered and not settled; PARKED waits for another attempt; OLDEST
is how long the oldest of those, or of what is blocked, is held; - is not known or none. A blocked record stays until somebody decides about its
token: SubscriberService.Acknowledge with ack skips it, with nack tries it again.

-o json prints an array of objects with `group`, `streams` and `partitions`; offsets are numbers, the lag is null where it is not known, times are
seconds, keys and tokens base64.

Exit codes: 0 the groups are shown, or there is none; 1 the sidecar refused, or the group is not subscribed there; 2 the command line is wrong.";

/// See the module.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Subscriptions {
    /// Only this consumer group. Default: all of the sidecar, which only callers beside it may ask.
    group: Option<String>,
    /// How they are printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    sidecar: Sidecar,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Subscriptions {
    pub(super) fn run(self) -> ExitCode {
        let groups = match runtime().and_then(|runtime| runtime.block_on(self.groups())) {
            Ok(groups) => groups,
            Err(error) => return fail(&format!("{error:#}")),
        };
        match self.output {
            Output::Json => match serde_json::to_string_pretty(&groups) {
                Ok(text) => say(&text),
                Err(error) => return fail(&error),
            },
            Output::Text if groups.is_empty() => say(&"no group is subscribed in this sidecar"),
            Output::Text => {
                let texts: Vec<String> = groups.iter().map(Group::text).collect();
                say(&texts.join("\n"));
            }
        }
        ExitCode::SUCCESS
    }

    async fn groups(&self) -> anyhow::Result<Vec<Group>> {
        let connection = self.sidecar.beside().connect().await?;
        let names = match &self.group {
            Some(group) => vec![group.clone()],
            None => {
                let status = AdminServiceClient::new(connection.clone())
                    .get_status(proto::GetStatusRequest {})
                    .await
                    .map_err(|status| refusal(&status))?;
                let subscriptions = status.into_inner().subscriptions.into_iter();
                subscriptions.map(|found| found.group).collect()
            }
        };
        let mut client = SubscriberServiceClient::new(connection);
        let mut groups = Vec::new();
        for group in names {
            let request = proto::GetSubscriptionRequest {
                group: group.clone(),
            };
            match client.get_subscription(request).await {
                Ok(found) => groups.push(Group::of(group, found.into_inner())),
                // It has ended since.
                Err(status) if self.group.is_none() && status.code() == Code::NotFound => {}
                Err(status) => return Err(refusal(&status)),
            }
        }
        Ok(groups)
    }
}

#[derive(Debug, Serialize)]
struct Group {
    group: String,
    streams: u32,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    committed: i64,
    position: i64,
    lag: Option<i64>,
    in_flight: u64,
    parked: u64,
    oldest_unsettled: Option<f64>,
    blocked: Vec<Blocked>,
}

#[derive(Debug, Serialize)]
struct Blocked {
    offset: i64,
    key: String,
    attempts: u32,
    waiting: u64,
    reason: String,
    token: String,
}

impl Group {
    fn of(group: String, found: proto::GetSubscriptionResponse) -> Self {
        let blocked = |blocked: proto::BlockedRecord| Blocked {
            offset: blocked.offset,
            key: STANDARD.encode(&blocked.key),
            attempts: blocked.attempts,
            waiting: blocked.waiting,
            reason: blocked.reason,
            token: STANDARD.encode(&blocked.token),
        };
        let partition = |partition: proto::SubscriptionPartition| Partition {
            topic: partition.topic,
            partition: partition.partition,
            committed: partition.committed_offset,
            position: partition.position,
            lag: partition.lag,
            in_flight: partition.in_flight,
            parked: partition.parked,
            oldest_unsettled: partition
                .oldest_unsettled
                .and_then(|oldest| Duration::try_from(oldest).ok())
                .map(|oldest| oldest.as_secs_f64()),
            blocked: partition.blocked.into_iter().map(blocked).collect(),
        };
        Self {
            group,
            streams: found.streams,
            partitions: found.partitions.into_iter().map(partition).collect(),
        }
    }

    fn text(&self) -> String {
        let sum = |of: fn(&Partition) -> u64| self.partitions.iter().map(of).sum::<u64>();
        let known: Option<i64> = self.partitions.iter().map(|partition| partition.lag).sum();
        let mut text = format!(
            "{}: {} streams, {} partitions, lag {}, {} in flight, {} parked, {} blocked\n",
            self.group,
            self.streams,
            self.partitions.len(),
            shown(known),
            sum(|partition| partition.in_flight),
            sum(|partition| partition.parked),
            sum(|partition| partition.blocked.len() as u64),
        );
        let mut rows = vec![
            [
                "PARTITION",
                "COMMITTED",
                "POSITION",
                "LAG",
                "IN FLIGHT",
                "PARKED",
                "BLOCKED",
                "OLDEST",
            ]
            .map(str::to_owned),
        ];
        rows.extend(self.partitions.iter().map(|partition| {
            [
                format!("{}[{}]", partition.topic, partition.partition),
                partition.committed.to_string(),
                partition.position.to_string(),
                shown(partition.lag),
                partition.in_flight.to_string(),
                partition.parked.to_string(),
                partition.blocked.len().to_string(),
                partition
                    .oldest_unsettled
                    .map_or_else(|| "-".to_owned(), |oldest| format!("{oldest:.1}s")),
            ]
        }));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {}", line.join("  ").trim_end());
        }
        for partition in &self.partitions {
            for blocked in &partition.blocked {
                let _ = writeln!(
                    text,
                    "  blocked: {}[{}]@{} after {} attempts, {} wait behind it; {}\n    token {}",
                    partition.topic,
                    partition.partition,
                    blocked.offset,
                    blocked.attempts,
                    blocked.waiting,
                    blocked.reason,
                    blocked.token,
                );
            }
        }
        text.trim_end().to_owned()
    }
}

fn shown(number: Option<i64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}
