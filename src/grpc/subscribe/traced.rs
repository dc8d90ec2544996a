//! The spans of what a stream was sent, until it settles it.

use std::collections::HashMap;

use crate::{
    consume::{Batch, Token},
    grpc::{
        proto::{self, settle_item, subscribe_request},
        settle::Received,
    },
    traces::{self, Processing, Source},
};

/// The spans of delivered records that are not settled yet, by token. Empty as long as nothing is sampled.
#[derive(Default)]
pub(super) struct Traced {
    group: String,
    processing: HashMap<Token, Processing>,
}

impl Traced {
    pub(super) fn of(first: Option<&proto::SubscribeRequest>) -> Self {
        let group = match first.and_then(|first| first.message.as_ref()) {
            Some(subscribe_request::Message::Init(init)) => init.group.clone(),
            _ => String::new(),
        };
        Self {
            group,
            processing: HashMap::new(),
        }
    }

    /// Begins the spans of what is about to be delivered, and puts their context in the place of the producer's.
    pub(super) fn delivered(&mut self, batches: &mut [Batch]) {
        for batch in batches {
            for delivered in &mut batch.records {
                let source = Source {
                    group: &self.group,
                    topic: &batch.topic,
                    partition: batch.partition,
                    offset: delivered.record.offset,
                    tombstone: delivered.record.value().is_none(),
                };
                let headers = delivered.record.headers();
                let Some(at) = headers
                    .iter()
                    .position(|header| traces::is_context(&header.name))
                else {
                    continue;
                };
                let Some(value) = &headers[at].value else {
                    continue;
                };
                if let Some((processing, below)) = Processing::begin(value, source) {
                    delivered.record.headers_mut()[at].value = Some(below.into());
                    self.processing.insert(delivered.token, processing);
                }
            }
        }
    }

    pub(super) fn settled(&mut self, message: &proto::SubscribeRequest) {
        let Some(subscribe_request::Message::Settle(settle)) = &message.message else {
            return;
        };
        if self.processing.is_empty() {
            return;
        }
        for received in &settle.received {
            let (token, how) = match received {
                Received::Ack(token) => (Some(*token), "ack"),
                Received::Other(item) => (
                    Token::decode(&item.token),
                    match item.action {
                        Some(settle_item::Action::Ack(_)) => "ack",
                        Some(settle_item::Action::Nack(_)) => "nack",
                        Some(settle_item::Action::DeadLetter(_)) => "dead_letter",
                        Some(settle_item::Action::Release(_)) => "release",
                        None => "none",
                    },
                ),
            };
            if let Some(processing) = token.and_then(|token| self.processing.remove(&token)) {
                processing.end(how);
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        for (_, processing) in self.processing.drain() {
            processing.abandon();
        }
    }
}
