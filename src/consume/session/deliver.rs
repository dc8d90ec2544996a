//! From the partitions' queues to the streams that have room.
//!
//! Each stream gets at most one message a pass, and begins where its last one ended, so that neither a stream nor a partition starves.
//! A partition is asked for more only when nothing of it waits, and for about what fits: what a stream has no room for stays in
//! librdkafka's queue, where the prefetch limit bounds it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Session, Slot, UNREAD,
    memory::Memory,
    room::Room,
    times::{Clock, millis},
};
use crate::{
    consume::{
        Batch, Delivered, Limits, Outgoing, StreamId, Token,
        ledger::{Admitted, Moment},
    },
    failure::{Failure, Reason},
    kafka::Consumer,
    metrics,
    record::Usage,
};

/// Records in one message to a stream.
const MESSAGE_RECORDS: usize = 1024;

/// Bytes in one message to a stream, above which it is closed: gRPC clients refuse messages over 4 MiB by default.
const MESSAGE_BYTES: u64 = 512 * 1024;

/// What a delivery adds to its record's bytes, at most: topic, token, field tags.
const ENVELOPE: u64 = 1024;

/// Passes in one turn, so that commands and Kafka's events wait a bounded time.
const PASSES: usize = 16;

/// What a partition's records are taken to weigh before one was seen.
pub(super) const TYPICAL: u64 = 1024;

impl Session {
    /// Whether anything was delivered.
    pub(super) fn deliver(&mut self) -> bool {
        let mut any = false;
        for _ in 0..PASSES {
            let mut delivered = false;
            // Another stream is first each time.
            self.turn += 1;
            let ids: Vec<StreamId> = self.streams.keys().copied().collect();
            let first = self.turn as usize % ids.len().max(1);
            for id in ids[first..].iter().chain(&ids[..first]) {
                delivered |= self.deliver_to(*id);
            }
            if !delivered {
                break;
            }
            any = true;
        }
        any
    }

    fn deliver_to(&mut self, id: StreamId) -> bool {
        let beside = match self.streams.get(&id) {
            // One that is not answered yet holds nothing itself.
            Some(stream) if stream.pull.is_some() && !stream.is_kept => self.pulled(),
            _ => Usage::default(),
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let is_behind = stream.is_behind() || stream.unconfirmed.awaited() > UNREAD;
        if stream.draining
            || stream.is_kept
            || is_behind
            || stream.has_suspect
            || !stream.room(beside).fits(0)
        {
            return false;
        }
        // A suspect goes out alone: the stream first settles what it holds.
        let mut slots = self.slots.values().filter(|slot| !slot.revoking);
        let suspects_only = slots.any(|slot| slot.ledger.has_suspect(id));
        if suspects_only && stream.held.records > 0 {
            return false;
        }
        // An owned permit, so that the stream's other fields stay within reach.
        let Some(Ok(permit)) = stream
            .outgoing
            .clone()
            .map(|outgoing| outgoing.try_reserve_owned())
        else {
            return false;
        };
        let now = Instant::now();
        let mut message = Message {
            suspects_only,
            ..Message::new(stream.max_message_bytes, now, stream.lease, &self.clock)
        };
        let from = stream.next;
        let order = self.slots.range(from..).chain(self.slots.range(..from));
        let indexes: Vec<u32> = order.map(|(&index, _)| index).collect();
        let mut room = Room {
            window: stream.window,
            most: stream.most(),
            beside,
            held: &mut stream.held,
        };
        let mut too_large = None;
        for index in indexes {
            let slot = self.slots.get_mut(&index).expect("listed just now");
            if slot.revoking {
                continue;
            }
            stream.next = index + 1;
            match fill(
                &mut message,
                &mut Source {
                    consumer: &mut self.consumer,
                    limits: &self.limits,
                    memory: &mut self.memory,
                },
                index,
                slot,
                id,
                &mut room,
            ) {
                Fill::More => {}
                Fill::Full => break,
                Fill::TooLarge(failure) => {
                    too_large = Some(failure);
                    break;
                }
            }
        }
        if message.count == 0 {
            if let Some(failure) = too_large {
                stream.end(Some(failure));
            }
            return false;
        }
        let recorder = metrics::subscribe();
        recorder.delivered.increment(message.count as u64);
        recorder.delivered_bytes.increment(message.bytes);
        recorder.redelivered.increment(message.again);
        stream.has_suspect = message.has_suspect;
        let until = now + stream.lease;
        if stream.pull.is_some() {
            stream.keep();
        }
        self.show_held(self.held());
        permit.send(Outgoing::Deliveries {
            batches: message.batches,
            until,
        });
        true
    }
}

/// Where records are read, and within which bounds.
struct Source<'a> {
    consumer: &'a mut Consumer,
    limits: &'a Limits,
    memory: &'a mut Memory,
}

struct Message {
    /// At most one of a partition: the last one is of the partition at hand, once that has given anything.
    batches: Vec<Batch>,
    count: usize,
    bytes: u64,
    again: u64,
    /// Where the message is closed.
    full: u64,
    /// What its caller takes at most.
    most: u64,
    /// Only records that may have killed a client, and of them one.
    suspects_only: bool,
    has_suspect: bool,
    /// When it is made, by both clocks.
    at: (Instant, Moment),
    /// When the leases of its records end.
    until: Moment,
    /// No record of the partition at hand is in it.
    new_in_slot: bool,
}

