//! The same for subscriptions.

use std::{collections::BTreeSet, time::Duration};

use super::{millis, unknown};
use crate::{
    consume::{
        Action, Confirm, Ordering, PartitionChange, Refusal, Retry, SettleItem, StreamOptions,
        Subscription, Token,
    },
    failure::{Failure, Reason},
    grpc::{proto, settle::Received},
    kafka::{Start, patterns},
    record::{Usage, topic_problem},
};

/// What a first message of a subscription asks for.
pub(in crate::grpc) fn init(
    init: &proto::Init,
    window: Usage,
) -> Result<(Subscription, StreamOptions), Failure> {
    let invalid = |field: &str, text: &str| {
        Failure::invalid(Reason::InvalidRequest, format!("init.{field}"), text)
    };
    if init.group.is_empty() {
        return Err(invalid("group", "must not be empty"));
    }
    if init.group.len() > 249 {
        return Err(invalid("group", "must not be longer than 249 bytes"));
    }
    if init.topics.is_empty() {
        return Err(invalid("topics", "must name at least one topic"));
    }
    for (index, topic) in init.topics.iter().enumerate() {
        if let Some(problem) = patterns::problem(topic) {
            return Err(invalid(&format!("topics[{index}]"), &problem));
        }
    }
    let ordering = match proto::Ordering::try_from(init.ordering) {
        Ok(proto::Ordering::Partition) => Ordering::Partition,
        Ok(proto::Ordering::Unordered) => Ordering::Unordered,
        Ok(proto::Ordering::Key | proto::Ordering::Unspecified) => Ordering::Key,
        Err(_) => return Err(unknown("init.ordering", init.ordering)),
    };
    let confirm = match proto::Confirm::try_from(init.confirm) {
        Ok(proto::Confirm::Unspecified | proto::Confirm::Recorded) => Confirm::Recorded,
        Ok(proto::Confirm::None) => Confirm::None,
        Ok(proto::Confirm::Durable) => Confirm::Durable,
        Err(_) => return Err(unknown("init.confirm", init.confirm)),
    };
    use proto::start_position::Position;
    let start = match init
        .start
        .as_ref()
        .and_then(|start| start.position.as_ref())
    {
        None => Start::Earliest,
        Some(Position::Time(time)) => {
            Start::Time(millis(*time).ok_or_else(|| invalid("start.time", "is not a valid time"))?)
        }
        Some(Position::Kind(kind)) => match proto::StartKind::try_from(*kind) {
            Ok(proto::StartKind::Unspecified | proto::StartKind::Earliest) => Start::Earliest,
            Ok(proto::StartKind::Latest) => Start::Latest,
            Err(_) => return Err(unknown("init.start.kind", *kind)),
        },
    };
    let topics: BTreeSet<String> = init.topics.iter().cloned().collect();
    let subscription = Subscription {
        group: init.group.clone(),
        topics: topics.into_iter().collect(),
        ordering,
        retry: retry(init.retry.unwrap_or_default())?,
        dead_letter: init.dead_letter.as_ref().map(|policy| policy.topic.clone()),
        start,
    };
    let field = "dead_letter.topic";
    let has_pattern = || init.topics.iter().any(|topic| patterns::is_pattern(topic));
    if subscription.dead_letter.as_deref() == Some("") && has_pattern() {
        let text = "must be named where topics are meant by a regular expression";
        return Err(invalid(field, text));
    }
    for topic in subscription.dead_letter_topics() {
        if let Some(problem) = topic_problem(&topic) {
            return Err(invalid(field, &format!("{topic:?} {problem}")));
        }
        if patterns::mean(&subscription.topics, &topic) {
            let text = format!("{topic:?} is subscribed to: its records would go in circles");
            return Err(invalid(field, &text));
        }
    }
    let options = StreamOptions {
        window,
        lease: lease("init.lease", init.lease)?.unwrap_or(DEFAULT_LEASE),
        confirm,
        max_message_bytes: match init.max_message_bytes {
            0 => DEFAULT_MESSAGE_BYTES,
            bytes => bytes,
        },
        pull: None,
    };
    Ok((subscription, options))
}

/// The lease of a stream that asks for none.
const DEFAULT_LEASE: Duration = Duration::from_secs(30);

