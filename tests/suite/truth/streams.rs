//! A caller with a publish stream: many batches unanswered at a time; a stream that ends is followed by another one.

use std::{collections::HashMap, ops::Range, time::Instant};

use outrigger::grpc::proto::{
    self, PublishBatch, PublishOpen, PublishStreamRequest, publish_stream_request::Message,
    publish_stream_response::Message as Told, record_note::Note,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    TICK,
    callers::Caller,
    history::{Answer, Calls},
    wire::{Failed, place},
};
use crate::sidecar::PATIENCE;

/// Records that a stream has unanswered.
const WINDOW: usize = 2000;

/// One of so many answers is not waited for: the caller goes away, and its stream with it.
const LEAVES: u64 = 500;

/// Publishes until all is sent and answered.
pub async fn publish(mut caller: Caller, mode: proto::FailureMode) -> Calls {
    while !caller.is_over() {
        caller.call += 1;
        let (life, mut client) = caller.load.connect().await;
        let (requests, receiver) = mpsc::channel(16);
        let open = Message::Open(PublishOpen {
            failure_mode: mode.into(),
            client_id: format!("caller {}", caller.number),
        });
        let _ = requests.send(message(open)).await;
        // What could not be opened was killed.
        if let Ok(opened) = client.publish_stream(ReceiverStream::new(receiver)).await {
            let stream = Stream {
                life,
                requests: Some(requests),
                responses: opened.into_inner(),
                sequence: 0,
                open: HashMap::new(),
                unanswered: 0,
            };
            stream.serve(&mut caller).await;
        }
    }
    caller.calls
}

fn message(message: Message) -> PublishStreamRequest {
    PublishStreamRequest {
        message: Some(message),
    }
}

struct Stream {
    life: u16,
    /// Gone when all is sent.
    requests: Option<mpsc::Sender<PublishStreamRequest>>,
    responses: Streaming<proto::PublishStreamResponse>,
    sequence: u64,
    /// The sends of each batch without an answer.
    open: HashMap<u64, Range<u32>>,
    unanswered: usize,
}

impl Stream {
    async fn serve(mut self, caller: &mut Caller) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                told = self.responses.message() => {
                    heard = Instant::now();
                    match told {
                        Ok(Some(told)) => self.told(caller, told.message.expect("a message")),
                        // In order: what has no answer then never gets one.
                        Ok(None) => return,
                        Err(_) => break,
                    }
                    if caller.random.one_in(LEAVES) {
                        break;
                    }
                }
                _ = tick.tick() => {}
            }
            self.fill(caller).await;
            assert!(
                self.open.is_empty() || heard.elapsed() < PATIENCE,
                "caller {} is not answered: {:?}",
                caller.number,
                self.open
            );
        }
        let mut open: Vec<Range<u32>> = self.open.into_values().collect();
        open.sort_by_key(|sends| sends.start);
        for sends in open {
            caller.break_off(sends);
        }
    }

    /// Sends what the window has room for; ends the stream in order when there is no more.
    async fn fill(&mut self, caller: &mut Caller) {
        let Some(requests) = &self.requests else {
            return;
        };
        while self.unanswered < WINDOW {
            let Some(sends) = caller.next(self.life) else {
                break;
            };
            self.sequence += 1;
            self.unanswered += sends.len();
            self.open.insert(self.sequence, sends.clone());
            let batch = Message::Batch(PublishBatch {
                sequence: self.sequence,
                records: caller.wire(sends),
                ack_level: 0,
            });
            // A stream that has ended takes no more; its status tells.
            let _ = requests.send(message(batch)).await;
        }
        if self.open.is_empty() && caller.is_over() {
            self.requests = None;
        }
    }

    fn told(&mut self, caller: &mut Caller, told: Told) {
        let Told::Acks(acks) = told else { return };
        for ack in acks.acks {
            let sends = self
                .open
                .remove(&ack.sequence)
                .expect("a batch that is open");
            self.unanswered -= sends.len();
            let mut notes = ack.notes.into_iter().peekable();
            for (index, send) in sends.enumerate() {
                let place = || place(ack.partitions[index], ack.offsets[index]);
                let note = notes.next_if(|note| note.index as usize == index);
                match note.map(|note| note.note.expect("a note")) {
                    None => caller.answered(send, Answer::Written(place())),
                    Some(Note::Duplicate(_)) => caller.answered(send, Answer::Duplicate(place())),
                    Some(Note::Error(error)) => caller.failed(send, Failed::of(&error)),
                    Some(other) => panic!("{other:?}"),
                }
            }
            assert_eq!(notes.next(), None, "a note for each record, in order");
        }
    }
}
