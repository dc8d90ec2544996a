//! `outrigger bench`: what the sidecar costs, beside a client with librdkafka linked in.
//!
//! Against a real Kafka. The same load runs through a sidecar and, with `--direct`, through librdkafka in this process, in turn (A B B A), after
//! one run each that does not count. Rates of a machine differ from run to run; the ratio, and the CPU-seconds of each process, are what to
//! look at. Both sides have the same settings and, unless asked otherwise, as much unanswered. Not here: the order of the runs (`runs`), what a run
//! does (`publish`, `subscribe`, `latency`; `kafka::direct`), the figures (`sheet`). Two measure faults instead, by stopping brokers: `outage`, `flood`.

mod crowd;
mod endless;
mod flood;
mod idle;
mod latencies;
mod latency;
mod load;
mod outage;
mod pace;
mod process;
mod publish;
mod rows;
mod runs;
mod sheet;
mod subscribe;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Args, Subcommand};

use self::{load::Limits, runs::Bed};
use super::{Settings, client::runtime, fail, say, serve, subscribe::Order};
use crate::{
    config::{Config, Log, LogFormat},
    kafka::direct,
    lifecycle::signal::Signals,
    telemetry,
};

/// Somebody pressed Ctrl-C, or asked for the end.
const EXIT_INTERRUPTED: u8 = 130;

/// How long nothing may happen before a run is given up.
const STALLED: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Publish: throughput, from the first record to the last answer; with --rate, latency.
    Publish(publish::Options),
    /// Read a filled topic as a fresh group and ack everything: from the first record to the last.
    Subscribe(Options),
    /// How long records take to a subscriber at a steady rate: from when each was due to be produced until it is there.
    Latency(latency::Options),
    /// Publish on every path that has a budget, beside a direct client: one table.
    Sheet(rows::Options),
    /// Start time and idle memory of the sidecar.
    Idle(idle::Options),
    /// Threads, memory and CPU of many subscriptions and streams that wait for records.
    Crowd(crowd::Options),
    /// A stream beside one whose broker stands still, and how soon both are as fast as before: stops the process of a broker.
    Outage(outage::Options),
    /// Memory and answers while many streams send large records and no broker takes any: stops the processes of the brokers.
    Flood(flood::Options),
}

#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// The brokers.
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: String,
    /// Run the same load directly too, and compare.
    #[arg(long)]
    direct: bool,
    /// Records in a run. Default: 1000000; of --mode unary 10000 for each of the calls at once.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Records in a message to the sidecar (publish --mode batch); a subscriber acks each message of the sidecar as a whole. Default: 100.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: Option<u32>,
    /// Streams at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    streams: u16,
    /// Connections that the streams, or unary calls, share. Default: one each, at most 100; with --rate a unary call has one of its own.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    connections: Option<u16>,
    /// Counted runs of each kind.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// The topic; it is created if it is missing, kept, and filled up for subscribe. Default: a fresh one, deleted at the end.
    #[arg(long)]
    topic: Option<String>,
    /// Partitions of a topic that is created.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// `publish.linger` of both sides, e.g. 5ms.
    #[arg(long)]
    linger: Option<String>,
    /// Keys of a topic that is filled for subscribe; 0 for null keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// The order of a subscriber's deliveries.
    #[arg(long, value_enum, default_value = "key")]
    ordering: Order,
    /// What a subscriber may hold unsettled, in records.
    #[arg(long, default_value_t = 10_000)]
    window: u64,
    /// The same, in bytes.
    #[arg(long, default_value_t = 16 << 20)]
    window_bytes: u64,
    /// What the direct producer may have unanswered, in records. Default: what all streams together may.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    direct_window: Option<u64>,
    /// A sidecar that runs already, instead of one of the bench's own. It does not take the settings given here; the direct client does.
    #[arg(long, requires = "pid")]
    address: Option<String>,
    /// Its process id, whose CPU time is read.
    #[arg(long, requires = "address")]
    pid: Option<u32>,
    /// Print the sheet as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Which path a run measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Publish(publish::How),
    Subscribe,
    Latency(latency::Pace),
}

