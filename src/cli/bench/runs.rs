//! The runs of a bench, in order, and what they are made on: a topic and a sidecar.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use anyhow::Context;
use serde_json::json;

use super::{
    Kind, Options,
    latencies::Latencies,
    load::Load,
    pace::Schedule,
    process::{Target, cpu_seconds},
    publish::{self, How, Mode},
    sheet::{Run, Sheet},
    subscribe,
};
use crate::{cli::complain, config::Config, kafka::direct, lifecycle::signal::Signals};

/// Everything that runs need.
pub(super) struct Bed {
    kind: Kind,
    pub(super) options: Options,
    config: Config,
    pub(super) load: Load,
    pub(super) partitions: usize,
    /// Topics that are deleted at the end.
    topics: Vec<String>,
}

impl Bed {
    /// Nothing is made yet.
    pub(super) fn new(kind: Kind, options: Options, config: Config) -> Self {
        let load = Load::new(&options, kind);
        Self {
            kind,
            options,
            config,
            load,
            partitions: 0,
            topics: Vec::new(),
        }
    }

    /// Makes the topic and does `work` with it; nothing when a signal came first. A topic of the bench's own is deleted in any case.
    pub(super) async fn measure<T>(
        mut self,
        signals: &mut Signals,
        work: impl AsyncFnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let measured = tokio::select! {
            measured = self.on_topic(work) => measured.map(Some),
            _ = signals.stop() => Ok(None),
        };
        if let Err(error) = direct::delete_topics(&self.config, &self.topics).await {
            let first = self.topics.first().map_or("", String::as_str);
            complain(&format!(
                "topics could not be deleted, from {first} on: {error}"
            ));
        }
        measured
    }

