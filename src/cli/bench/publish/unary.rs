//! One record a call, with a stated number of calls at once.
//!
//! What always holds: each record is published by a call of its own, or the run fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, bail};
use tokio::task::JoinSet;

use super::{Start, Took};
use crate::{
    cli::{
        bench::{
            STALLED,
            latencies::{Latencies, Shared},
            load::{Load, connect},
            pace::Schedule,
        },
        client::{Connection, refusal},
    },
    grpc::proto::{
        PublishRequest, publish_result::Result as Answer,
        publisher_service_client::PublisherServiceClient,
    },
};

/// What the callers of a run share.
struct Calls {
    load: Load,
    rate: Option<u64>,
    next: AtomicU64,
    start: Start,
    latencies: Shared,
}

impl Calls {
    fn new(load: &Load, calls: u16, rate: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            load: load.clone(),
            rate,
            next: AtomicU64::new(0),
            start: Start::of(calls.into()),
            latencies: Shared::default(),
        })
    }
}

/// As fast as the calls are answered.
pub(super) async fn publish(
    load: &Load,
    connections: Vec<Connection>,
    calls: u16,
) -> anyhow::Result<Took> {
    let shared = Calls::new(load, calls, None);
    let mut callers = JoinSet::new();
    for connection in connections.iter().cycle().take(calls.into()) {
        callers.spawn(call(connection.clone(), Arc::clone(&shared)));
    }
    end(callers, &shared).await
}

/// At a rate. Each caller is a thread with a connection and a runtime of its own, as the direct client is one: it waits to the point, and
/// no other thread has to be woken to send.
pub(super) async fn paced(
    load: &Load,
    address: &str,
    calls: u16,
    rate: u64,
) -> anyhow::Result<Took> {
    let shared = Calls::new(load, calls, Some(rate));
    let mut callers = JoinSet::new();
    for _ in 0..calls {
        let (shared, address) = (Arc::clone(&shared), address.to_owned());
        callers.spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async { call(connect(&address).await?, shared).await })
        });
    }
    end(callers, &shared).await
}

/// Waits for all callers.
async fn end(
    mut callers: JoinSet<anyhow::Result<(Instant, Instant)>>,
    shared: &Calls,
) -> anyhow::Result<Took> {
    let mut last = None;
    while let Some(caller) = callers.join_next().await {
        let (begun, ended) = caller??;
        last = last.max(Some((begun, ended)));
    }
    let (begun, ended) = last.context("there was no caller")?;
    Ok(Took {
        span: ended - begun,
        latencies: Latencies::lock(&shared.latencies).clone(),
    })
}

/// Makes one call after the other until all records are published: whoever is free takes the next one. Says when all began, and when it ended.
async fn call(connection: Connection, shared: Arc<Calls>) -> anyhow::Result<(Instant, Instant)> {
    let mut client = PublisherServiceClient::new(connection);
    let (begun, _) = shared.start.wait().await;
    let schedule = shared.rate.map(|rate| Schedule { begun, rate });
    loop {
        let record = shared.next.fetch_add(1, Ordering::Relaxed);
        if record >= shared.load.records {
            return Ok((begun, Instant::now()));
        }
        // The thread is this caller's own.
        let due = schedule.map(|schedule| schedule.wait(record));
        let request = PublishRequest {
            records: vec![shared.load.record(record)],
            ..Default::default()
        };
        let answer = tokio::time::timeout(STALLED, client.publish(request));
        let answer = answer.await.context("no answer in time")?;
        let results = answer
            .map_err(|status| refusal(&status))?
            .into_inner()
            .results;
        if let Some(due) = due {
            Latencies::lock(&shared.latencies).add(due.elapsed());
        }
        match results.first().and_then(|result| result.result.as_ref()) {
            Some(Answer::Published(_)) if results.len() == 1 => {}
            other => bail!("a record was not simply published: {other:?}"),
        }
    }
}
