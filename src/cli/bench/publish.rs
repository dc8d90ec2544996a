//! `outrigger bench publish`: how records travel, what rules what out, and the run through the sidecar.

mod stream;
mod unary;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use tokio::sync::Barrier;

use super::{
    latencies::Latencies,
    load::{Load, connections},
};

#[derive(Clone, Debug, Args)]
// Its name is taken: by what it holds.
#[group(skip)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    pub(super) how: How,
    #[command(flatten)]
    pub(super) load: super::Options,
}

/// How records travel, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub(in crate::cli) struct How {
    /// How records travel to the sidecar.
    #[arg(long, value_enum, default_value = "batch")]
    pub(super) mode: Mode,
    /// Unary calls at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(super) calls: u16,
    /// Topics that the records go to in turn, each of --partitions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) topics: u32,
    /// Records a second, all streams together: times each from when it was due until it is answered. Without it, records go as fast as they can.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// For how long, with --rate.
    #[arg(long, default_value_t = 10, requires = "rate", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// A stream, many records to a message (--batch); at a rate, as many as are due.
    Batch,
    /// A stream, one record a message.
    Stream,
    /// A call for each record.
    Unary,
}

impl How {
    /// Records a second, if they come at a rate.
    pub(super) fn rate(self) -> Option<u64> {
        self.rate
    }

    /// How many records a run has when nobody says.
    pub(super) fn records(self) -> u64 {
        match (self.rate, self.mode) {
            (Some(rate), _) => rate * self.seconds,
            (None, Mode::Unary) => 10_000 * u64::from(self.calls),
            (None, _) => 1_000_000,
        }
    }

    /// In words.
    pub(super) fn words(self, batch: usize) -> String {
        let travel = match self.mode {
            Mode::Batch if self.rate.is_some() => format!("{batch} records a message at most"),
            Mode::Batch => format!("{batch} records a message"),
            Mode::Stream => "one record a message".to_owned(),
            Mode::Unary => format!("one record a call, {} calls at once", self.calls),
        };
        match self.rate {
            Some(rate) => format!("{travel}, {rate} records/s"),
            None => travel,
        }
    }

    /// Refuses what contradicts itself.
    pub(super) fn check(self, options: &super::Options) -> anyhow::Result<()> {
        if options.records.is_some() && self.rate.is_some() {
            bail!("--rate and --records exclude each other: say how long with --seconds");
        }
        if options.batch.is_some() && self.mode != Mode::Batch {
            bail!("--batch is for --mode batch: the other modes send one record at a time");
        }
        match self.mode {
            Mode::Unary => ensure!(
                options.streams == 1,
                "--mode unary opens no streams: leave --streams out, and say with --calls how many calls there are at once"
            ),
            Mode::Batch | Mode::Stream => ensure!(
                self.calls == 1,
                "--calls is for --mode unary: on a stream, the window says how much is unanswered"
            ),
        }
        Ok(())
    }
}

/// What a run took.
pub(super) struct Took {
    /// From the first record to the last answer.
    pub(super) span: Duration,
    /// Of each record; none without a rate.
    pub(super) latencies: Latencies,
}

/// Publishes the load through the sidecar.
pub(super) async fn publish(load: &Load, how: How, address: &str) -> anyhow::Result<Took> {
    let took = match (how.mode, how.rate) {
        (Mode::Unary, None) => {
            let connections = connections(load.connections, address).await?;
            unary::publish(load, connections, how.calls).await?
        }
        (Mode::Unary, Some(rate)) => unary::paced(load, address, how.calls, rate).await?,
        (_, rate) => {
            let connections = connections(load.connections, address).await?;
            stream::publish(load, connections, rate).await?
        }
    };
    let timed = how.rate.map_or(0, |_| load.records);
    ensure!(
        took.latencies.count() == timed,
        "{} of {timed} records were timed",
        took.latencies.count()
    );
    Ok(took)
}

/// The beginning that all streams, or callers, have in common: connections and welcomes are no part of a run.
struct Start {
    together: Barrier,
    at: OnceLock<Instant>,
}

impl Start {
    fn of(parties: usize) -> Self {
        Self {
            together: Barrier::new(parties),
            at: OnceLock::new(),
        }
    }

    /// Waits for the others. Says when they began, and to one of them that it is the one.
    async fn wait(&self) -> (Instant, bool) {
        let is_the_one = self.together.wait().await.is_leader();
        (*self.at.get_or_init(Instant::now), is_the_one)
    }
}
