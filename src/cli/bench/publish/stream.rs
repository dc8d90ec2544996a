//! Streams that keep their window full, or send what is due.
//!
//! A stream's batches are made when its connection takes them, so that no task or channel stands between; its answers give the window back.
//! At a rate, record `n` is due on stream `n` modulo their number, and a message takes what is due by then.
//! What always holds: each record is answered once and without a note, or the run fails.

use std::{
    collections::HashMap,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_stream::Stream;
use tokio_util::sync::PollSemaphore;

use super::{Start, Took};
use crate::{
    cli::{
        bench::{
            STALLED,
            latencies::{Latencies, Shared},
            load::{Limits, Load},
            pace::Schedule,
        },
        client::{Connection, refusal},
    },
    grpc::proto::{
        self, PublishStreamRequest, publish_stream_request::Message as Request,
        publish_stream_response::Message as Response,
        publisher_service_client::PublisherServiceClient,
    },
};

/// What the streams of a run share.
struct Streams {
    load: Load,
    rate: Option<u64>,
    start: Start,
    /// Of each stream: how many of its records are due.
    due: Vec<Arc<Semaphore>>,
    latencies: Shared,
}

/// Publishes the load, at a rate if there is one.
pub(super) async fn publish(
    load: &Load,
    connections: Vec<Connection>,
    rate: Option<u64>,
) -> anyhow::Result<Took> {
    let shared = Arc::new(Streams {
        load: load.clone(),
        rate,
        start: Start::of(load.streams),
        due: (0..load.streams)
            .map(|_| Arc::new(Semaphore::new(0)))
            .collect(),
        latencies: Shared::default(),
    });
    let mut streams = JoinSet::new();
    for (stream, connection) in connections.iter().cycle().take(load.streams).enumerate() {
        let (shared, connection) = (Arc::clone(&shared), connection.clone());
        streams.spawn(async move { shared.publish_one(stream, connection).await });
    }
    let mut last = None;
    while let Some(stream) = streams.join_next().await {
        let (begun, ended) = stream??;
        last = last.max(Some((begun, ended)));
    }
    let (begun, ended) = last.context("there was no stream")?;
    Ok(Took {
        span: ended - begun,
        latencies: Latencies::lock(&shared.latencies).clone(),
    })
}

impl Streams {
    /// When all streams began, and when the last answer of this one came.
    async fn publish_one(
        self: Arc<Self>,
        stream: usize,
        connection: Connection,
    ) -> anyhow::Result<(Instant, Instant)> {
        // An answer has a few bytes for each record, and 256 batches may be answered together.
        let mut client =
            PublisherServiceClient::new(connection).max_decoding_message_size(usize::MAX);
        let records = self.load.share(stream);
        let room = Arc::new(Semaphore::new(0));
        let sent = Arc::new(Sent::default());
        let batches = Batches {
            load: self.load.clone(),
            left: records,
            gone: 0,
            sequence: 0,
            next: 0,
            due: self
                .rate
                .map(|_| Arc::clone(&self.due[stream]))
                .map(PollSemaphore::new),
            room: PollSemaphore::new(Arc::clone(&room)),
            sent: Arc::clone(&sent),
        };
        let answers = client.publish_stream(batches).await;
        let mut answers = answers.map_err(|status| refusal(&status))?.into_inner();
        let (mut answered, mut begun, mut ended) = (0, None, None);
        let mut pacing = JoinSet::new();
        loop {
            let answer = tokio::time::timeout(STALLED, answers.message())
                .await
                .context("no answer in time")?
                .map_err(|status| refusal(&status))?;
            match answer.and_then(|answer| answer.message) {
                Some(Response::Welcome(welcome)) => {
                    let window = Limits::told(&welcome).window(&self.load)?;
                    let (at, is_the_one) = self.start.wait().await;
                    begun = Some(at);
                    if is_the_one {
                        let all = Arc::clone(&self);
                        pacing.spawn_blocking(move || all.pace(at));
                    }
                    room.add_permits(window as usize);
                }
                Some(Response::Acks(acks)) => {
                    let mut count = 0;
                    for ack in acks.acks {
                        if let Some(note) = ack.notes.first() {
                            bail!("a record was not simply published: {note:?}");
                        }
                        count += ack.offsets.len();
                        if let (Some(rate), Some(begun)) = (self.rate, begun) {
                            let first = sent.first_of(ack.sequence);
                            let first = first.context("a batch was answered twice")?;
                            let schedule = Schedule { begun, rate };
                            self.time(schedule, stream, first..first + ack.offsets.len() as u64);
                        }
                    }
                    answered += count as u64;
                    room.add_permits(count);
                    if answered >= records {
                        ended = Some(Instant::now());
                    }
                }
                Some(Response::Draining(_)) => bail!("the sidecar is stopping"),
                None => break,
            }
        }
        // Others may have records to come.
        while let Some(paced) = pacing.join_next().await {
            paced?;
        }
        ensure!(
            answered == records,
            "{answered} records were answered, not {records}"
        );
        let begun = begun.context("the sidecar did not welcome the stream")?;
        // Without a record there is no answer either.
        Ok((begun, ended.unwrap_or(begun)))
    }

    /// Lets each record go when it is due.
    fn pace(&self, begun: Instant) {
        let Some(rate) = self.rate else { return };
        let schedule = Schedule { begun, rate };
        for (record, due) in (0..self.load.records).zip(self.due.iter().cycle()) {
            schedule.wait(record);
            due.add_permits(1);
        }
    }

    /// Adds the latencies of records of a stream that were answered now.
    fn time(&self, schedule: Schedule, stream: usize, answered: Range<u64>) {
        let now = Instant::now();
        let mut latencies = Latencies::lock(&self.latencies);
        for own in answered {
            let due = schedule.due(own * self.load.streams as u64 + stream as u64);
            latencies.add(now.saturating_duration_since(due));
        }
    }
}

/// The batches that are on their way at a rate, by sequence: which of its stream's records each begins with. Batches may be answered out of order.
#[derive(Default)]
struct Sent(Mutex<HashMap<u64, u64>>);

impl Sent {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_of(&self, sequence: u64) -> Option<u64> {
        self.lock().remove(&sequence)
    }
}

/// The requests of a stream.
struct Batches {
    load: Load,
    left: u64,
    /// Records that were sent.
    gone: u64,
    /// Of the last batch; 0: not opened yet.
    sequence: u64,
    /// Records of the next batch, which waits for room; 0: not known yet.
    next: usize,
    /// Absent: all are.
    due: Option<PollSemaphore>,
    room: PollSemaphore,
    sent: Arc<Sent>,
}

impl Batches {
    /// How many records the next message takes.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        let most = self.load.batch.min(self.left as usize);
        let Some(due) = &mut self.due else {
            return Poll::Ready(most);
        };
        // It is never closed.
        if let Some(first) = ready!(due.poll_acquire(context)) {
            first.forget();
        }
        // Those that came with it.
        Poll::Ready(1 + due.as_ref().forget_permits(most - 1))
    }
}

impl Stream for Batches {
    type Item = PublishStreamRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.sequence == 0 {
            this.sequence = 1;
            let open = proto::PublishOpen {
                client_id: "outrigger-bench".to_owned(),
                ..Default::default()
            };
            return Poll::Ready(Some(PublishStreamRequest {
                message: Some(Request::Open(open)),
            }));
        }
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if this.next == 0 {
            this.next = ready!(this.poll_due(context));
        }
        match ready!(this.room.poll_acquire_many(context, this.next as u32)) {
            // Given back by the answer.
            Some(room) => room.forget(),
            None => return Poll::Ready(None),
        }
        if this.due.is_some() {
            this.sent.lock().insert(this.sequence, this.gone);
        }
        let count = std::mem::take(&mut this.next);
        let batch = this.load.message(this.sequence, this.gone, count);
        this.left -= count as u64;
        this.gone += count as u64;
        this.sequence += 1;
        Poll::Ready(Some(batch))
    }
}
