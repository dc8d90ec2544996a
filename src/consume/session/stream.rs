//! A stream's place in its session: its window, and what it has yet to be told.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::durable::Unconfirmed;
use crate::{
    consume::{Confirm, Outgoing, StreamId, StreamOptions, ledger::Refund},
    failure::Failure,
    metrics::{self, Open},
    record::Usage,
};

/// An attached stream.
pub(super) struct Stream {
    /// Absent once the stream has been told its end.
    pub(super) outgoing: Option<mpsc::Sender<Outgoing>>,
    pub(super) end: Option<oneshot::Sender<Option<Failure>>>,
    /// Messages other than deliveries that do not fit the channel now.
    pub(super) unread: VecDeque<Outgoing>,
    /// The answers of DURABLE that do not fit either: one commit may cover many requests, as many as what the stream held.
    answers: VecDeque<Outgoing>,
    pub(super) confirm: Confirm,
    /// Its settles that no commit covers yet.
    pub(super) unconfirmed: Unconfirmed,
    pub(super) window: Usage,
    pub(super) held: Usage,
    pub(super) lease: Duration,
    /// What it holds may be what kills its client, so it gets nothing beside it.
    pub(super) has_suspect: bool,
    /// When it last read or said something, as far as there was anything to read.
    pub(super) alive_at: Instant,
    /// How much room its channel had when last looked.
    capacity: usize,
    pub(super) max_message_bytes: u64,
    /// It gets no deliveries and ends when it holds nothing.
    pub(super) draining: bool,
    /// How many records it may be given in all, for a pull.
    pub(super) pull: Option<u64>,
    /// A pull that was answered: it is here for what it holds alone.
    pub(super) is_kept: bool,
    /// Where its next look for records begins, so that no partition starves.
    pub(super) next: u32,
    /// Absent once it is kept.
    open: Option<Open>,
}

impl Stream {
    pub(super) fn new(
        options: StreamOptions,
        outgoing: mpsc::Sender<Outgoing>,
        end: oneshot::Sender<Option<Failure>>,
    ) -> Self {
        Self {
            capacity: outgoing.capacity(),
            outgoing: Some(outgoing),
            end: Some(end),
            unread: VecDeque::new(),
            answers: VecDeque::new(),
            confirm: options.confirm,
            unconfirmed: Unconfirmed::new(options.confirm),
            window: options.window,
            held: Usage::default(),
            lease: options.lease,
            has_suspect: false,
            alive_at: Instant::now(),
            max_message_bytes: options.max_message_bytes,
            draining: false,
            pull: options.pull,
            is_kept: false,
            next: 0,
            open: Some(metrics::subscribe().stream()),
        }
    }

    /// Whether something waits for room in its channel.
    pub(super) fn is_behind(&self) -> bool {
        !self.unread.is_empty() || !self.answers.is_empty()
    }

    /// Whether nothing can be sent to it before its caller has read something.
    pub(super) fn is_full(&self) -> bool {
        let has_room = |outgoing: &mpsc::Sender<Outgoing>| outgoing.capacity() > 0;
        self.is_behind() || !self.outgoing.as_ref().is_some_and(has_room)
    }

    /// Whether it takes part: keys are spread over such streams.
    pub(super) fn is_member(&self) -> bool {
        !self.draining
            && self.outgoing.is_some()
            && self.window.records > 0
            && self.window.bytes > 0
    }

    /// Whether it is a pull, and other pulls hold all that it could.
    pub(super) fn is_crowded_out(&self, pulled: Usage) -> bool {
        let is_full = pulled.records >= self.window.records || pulled.bytes >= self.window.bytes;
        self.pull.is_some() && is_full
    }

    /// Whether its caller has neither read nor said anything for so long, although there was something to read.
    pub(super) fn is_silent(&mut self, now: Instant, grace: Duration) -> bool {
        let capacity = self.outgoing.as_ref().map_or(0, mpsc::Sender::capacity);
        let has_moved = std::mem::replace(&mut self.capacity, capacity) != capacity;
        if has_moved || !self.has_unread() {
            self.alive_at = now;
        }
        now.saturating_duration_since(self.alive_at) >= grace
    }

    /// Deliveries and answers that the caller has not taken yet.
    pub(super) fn has_unread(&self) -> bool {
        let is_waiting =
            |outgoing: &mpsc::Sender<Outgoing>| outgoing.capacity() < outgoing.max_capacity();
        self.is_behind() || self.outgoing.as_ref().is_some_and(is_waiting)
    }

    pub(super) fn tell(&mut self, message: Outgoing) {
        if self.outgoing.is_none() {
            return;
        }
        self.unread.push_back(message);
        self.flush();
    }

    /// Answers the requests of DURABLE that are covered, or can never be.
    pub(super) fn confirm(&mut self) {
        for (request_id, refused) in self.unconfirmed.answers() {
            self.answers.push_back(Outgoing::Settled {
                request_id,
                refused,
            });
        }
        self.flush();
    }

    /// Ends the stream after what was sent; what it held is taken back.
    pub(super) fn end(&mut self, end: Option<Failure>) {
        self.unread.clear();
        self.outgoing = None;
        if let Some(told) = self.end.take() {
            // The stream may be gone.
            let _ = told.send(end);
        }
    }

    /// A pull was given what it was given: what it holds stays with it, though nobody is there.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
        self.outgoing = None;
        self.unread.clear();
        self.end = None;
        self.open = None;
    }

    pub(super) fn is_over(&self) -> bool {
        match self.is_kept {
            true => self.held.records == 0,
            false => self.outgoing.as_ref().is_none_or(mpsc::Sender::is_closed),
        }
    }

    pub(super) fn flush(&mut self) {
        let Some(outgoing) = &self.outgoing else {
            return;
        };
        for waiting in [&mut self.unread, &mut self.answers] {
            while let Some(message) = waiting.pop_front() {
                if let Err(mpsc::error::TrySendError::Full(message)) = outgoing.try_send(message) {
                    waiting.push_front(message);
                    return;
                }
            }
        }
    }
}

/// Gives windows back what their streams no longer hold.
pub(super) fn refund(streams: &mut BTreeMap<StreamId, Stream>, refunds: &[Refund]) {
    for refund in refunds {
        if let Some(stream) = streams.get_mut(&refund.stream) {
            stream.held.sub(Usage {
                records: 1,
                bytes: refund.bytes,
            });
            stream.has_suspect &= stream.held.records > 0;
        }
    }
}
