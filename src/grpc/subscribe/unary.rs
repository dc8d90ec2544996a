//! The calls of one answer: records by a long poll, and what is asked of a live subscription.

use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};

use super::{Service, invalid};
use crate::{
    access::Caller,
    consume::{BlockedLook, Live, PartitionLook},
    failure::Failure,
    grpc::{convert, deadline, proto, refuse_when_draining, status::status},
    kafka::{Offsets, Target, patterns},
    record::TopicPartition,
};

/// How many records a pull gets that does not say.
const PULL_RECORDS: u64 = 100;

/// The longest wait of a pull: connections that say nothing for long are cut on many ways.
const LONGEST_PULL: Duration = Duration::from_secs(60);

/// The answer on the wire.
pub(super) fn answer<T>(answered: Result<T, Failure>) -> Result<Response<T>, Status> {
    answered.map(Response::new).map_err(|failure| {
        tracing::debug!(reason = failure.reason.as_str(), "a call failed: {failure}");
        status(&failure)
    })
}

impl Service {
    pub(super) async fn pulled(
        &self,
        caller: &Caller,
        request: Request<proto::PullRequest>,
    ) -> Result<proto::PullResponse, Failure> {
        refuse_when_draining(&self.lifecycle)?;
        let answer_by = deadline::answer_by(request.metadata().as_ref());
        let request = request.into_inner();
        let Some(init) = request.init else {
            return Err(invalid("init", "must be set"));
        };
        let wait = convert::positive("wait", request.wait)?;
        let wait = wait
            .filter(|wait| !wait.is_zero())
            .map_or(LONGEST_PULL, |wait| wait.min(LONGEST_PULL));
        let (subscription, mut options) = self.agree(&init, caller)?;
        options.pull = Some(match request.max_records {
            0 => PULL_RECORDS,
            records => records.into(),
        });
        let by = Instant::now() + wait;
        let by = answer_by.map_or(by, |at| at.min(by));
        let pulled = self.pool.pull(&subscription, options, by).await?;
        Ok(proto::PullResponse {
            deliveries: Some(pulled.map_or_else(proto::Deliveries::default, |pulled| {
                proto::Deliveries::of(&pulled.batches, pulled.until)
            })),
        })
    }

    pub(super) async fn acknowledged(
        &self,
        caller: &Caller,
        request: Request<proto::AcknowledgeRequest>,
    ) -> Result<proto::AcknowledgeResponse, Failure> {
        let request = request.into_inner();
        let live = self.live(&request.group, caller)?;
        if request.items.is_empty() {
            return Err(invalid("items", "must hold at least one item"));
        }
        let has_dead_letters = live.subscription.dead_letter.is_some();
        let items = convert::settle_items("items", request.items, has_dead_letters)?;
        let refused = live.acknowledge(items).await?;
        Ok(proto::AcknowledgeResponse {
            outcomes: convert::acknowledged(refused),
        })
    }

    pub(super) async fn sought(
        &self,
        caller: &Caller,
        request: Request<proto::SeekRequest>,
    ) -> Result<proto::SeekResponse, Failure> {
        let request = request.into_inner();
        let live = self.live(&request.group, caller)?;
        let target = target(request.target, &live.subscription.topics)?;
        let sought = live.seek(target).await?;
        let all = |offsets: Offsets| offsets.into_iter().map(offset).collect();
        Ok(proto::SeekResponse {
            positions: all(sought.positions),
            elsewhere: all(sought.elsewhere),
        })
    }

    pub(super) async fn look(
        &self,
        caller: &Caller,
        request: Request<proto::GetSubscriptionRequest>,
    ) -> Result<proto::GetSubscriptionResponse, Failure> {
        let live = self.live(&request.into_inner().group, caller)?;
        let look = live.look().await?;
        Ok(proto::GetSubscriptionResponse {
            partitions: look.partitions.into_iter().map(partition).collect(),
            streams: look.streams as u32,
        })
    }

    /// The subscription of a group here, if the caller may read all of it.
    fn live(&self, group: &str, caller: &Caller) -> Result<Live, Failure> {
        if group.is_empty() {
            return Err(invalid("group", "must not be empty"));
        }
        // Before anything is said of whether it lives.
        self.access.belong(caller, group)?;
        let live = self.pool.live(group)?;
        for topic in &live.subscription.topics {
            self.access.subscribe(caller, group, topic)?;
        }
        Ok(live)
    }
}

fn partition(look: PartitionLook) -> proto::SubscriptionPartition {
    proto::SubscriptionPartition {
        topic: look.partition.topic,
        partition: look.partition.partition,
        committed_offset: look.committed,
        position: look.position,
        lag: look.lag,
        in_flight: look.in_flight,
        parked: look.parked,
        oldest_unsettled: look.oldest.map(convert::duration),
        blocked: look.blocked.into_iter().map(blocked).collect(),
    }
}

fn blocked(look: BlockedLook) -> proto::BlockedRecord {
    proto::BlockedRecord {
        token: look.token.encode().to_vec().into(),
        key: look.key,
        offset: look.offset,
        attempts: look.attempts,
        reason: look.reason,
        waiting: look.waiting,
    }
}

/// Where a seek is to go.
fn target(
    asked: Option<proto::seek_request::Target>,
    topics: &[String],
) -> Result<Target, Failure> {
    use proto::seek_request::Target as Asked;
    let offsets = match asked {
        None => return Err(invalid("target", "must be set")),
        Some(Asked::Kind(kind)) => {
            return match proto::StartKind::try_from(kind) {
                Ok(proto::StartKind::Earliest) => Ok(Target::Earliest),
                Ok(proto::StartKind::Latest) => Ok(Target::Latest),
                Ok(proto::StartKind::Unspecified) | Err(_) => {
                    Err(invalid("kind", "must be one end of the log"))
                }
            };
        }
        Some(Asked::Time(time)) => {
            return convert::millis(time)
                .map(Target::Time)
                .ok_or_else(|| invalid("time", "is not a valid time"));
        }
        Some(Asked::Offsets(offsets)) => offsets.offsets,
    };
    if offsets.is_empty() {
        return Err(invalid("offsets.offsets", "must hold at least one"));
    }
    let mut found = Offsets::new();
    for (index, asked) in offsets.into_iter().enumerate() {
        let wrong = |what| Err(invalid(&format!("offsets.offsets[{index}]"), what));
        let partition = TopicPartition::new(&asked.topic, asked.partition);
        if !patterns::mean(topics, &asked.topic) {
            return wrong("is not of a topic of the subscription");
        }
        if asked.offset < 0 {
            return wrong("must not be negative");
        }
        if found.iter().any(|(known, _)| *known == partition) {
            return wrong("names a partition again");
        }
        found.push((partition, asked.offset));
    }
    Ok(Target::Offsets(found))
}

fn offset((partition, offset): (TopicPartition, i64)) -> proto::TopicPartitionOffset {
    proto::TopicPartitionOffset {
        topic: partition.topic,
        partition: partition.partition,
        offset,
    }
}
