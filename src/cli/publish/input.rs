//! From the input to batches of records: what a line means, and how many lines travel together.
//!
//! The reading thread waits for input only with empty hands: what it has read completely goes on its way first. So a pipe fills batches, and
//! a terminal is answered line by line. Memory is bounded by the batch and by the longest line that can be a record.

use std::{
    io::{self, BufRead, BufReader, Read},
    thread,
};

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{cli::json::Line, grpc::proto};

/// Records and bytes in one batch.
const BATCH_RECORDS: u64 = 500;
const BATCH_BYTES: u64 = 256 * 1024;

/// What is read at once.
const READ_BYTES: usize = 256 * 1024;

/// What a record costs in a window beside its bytes: the "few hundred bytes" of the protocol, on the safe side.
const OVERHEAD: u64 = 512;

/// What every record has in common, and what its text means.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pub(super) topic: String,
    pub(super) partition: Option<i32>,
    pub(super) key: Option<Bytes>,
    pub(super) key_separator: Option<String>,
    pub(super) headers: Vec<proto::Header>,
    pub(super) message_id: String,
    pub(super) json: bool,
}

impl Template {
    pub(super) fn record(&self, text: Bytes) -> anyhow::Result<proto::Record> {
        if self.json {
            let line: Line =
                serde_json::from_slice(&text).context("not a JSON object of a record")?;
            let mut record = line.into_record(&self.topic, self.partition)?;
            record.headers.extend(self.headers.iter().cloned());
            return Ok(record);
        }
        let (key, value) = match &self.key_separator {
            None => (self.key.clone(), text),
            Some(separator) => {
                let at = text
                    .windows(separator.len())
                    .position(|part| part == separator.as_bytes())
                    .with_context(|| format!("has no key separator {separator:?}"))?;
                (Some(text.slice(..at)), text.slice(at + separator.len()..))
            }
        };
        Ok(proto::Record {
            key,
            value: Some(value),
            ..self.tombstone()
        })
    }

    pub(super) fn tombstone(&self) -> proto::Record {
        proto::Record {
            topic: self.topic.clone(),
            partition: self.partition,
            key: self.key.clone(),
            headers: self.headers.clone(),
            message_id: self.message_id.clone(),
            ..Default::default()
        }
    }
}

/// What the sidecar takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    records: u64,
    bytes: u64,
    record_bytes: u64,
}

impl Limits {
    pub(super) fn of(welcome: &proto::PublishWelcome) -> Self {
        Self {
            records: BATCH_RECORDS.min(welcome.window_records),
            // Half a message, for what the encoding adds.
            bytes: BATCH_BYTES
                .min(welcome.window_bytes)
                .min(welcome.max_message_bytes / 2),
            record_bytes: welcome.max_record_bytes,
        }
    }

    /// The longest line that can be a record. JSON escapes a byte with up to six.
    fn line(&self, template: &Template) -> u64 {
        match &template.key_separator {
            _ if template.json => 6 * self.record_bytes + 64 * 1024,
            None => self.record_bytes,
            Some(separator) => self.record_bytes + separator.len() as u64,
        }
    }
}

/// Records that travel together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) records: Vec<proto::Record>,
    /// The number of each record's line, from 1.
    pub(super) numbers: Vec<u64>,
    /// What they cost in the window.
    pub(super) bytes: u64,
    /// Lines between them that are no records, and why.
    pub(super) bad: Vec<(u64, anyhow::Error)>,
}

impl Batch {
    fn push(&mut self, number: u64, record: proto::Record, cost: u64) {
        self.records.push(record);
        self.numbers.push(number);
        self.bytes += cost;
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.bad.is_empty()
    }

    fn is_full(&self, limits: &Limits) -> bool {
        (self.records.len() + self.bad.len()) as u64 >= limits.records || self.bytes >= limits.bytes
    }
}