impl Message {
    fn new(most: u64, now: Instant, lease: Duration, clock: &Clock) -> Self {
        let moment = clock.moment(now);
        Self {
            batches: Vec::new(),
            count: 0,
            bytes: 0,
            again: 0,
            full: MESSAGE_BYTES.min(most / 2).max(1),
            most,
            suspects_only: false,
            has_suspect: false,
            at: (now, moment),
            until: moment.saturating_add(millis(lease)),
            new_in_slot: true,
        }
    }
}

/// Whether a message and a window have room for more.
enum Fill {
    More,
    Full,
    /// The next record does not fit any message that the caller takes.
    TooLarge(Failure),
}

/// Adds what a partition has for the stream.
fn fill(
    message: &mut Message,
    from: &mut Source<'_>,
    index: u32,
    slot: &mut Slot,
    id: StreamId,
    room: &mut Room<'_>,
) -> Fill {
    message.new_in_slot = true;
    loop {
        if message.count >= MESSAGE_RECORDS || message.bytes >= message.full {
            return Fill::Full;
        }
        let Some(next) = slot.ledger.next(id) else {
            if !room.fits(0) {
                return Fill::Full;
            }
            let may_read = !message.suspects_only
                && slot.ledger.open_to(id)
                && !slot.reset.is_back()
                && slot.held_up(from.limits, from.memory).is_none();
            if !may_read || fetch(from, slot, room, message) == 0 {
                return Fill::More;
            }
            continue;
        };
        if message.suspects_only && !next.is_suspect {
            return Fill::More;
        }
        let weight = next.weight;
        if weight + ENVELOPE > message.most {
            return Fill::TooLarge(too_large(slot, next.offset, weight, message.most));
        }
        if !room.fits(weight) || (message.bytes > 0 && message.bytes + weight > message.full) {
            return Fill::Full;
        }
        let (now, moment) = message.at;
        let handed = slot.ledger.hand(id, next, moment, message.until);
        if message.new_in_slot {
            slot.times.stamp(handed.serial, now);
            slot.sent_at = now;
            message.batches.push(Batch {
                topic: Arc::clone(&slot.topic),
                partition: slot.partition.partition,
                records: Vec::new(),
            });
            message.new_in_slot = false;
        }
        let delay = match handed.payload.timestamp {
            Some((created, _)) if !handed.again => Some(moment as i64 - created),
            _ => None,
        };
        slot.reading.delivered(delay);
        message.again += u64::from(handed.again);
        message.bytes += weight;
        room.held.add(Usage {
            records: 1,
            bytes: weight,
        });
        message.count += 1;
        message.has_suspect |= handed.is_suspect;
        let batch = message.batches.last_mut().expect("begun just now");
        batch.records.push(Delivered {
            token: Token {
                index,
                offset: handed.offset,
                epoch: slot.epoch,
                serial: handed.serial,
            },
            attempt: handed.attempt,
            is_suspect: handed.is_suspect,
            record: handed.payload.clone(),
        });
        if message.suspects_only {
            return Fill::Full;
        }
    }
}

/// Takes about as many records out of the partition's queue as fit the message and the window.
fn fetch(from: &mut Source<'_>, slot: &mut Slot, room: &Room<'_>, message: &Message) -> usize {
    let (window, held) = (room.window, room.held());
    let records = window
        .records
        .saturating_sub(held.records)
        .min(room.most.saturating_sub(room.held.records))
        .min((MESSAGE_RECORDS - message.count) as u64);
    let bytes = window
        .bytes
        .saturating_sub(held.bytes)
        .min(message.full.saturating_sub(message.bytes));
    let count = records.min(bytes / slot.typical.max(1)).max(1);
    let Slot {
        partition,
        ledger,
        typical,
        reading,
        dry,
        reset,
        ..
    } = slot;
    let mut bytes = 0;
    let fetched = from.consumer.fetch(partition, count as usize, |record| {
        let weight = record.charged_bytes();
        // Quick to rise, slow to fall: an estimate that is too low takes more out of the queue than fits.
        *typical = weight.max(*typical - *typical / 8);
        let Some(record) = reset.pass(ledger.position(), record) else {
            return;
        };
        match ledger.admit(record.offset, record) {
            Admitted::Waiting => bytes += weight,
            Admitted::Settled => metrics::subscribe().restored.increment(1),
            Admitted::Passed => unreachable!("what is below the position did not come here"),
        }
    });
    from.memory.took(bytes);
    *dry |= fetched < count as usize;
    reading.read(fetched as u64);
    fetched
}

fn too_large(slot: &Slot, offset: i64, weight: u64, most: u64) -> Failure {
    Failure::new(
        Reason::RecordTooLarge,
        format!(
            "the record at {} offset {} has {weight} bytes, but this client takes messages of {most} at most; raise its receive limit and \
             Init.max_message_bytes",
            slot.partition, offset,
        ),
    )
}