/// A lease that was asked for: from 5 s to 600 s.
pub(in crate::grpc) fn lease(
    field: &str,
    asked: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Failure> {
    let bounds = Duration::from_secs(5)..=Duration::from_secs(600);
    let lease = positive(field, asked)?;
    match lease.is_some_and(|lease| !bounds.contains(&lease)) {
        true => Err(invalid(field, "must be from 5 s to 600 s")),
        false => Ok(lease),
    }
}

/// How records are tried again.
fn retry(asked: proto::RetryPolicy) -> Result<Retry, Failure> {
    let delay = |name: &str, asked, default: u64| {
        let delay = positive(&format!("init.retry.{name}"), asked)?;
        let delay = delay.filter(|delay| !delay.is_zero());
        Ok::<_, Failure>(delay.map_or(default, |delay| delay.as_millis() as u64))
    };
    let min_delay = delay("min_delay", asked.min_delay, 1000)?;
    let max_delay = delay("max_delay", asked.max_delay, min_delay.max(300_000))?;
    if max_delay < min_delay {
        return Err(invalid(
            "init.retry.max_delay",
            "must not be below min_delay",
        ));
    }
    let multiplier = match asked.multiplier {
        0.0 => 2.0,
        multiplier if (1.0..=1e6).contains(&multiplier) => multiplier,
        _ => {
            return Err(invalid(
                "init.retry.multiplier",
                "must be 0, for the default, or at least 1",
            ));
        }
    };
    Ok(Retry {
        min_delay,
        max_delay,
        multiplier,
        max_attempts: match asked.max_attempts {
            0 => 5,
            attempts => attempts,
        },
    })
}

/// The longest wait that is taken.
const LONGEST: Duration = Duration::from_hours(24 * 7);

/// A time that was asked for; not negative, and not absurd.
pub(in crate::grpc) fn positive(
    field: &str,
    asked: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Failure> {
    let Some(asked) = asked else {
        return Ok(None);
    };
    Duration::try_from(asked)
        .ok()
        .filter(|duration| *duration <= LONGEST)
        .map(Some)
        .ok_or_else(|| invalid(field, "must be a time from 0 to seven days"))
}

fn invalid(field: &str, text: &str) -> Failure {
    Failure::invalid(Reason::InvalidRequest, field, text)
}

/// What a client's gRPC library accepts unless told otherwise.
const DEFAULT_MESSAGE_BYTES: u64 = 4 * 1024 * 1024;

/// The items of a settle that came on a stream.
pub(in crate::grpc) fn received_items(
    path: &str,
    received: Vec<Received>,
    has_dead_letters: bool,
) -> Result<Vec<SettleItem>, Failure> {
    let item = |(index, received)| match received {
        Received::Ack(token) => Ok(SettleItem {
            token: Some(token),
            action: Action::Ack,
        }),
        Received::Other(item) => settle_item(path, index, item, has_dead_letters),
    };
    received.into_iter().enumerate().map(item).collect()
}

/// The items of a settle.
pub(in crate::grpc) fn settle_items(
    path: &str,
    items: Vec<proto::SettleItem>,
    has_dead_letters: bool,
) -> Result<Vec<SettleItem>, Failure> {
    let item = |(index, item)| settle_item(path, index, item, has_dead_letters);
    items.into_iter().enumerate().map(item).collect()
}

fn settle_item(
    path: &str,
    index: usize,
    item: proto::SettleItem,
    has_dead_letters: bool,
) -> Result<SettleItem, Failure> {
    use proto::settle_item::Action as Asked;
    let action = match item.action {
        Some(Asked::Ack(_)) => Action::Ack,
        Some(Asked::Release(_)) => Action::Release,
        Some(Asked::Nack(nack)) => {
            let field = format!("{path}[{index}].nack.delay");
            let delay = positive(&field, nack.delay)?;
            Action::Nack {
                delay: delay.filter(|delay| !delay.is_zero()),
                reason: nack.reason,
            }
        }
        Some(Asked::DeadLetter(_)) if !has_dead_letters => {
            return Err(Failure::not_available(
                "SettleItem.dead_letter without Init.dead_letter",
            ));
        }
        Some(Asked::DeadLetter(dead_letter)) => Action::DeadLetter {
            reason: dead_letter.reason,
        },
        None => {
            return Err(Failure::invalid(
                Reason::InvalidRequest,
                format!("{path}[{index}].action"),
                "must be set",
            ));
        }
    };
    Ok(SettleItem {
        token: Token::decode(&item.token),
        action,
    })
}

/// Every item: what became of it, done where nothing refused it.
pub(in crate::grpc) fn acknowledged(refused: Vec<Option<Refusal>>) -> Vec<proto::ItemOutcome> {
    let item = |(index, refusal): (usize, Option<Refusal>)| proto::ItemOutcome {
        index: index as u32,
        outcome: refusal.map_or(proto::Outcome::Recorded, outcome).into(),
    };
    refused.into_iter().enumerate().map(item).collect()
}

/// The items that changed nothing.
pub(in crate::grpc) fn outcomes(refused: Vec<(u32, Refusal)>) -> Vec<proto::ItemOutcome> {
    let item = |(index, refusal)| proto::ItemOutcome {
        index,
        outcome: outcome(refusal).into(),
    };
    refused.into_iter().map(item).collect()
}

/// Why an item changed nothing.
pub(in crate::grpc) fn outcome(refusal: Refusal) -> proto::Outcome {
    match refusal {
        Refusal::AlreadySettled => proto::Outcome::AlreadySettled,
        Refusal::Redelivered => proto::Outcome::ExpiredRedelivered,
        Refusal::PartitionMoved => proto::Outcome::FencedPartitionMoved,
        Refusal::FencedBySeek => proto::Outcome::FencedBySeek,
        Refusal::UnknownToken => proto::Outcome::UnknownToken,
        Refusal::BadToken => proto::Outcome::BadToken,
    }
}

/// What happened to a partition.
pub(in crate::grpc) fn partition_event_kind(change: PartitionChange) -> proto::PartitionEventKind {
    match change {
        PartitionChange::Assigned => proto::PartitionEventKind::Assigned,
        PartitionChange::Revoking => proto::PartitionEventKind::Revoking,
        PartitionChange::Revoked => proto::PartitionEventKind::Revoked,
        PartitionChange::Lost => proto::PartitionEventKind::Lost,
        PartitionChange::Seeked => proto::PartitionEventKind::Seeked,
        PartitionChange::Truncated => proto::PartitionEventKind::Truncated,
        PartitionChange::Blocked => proto::PartitionEventKind::Blocked,
        PartitionChange::Unblocked => proto::PartitionEventKind::Unblocked,
    }
}

/// A window as a message.
pub(in crate::grpc) fn window(window: Usage) -> proto::Window {
    proto::Window {
        max_records: Some(window.records),
        max_bytes: Some(window.bytes),
    }
}