impl Bench {
    pub(super) fn run(self) -> ExitCode {
        let measured = match self {
            Self::Publish(options) => Ran::of(Kind::Publish(options.how), options.load),
            Self::Subscribe(options) => Ran::of(Kind::Subscribe, options),
            Self::Latency(options) => Ran::of(Kind::Latency(options.pace), options.load),
            Self::Sheet(options) => rows::measure(options),
            Self::Idle(options) => idle::measure(options).map(Ran::Measured),
            Self::Outage(options) => outage::measure(options),
            Self::Flood(options) => flood::measure(options),
            Self::Crowd(options) => runtime()
                .and_then(|runtime| runtime.block_on(crowd::measure(options)))
                .map(Ran::Measured),
        };
        match measured {
            Ok(Ran::Measured(text)) => {
                say(&text);
                ExitCode::SUCCESS
            }
            Ok(Ran::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
            Ok(Ran::Refused(code)) => code,
            Err(error) => fail(&format!("{error:#}")),
        }
    }
}

/// How a bench ended.
enum Ran {
    Measured(String),
    Interrupted,
    /// The configuration is wrong, and that was said.
    Refused(ExitCode),
}

impl Ran {
    fn of(kind: Kind, options: Options) -> anyhow::Result<Self> {
        let is_json = options.json;
        let bed = match bed(kind, options)? {
            Ok(bed) => bed,
            Err(code) => return Ok(Self::Refused(code)),
        };
        let measured = listening(async |signals| match kind {
            Kind::Latency(pace) => {
                bed.measure(signals, async |bed| bed.latency(pace).await)
                    .await
            }
            Kind::Publish(_) | Kind::Subscribe => {
                let sheet = bed.measure(signals, async |bed| bed.runs().await).await?;
                Ok(sheet.map(|sheet| match is_json {
                    true => sheet.json().to_string(),
                    false => sheet.table(),
                }))
            }
        });
        Ok(measured?.map_or(Self::Interrupted, Self::Measured))
    }
}

/// What runs are made on, or the exit code of a configuration that is wrong.
fn bed(kind: Kind, mut options: Options) -> anyhow::Result<Result<Bed, ExitCode>> {
    let linger = options
        .linger
        .clone()
        .map(|linger| ("publish.linger".to_owned(), linger));
    let first = [
        (
            "kafka.bootstrap_servers".to_owned(),
            options.bootstrap.clone(),
        ),
        // The consumer of a run that is over is no part of the next one.
        ("consume.idle_leave".to_owned(), "100ms".to_owned()),
        (
            "listen.max_streams".to_owned(),
            options.streams.max(1000).to_string(),
        ),
    ];
    // What is set by hand wins.
    options
        .settings
        .set
        .splice(0..0, first.into_iter().chain(linger));
    let config = match serve::load(&options.settings) {
        Ok(loaded) => loaded.config,
        Err(code) => return Ok(Err(code)),
    };
    let limits = Limits::of(&config);
    let bed = Bed::new(kind, options, config);
    if let Kind::Publish(how) = kind {
        how.check(&bed.options)?;
        // A sidecar that runs already has its own, and tells them.
        if bed.options.address.is_none() {
            limits.window(&bed.load)?;
        }
    }
    Ok(Ok(bed))
}

/// Does `work` with settings that begin with `first`, the configuration of both, and the name of a topic that is deleted whatever came of it.
fn on_topic(
    settings: &Settings,
    first: Vec<(&str, String)>,
    work: impl AsyncFnOnce(&Settings, &Config, &str) -> anyhow::Result<String>,
) -> anyhow::Result<Ran> {
    let mut settings = settings.clone();
    let first = first
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    // What is set by hand wins.
    settings.set.splice(0..0, first);
    let config = match serve::load(&settings) {
        Ok(loaded) => loaded.config,
        Err(code) => return Ok(Ran::Refused(code)),
    };
    let topic = load::fresh_name();
    let measured = listening(async |signals| {
        let measured = tokio::select! {
            measured = work(&settings, &config, &topic) => measured.map(Some),
            _ = signals.stop() => Ok(None),
        };
        // What was measured counts; the name says whose the topic is.
        let _ = direct::delete_topics(&config, std::slice::from_ref(&topic)).await;
        measured
    });
    Ok(measured?.map_or(Ran::Interrupted, Ran::Measured))
}

/// Runs `work` until it is done, or heeds a signal.
fn listening<T>(work: impl AsyncFnOnce(&mut Signals) -> anyhow::Result<T>) -> anyhow::Result<T> {
    // The direct client's troubles, beside the figures.
    telemetry::install(&Log {
        format: LogFormat::Text,
        level: "warn".to_owned(),
    })?;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let mut signals = Signals::listen().context("signals cannot be listened for")?;
        work(&mut signals).await
    });
    // A direct run that was interrupted ends with the process.
    runtime.shutdown_background();
    done
}
