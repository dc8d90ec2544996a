//! `outrigger bench flood`: what the sidecar holds when many streams send it large records and no broker takes any.
//!
//! Every stream publishes as fast as it may. After a while the brokers' processes are stopped (SIGSTOP), and go on later (SIGCONT); then nothing more is
//! sent, and what was sent is answered. The memory is the highest that the sidecar had, by the kernel's word. At the end the topic is read past
//! the sidecar: each record has a key of its own, so it can be looked for. Not here: the streams (`endless`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Ran,
    endless::{self, Outcome},
    load::{Load, batch, connections},
    on_topic,
    process::{Halted, Target},
    sheet::{command, machine},
};
use crate::{
    cli::{Settings, check::Memory},
    config::Config,
    grpc::proto,
    kafka::direct,
};

/// How long everything goes well at first.
const BEFORE: Duration = Duration::from_secs(3);

/// How long the last answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(300);

/// At most so many times what `outrigger check` says that publishing may need.
const MOST: f64 = 1.1;

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Options {
    /// The brokers.
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: String,
    /// The processes of all brokers, on this machine.
    #[arg(long, value_name = "PID", required = true, value_delimiter = ',')]
    broker_pid: Vec<u32>,
    /// Streams at once; a hundred connections at most, which they share.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    streams: u16,
    /// Bytes of a record: a key of 12, and a value.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(12..))]
    size: u32,
    /// How long the brokers stand still.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Bytes of a key.
const KEY: usize = 12;

/// The offset of a record that the broker had already: acknowledged, and there, but not told where.
const UNKNOWN: i64 = -1;

/// Which stream a record is of, and the how manyeth.
type Id = (u32, u64);

/// What the callers were told.
#[derive(Default)]
struct Told {
    /// With its place; the offset may be one that is not known.
    published: HashMap<Id, (i32, i64)>,
    /// Not written, and when to come back.
    refused: Vec<Id>,
    /// Whatever else, in words.
    failed: Vec<String>,
    /// Streams that ended before their caller did.
    cut: Vec<String>,
}

/// What is in the topic, beside what was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    /// Acknowledged, and not at that place.
    lost: usize,
    /// Refused, and there.
    written: usize,
    /// There more than once.
    doubled: usize,
}

impl Told {
    fn lock(shared: &Mutex<Self>) -> MutexGuard<'_, Self> {
        shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self) -> usize {
        let offsets = self.published.values().map(|(_, offset)| *offset);
        offsets.filter(|offset| *offset == UNKNOWN).count()
    }

    fn beside(&self, records: impl Iterator<Item = (Id, (i32, i64))>) -> Found {
        let mut there: HashMap<Id, (i32, i64)> = HashMap::new();
        let mut doubled = 0;
        for (id, place) in records {
            // One that is read twice is there once.
            let other = there.insert(id, place).filter(|other| *other != place);
            doubled += usize::from(other.is_some());
        }
        let is_lost = |(id, place): &(&Id, &(i32, i64))| match (there.get(id), place) {
            (Some((there, _)), (told, UNKNOWN)) => there != told,
            (there, place) => there != Some(place),
        };
        Found {
            lost: self.published.iter().filter(is_lost).count(),
            written: self
                .refused
                .iter()
                .filter(|id| there.contains_key(id))
                .count(),
            doubled,
        }
    }
}

fn key((stream, sequence): Id) -> Bytes {
    [&stream.to_be_bytes()[..], &sequence.to_be_bytes()]
        .concat()
        .into()
}

fn id(key: &[u8]) -> Option<Id> {
    let (stream, sequence) = key.split_first_chunk()?;
    let sequence = sequence.first_chunk()?;
    Some((u32::from_be_bytes(*stream), u64::from_be_bytes(*sequence)))
}

/// Floods a sidecar of its own.
pub(super) fn measure(options: Options) -> anyhow::Result<Ran> {
    let streams = usize::from(options.streams);
    let first = vec![
        ("kafka.bootstrap_servers", options.bootstrap.clone()),
        ("listen.max_streams", streams.max(1000).to_string()),
    ];
    on_topic(&options.settings, first, async |settings, config, topic| {
        let topics = [topic.to_owned()];
        direct::create_topics(config, &topics, options.partitions).await?;
        let load = Load::of(topic, options.size as usize - KEY, 1, streams);
        let (target, _) = Target::start(settings, |_| {})?;
        let told = flood(&options, &load, &target).await?;
        let (peak, last) = (target.peak_kib()? * 1024, target.resident_kib()? * 1024);
        target.stop()?;
        let (config_read, topic) = (config.clone(), topic.to_owned());
        let (told, found) = tokio::task::spawn_blocking(move || {
            let mut records = Vec::new();
            direct::read(&config_read, &topic, |partition, offset, key| {
                records.extend(id(key).map(|id| (id, (partition, offset))));
            })?;
            let found = told.beside(records.into_iter());
            anyhow::Ok((told, found))
        })
        .await??;
        Ok(show(&options, config, &told, found, [peak, last]))
    })
}

