//! `outrigger publish`: records from arguments or standard input, through the sidecar.
//!
//! A few arguments go in one unary call; standard input, and many arguments, go on a stream (`stream`), which is fast in a pipe and answers a
//! terminal line by line. A record that fails is told on standard error by the number of its line, and the rest goes on.

mod input;
mod report;
mod stream;
mod window;

use std::{io, process::ExitCode};

use anyhow::Context;
use clap::{Args, builder::NonEmptyStringValueParser};

use self::{
    input::{Limits, Template},
    report::{Report, fate},
    stream::Exchange,
};
use super::{
    EXIT_INTERRUPTED,
    client::{Connection, Sidecar, refusal, runtime},
    complain, fail,
    stdout::Stdout,
};
use crate::grpc::proto::{
    self, publish_result::Result as Answer, publisher_service_client::PublisherServiceClient,
};

/// What goes in one unary call at most.
const UNARY_RECORDS: usize = 100;
const UNARY_BYTES: usize = 256 * 1024;

/// As clap has it for a command line that is wrong.
const EXIT_USAGE: u8 = 2;

const HELP: &str = "\
Prints a line for each published record, in the order of the input: TOPIC[PARTITION]@OFFSET, with ? for what is not known.
A record that had been published under its message id ends with the word duplicate; the place is that of the first.
With --json it is an object: record (its number in the input), topic, partition, offset, where known timestamp (ms), and duplicate
(true) where it is one.
A record that fails is told on standard error with the number of its line (several in a row that failed alike together); the others
go on.

Exit codes: 0 all records are in Kafka, or nobody reads the output any more; 1 a record failed, or its fate is unknown;
2 the command line is wrong; 130 interrupted: what was sent is answered, the rest of the input is not sent.";

/// See the module.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Publish {
    /// The topic.
    topic: String,
    /// The values. Default: one record for each line of standard input; an empty line is an empty value.
    #[arg(value_name = "VALUE")]
    values: Vec<String>,
    /// The key of every record. Default: no key (null).
    #[arg(long, short, conflicts_with = "key_separator")]
    key: Option<String>,
    /// Each line is a key, SEPARATOR and a value; the first separator counts.
    #[arg(long, short = 'K', value_name = "SEPARATOR", value_parser = NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// A header of every record; may be repeated. With --json, it comes after those of the line.
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// The partition. Default: the key decides, or chance for records without one.
    #[arg(long, short, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Publish one tombstone (a null value), which deletes --key from a compacted topic.
    #[arg(long, requires = "key", conflicts_with_all = ["values", "null_delimited"])]
    tombstone: bool,
    /// The message id of the only record: published again with it, the record is not written twice.
    #[arg(long, value_name = "ID", conflicts_with = "json", value_parser = NonEmptyStringValueParser::new())]
    message_id: Option<String>,
    /// Each line is a JSON object as `outrigger subscribe --json` prints it: value, key, headers, partition, timestamp (ms), and
    /// message_id, all optional; bytes are {"base64": "…"}. The answers are JSON too.
    #[arg(long, conflicts_with_all = ["key", "key_separator", "tombstone"])]
    json: bool,
    /// Records end with NUL instead of a newline, as `find -print0` writes them.
    #[arg(long, short = '0', conflicts_with = "values")]
    null_delimited: bool,
    /// Print nothing for records that are published.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    sidecar: Sidecar,
}

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    Interrupted,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Publish {
    pub(super) fn run(self) -> ExitCode {
        if self.message_id.is_some() && !self.tombstone && self.values.len() != 1 {
            complain(
                &"--message-id is of one record: give one VALUE or --tombstone; with --json each record has its own",
            );
            return EXIT_USAGE.into();
        }
        match runtime().and_then(|runtime| runtime.block_on(self.publish())) {
            Ok(Outcome::Done) => ExitCode::SUCCESS,
            // Each failure was told.
            Ok(Outcome::Failed) => ExitCode::FAILURE,
            Ok(Outcome::Interrupted) => EXIT_INTERRUPTED.into(),
            Err(error) => fail(&format!("{error:#}")),
        }
    }

    async fn publish(self) -> anyhow::Result<Outcome> {
        let channel = self.sidecar.connect().await?;
        let noun = if self.values.is_empty() {
            "line"
        } else {
            "value"
        };
        let report = Report::new(self.topic.clone(), noun, self.json, self.quiet);
        let template = self.template();
        if self.tombstone {
            return unary(channel, vec![template.tombstone()], vec![1], report).await;
        }
        let bytes: usize = self.values.iter().map(String::len).sum();
        if !self.values.is_empty() && self.values.len() <= UNARY_RECORDS && bytes <= UNARY_BYTES {
            return self.few(channel, &template, report).await;
        }
        let (exchange, welcome) = Exchange::open(channel, report).await?;
        let limits = Limits::of(&welcome);
        let (values, separator) = (self.values, if self.null_delimited { 0 } else { b'\n' });
        let input = input::spawn(move |batches| {
            if values.is_empty() {
                input::read_lines(io::stdin(), separator, &template, &limits, batches)
            } else {
                input::read_values(values, &template, &limits, batches);
                Ok(())
            }
        })?;
        exchange.run(input).await
    }

    fn template(&self) -> Template {
        Template {
            topic: self.topic.clone(),
            partition: self.partition,
            key: self.key.clone().map(Into::into),
            key_separator: self.key_separator.clone(),
            headers: self
                .header
                .iter()
                .map(|(name, value)| proto::Header {
                    name: name.clone(),
                    value: Some(value.clone().into()),
                })
                .collect(),
            message_id: self.message_id.clone().unwrap_or_default(),
            json: self.json,
        }
    }

    async fn few(
        &self,
        channel: Connection,
        template: &Template,
        mut report: Report,
    ) -> anyhow::Result<Outcome> {
        let (mut records, mut numbers) = (Vec::new(), Vec::new());
        for (value, number) in self.values.iter().zip(1..) {
            match template.record(value.clone().into()) {
                Ok(record) => {
                    records.push(record);
                    numbers.push(number);
                }
                Err(error) => report.bad(number, &error),
            }
        }
        if records.is_empty() {
            report.take();
            return Ok(Outcome::Failed);
        }
        unary(channel, records, numbers, report).await
    }
}

/// One call; `numbers` are those of the values.
async fn unary(
    channel: Connection,
    records: Vec<proto::Record>,
    numbers: Vec<u64>,
    mut report: Report,
) -> anyhow::Result<Outcome> {
    let request = proto::PublishRequest {
        records,
        ack_level: 0,
    };
    let answered = PublisherServiceClient::new(channel).publish(request).await;
    let results = match answered {
        Ok(response) => response.into_inner().results,
        // It is about all of the records, or about the only one.
        Err(status) => return Err(refusal(&status).context(fate(&status))),
    };
    for (number, result) in numbers.iter().zip(results) {
        match result.result {
            Some(Answer::Published(published)) => report.published(*number, &published),
            Some(Answer::Spooled(spooled)) => report.spooled(*number, &spooled),
            Some(Answer::Error(error)) => report.failed(*number, &error),
            None => report.unknown(*number),
        }
    }
    let mut stdout = Stdout::open()?;
    if let Some(text) = report.take() {
        stdout.write(text);
        match stdout.written().await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.context("standard output cannot be written")?,
        }
    }
    Ok(report.outcome())
}
