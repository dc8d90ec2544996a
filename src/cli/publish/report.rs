//! What became of the records: the lines for standard output, the failures, and the count of both.
//!
//! Lines are gathered here and taken to be written by whoever owns standard output.

use std::fmt::Write;

use anyhow::anyhow;
use serde_json::json;
use tonic::Status;
use tonic_types::StatusExt;

use super::Outcome;
use crate::{cli::complain, grpc::proto};

/// How many bytes may wait for a slow reader before nothing more is sent.
const MAX_WAITING: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Report {
    topic: String,
    /// What a number counts: lines or values.
    pub(super) noun: &'static str,
    json: bool,
    quiet: bool,
    text: String,
    /// Failures of the same kind in a row, not yet told.
    run: Option<Run>,
    /// Records whose fate is known.
    pub(super) answered: u64,
    /// Those of them that are not in Kafka, or perhaps not, and lines that are no records.
    failed: u64,
}

/// Records in a row that failed for the same reason: a stream that breaks down makes thousands.
#[derive(Debug, PartialEq)]
struct Run {
    first: u64,
    last: u64,
    why: String,
}

impl Report {
    pub(super) fn new(topic: String, noun: &'static str, json: bool, quiet: bool) -> Self {
        Self {
            topic,
            noun,
            json,
            quiet,
            text: String::new(),
            run: None,
            answered: 0,
            failed: 0,
        }
    }

    /// Tells the failures, and gives the lines that are not yet written, if there are any.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.tell();
        (!self.text.is_empty()).then(|| std::mem::take(&mut self.text).into_bytes())
    }

    pub(super) fn has_room(&self) -> bool {
        self.text.len() < MAX_WAITING
    }

    pub(super) fn outcome(&self) -> Outcome {
        if self.failed > 0 {
            Outcome::Failed
        } else {
            Outcome::Done
        }
    }

    pub(super) fn published(
        &mut self,
        number: u64,
        &proto::Published {
            partition,
            offset,
            timestamp,
            duplicate,
        }: &proto::Published,
    ) {
        self.answered += 1;
        if self.quiet {
            return;
        }
        let topic = &self.topic;
        // A String takes everything.
        let _ = if self.json {
            let mut line = json!({ "record": number, "topic": topic, "partition": partition, "offset": offset });
            if let Some(time) = timestamp {
                line["timestamp"] =
                    (time.seconds * 1000 + i64::from(time.nanos) / 1_000_000).into();
            }
            if duplicate {
                line["duplicate"] = true.into();
            }
            writeln!(self.text, "{line}")
        } else {
            let offset = offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string());
            let mark = if duplicate { " duplicate" } else { "" };
            writeln!(self.text, "{topic}[{partition}]@{offset}{mark}")
        };
    }

    /// It is not asked for, and yet a success.
    pub(super) fn spooled(&mut self, number: u64, spooled: &proto::Spooled) {
        self.answered += 1;
        if self.quiet {
            return;
        }
        let topic = &self.topic;
        let (spool, sequence) = (&spooled.spool_id, spooled.sequence);
        let _ = if self.json {
            let line = json!({ "record": number, "topic": topic, "spool_id": spool, "sequence": sequence });
            writeln!(self.text, "{line}")
        } else {
            writeln!(self.text, "{topic}: {sequence} in spool {spool}")
        };
    }

    pub(super) fn failed(&mut self, number: u64, error: &proto::RecordError) {
        self.answered += 1;
        let reason = error.reason().as_str_name();
        let reason = reason.strip_prefix("ERROR_REASON_").unwrap_or(reason);
        let fate = match error.persistence() {
            proto::Persistence::NotPersisted => "not published",
            _ => "perhaps published",
        };
        self.bad(number, &anyhow!("{fate}: {reason}: {}", error.message));
    }

    /// An answer of a kind that this version does not know.
    pub(super) fn unknown(&mut self, number: u64) {
        self.bad(
            number,
            &anyhow!("perhaps published: the sidecar's answer is not understood"),
        );
    }

    /// A line that is no record, or a record that failed.
    pub(super) fn bad(&mut self, number: u64, why: &anyhow::Error) {
        self.failed += 1;
        let why = format!("{why:#}");
        match &mut self.run {
            Some(run) if run.last + 1 == number && run.why == why => run.last = number,
            _ => {
                self.tell();
                self.run = Some(Run {
                    first: number,
                    last: number,
                    why,
                });
            }
        }
    }

    fn tell(&mut self) {
        let noun = self.noun;
        match self.run.take() {
            None => {}
            Some(Run { first, last, why }) if first == last => {
                complain(&format_args!("{noun} {first}: {why}"));
            }
            Some(Run { first, last, why }) => {
                complain(&format_args!("{noun}s {first} to {last}: {why}"));
            }
        }
    }

    /// The answer to a batch.
    pub(super) fn batch(&mut self, numbers: &[u64], ack: &proto::BatchAck) {
        use proto::record_note::Note;
        let mut notes = ack.notes.iter().peekable();
        for (index, number) in numbers.iter().enumerate() {
            let note = notes.next_if(|note| note.index as usize == index);
            match note.map(|note| &note.note) {
                Some(Some(Note::Error(error))) => self.failed(*number, error),
                Some(Some(Note::Spooled(spooled))) => self.spooled(*number, spooled),
                Some(None) => self.unknown(*number),
                note => {
                    let duplicate = note.is_some();
                    match (ack.partitions.get(index), ack.offsets.get(index)) {
                        (Some(partition), Some(offset)) => {
                            let offset = (*offset >= 0).then_some(*offset);
                            let published = proto::Published {
                                partition: *partition,
                                offset,
                                timestamp: None,
                                duplicate,
                            };
                            self.published(*number, &published);
                        }
                        _ => self.unknown(*number),
                    }
                }
            }
        }
    }
}

