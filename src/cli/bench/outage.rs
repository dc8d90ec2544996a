//! `outrigger bench outage`: what a broker that stands still costs the others, and how soon all is as before.
//!
//! Two streams publish as fast as they can, each to a partition of its own: one on a broker that goes on, one on the broker whose process is stopped
//! (SIGSTOP) and goes on later (SIGCONT). A round has four parts of the same length: the first stream alone, both, both while the broker stands
//! still, and both afterwards. What is acknowledged is read every tenth of a second. Not here: the streams (`endless`).

mod curve;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::curve::{Curve, INTERVAL};
use super::{
    Ran,
    endless::{self, Tally},
    load::{Load, batch, connect},
    on_topic,
    process::{Halted, Target},
    sheet::{Spread, command, machine},
};
use crate::{cli::Settings, config::Config, grpc::proto, kafka::direct};

/// The streams' partitions.
const HEALTHY: i32 = 0;
const STUCK: i32 = 1;

/// What is not counted at the beginning of a part in which a stream begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long the last answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(180);

/// At least so much of what it has alone a stream keeps while its neighbour is stuck.
const LEAST: f64 = 0.8;

/// At most so many seconds after the broker goes on all is as before.
const SOONEST: f64 = 2.0;

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Options {
    /// The brokers; at least two.
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: String,
    /// The node id of the broker that is stopped.
    #[arg(long, value_name = "ID")]
    broker: i32,
    /// Its process, on this machine.
    #[arg(long, value_name = "PID")]
    broker_pid: u32,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Records in a message.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// How long each part of a round is.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// How often the broker is stopped.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Print the sheet as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// What a round showed.
struct Round {
    /// Records a second of the healthy partition: alone, beside the other, while that is stuck, and afterwards.
    healthy: [f64; 4],
    /// Of the other, before and after.
    other: [f64; 2],
    /// Seconds from SIGCONT to its first answer, and until it is as fast as before, if it came to that.
    first: Option<f64>,
    full: Option<f64>,
    /// Records of the other that were refused with and without a time to come back.
    refused: u64,
    failed: u64,
    /// Acknowledged in each interval: healthy, other.
    intervals: [Vec<u64>; 2],
}

/// Streams that publish until this is dropped, and what they were answered.
struct Streams {
    tallies: [Arc<Tally>; 2],
    running: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
    _stopped: DropGuard,
}

impl Streams {
    fn new() -> Self {
        let stop = CancellationToken::new();
        Self {
            tallies: Default::default(),
            running: JoinSet::new(),
            _stopped: stop.clone().drop_guard(),
            stop,
        }
    }

    async fn begin(&mut self, load: &Load, partition: i32, address: &str) -> anyhow::Result<()> {
        let connection = connect(address).await?;
        let (load, stop) = (load.clone(), self.stop.clone());
        let tally = Arc::clone(&self.tallies[partition as usize]);
        self.running.spawn(async move {
            let record = proto::Record {
                partition: Some(partition),
                ..load.record(0)
            };
            let message = |sequence| batch(sequence, vec![record.clone(); load.batch]);
            let answered =
                |ack: &_| endless::outcomes(ack).for_each(|outcome| tally.note(&outcome));
            endless::publish(connection, &load, message, stop, answered).await
        });
        Ok(())
    }

    /// Lets a time pass, and adds to the curves.
    async fn watch(&mut self, curves: &mut [Curve; 2], time: Duration) -> anyhow::Result<()> {
        let until = curves[0].now() + time;
        while curves[0].now() < until {
            tokio::time::sleep(INTERVAL).await;
            if let Some(ended) = self.running.try_join_next() {
                ended??;
            }
            for (curve, tally) in curves.iter_mut().zip(&self.tallies) {
                curve.add(tally.published.load(Ordering::Relaxed));
            }
        }
        Ok(())
    }

    /// Sends no more, and waits for all answers.
    async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.running.join_next().await {
                ended??;
            }
            Ok(())
        };
        let ended = tokio::time::timeout(LAST_ANSWERS, all).await;
        ended.context("the last answers did not come in time")?
    }
}

/// Stops the broker once a round.
pub(super) fn measure(options: Options) -> anyhow::Result<Ran> {
    let first = vec![("kafka.bootstrap_servers", options.bootstrap.clone())];
    on_topic(&options.settings, first, async |settings, config, topic| {
        let (broker, config) = (options.broker, config.clone());
        let brokers = config.clone();
        let brokers = tokio::task::spawn_blocking(move || direct::brokers(&brokers)).await??;
        ensure!(
            brokers.contains(&broker),
            "there is no broker {broker}, only {brokers:?}"
        );
        let other = brokers.iter().find(|one| **one != broker);
        let other = *other.context("there is no other broker: nothing would go on")?;
        direct::create_apart(&config, topic, &[other, broker]).await?;
        let load = Load::of(topic, options.size, options.batch as usize, 2);
        let (target, _) = Target::start(settings, |_| {})?;
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            rounds.push(round(&options, &load, &target).await?);
        }
        target.stop()?;
        Ok(match options.json {
            true => json(&options, &config, &rounds),
            false => table(&options, &rounds),
        })
    })
}

