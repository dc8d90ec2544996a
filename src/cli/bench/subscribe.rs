//! The subscribe load through the sidecar: streams of a fresh group that ack every message as a whole.
//!
//! What always holds: each record is delivered once and its ack is recorded, or the run fails.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    STALLED,
    load::{Load, connections},
};
use crate::{
    cli::client::{Connection, refusal},
    grpc::proto::{
        self, SubscribeRequest, settle_item::Action, subscribe_request::Message as Request,
        subscribe_response::Message as Response,
        subscriber_service_client::SubscriberServiceClient,
    },
};

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// From the first delivery to the last.
    pub(super) delivering: Duration,
    /// From the first message to the last delivery.
    pub(super) since_init: Duration,
    /// Records that were delivered until then: the last message may bring more than enough.
    pub(super) records: u64,
}

/// What the streams of a run share.
struct Progress {
    records: u64,
    seen: AtomicU64,
    first: OnceLock<Instant>,
    /// When there were enough, and how many.
    last: OnceLock<(Instant, u64)>,
    /// Raised when there are enough.
    done: CancellationToken,
}

/// Reads the load as a fresh group, and hands each message to `take`.
pub(super) async fn subscribe(
    load: &Load,
    address: &str,
    group: String,
    take: impl Fn(&proto::Deliveries) + Clone + Send + 'static,
) -> anyhow::Result<Took> {
    let begun = Instant::now();
    let progress = Arc::new(Progress {
        records: load.records,
        seen: AtomicU64::new(0),
        first: OnceLock::new(),
        last: OnceLock::new(),
        done: CancellationToken::new(),
    });
    let connections = connections(load.connections, address).await?;
    let mut streams = JoinSet::new();
    for connection in connections.iter().cycle().take(load.streams) {
        let (load, connection) = (load.clone(), connection.clone());
        let (group, progress, take) = (group.clone(), Arc::clone(&progress), take.clone());
        streams
            .spawn(async move { subscribe_one(&load, connection, group, &progress, take).await });
    }
    while let Some(stream) = streams.join_next().await {
        stream??;
    }
    let first = *progress.first.get().context("nothing was delivered")?;
    let (last, records) = *progress.last.get().context("too little was delivered")?;
    Ok(Took {
        delivering: last - first,
        since_init: last - begun,
        records,
    })
}

async fn subscribe_one(
    load: &Load,
    connection: Connection,
    group: String,
    progress: &Progress,
    take: impl Fn(&proto::Deliveries),
) -> anyhow::Result<()> {
    let mut client = SubscriberServiceClient::new(connection).max_decoding_message_size(usize::MAX);
    let (requests, receiver) = mpsc::channel(64);
    let send = |message| {
        requests.send(SubscribeRequest {
            message: Some(message),
        })
    };
    send(Request::Init(proto::Init {
        group,
        topics: vec![load.topic().to_owned()],
        ordering: load.ordering.into(),
        window: Some(proto::Window {
            max_records: Some(load.subscribe_window.0),
            max_bytes: Some(load.subscribe_window.1),
        }),
        client_id: "outrigger-bench".to_owned(),
        ..Default::default()
    }))
    .await?;
    let messages = client.subscribe(ReceiverStream::new(receiver)).await;
    let mut messages = messages.map_err(|status| refusal(&status))?.into_inner();
    let (mut request_id, mut settled) = (0, 0);
    let mut draining = false;
    loop {
        let message = tokio::select! {
            biased;
            message = tokio::time::timeout(STALLED, messages.message()) => message.context("no record in time")?,
            () = progress.done.cancelled(), if !draining => {
                draining = true;
                send(Request::Drain(proto::Drain {})).await?;
                continue;
            }
        };
        let message = message.map_err(|status| refusal(&status))?;
        match message.and_then(|message| message.message) {
            Some(Response::Deliveries(deliveries)) => {
                take(&deliveries);
                progress.count(&deliveries)?;
                request_id += 1;
                let items = deliveries
                    .deliveries
                    .into_iter()
                    .map(|delivery| proto::SettleItem {
                        token: delivery.token,
                        action: Some(Action::Ack(proto::Ack {})),
                    })
                    .collect();
                send(Request::Settle(proto::Settle::new(request_id, items))).await?;
            }
            Some(Response::Settled(answer)) => {
                if let Some(outcome) = answer.outcomes.first() {
                    bail!("an ack was refused: {outcome:?}");
                }
                settled += 1;
            }
            Some(_) => {}
            // The sidecar ends a drained stream when everything of it is settled and answered.
            None => break,
        }
    }
    ensure!(draining, "the sidecar ended the stream");
    ensure!(
        settled == request_id,
        "{settled} of {request_id} acks were answered"
    );
    Ok(())
}

impl Progress {
    fn count(&self, deliveries: &proto::Deliveries) -> anyhow::Result<()> {
        if let Some(again) = deliveries.deliveries.iter().find(|one| one.attempt > 1) {
            bail!("offset {} was delivered twice", again.offset);
        }
        self.first.get_or_init(Instant::now);
        let count = deliveries.deliveries.len() as u64;
        let seen = self.seen.fetch_add(count, Ordering::Relaxed) + count;
        if seen >= self.records && !self.done.is_cancelled() {
            self.last.get_or_init(|| (Instant::now(), seen));
            self.done.cancel();
        }
        Ok(())
    }
}
