//! The runs of a bench, in order, and what they are made on: a topic and a sidecar.

use std::hash::{BuildHasher, RandomState};

use anyhow::Context;
use serde_json::json;

use super::{
    Kind, Options,
    load::Load,
    process::{Target, cpu_seconds},
    publish,
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
        let load = Load::new(&options);
        Self {
            kind,
            options,
            config,
            load,
            partitions: 0,
            topics: Vec::new(),
        }
    }

    /// Makes all runs, and shows their figures; nothing when a signal came first. A topic of the bench's own is deleted in any case.
    pub(super) async fn measure(mut self, mut signals: Signals) -> anyhow::Result<Option<String>> {
        let measured = tokio::select! {
            measured = self.figures() => measured.map(Some),
            _ = signals.stop() => Ok(None),
        };
        for topic in &self.topics {
            if let Err(error) = direct::delete_topic(&self.config, topic).await {
                complain(&format!("topic {topic} could not be deleted: {error}"));
            }
        }
        measured
    }

    async fn figures(&mut self) -> anyhow::Result<String> {
        let topic = self.load.topic.clone();
        self.create(&topic, self.options.topic.is_none()).await?;
        match self.kind {
            Kind::Publish | Kind::Subscribe => self.runs().await,
            Kind::Latency(pace) => self.latency(pace).await,
        }
    }

    /// Creates a topic if it is not there, to be deleted at the end if it is the bench's own.
    pub(super) async fn create(&mut self, topic: &str, is_own: bool) -> anyhow::Result<()> {
        if is_own {
            self.topics.push(topic.to_owned());
        }
        direct::create_topic(&self.config, topic, self.options.partitions)
            .await
            .with_context(|| format!("topic {topic} could not be created"))?;
        Ok(())
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

    async fn runs(&mut self) -> anyhow::Result<String> {
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
        Ok(if self.options.json {
            sheet.json()
        } else {
            sheet.table()
        })
    }

    /// Fills the topic for subscribers, and says how many partitions it has.
    pub(super) async fn prepare(&self) -> anyhow::Result<usize> {
        let fill = self.kind != Kind::Publish;
        let window = self.direct_window();
        self.blocking(move |config, load| {
            let producer = direct::Producer::connect(config, &load.topic)?;
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
        let (records, took, since_init) = match self.kind {
            Kind::Publish => {
                let took = publish::publish(&self.load, &target.address).await?;
                (self.load.records, took, None)
            }
            Kind::Subscribe | Kind::Latency(_) => {
                let group = self.group("sidecar", number);
                let took = subscribe::subscribe(&self.load, &target.address, group, |_| ()).await?;
                (took.records, took.delivering, Some(took.since_init))
            }
        };
        Ok(Run {
            records,
            seconds: took.as_secs_f64(),
            seconds_since_init: since_init.map(|took| took.as_secs_f64()),
            client_cpu: cpu_seconds("self")? - before.0,
            sidecar_cpu: Some(target.cpu_seconds()? - before.1),
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
            Kind::Publish => publish_directly(config, load, window),
            Kind::Subscribe | Kind::Latency(_) => {
                subscribe_directly(config, load, &group, partitions)
            }
        });
        run.await.map(Some)
    }

    fn direct_window(&self) -> u64 {
        let streams = self.load.streams_window(&self.config);
        self.options.direct_window.unwrap_or(streams)
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
        let Options {
            records,
            size,
            batch,
            streams,
            runs,
            ..
        } = self.options;
        let linger = self.config.publish.linger;
        let window = self.load.streams_window(&self.config);
        let (what, mut load) = match self.kind {
            Kind::Publish => (
                format!(
                    "publish, acks=all, linger {linger:?}, {batch} records a message, {window} unanswered (direct {})",
                    self.direct_window()
                ),
                json!({
                    "linger_seconds": linger.as_secs_f64(),
                    "batch": batch,
                    "window_records": window,
                    "direct_window_records": self.direct_window(),
                }),
            ),
            Kind::Subscribe | Kind::Latency(_) => (
                format!("subscribe, window {} records", self.options.window),
                json!({ "window_records": self.options.window, "window_bytes": self.options.window_bytes }),
            ),
        };
        load["path"] = json!(format!("{:?}", self.kind).to_lowercase());
        load["records"] = json!(records);
        load["value_bytes"] = json!(size);
        load["streams"] = json!(streams);
        load["partitions"] = json!(self.partitions);
        load["runs"] = json!(runs);
        Sheet::new(
            format!(
                "{what}: {records} records of {size} B a run, {streams} stream(s), {} partitions, {runs} runs of each after a warm-up",
                self.partitions
            ),
            load,
        )
    }
}

fn publish_directly(config: &Config, load: &Load, window: u64) -> anyhow::Result<Run> {
    let producer = direct::Producer::connect(config, &load.topic)?;
    producer.warm_up(&load.value)?;
    let before = cpu_seconds("self")?;
    let took = producer.run(load.records, &load.value, window, None)?;
    Ok(Run {
        records: load.records,
        seconds: took.as_secs_f64(),
        seconds_since_init: None,
        client_cpu: cpu_seconds("self")? - before,
        sidecar_cpu: None,
    })
}

fn subscribe_directly(
    config: &Config,
    load: &Load,
    group: &str,
    partitions: usize,
) -> anyhow::Result<Run> {
    let before = cpu_seconds("self")?;
    let read = direct::consume(config, group, &load.topic, partitions, load.records, |_| ())?;
    Ok(Run {
        records: load.records,
        seconds: read.took.as_secs_f64(),
        seconds_since_init: Some(read.since_init.as_secs_f64()),
        client_cpu: cpu_seconds("self")? - before,
        sidecar_cpu: None,
    })
}