/// What a call that failed says about its records.
pub(super) fn fate(status: &Status) -> &'static str {
    let persistence = status
        .get_details_error_info()
        .and_then(|info| info.metadata.get("persistence").cloned());
    match persistence.as_deref() {
        Some("NOT_PERSISTED") => "not published",
        // A status without it did not come from the sidecar's own decision.
        _ => "perhaps published",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(json: bool) -> Report {
        Report::new("t".into(), "line", json, false)
    }

    fn ack(partitions: &[i32], offsets: &[i64], notes: Vec<proto::RecordNote>) -> proto::BatchAck {
        proto::BatchAck {
            sequence: 1,
            partitions: partitions.to_vec(),
            offsets: offsets.to_vec(),
            notes,
        }
    }

    fn text(report: &mut Report) -> String {
        String::from_utf8(report.take().unwrap_or_default()).unwrap()
    }

    #[test]
    fn a_published_record_is_a_line_with_a_question_mark_for_what_is_not_known() {
        let mut report = report(false);
        let duplicate = proto::RecordNote {
            index: 2,
            note: Some(proto::record_note::Note::Duplicate(true)),
        };
        let ack = ack(&[0, 3, 0], &[7, -1, 5], vec![duplicate]);
        report.batch(&[1, 2, 3], &ack);
        assert_eq!(text(&mut report), "t[0]@7\nt[3]@?\nt[0]@5 duplicate\n");
        assert!(matches!(report.outcome(), Outcome::Done));
    }

    #[test]
    fn json_names_the_record_and_the_time_where_it_is_known() {
        let mut report = report(true);
        report.batch(&[5], &ack(&[0], &[-1], vec![]));
        let time = prost_types::Timestamp {
            seconds: 1,
            nanos: 2_000_000,
        };
        let published = proto::Published {
            partition: 1,
            offset: Some(9),
            timestamp: Some(time),
            duplicate: true,
        };
        report.published(6, &published);
        assert_eq!(
            text(&mut report),
            concat!(
                r#"{"offset":null,"partition":0,"record":5,"topic":"t"}"#,
                "\n",
                r#"{"duplicate":true,"offset":9,"partition":1,"record":6,"timestamp":1002,"topic":"t"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_record_with_an_error_or_a_note_that_is_not_known_has_failed() {
        let mut report = report(false);
        let note = |index, note| proto::RecordNote { index, note };
        let error = proto::record_note::Note::Error(proto::RecordError::default());
        let notes = vec![note(0, Some(error)), note(2, None)];
        report.batch(&[1, 2, 3], &ack(&[-1, 0, -1], &[-1, 4, -1], notes));
        assert_eq!(text(&mut report), "t[0]@4\n");
        assert_eq!(report.failed, 2);
        assert!(matches!(report.outcome(), Outcome::Failed));
    }

    #[test]
    fn an_answer_that_lacks_a_record_does_not_make_it_published() {
        let mut report = report(false);
        report.batch(&[1, 2], &ack(&[0], &[7], vec![]));
        assert_eq!((text(&mut report).as_str(), report.failed), ("t[0]@7\n", 1));
    }

    #[test]
    fn failures_in_a_row_are_told_together_and_others_apart() {
        let mut report = report(false);
        for number in [1, 2, 3, 5] {
            report.bad(number, &anyhow!("no"));
        }
        let run = |first, last, why: &str| Run {
            first,
            last,
            why: why.to_owned(),
        };
        assert_eq!(report.run, Some(run(5, 5, "no")));
        report.bad(6, &anyhow!("no"));
        assert_eq!(report.run, Some(run(5, 6, "no")));
        report.bad(7, &anyhow!("never"));
        assert_eq!(report.run, Some(run(7, 7, "never")));
        report.take();
        assert_eq!((report.run, report.failed), (None, 6));
    }

    #[test]
    fn quiet_prints_only_failures() {
        let mut report = Report::new("t".into(), "line", false, true);
        report.batch(&[1], &ack(&[0], &[7], vec![]));
        assert_eq!((report.take(), report.answered), (None, 1));
    }
}
