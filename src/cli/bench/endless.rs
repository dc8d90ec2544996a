//! Honest callers: streams that publish until they are told to stop. They keep to their window, always read their answers, and send no more in place of
//! what was refused until the time that they were told.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::load::{Limits, Load};
use crate::{
    cli::client::{Connection, refusal},
    grpc::proto::{
        self, BatchAck, PublishStreamRequest, publish_stream_request::Message as Request,
        publish_stream_response::Message as Response,
        publisher_service_client::PublisherServiceClient, record_note::Note,
    },
};

/// Nothing waits: looked at again then.
const IDLE: Duration = Duration::from_secs(3600);

/// What a caller is told of a record.
pub(super) enum Outcome {
    /// Where it is.
    Published(i32, i64),
    /// It is not written, and when to come back.
    Refused(Duration),
    /// Anything else.
    Failed(String),
}

/// Of each record of a batch, in order.
pub(super) fn outcomes(ack: &BatchAck) -> impl Iterator<Item = Outcome> {
    let noted = |index| {
        ack.notes
            .iter()
            .find(move |note| note.index as usize == index)
    };
    let places = ack.partitions.iter().zip(&ack.offsets);
    places.enumerate().map(move |(index, (partition, offset))| {
        match noted(index).and_then(|note| note.note.as_ref()) {
            None => Outcome::Published(*partition, *offset),
            Some(Note::Error(error)) => match error.retry_after {
                Some(wait) if error.persistence() == proto::Persistence::NotPersisted => {
                    Outcome::Refused(wait.try_into().unwrap_or_default())
                }
                _ => Outcome::Failed(error.message.clone()),
            },
            Some(note) => Outcome::Failed(format!("{note:?}")),
        }
    })
}

/// How many records had which outcome.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) published: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Tally {
    pub(super) fn note(&self, outcome: &Outcome) {
        let count = match outcome {
            Outcome::Published(..) => &self.published,
            Outcome::Refused(_) => &self.refused,
            Outcome::Failed(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// In that order.
    pub(super) fn counts(&self) -> [u64; 3] {
        [&self.published, &self.refused, &self.failed].map(|count| count.load(Ordering::Relaxed))
    }
}

/// One stream of a load, made message by message from their sequences. Each answer goes to `answered`. Ends when all is answered.
pub(super) async fn publish(
    connection: Connection,
    load: &Load,
    message: impl Fn(u64) -> PublishStreamRequest,
    stop: CancellationToken,
    mut answered: impl FnMut(&BatchAck),
) -> anyhow::Result<()> {
    let mut client = PublisherServiceClient::new(connection).max_decoding_message_size(usize::MAX);
    let (requests, receiver) = mpsc::channel(1);
    let open = proto::PublishOpen {
        client_id: "outrigger-bench".to_owned(),
        ..Default::default()
    };
    let open = PublishStreamRequest {
        message: Some(Request::Open(open)),
    };
    requests.send(open).await?;
    let answers = client.publish_stream(ReceiverStream::new(receiver)).await;
    let mut answers = answers.map_err(|status| refusal(&status))?.into_inner();
    let room = Arc::new(Semaphore::new(0));

    let places = Arc::clone(&room);
    let sending = async move {
        for sequence in 1.. {
            let place = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                place = places.acquire_many(load.batch as u32) => place?,
            };
            // Given back by the answer.
            place.forget();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Why the stream is over, its reader is told.
                sent = requests.send(message(sequence)) => if sent.is_err() { break },
            }
        }
        drop(requests);
        anyhow::Ok(())
    };
    let reading = async {
        // What was refused gives its room back later.
        let mut later: VecDeque<(Instant, usize)> = VecDeque::new();
        loop {
            let next = later
                .front()
                .map_or_else(|| Instant::now() + IDLE, |(at, _)| *at);
            let answer = tokio::select! {
                answer = answers.message() => answer.map_err(|status| refusal(&status))?,
                () = tokio::time::sleep_until(next) => {
                    let places = later.pop_front().map_or(0, |(_, places)| places);
                    room.add_permits(places);
                    continue;
                }
            };
            match answer.and_then(|answer| answer.message) {
                Some(Response::Welcome(welcome)) => {
                    room.add_permits(Limits::told(&welcome).window(load)? as usize);
                }
                Some(Response::Acks(acks)) => {
                    for ack in acks.acks {
                        answered(&ack);
                        let wait = outcomes(&ack).find_map(|outcome| match outcome {
                            Outcome::Refused(wait) => Some(wait),
                            _ => None,
                        });
                        match wait {
                            None => room.add_permits(ack.offsets.len()),
                            Some(wait) => {
                                later.push_back((Instant::now() + wait, ack.offsets.len()))
                            }
                        }
                    }
                }
                Some(Response::Draining(_)) => bail!("the sidecar is stopping"),
                None => return Ok(()),
            }
        }
    };
    tokio::try_join!(sending, reading)?;
    Ok(())
}
