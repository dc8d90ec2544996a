//! End-to-end latency at a steady rate: how long after it was due a record is with the subscriber.
//!
//! A record that is produced late counts as late: what holds the producer up is not hidden. Producer, broker, sidecar and subscriber share
//! the machine and its clock.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};

use super::{
    STALLED,
    latencies::{Latencies, SHARES, named},
    load::{Load, fresh_name},
    pace::Schedule,
    process::Target,
    runs::Bed,
    sheet::{command, machine},
    subscribe,
};
use crate::{grpc::proto, kafka::direct};

#[derive(Clone, Debug, Args)]
// Its name is taken: by what it holds.
#[group(skip)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    pub(super) pace: Pace,
    #[command(flatten)]
    pub(super) load: super::Options,
}

/// How fast records come, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub(in crate::cli) struct Pace {
    /// Records a second. Default: half of what a run without a pace reached through the sidecar.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// For how long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// Through which path.
#[derive(Clone, Copy)]
enum Path<'a> {
    Sidecar(&'a Target),
    Direct,
}

/// What has come, and when.
struct Arrivals {
    begun: Instant,
    /// Records without a stamp.
    first: AtomicU64,
    latencies: Mutex<Latencies>,
    came: Condvar,
}

impl Arrivals {
    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        Latencies::lock(&self.latencies)
    }

    /// Writes when a record was due.
    fn stamp(&self, due: Instant, value: &mut [u8]) {
        // 0 is no stamp.
        let nanos = due.saturating_duration_since(self.begun).as_nanos() as u64 + 1;
        value[..8].copy_from_slice(&nanos.to_be_bytes());
    }

    fn note<'a>(&self, values: impl Iterator<Item = &'a [u8]>) {
        let now = self.begun.elapsed();
        let mut latencies = self.latencies();
        for value in values {
            match value.first_chunk().map(|stamp| u64::from_be_bytes(*stamp)) {
                None | Some(0) => {
                    self.first.fetch_add(1, Ordering::Relaxed);
                    self.came.notify_all();
                }
                Some(nanos) => {
                    latencies.add(now.saturating_sub(Duration::from_nanos(nanos - 1)));
                }
            }
        }
    }

    /// Waits until so many records without a stamp are there.
    fn wait(&self, records: u64) -> anyhow::Result<()> {
        let is_missing = |_: &mut Latencies| self.first.load(Ordering::Relaxed) < records;
        let (_latencies, waited) = self
            .came
            .wait_timeout_while(self.latencies(), STALLED, is_missing)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(!waited.timed_out(), "no record in time");
        Ok(())
    }
}

impl Bed {
    pub(super) async fn latency(&mut self, pace: Pace) -> anyhow::Result<String> {
        ensure!(self.load.value.len() >= 8, "--size must be at least 8");
        self.partitions = self.prepare().await?;
        let target = self.target()?;
        let rate = match pace.rate {
            Some(rate) => rate,
            None => {
                self.through(&target, 0).await?;
                (self.through(&target, 1).await?.rate() / 2.0) as u64
            }
        };
        let mut found = vec![(
            "sidecar",
            self.paced(rate, pace.seconds, Path::Sidecar(&target))
                .await?,
        )];
        if self.options.direct {
            let direct = self.paced(rate, pace.seconds, Path::Direct).await?;
            found.push(("direct", direct));
        }
        target.stop()?;
        Ok(if self.options.json {
            json(rate, &found)
        } else {
            table(rate, pace.seconds, &found)
        })
    }

    /// The latencies of a run.
    async fn paced(
        &mut self,
        rate: u64,
        seconds: u64,
        path: Path<'_>,
    ) -> anyhow::Result<Latencies> {
        let topic = fresh_name();
        self.create(std::slice::from_ref(&topic), true).await?;
        let (first, records) = (self.partitions as u64, rate * seconds);
        let load = Load {
            topics: [topic].into(),
            records: first + records,
            value: vec![0; self.load.value.len()].into(),
            ..self.load.clone()
        };
        let arrivals = Arc::new(Arrivals {
            begun: Instant::now(),
            first: AtomicU64::new(0),
            latencies: Mutex::default(),
            came: Condvar::new(),
        });
        let (sent, noted) = (Arc::clone(&arrivals), Arc::clone(&arrivals));
        let sending = load.clone();
        let produce = self.blocking(move |config, _| {
            let producer = direct::Producer::connect(config, &sending.topics)?;
            producer.warm_up(&sending.value)?;
            sent.wait(first)?;
            let stamp = |due, value: &mut [u8]| sent.stamp(due, value);
            let schedule = Schedule::begin(rate);
            let due = |record| schedule.wait(record);
            let value = sending.value.to_vec();
            Ok(producer.paced(records, due, value, sending.keys, stamp)?)
        });
        let group = self.group("latency", 0);
        match path {
            Path::Sidecar(target) => {
                let take = move |deliveries: &proto::Deliveries| {
                    let records = deliveries.deliveries.iter();
                    let values = records.filter_map(|one| one.record.as_ref()?.value.as_deref());
                    noted.note(values);
                };
                let consume = subscribe::subscribe(&load, &target.address, group, take);
                tokio::try_join!(produce, consume)?;
            }
            Path::Direct => {
                let partitions = self.partitions;
                let consume = self.blocking(move |config, _| {
                    let take = |value: &[u8]| noted.note(std::iter::once(value));
                    let (topic, records) = (load.topic(), load.records);
                    Ok(direct::consume(
                        config, &group, topic, partitions, records, take,
                    )?)
                });
                tokio::try_join!(produce, consume)?;
            }
        }
        Ok(arrivals.latencies().clone())
    }
}

fn table(rate: u64, seconds: u64, found: &[(&str, Latencies)]) -> String {
    let mut lines = vec![
        command(),
        format!("end-to-end latency at {rate} records/s for {seconds} s, milliseconds"),
        machine(),
        SHARES
            .iter()
            .fold("         ".to_owned(), |line, (name, _)| {
                format!("{line}{name:>9}")
            }),
    ];
    for (path, latencies) in found {
        let shares = latencies.shares().into_iter();
        let figures = shares.fold(String::new(), |line, seconds| {
            format!("{line}{:>9.2}", seconds * 1000.0)
        });
        lines.push(format!("  {path:<7}{figures}"));
    }
    lines.join("\n")
}

fn json(rate: u64, found: &[(&str, Latencies)]) -> String {
    let figures: serde_json::Map<String, Value> = found
        .iter()
        .map(|(path, latencies)| ((*path).to_owned(), named(latencies.shares())))
        .collect();
    json!({
        "command": command(),
        "machine": machine(),
        "rate": rate,
        "latency_seconds": figures,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stamped_is_timed_and_what_is_not_is_counted() {
        let arrivals = Arrivals {
            begun: Instant::now(),
            first: AtomicU64::new(0),
            latencies: Mutex::default(),
            came: Condvar::new(),
        };
        let mut value = [0; 8];
        arrivals.note([&value[..], &[]].into_iter());
        arrivals.wait(2).unwrap();
        arrivals.stamp(arrivals.begun, &mut value);
        arrivals.note([&value[..]].into_iter());
        let latencies = arrivals.latencies();
        assert_eq!(latencies.count(), 1);
        assert!(latencies.shares()[0] > 0.0);
    }
}
