//! `outrigger bench crowd`: what many subscriptions and streams hold that wait for records.
//!
//! The streams are spread over the groups, a hundred to a connection; nothing is published. Measured when every group has its partitions.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    STALLED,
    load::{connect, fresh_name},
    process::Target,
    sheet::machine,
};
use crate::{
    cli::{Settings, client::refusal, serve},
    grpc::proto::{
        self, SubscribeRequest, SubscribeResponse, subscribe_request::Message as Request,
        subscribe_response::Message as Response,
        subscriber_service_client::SubscriberServiceClient,
    },
    kafka::direct,
};

/// Streams of one connection.
const SHARED: usize = 100;

/// Streams that may be opening at once.
const OPENING: usize = 200;

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Options {
    /// The brokers.
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: String,
    /// Groups, each with a consumer of its own.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
    groups: u16,
    /// Streams of all groups together; at least one of each.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    streams: u32,
    /// How long the CPU time is looked at, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// A stream that goes on as long as this lives.
struct Waiting {
    _requests: tokio::sync::mpsc::Sender<SubscribeRequest>,
    responses: tonic::Streaming<SubscribeResponse>,
}

/// Opens everything, waits, and looks.
pub(super) async fn measure(mut options: Options) -> anyhow::Result<String> {
    let groups = usize::from(options.groups);
    let streams = (options.streams as usize).max(groups);
    let first = [
        ("kafka.bootstrap_servers", options.bootstrap.clone()),
        ("consume.max_subscriptions", groups.to_string()),
        ("listen.max_streams", (streams + 1).to_string()),
    ];
    let first = first.map(|(key, value)| (key.to_owned(), value));
    // What is set by hand wins.
    options.settings.set.splice(0..0, first);
    let Ok(loaded) = serve::load(&options.settings) else {
        bail!("the configuration is wrong");
    };
    let topic = fresh_name();
    let topics = [topic.clone()];
    direct::create_topics(&loaded.config, &topics, 1)
        .await
        .context("the topic could not be created")?;
    let measured = look(&options, groups, streams, &topic).await;
    // What was measured counts; the name says whose the topic is.
    let _ = direct::delete_topics(&loaded.config, &topics).await;
    measured
}

async fn look(
    options: &Options,
    groups: usize,
    streams: usize,
    topic: &str,
) -> anyhow::Result<String> {
    let (target, _) = Target::start(&options.settings, |_| {})?;
    let empty = (target.threads()?, target.resident_kib()?);
    let begun = Instant::now();
    let mut opening = JoinSet::new();
    let places = Arc::new(Semaphore::new(OPENING));
    let mut client = None;
    for number in 0..streams {
        if number % SHARED == 0 {
            client = Some(SubscriberServiceClient::new(
                connect(&target.address).await?,
            ));
        }
        let client = client.clone().context("a client")?;
        let (group, topic) = (format!("{topic}-{}", number % groups), topic.to_owned());
        // A group's first stream waits for the partition; the others share it.
        let is_first = number < groups;
        let place = Arc::clone(&places).acquire_owned().await?;
        opening.spawn(async move {
            let stream = open(client, group, topic, is_first).await;
            drop(place);
            stream
        });
    }
    let mut waiting = Vec::new();
    while let Some(stream) = opening.join_next().await {
        waiting.push(stream??);
    }
    let opened = begun.elapsed();
    // What came with the opening is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, at) = (target.cpu_seconds()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(options.seconds.into())).await;
    let cpu = (target.cpu_seconds()? - before) / at.elapsed().as_secs_f64();
    let (threads, resident) = (target.threads()?, target.resident_kib()?);
    drop(waiting);
    target.stop()?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    if options.json {
        return Ok(json!({
            "machine": machine(),
            "groups": groups,
            "streams": streams,
            "opened_in_seconds": opened.as_secs_f64(),
            "threads": threads,
            "resident_bytes": resident * 1024,
            "cpu_cores": cpu,
            "empty": { "threads": empty.0, "resident_bytes": empty.1 * 1024 },
        })
        .to_string());
    }
    let line = |name: &str, value: String| format!("  {name:<34} {value}");
    Ok([
        format!("{groups} groups, {streams} streams, nothing published"),
        machine(),
        line("all open after, s", format!("{:.1}", opened.as_secs_f64())),
        line("threads (before)", format!("{threads} ({})", empty.0)),
        line(
            "RSS, MiB (before)",
            format!("{:.1} ({:.1})", mib(resident), mib(empty.1)),
        ),
        line("CPU, % of a core", format!("{:.1}", cpu * 100.0)),
    ]
    .join("\n"))
}

async fn open(
    mut client: SubscriberServiceClient<crate::cli::client::Connection>,
    group: String,
    topic: String,
    is_first: bool,
) -> anyhow::Result<Waiting> {
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let init = proto::Init {
        group,
        topics: vec![topic],
        client_id: "outrigger-bench".to_owned(),
        ..Default::default()
    };
    requests
        .send(SubscribeRequest {
            message: Some(Request::Init(init)),
        })
        .await?;
    let responses = client
        .subscribe(tokio_stream::wrappers::ReceiverStream::new(receiver))
        .await;
    let mut waiting = Waiting {
        _requests: requests,
        responses: responses.map_err(|status| refusal(&status))?.into_inner(),
    };
    loop {
        let message = tokio::time::timeout(STALLED, waiting.responses.message());
        let message = message.await.context("a stream gets no partition")?;
        let message = message.map_err(|status| refusal(&status))?;
        match message.and_then(|message| message.message) {
            Some(Response::Welcome(_)) if !is_first => return Ok(waiting),
            Some(Response::PartitionEvent(_)) => return Ok(waiting),
            Some(_) => {}
            None => bail!("the sidecar ended a stream"),
        }
    }
}
