//! The spans of what a stream was sent, until it settles it.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    grpc::proto::{self, settle_item, subscribe_request, subscribe_response},
    traces::{self, Processing, Source},
};

/// The spans of delivered records that are not settled yet, by token. Empty as long as nothing is sampled.
#[derive(Default)]
pub(super) struct Traced {
    group: String,
    processing: HashMap<Bytes, Processing>,
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
    pub(super) fn delivered(&mut self, message: &mut proto::SubscribeResponse) {
        let Some(subscribe_response::Message::Deliveries(deliveries)) = &mut message.message else {
            return;
        };
        for delivery in &mut deliveries.deliveries {
            let Some(record) = &mut delivery.record else {
                continue;
            };
            let context = record
                .headers
                .iter_mut()
                .find(|header| traces::is_context(&header.name));
            let Some(value) = context.and_then(|header| header.value.as_mut()) else {
                continue;
            };
            let source = Source {
                group: &self.group,
                topic: &record.topic,
                partition: record.partition.unwrap_or_default(),
                offset: delivery.offset,
                tombstone: record.value.is_none(),
            };
            if let Some((processing, below)) = Processing::begin(value, source) {
                *value = below.into();
                self.processing.insert(delivery.token.clone(), processing);
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
        for item in &settle.items {
            if let Some(processing) = self.processing.remove(&item.token) {
                processing.end(match item.action {
                    Some(settle_item::Action::Ack(_)) => "ack",
                    Some(settle_item::Action::Nack(_)) => "nack",
                    Some(settle_item::Action::DeadLetter(_)) => "dead_letter",
                    Some(settle_item::Action::Release(_)) => "release",
                    None => "none",
                });
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
