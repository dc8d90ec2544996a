//! What was sent and is not answered: its size beside the sidecar's window, and the order in which answers are told.
//!
//! Pure. Answers come in any order and leave in that of the input.

use std::collections::BTreeMap;

use super::input::Batch;
use crate::grpc::proto;

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    records: u64,
    bytes: u64,
    /// What the open batches hold of it.
    held: (u64, u64),
    /// Batches that are sent and not told, by sequence.
    open: BTreeMap<u64, Open>,
    /// Answers that wait for those of earlier batches.
    answers: BTreeMap<u64, proto::BatchAck>,
    sequence: u64,
    last_sent: u64,
}

#[derive(Debug)]
struct Open {
    numbers: Vec<u64>,
    bytes: u64,
}

/// Records without an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Unanswered {
    pub(super) records: usize,
    /// The number of the first one.
    pub(super) first: u64,
}

impl Window {
    pub(super) fn new(records: u64, bytes: u64) -> Self {
        Self {
            records,
            bytes,
            held: (0, 0),
            open: BTreeMap::new(),
            answers: BTreeMap::new(),
            sequence: 0,
            last_sent: 0,
        }
    }

    /// A record that alone is larger goes when nothing else is open: it is for the sidecar to refuse it.
    pub(super) fn fits(&self, batch: &Batch) -> bool {
        self.open.is_empty()
            || (self.held.0 + batch.records.len() as u64 <= self.records
                && self.held.1 + batch.bytes <= self.bytes)
    }

    /// Takes a batch in, and makes it a message.
    pub(super) fn open(&mut self, batch: Batch) -> proto::PublishBatch {
        self.sequence += 1;
        self.held.0 += batch.records.len() as u64;
        self.held.1 += batch.bytes;
        self.last_sent = batch.numbers.last().copied().unwrap_or(self.last_sent);
        let open = Open {
            numbers: batch.numbers,
            bytes: batch.bytes,
        };
        self.open.insert(self.sequence, open);
        proto::PublishBatch {
            sequence: self.sequence,
            records: batch.records,
            ack_level: 0,
        }
    }

    pub(super) fn answer(&mut self, ack: proto::BatchAck) {
        if self.open.contains_key(&ack.sequence) {
            self.answers.insert(ack.sequence, ack);
        }
    }

    /// The next batch in input order, if it is answered: the numbers of its records, and the answer.
    pub(super) fn next(&mut self) -> Option<(Vec<u64>, proto::BatchAck)> {
        let sequence = *self.open.first_key_value()?.0;
        self.close(sequence)
    }

    /// What is answered behind a batch that has no answer and gets none any more.
    pub(super) fn rest(&mut self) -> Vec<(Vec<u64>, proto::BatchAck)> {
        let sequences: Vec<_> = self.answers.keys().copied().collect();
        sequences
            .into_iter()
            .filter_map(|sequence| self.close(sequence))
            .collect()
    }

    fn close(&mut self, sequence: u64) -> Option<(Vec<u64>, proto::BatchAck)> {
        let ack = self.answers.remove(&sequence)?;
        let open = self.open.remove(&sequence)?;
        self.held.0 -= open.numbers.len() as u64;
        self.held.1 -= open.bytes;
        Some((open.numbers, ack))
    }

    pub(super) fn unanswered(&self) -> Option<Unanswered> {
        let open = self
            .open
            .iter()
            .filter(|(sequence, _)| !self.answers.contains_key(sequence));
        let mut numbers = open.flat_map(|(_, open)| &open.numbers);
        let first = *numbers.next()?;
        Some(Unanswered {
            records: 1 + numbers.count(),
            first,
        })
    }

    /// The number of the last record that was sent; 0: none was.
    pub(super) fn last_sent(&self) -> u64 {
        self.last_sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(numbers: &[u64], bytes: u64) -> Batch {
        Batch {
            records: vec![proto::Record::default(); numbers.len()],
            numbers: numbers.to_vec(),
            bytes,
            bad: Vec::new(),
        }
    }

    fn ack(sequence: u64) -> proto::BatchAck {
        proto::BatchAck {
            sequence,
            ..Default::default()
        }
    }

    #[test]
    fn answers_in_any_order_leave_in_that_of_the_input() {
        let mut window = Window::new(100, 100);
        for number in 1..=3 {
            assert_eq!(window.open(batch(&[number], 1)).sequence, number);
        }
        window.answer(ack(3));
        window.answer(ack(2));
        assert!(window.next().is_none());
        window.answer(ack(1));
        let told: Vec<_> = std::iter::from_fn(|| window.next())
            .map(|(numbers, ack)| (numbers, ack.sequence))
            .collect();
        assert_eq!(told, [(vec![1], 1), (vec![2], 2), (vec![3], 3)]);
    }

    #[test]
    fn no_more_is_open_than_the_sidecar_allows() {
        let mut window = Window::new(3, 10);
        window.open(batch(&[1, 2], 4));
        assert!(window.fits(&batch(&[3], 6)));
        assert!(!window.fits(&batch(&[3], 7)), "too many bytes");
        assert!(!window.fits(&batch(&[3, 4], 1)), "too many records");
        window.answer(ack(1));
        assert!(!window.fits(&batch(&[3, 4], 1)), "answered and not told");
        window.next().unwrap();
        assert!(window.fits(&batch(&[3, 4], 1)));
    }

    #[test]
    fn a_batch_larger_than_the_window_goes_alone() {
        let mut window = Window::new(1, 1);
        assert!(window.fits(&batch(&[1], 99)));
        window.open(batch(&[1], 99));
        assert!(!window.fits(&batch(&[2], 0)));
    }

    #[test]
    fn what_has_no_answer_is_counted_and_what_has_one_is_still_told() {
        let mut window = Window::new(100, 100);
        window.open(batch(&[1], 1));
        window.open(batch(&[3, 4], 1));
        window.open(batch(&[7], 1));
        window.open(batch(&[8], 1));
        window.answer(ack(1));
        window.next().unwrap();
        window.answer(ack(3));
        assert_eq!(window.rest().len(), 1);
        let unanswered = Unanswered {
            records: 3,
            first: 3,
        };
        assert_eq!(window.unanswered(), Some(unanswered));
        assert_eq!(window.last_sent(), 8);
    }

    #[test]
    fn an_answer_to_nothing_is_passed_over() {
        let mut window = Window::new(1, 1);
        window.answer(ack(5));
        assert!(window.rest().is_empty());
        assert_eq!(window.unanswered(), None);
    }
}
