//! The publish load through the sidecar: streams that keep their window full.
//!
//! A stream's batches are made when its connection takes them, so that no task or channel stands between; its answers give the window back.
//! What always holds: each record is answered once and without a note, or the run fails.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use prost::Message as _;
use tokio::{
    sync::{Barrier, Semaphore},
    task::JoinSet,
};
use tokio_stream::Stream;
use tokio_util::sync::PollSemaphore;

use super::{
    STALLED,
    load::{Load, connect},
};
use crate::{
    cli::client::refusal,
    grpc::proto::{
        self, PublishStreamRequest, publish_stream_request::Message as Request,
        publish_stream_response::Message as Response,
        publisher_service_client::PublisherServiceClient,
    },
};

/// Publishes the load; says how long it took from the first batch to the last answer.
pub(super) async fn publish(load: &Load, address: &str) -> anyhow::Result<Duration> {
    let together = Arc::new(Barrier::new(load.streams));
    let mut streams = JoinSet::new();
    for stream in 0..load.streams {
        let (load, address) = (load.clone(), address.to_owned());
        let together = Arc::clone(&together);
        let records = load.share(stream);
        streams.spawn(async move { publish_one(&load, &address, records, &together).await });
    }
    let mut span: Option<(Instant, Instant)> = None;
    while let Some(stream) = streams.join_next().await {
        let (begun, ended) = stream??;
        span = Some(span.map_or((begun, ended), |(first, last)| {
            (first.min(begun), last.max(ended))
        }));
    }
    let (begun, ended) = span.context("there was no stream")?;
    Ok(ended - begun)
}

/// When the first batch of a stream went, and when its last answer came.
async fn publish_one(
    load: &Load,
    address: &str,
    records: u64,
    together: &Barrier,
) -> anyhow::Result<(Instant, Instant)> {
    // An answer has a few bytes for each record, and 256 batches may be answered together.
    let mut client =
        PublisherServiceClient::new(connect(address).await?).max_decoding_message_size(usize::MAX);
    let room = Arc::new(Semaphore::new(0));
    let batches = Batches {
        topic: load.topic.clone(),
        value: load.value.clone(),
        batch: load.batch,
        left: records,
        sequence: 0,
        room: PollSemaphore::new(Arc::clone(&room)),
    };
    let answers = client.publish_stream(batches).await;
    let mut answers = answers.map_err(|status| refusal(&status))?.into_inner();
    let (mut answered, mut begun) = (0, None);
    let mut ended = None;
    loop {
        let answer = tokio::time::timeout(STALLED, answers.message())
            .await
            .context("no answer in time")?
            .map_err(|status| refusal(&status))?;
        match answer.and_then(|answer| answer.message) {
            Some(Response::Welcome(welcome)) => {
                let window = window(load, &welcome)?;
                together.wait().await;
                begun = Some(Instant::now());
                room.add_permits(window);
            }
            Some(Response::Acks(acks)) => {
                let mut count = 0;
                for ack in acks.acks {
                    if let Some(note) = ack.notes.first() {
                        bail!("a record was not simply published: {note:?}");
                    }
                    count += ack.offsets.len();
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
    ensure!(
        answered == records,
        "{answered} records were answered, not {records}"
    );
    Ok((
        begun.context("the sidecar did not welcome the stream")?,
        // Without a record there is no answer either.
        ended.unwrap_or_else(Instant::now),
    ))
}

/// How many records may be unanswered, in whole batches.
fn window(load: &Load, welcome: &proto::PublishWelcome) -> anyhow::Result<usize> {
    let window = load.window(welcome.window_records, welcome.window_bytes);
    ensure!(
        window >= load.batch as u64,
        "a batch of {} records does not fit the window, which takes {window}",
        load.batch
    );
    let message = batch(&load.topic, &load.value, 1, load.batch).encoded_len();
    ensure!(
        message as u64 <= welcome.max_message_bytes,
        "a batch has {message} bytes, and the sidecar takes {}",
        welcome.max_message_bytes
    );
    Ok(window as usize)
}

/// The requests of a stream.
struct Batches {
    topic: String,
    value: bytes::Bytes,
    batch: usize,
    left: u64,
    /// Of the last batch; 0: not opened yet.
    sequence: u64,
    room: PollSemaphore,
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
        let count = this.batch.min(this.left as usize);
        match ready!(this.room.poll_acquire_many(context, count as u32)) {
            // Given back by the answer.
            Some(room) => room.forget(),
            None => return Poll::Ready(None),
        }
        this.left -= count as u64;
        let batch = batch(&this.topic, &this.value, this.sequence, count);
        this.sequence += 1;
        Poll::Ready(Some(batch))
    }
}

fn batch(topic: &str, value: &bytes::Bytes, sequence: u64, count: usize) -> PublishStreamRequest {
    let record = || proto::Record {
        topic: topic.to_owned(),
        // Counted, not copied.
        value: Some(value.clone()),
        ..Default::default()
    };
    PublishStreamRequest {
        message: Some(Request::Batch(proto::PublishBatch {
            sequence,
            records: std::iter::repeat_with(record).take(count).collect(),
            ack_level: 0,
        })),
    }
}
