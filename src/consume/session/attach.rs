//! Streams that come and go.
//!
//! What always holds: what a stream holds when it ends is delivered again; what it held when it died is suspect. A pull that was answered stays for what it
//! holds, and all pulls together never hold more than one of their windows.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::{Session, UNREAD, stream::Stream};
use crate::{
    consume::{Outgoing, PartitionChange, StreamId, StreamOptions},
    failure::{Failure, Reason},
    record::Usage,
};

impl Session {
    pub(super) fn attach(
        &mut self,
        id: StreamId,
        options: StreamOptions,
        outgoing: mpsc::Sender<Outgoing>,
        end: oneshot::Sender<Option<Failure>>,
    ) {
        let mut stream = Stream::new(options, outgoing, end);
        for slot in self.slots.values().filter(|slot| !slot.revoking) {
            stream.tell(Outgoing::Partition {
                partition: slot.partition.clone(),
                change: PartitionChange::Assigned,
                by: None,
                reason: String::new(),
            });
            if slot.is_blocked() {
                stream.tell(slot.blocked_event());
            }
        }
        self.streams.insert(id, stream);
    }

    /// Takes back what ended streams held, and cuts those that leave their answers unread.
    pub(super) fn drop_ended_streams(&mut self, now: Instant) {
        for stream in self.streams.values_mut() {
            stream.flush();
            if stream.unread.len() > UNREAD {
                tracing::warn!(
                    group = self.subscription.group,
                    "a stream that does not read its answers is cut"
                );
                stream.end(Some(Failure::new(
                    Reason::WindowExceeded,
                    "the answers of this stream are not being read",
                )));
            }
        }
        let moment = self.clock.moment(now);
        for (id, stream) in self.streams.extract_if(.., |_, stream| stream.is_over()) {
            for slot in self.slots.values_mut() {
                match stream.outgoing {
                    // We ended it, or nobody has seen what it was given.
                    None => slot.ledger.hand_back(id),
                    Some(_) if stream.pull.is_some() => slot.ledger.hand_back(id),
                    Some(_) => slot.ledger.take_back(id, stream.held.records == 1, moment),
                }
            }
        }
    }

    /// Keys belong to the streams that take part.
    pub(super) fn spread(&mut self) {
        let pulled = self.pulled();
        let takes_part = |stream: &Stream| stream.is_member() && !stream.is_crowded_out(pulled);
        let members = self.streams.iter().filter(|(_, stream)| takes_part(stream));
        if members.clone().map(|(id, _)| id).eq(&self.members) {
            return;
        }
        self.members = members.map(|(&id, _)| id).collect();
        for slot in self.slots.values_mut() {
            slot.ledger.spread(&self.members);
        }
    }

    /// What all pulls hold.
    pub(super) fn pulled(&self) -> Usage {
        let mut pulled = Usage::default();
        for stream in self.streams.values().filter(|stream| stream.pull.is_some()) {
            pulled.add(stream.held);
        }
        pulled
    }

    pub(super) fn end_drained_streams(&mut self) {
        for stream in self.streams.values_mut() {
            // Not before the answer to its last settle is on its way.
            let is_answered = !stream.is_behind() && stream.unconfirmed.awaited() == 0;
            if stream.draining && stream.held.records == 0 && is_answered {
                stream.end(None);
            }
        }
    }
}