    async fn on_topic<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let topics = Arc::clone(&self.load.topics);
        self.create(&topics, self.options.topic.is_none()).await?;
        work(self).await
    }

    /// Creates topics that are not there, to be deleted at the end if they are the bench's own.
    pub(super) async fn create(&mut self, topics: &[String], is_own: bool) -> anyhow::Result<()> {
        if is_own {
            self.topics.extend_from_slice(topics);
        }
        direct::create_topics(&self.config, topics, self.options.partitions)
            .await
            .with_context(|| match topics {
                [topic] => format!("{topic} could not be created"),
                _ => format!("{} topics could not be created", topics.len()),
            })
    }

    /// The sidecar that was named, or one of the bench's own.
    pub(super) fn target(&self) -> anyhow::Result<Target> {
        match (self.options.address.clone(), self.options.pid) {
            (Some(address), Some(pid)) => Ok(Target::running(address, pid)),
            _ => {
                let complain = |line: &str| complain(&format!("the sidecar says: {line}"));
                Ok(Target::start(&self.options.settings, complain)?.0)
            }
        }
    }

    /// Makes all runs.
    pub(super) async fn runs(&mut self) -> anyhow::Result<Sheet> {
        self.partitions = self.prepare().await?;
        let target = self.target()?;
        let mut sheet = self.sheet();
        // The first of each warms up.
        for number in 0..=self.options.runs {
            // A B B A: what changes slowly on the machine meets both alike.
            let direct_first = number % 2 == 0;
            let before = self.direct_if(direct_first, number).await?;
            let through = self.through(&target, number).await?;
            let after = self.direct_if(!direct_first, number).await?;
            if number > 0 {
                sheet.add(through, before.or(after));
            }
        }
        target.stop()?;
        Ok(sheet)
    }

    /// Fills the topic for subscribers, and says how many partitions it has.
    pub(super) async fn prepare(&self) -> anyhow::Result<usize> {
        let fill = !matches!(self.kind, Kind::Publish(_));
        let window = self.direct_window();
        self.blocking(move |config, load| {
            let producer = direct::Producer::connect(config, &load.topics)?;
            if fill {
                let missing = load.records.saturating_sub(producer.count()?);
                producer.run(missing, &load.value, window, load.keys)?;
            }
            Ok(producer.partitions())
        })
        .await
    }

    pub(super) async fn through(&self, target: &Target, number: u16) -> anyhow::Result<Run> {
        let before = (cpu_seconds("self")?, target.cpu_seconds()?);
        let (records, took, since_init, latency) = match self.kind {
            Kind::Publish(how) => {
                let took = publish::publish(&self.load, how, &target.address).await?;
                let latency = how.rate().map(|_| took.latencies.shares());
                (self.load.records, took.span, None, latency)
            }
            Kind::Subscribe | Kind::Latency(_) => {
                let group = self.group("sidecar", number);
                let took = subscribe::subscribe(&self.load, &target.address, group, |_| ()).await?;
                (took.records, took.delivering, Some(took.since_init), None)
            }
        };
        Ok(Run {
            records,
            seconds: took.as_secs_f64(),
            seconds_since_init: since_init.map(|took| took.as_secs_f64()),
            client_cpu: cpu_seconds("self")? - before.0,
            sidecar_cpu: Some(target.cpu_seconds()? - before.1),
            latency,
        })
    }

    async fn direct_if(&self, now: bool, number: u16) -> anyhow::Result<Option<Run>> {
        if !(self.options.direct && now) {
            return Ok(None);
        }
        let (kind, partitions) = (self.kind, self.partitions);
        let group = self.group("direct", number);
        let window = self.direct_window();
        let run = self.blocking(move |config, load| match kind {
            Kind::Publish(how) => publish_directly(config, load, how, window),
            Kind::Subscribe | Kind::Latency(_) => {
                subscribe_directly(config, load, &group, partitions)
            }
        });
        run.await.map(Some)
    }

    fn direct_window(&self) -> u64 {
        let sidecar = self.unanswered();
        self.options.direct_window.unwrap_or(sidecar)
    }

    /// How many records all streams, or calls, together may have unanswered, as configured.
    fn unanswered(&self) -> u64 {
        let publish = &self.config.publish;
        let all = self.load.window(
            publish.max_in_flight_records as u64,
            publish.max_in_flight_bytes as u64,
        );
        let each = self.load.window(
            publish.stream_window_records as u64,
            publish.stream_window_bytes as u64,
        );
        let asked = match self.kind {
            Kind::Publish(how) if how.mode == Mode::Unary => how.calls.into(),
            _ => each * self.load.streams as u64,
        };
        asked.min(all).max(1)
    }

    /// A group of its own for each run.
    pub(super) fn group(&self, path: &str, number: u16) -> String {
        let random = RandomState::new().hash_one(number);
        format!("outrigger-bench-{path}-{number}-{random:016x}")
    }

    /// Runs what blocks beside the runtime.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Config, &Load) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (config, load) = (self.config.clone(), self.load.clone());
        tokio::task::spawn_blocking(move || work(&config, &load)).await?
    }

    fn sheet(&self) -> Sheet {
        let Load {
            records,
            batch,
            streams,
            connections,
            ..
        } = self.load;
        let Options { size, runs, .. } = self.options;
        let linger = self.config.publish.linger;
        let window = self.unanswered();
        let (what, mut load) = match self.kind {
            Kind::Publish(how) => (
                format!(
                    "publish, acks=all, linger {linger:?}, {}, {window} unanswered (direct {})",
                    how.words(batch),
                    self.direct_window()
                ),
                json!({
                    "path": "publish",
                    "mode": format!("{:?}", how.mode).to_lowercase(),
                    "calls": how.calls,
                    "rate": how.rate(),
                    "linger_seconds": linger.as_secs_f64(),
                    "batch": batch,
                    "window_records": window,
                    "direct_window_records": self.direct_window(),
                }),
            ),
            Kind::Subscribe | Kind::Latency(_) => (
                format!("subscribe, window {} records", self.options.window),
                json!({
                    "path": "subscribe",
                    "window_records": self.options.window,
                    "window_bytes": self.options.window_bytes,
                }),
            ),
        };
        load["records"] = json!(records);
        load["value_bytes"] = json!(size);
        load["streams"] = json!(streams);
        load["connections"] = json!(connections);
        load["topics"] = json!(self.load.topics.len());
        load["partitions"] = json!(self.partitions);
        load["runs"] = json!(runs);
        Sheet::new(
            format!(
                "{what}: {records} records of {size} B a run, {streams} stream(s), {connections} connection(s), {} topic(s) of {} partitions, {runs} runs of each after a warm-up",
                self.load.topics.len(),
                self.partitions
            ),
            load,
        )
    }
}

fn publish_directly(config: &Config, load: &Load, how: How, window: u64) -> anyhow::Result<Run> {
    let producer = direct::Producer::connect(config, &load.topics)?;
    producer.warm_up(&load.value)?;
    let before = cpu_seconds("self")?;
    let (took, latency) = match how.rate() {
        None => (producer.run(load.records, &load.value, window, None)?, None),
        Some(rate) => {
            let schedule = Schedule::begin(rate);
            let due = |record| schedule.wait(record);
            let value = load.value.to_vec();
            let took = producer.paced(load.records, due, value, None, |_, _| ())?;
            let latency = took.into_iter().collect::<Latencies>().shares();
            (schedule.begun.elapsed(), Some(latency))
        }
    };
    Ok(Run {
        records: load.records,
        seconds: took.as_secs_f64(),
        seconds_since_init: None,
        client_cpu: cpu_seconds("self")? - before,
        sidecar_cpu: None,
        latency,
    })
}

fn subscribe_directly(
    config: &Config,
    load: &Load,
    group: &str,
    partitions: usize,
) -> anyhow::Result<Run> {
    let before = cpu_seconds("self")?;
    let read = direct::consume(
        config,
        group,
        load.topic(),
        partitions,
        load.records,
        |_| (),
    )?;
    Ok(Run {
        records: load.records,
        seconds: read.took.as_secs_f64(),
        seconds_since_init: Some(read.since_init.as_secs_f64()),
        client_cpu: cpu_seconds("self")? - before,
        sidecar_cpu: None,
        latency: None,
    })
}