async fn round(options: &Options, load: &Load, target: &Target) -> anyhow::Result<Round> {
    let part = Duration::from_secs(options.seconds);
    let mut streams = Streams::new();
    let mut curves = [Curve::new(), Curve::new()];
    let mut marks = Vec::new();
    for partition in [HEALTHY, STUCK] {
        streams.begin(load, partition, &target.address).await?;
        streams.watch(&mut curves, WARM_UP).await?;
        let from = curves[0].now();
        streams.watch(&mut curves, part).await?;
        marks.push((from, curves[0].now()));
    }
    let halted = Halted::stop(&[options.broker_pid])?;
    let from = curves[0].now();
    streams.watch(&mut curves, part).await?;
    drop(halted);
    let on = curves[0].now();
    marks.push((from, on));
    streams.watch(&mut curves, part).await?;
    marks.push((on, curves[0].now()));
    let [_, refused, failed] = streams.tallies[STUCK as usize].counts();
    streams.end().await?;

    let [healthy, other] = &curves;
    // What was answered before it stood still may be read a little later.
    let stood = (from + WARM_UP, on);
    ensure!(
        other.count(stood) == 0,
        "partition {STUCK} was still written to: is process {} that of broker {}?",
        options.broker_pid,
        options.broker
    );
    let before = other.rate(marks[1]);
    Ok(Round {
        healthy: std::array::from_fn(|part| healthy.rate(marks[part])),
        other: [before, other.rate(marks[3])],
        first: other.first_after(on),
        full: other.as_fast_after(on, before),
        refused,
        failed,
        intervals: curves.map(Curve::intervals),
    })
}

/// A line of the table.
struct Figure {
    /// In JSON.
    key: &'static str,
    name: &'static str,
    digits: usize,
    of: fn(&Round) -> Option<f64>,
    budget: Option<(&'static str, f64)>,
}

const fn rate(key: &'static str, name: &'static str, of: fn(&Round) -> Option<f64>) -> Figure {
    Figure {
        key,
        name,
        digits: 0,
        of,
        budget: None,
    }
}

const FIGURES: &[Figure] = &[
    rate(
        "healthy_rate_alone",
        "healthy partition alone, records/s",
        |it| Some(it.healthy[0]),
    ),
    rate("healthy_rate_beside", "beside the other one", |it| {
        Some(it.healthy[1])
    }),
    rate("healthy_rate_stopped", "while that is stuck", |it| {
        Some(it.healthy[2])
    }),
    rate("healthy_rate_after", "afterwards", |it| Some(it.healthy[3])),
    Figure {
        key: "stopped_ratio",
        name: "rate, stuck neighbour / alone",
        digits: 2,
        of: |it| Some(it.healthy[2] / it.healthy[0]),
        budget: Some(("≥", LEAST)),
    },
    rate(
        "other_rate_before",
        "the other partition, records/s",
        |it| Some(it.other[0]),
    ),
    rate("other_rate_after", "afterwards", |it| Some(it.other[1])),
    Figure {
        key: "first_seconds",
        name: "first answer after SIGCONT, s",
        digits: 1,
        of: |it| it.first,
        budget: None,
    },
    Figure {
        key: "full_seconds",
        name: "as fast as before, s",
        digits: 1,
        of: |it| it.full,
        budget: Some(("≤", SOONEST)),
    },
];

impl Figure {
    fn line(&self, rounds: &[Round]) -> String {
        let found = rounds.iter().filter_map(self.of);
        let missing = rounds.len() - found.clone().count();
        let mut line = format!("  {:<34}", self.name);
        if let Some(spread) = Spread::of(found) {
            line += &format!(" {}", spread.text(self.digits));
        }
        if missing > 0 {
            line += &format!(" not in {missing} of {} rounds", rounds.len());
        }
        if let Some((sign, budget)) = self.budget {
            line += &format!(", budget {sign} {budget}");
        }
        line
    }
}

fn table(options: &Options, rounds: &[Round]) -> String {
    let sum = |count: fn(&Round) -> u64| rounds.iter().map(count).sum::<u64>();
    let refused = sum(|round| round.refused);
    let failed = sum(|round| round.failed);
    let about = [
        command(),
        format!(
            "publish, acks=all, two streams, {} records of {} B a message; broker {} stands still {} times for {} s",
            options.batch, options.size, options.broker, options.rounds, options.seconds
        ),
        machine(),
        "median (min to max) over the rounds".to_owned(),
    ];
    let counts = [
        format!("  {:<34} {refused}", "refused, told when to come back"),
        format!("  {:<34} {failed}", "failed otherwise"),
    ];
    let figures = FIGURES.iter().map(|figure| figure.line(rounds));
    let lines = about.into_iter().chain(figures).chain(counts);
    lines.collect::<Vec<_>>().join("\n")
}

fn json(options: &Options, config: &Config, rounds: &[Round]) -> String {
    let figures: serde_json::Map<String, Value> = (FIGURES.iter())
        .map(|figure| {
            let spread = Spread::of(rounds.iter().filter_map(figure.of));
            let told = spread.map_or(Value::Null, Spread::json);
            (figure.key.to_owned(), told)
        })
        .collect();
    let rounds: Vec<Value> = rounds
        .iter()
        .map(|round| {
            json!({
                "full_seconds": round.full,
                "refused_with_hint": round.refused,
                "failed": round.failed,
                "healthy_acknowledged": round.intervals[0],
                "other_acknowledged": round.intervals[1],
            })
        })
        .collect();
    json!({
        "command": command(),
        "machine": machine(),
        "load": {
            "value_bytes": options.size,
            "batch": options.batch,
            "seconds": options.seconds,
            "interval_seconds": INTERVAL.as_secs_f64(),
            "linger_seconds": config.publish.linger.as_secs_f64(),
        },
        "figures": figures,
        "budgets": { "stopped_ratio": LEAST, "full_seconds": SOONEST },
        "rounds": rounds,
    })
    .to_string()
}
