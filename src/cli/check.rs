//! `outrigger check`: whether the sidecar would work here, and what to do where it would not.
//!
//! Looks at the configuration, the way to every broker, topics and rights, the machine and the pod, in that order, and changes nothing:
//! no record, no topic, no offset. The facts of Kafka come from `kafka::inspect`; each file here turns some facts into rows of the
//! `report`. With `--wait` all of it is done again until nothing fails, and the last time counts.

mod brokers;
mod certificates;
mod cluster;
mod configuration;
mod limits;
mod machine;
mod pod;
mod principal;
mod report;
mod text;

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};

pub(in crate::cli) use self::limits::Memory;
use self::{
    cluster::Asked,
    machine::Machine,
    report::{Report, Row, Status, count},
};
use super::{EXIT_CONFIG, Settings, client::runtime, fail, note, say, serve};
use crate::{
    config::Loaded,
    kafka::inspect::{self, Operation, Questions},
};

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

const HELP: &str = "\
✓ is as it should be. ‼ works, and is worth a thought. × does not work. – was not looked at, because something before it failed or was not
asked for. Below each ‼ and × stands what to do about it. Nothing is written to Kafka.

-o json prints an array of objects with `category` (configuration, dns, tcp, tls, sasl, versions, cluster, topics, acls, group, clock,
limits, kubernetes), `check` (what was looked at), `status` (ok, warning, failed, skipped), `detail`, and `hint` (null unless the status
is warning or failed).

Exit codes: 0 nothing failed; 1 something failed; 2 the command line is wrong; 78 the configuration is wrong.";

/// See the module.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Check {
    /// A topic that must exist and may be read and written; with :read or :write, only that. May be repeated.
    #[arg(long, value_name = "TOPIC[:read|:write]")]
    topic: Vec<Topic>,
    /// A consumer group that may be used.
    #[arg(long, short, value_name = "GROUP")]
    group: Option<String>,
    /// Try again until nothing fails, for as long as this, such as 30s or 2m; an attempt that has begun is finished.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// A topic, and what is to be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Topic {
    name: String,
    reads: bool,
    writes: bool,
}

impl FromStr for Topic {
    type Err = &'static str;

    /// No topic's name has a colon.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, reads, writes) = match text.split_once(':') {
            None => (text, true, true),
            Some((name, "read")) => (name, true, false),
            Some((name, "write")) => (name, false, true),
            Some(_) => return Err("after the colon stands read or write"),
        };
        if name.is_empty() {
            return Err("the name is empty");
        }
        Ok(Self {
            name: name.to_owned(),
            reads,
            writes,
        })
    }
}

impl Topic {
    fn operations(&self) -> Vec<Operation> {
        let reads = self.reads.then_some(Operation::Read);
        let writes = self.writes.then_some(Operation::Write);
        reads.into_iter().chain(writes).collect()
    }
}

impl Check {
    pub(super) fn run(mut self) -> ExitCode {
        self.topic = merged(&self.topic);
        let mut report = Report::default();
        let loaded = match self.settings.load() {
            Ok(loaded) => loaded,
            Err(problems) => {
                configuration::problems(&mut report, problems.iter());
                return self.print(&report.rows(), EXIT_CONFIG.into());
            }
        };
        let problems = serve::problems(&loaded);
        if !problems.is_empty() {
            configuration::further(&mut report, &problems);
            return self.print(&report.rows(), EXIT_CONFIG.into());
        }
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&format!("{error:#}")),
        };
        let rows = runtime.block_on(self.until_it_works(&loaded));
        // A look-up of a name that hangs ends with the process.
        runtime.shutdown_background();
        let code = match count(&rows, Status::Failed) {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        };
        self.print(&rows, code)
    }

    async fn until_it_works(&self, loaded: &Loaded) -> Vec<Row> {
        let begun = Instant::now();
        let wait = self.wait.unwrap_or_default();
        let mut said = String::new();
        loop {
            let rows = self.look(loaded).await;
            let failed = rows.iter().find(|row| row.status == Status::Failed);
            let Some(failed) = failed else {
                return rows;
            };
            if begun.elapsed() + PAUSE > wait {
                return rows;
            }
            let title = failed.category.title();
            let now = format!("not yet: {title}, {}: {}", failed.check, failed.detail);
            if now != said {
                note(&now);
                said = now;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One attempt.
    async fn look(&self, loaded: &Loaded) -> Vec<Row> {
        let mut report = Report::default();
        let (config, machine) = (&loaded.config, Machine::of_process());
        configuration::rows(&mut report, loaded, &machine);
        certificates::rows(&mut report, config, &machine);
        let questions = Questions {
            topics: self.topic.iter().map(|topic| topic.name.clone()).collect(),
            group: self.group.clone(),
        };
        let survey = inspect::survey(Arc::new(config.clone()), &questions).await;
        brokers::rows(&mut report, config, &survey);
        let asked = Asked {
            config,
            topics: &self.topic,
            group: self.group.as_deref(),
        };
        asked.rows(&mut report, &survey);
        let partitions = survey.answers.iter().flat_map(|answers| &answers.topics);
        let partitions = partitions.flatten().map(|topic| topic.partitions.len());
        limits::clock(&mut report, inspect::clock());
        limits::rows(
            &mut report,
            config,
            &machine,
            survey.brokers.len(),
            partitions.sum(),
        );
        pod::rows(&mut report, config, &machine);
        report.rows()
    }

    fn print(&self, rows: &[Row], code: ExitCode) -> ExitCode {
        match self.output {
            Output::Text => say(&text::render(rows, is_coloured())),
            Output::Json => match serde_json::to_string_pretty(rows) {
                Ok(json) => say(&json),
                Err(error) => return fail(&error),
            },
        }
        code
    }
}

/// Each topic once, with all that is to be done with it.
fn merged(topics: &[Topic]) -> Vec<Topic> {
    let mut all: Vec<Topic> = Vec::new();
    for topic in topics {
        match all.iter_mut().find(|known| known.name == topic.name) {
            Some(known) => {
                known.reads |= topic.reads;
                known.writes |= topic.writes;
            }
            None => all.push(topic.clone()),
        }
    }
    all
}

/// On a terminal, unless somebody who looks at it does not want it (no-color.org).
fn is_coloured() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_and_written_unless_it_says_otherwise() {
        let topic = |text: &str| text.parse::<Topic>();
        let both = [Operation::Read, Operation::Write];
        assert_eq!(topic("orders").unwrap().operations(), both);
        assert_eq!(topic("orders:read").unwrap().operations(), both[..1]);
        assert_eq!(topic("orders:write").unwrap().operations(), both[1..]);
        assert!(topic("orders:x").is_err() && topic(":read").is_err());
        let twice = merged(&[topic("a:read").unwrap(), topic("a:write").unwrap()]);
        assert_eq!(twice, [topic("a").unwrap()]);
    }
}