fn cost(record: &proto::Record) -> u64 {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|header| header.name.len() + length(&header.value))
        .sum();
    let bytes = length(&record.key) + length(&record.value) + headers + record.message_id.len();
    bytes as u64 + OVERHEAD
}

/// What the reading thread sends. An input that ends without `End` has lost its thread.
#[derive(Debug)]
pub(super) enum Item {
    Batch(Batch),
    End(io::Result<()>),
}

/// Where batches go; `false` when nobody takes them any more.
type Sink<'a> = &'a mut dyn FnMut(Batch) -> bool;

/// Runs `read` on a thread of its own. It ends with its input or its receiver; a read cannot be interrupted, so nobody waits for it.
pub(super) fn spawn(
    read: impl FnOnce(Sink<'_>) -> io::Result<()> + Send + 'static,
) -> anyhow::Result<mpsc::Receiver<Item>> {
    let (items, receiver) = mpsc::channel(2);
    thread::Builder::new()
        .name("input".into())
        .spawn(move || {
            let end = read(&mut |batch| items.blocking_send(Item::Batch(batch)).is_ok());
            // The receiver is gone when the stream has ended.
            let _ = items.blocking_send(Item::End(end));
        })
        .context("no thread could be started to read the input")?;
    Ok(receiver)
}

pub(super) fn read_values(
    values: Vec<String>,
    template: &Template,
    limits: &Limits,
    sink: Sink<'_>,
) {
    let mut packer = Packer::new(template, limits, sink);
    for value in values {
        if !packer.add(Ok(value.into())) {
            return;
        }
    }
    packer.flush();
}

pub(super) fn read_lines(
    input: impl Read,
    separator: u8,
    template: &Template,
    limits: &Limits,
    sink: Sink<'_>,
) -> io::Result<()> {
    let longest = limits.line(template);
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut packer = Packer::new(template, limits, sink);
    loop {
        // To read on may be to wait.
        if !input.buffer().contains(&separator) && !packer.flush() {
            return Ok(());
        }
        let Some(line) = next_line(&mut input, separator, longest)? else {
            return Ok(());
        };
        if !packer.add(line) {
            return Ok(());
        }
    }
}

/// A line without its separator; one that is too long to be a record is passed over.
fn next_line(
    input: &mut impl BufRead,
    separator: u8,
    longest: u64,
) -> io::Result<Option<anyhow::Result<Bytes>>> {
    let mut line = Vec::new();
    if input.take(longest + 1).read_until(separator, &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&separator) {
        line.pop();
    } else if line.len() as u64 > longest {
        input.skip_until(separator)?;
        let error = anyhow::anyhow!(
            "longer than the largest record that the sidecar takes, {longest} bytes"
        );
        return Ok(Some(Err(error)));
    }
    Ok(Some(Ok(line.into())))
}

/// Fills batches.
struct Packer<'a> {
    template: &'a Template,
    limits: &'a Limits,
    sink: Sink<'a>,
    batch: Batch,
    number: u64,
}

impl<'a> Packer<'a> {
    fn new(template: &'a Template, limits: &'a Limits, sink: Sink<'a>) -> Self {
        Self {
            template,
            limits,
            sink,
            batch: Batch::default(),
            number: 0,
        }
    }

    /// `false` when nobody takes batches any more.
    fn add(&mut self, text: anyhow::Result<Bytes>) -> bool {
        self.number += 1;
        match text.and_then(|text| self.template.record(text)) {
            Err(error) => self.batch.bad.push((self.number, error)),
            Ok(record) => {
                let cost = cost(&record);
                if self.batch.bytes + cost > self.limits.bytes && !self.flush() {
                    return false;
                }
                self.batch.push(self.number, record, cost);
            }
        }
        !self.batch.is_full(self.limits) || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.batch.is_empty() || (self.sink)(std::mem::take(&mut self.batch))
    }
}

#[cfg(test)]
mod tests;
