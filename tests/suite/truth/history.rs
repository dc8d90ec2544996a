//! What was published and what was told of it, by caller, and what the topic holds: a few bytes for each record, for there may be ten million.
//!
//! A *send* is one record in one request or batch; it is noted before it goes out. A record that is published again under its message id is
//! another send of the same record. Sends are numbered by caller, and the number stands in the topic too, as the record's timestamp, on which
//! neither its partition nor its message id depend: so it is known which send wrote what is found.

use std::ops::Range;

/// Where a record is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub partition: u16,
    /// Absent: not told.
    pub offset: Option<u32>,
}

/// What a caller was told of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet; at the end, never anything, though its stream ended in order.
    Nothing,
    /// Nothing, or nothing by the sidecar: its connection or its stream broke, or its caller did not wait.
    Unknown,
    Possibly,
    NotWritten,
    /// Not written, and none after it of its stream or request: one before it had failed, or their caller had gone.
    NotSent,
    Written(Place),
    /// Written by an earlier send with its message id.
    Duplicate(Place),
}

#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Numbers the records of its caller.
    pub record: u32,
    /// Numbers the streams, or the requests, of its caller: within one, order is promised.
    pub call: u32,
    pub key: u16,
    /// The sidecar process.
    pub life: u16,
    pub answer: Answer,
}

/// One caller's sends.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    pub has_ids: bool,
    pub sent: Vec<Sent>,
    /// Sends that were answered when they had an answer already.
    pub answered_again: Vec<u32>,
}

impl Calls {
    /// Before it is sent; gives the number of the send.
    pub fn send(&mut self, call: u32, life: u16, record: u32, key: u16) -> u32 {
        self.sent.push(Sent {
            record,
            call,
            key,
            life,
            answer: Answer::Nothing,
        });
        self.sent.len() as u32 - 1
    }

    pub fn answer(&mut self, send: u32, answer: Answer) {
        let told = &mut self.sent[send as usize].answer;
        if *told != Answer::Nothing {
            self.answered_again.push(send);
        }
        *told = answer;
    }

    /// These are not answered any more.
    pub fn break_off(&mut self, sends: Range<u32>) {
        for sent in &mut self.sent[sends.start as usize..sends.end as usize] {
            if sent.answer == Answer::Nothing {
                sent.answer = Answer::Unknown;
            }
        }
    }
}

/// A record as it stands in the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub send: u32,
    pub record: u32,
    pub caller: u16,
    pub key: u16,
}

/// By partition and offset.
pub type Topic = Vec<Vec<Stored>>;