/// Makes the flood, and waits until it is over.
async fn flood(options: &Options, load: &Load, target: &Target) -> anyhow::Result<Told> {
    let stop = CancellationToken::new();
    let told = Arc::new(Mutex::new(Told::default()));
    let connections = connections(load.connections, &target.address).await?;
    let mut streams = JoinSet::new();
    for (stream, connection) in (0..).zip(connections.iter().cycle().take(load.streams)) {
        let (load, stop, told) = (load.clone(), stop.clone(), Arc::clone(&told));
        let connection = connection.clone();
        streams.spawn(async move {
            let message = |sequence| {
                let record = proto::Record {
                    key: Some(key((stream, sequence))),
                    ..load.record(0)
                };
                batch(sequence, vec![record])
            };
            let answered = |ack: &proto::BatchAck| {
                let id = (stream, ack.sequence);
                let mut told = Told::lock(&told);
                for outcome in endless::outcomes(ack) {
                    match outcome {
                        Outcome::Published(partition, offset) => {
                            told.published.insert(id, (partition, offset));
                        }
                        Outcome::Refused(_) => told.refused.push(id),
                        Outcome::Failed(why) => told.failed.push(why),
                    }
                }
            };
            if let Err(error) = endless::publish(connection, &load, message, stop, answered).await {
                Told::lock(&told).cut.push(format!("{error:#}"));
            }
        });
    }
    tokio::time::sleep(BEFORE).await;
    let halted = Halted::stop(&options.broker_pid)?;
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    drop(halted);
    stop.cancel();
    let all = async {
        while let Some(ended) = streams.join_next().await {
            ended?;
        }
        anyhow::Ok(())
    };
    let ended = tokio::time::timeout(LAST_ANSWERS, all).await;
    ended.context("the last answers did not come in time")??;
    Ok(std::mem::take(&mut *Told::lock(&told)))
}

fn show(options: &Options, config: &Config, told: &Told, found: Found, memory: [u64; 2]) -> String {
    let budget = Memory::of(config, 0);
    let [peak, last] = memory;
    let ratio = peak as f64 / budget.publishing() as f64;
    let why = told.failed.first().or_else(|| told.cut.first());
    if options.json {
        return json!({
            "command": command(),
            "machine": machine(),
            "load": {
                "streams": options.streams,
                "record_bytes": options.size,
                "partitions": options.partitions,
                "seconds": options.seconds,
            },
            "budget_bytes": budget.publishing(),
            "peak_resident_bytes": peak,
            "last_resident_bytes": last,
            "peak_ratio": ratio,
            "budgets": { "peak_ratio": MOST },
            "acknowledged": told.published.len(),
            "refused_with_hint": told.refused.len(),
            "failed": told.failed.len(),
            "cut_streams": told.cut.len(),
            "first_failure": why,
            "acknowledged_offset_unknown": told.unknown(),
            "acknowledged_not_in_kafka": found.lost,
            "refused_in_kafka": found.written,
            "doubled_in_kafka": found.doubled,
        })
        .to_string();
    }
    let unknown = told.unknown();
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / 1_048_576.0);
    let line = |name: &str, value: String| format!("  {name:<34} {value}");
    let mut lines = vec![
        command(),
        format!(
            "{} streams that publish records of {} B, acks=all; no broker went on for {} s",
            options.streams, options.size, options.seconds
        ),
        machine(),
        line("publishing may need, MiB", mib(budget.publishing())),
        line("most that was resident, MiB", mib(peak)),
        line(
            "beside what it may need",
            format!("{ratio:.2}, budget ≤ {MOST}"),
        ),
        line("resident when all was answered, MiB", mib(last)),
        line("acknowledged", told.published.len().to_string()),
        line(
            "refused, told when to come back",
            told.refused.len().to_string(),
        ),
        line("acknowledged, the offset not known", unknown.to_string()),
        line("failed otherwise", told.failed.len().to_string()),
        line("streams that were cut", told.cut.len().to_string()),
        line("acknowledged and not in Kafka", found.lost.to_string()),
        line("refused and in Kafka", found.written.to_string()),
        line("in Kafka more than once", found.doubled.to_string()),
    ];
    lines.extend(why.map(|why| line("the first that failed", why.clone())));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whose_record_it_is() {
        assert_eq!(id(&key((7, 1 << 40))), Some((7, 1 << 40)));
        assert_eq!(id(b"short"), None);
    }

    #[test]
    fn what_is_missing_there_in_spite_of_a_refusal_or_twice_is_found() {
        let told = Told {
            published: [
                ((1, 1), (0, 5)),
                ((1, 2), (0, 6)),
                ((1, 3), (0, 7)),
                ((1, 4), (0, UNKNOWN)),
                ((1, 5), (1, UNKNOWN)),
                ((1, 6), (1, UNKNOWN)),
            ]
            .into(),
            refused: vec![(2, 1), (2, 2)],
            ..Told::default()
        };
        let there = [
            ((1, 1), (0, 5)),
            ((1, 2), (0, 9)),
            ((1, 4), (0, 3)),
            ((1, 5), (0, 4)),
            ((2, 2), (0, 8)),
            ((3, 1), (1, 0)),
            ((3, 1), (1, 1)),
        ];
        let expected = Found {
            lost: 4,
            written: 1,
            doubled: 1,
        };
        assert_eq!(told.beside(there.into_iter()), expected);
    }
}
