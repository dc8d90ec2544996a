//! What is sent is what a client reads.

use std::{sync::Arc, time::Duration};

use proptest::{option, prelude::*};

use super::*;
use crate::record::Consumed;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..300),
        // A length of three bytes.
        Just(vec![7; 20_000]),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (".{0,10}", option::of(bytes())).prop_map(|(name, value)| Header {
        name,
        value: value.map(Bytes::from),
    })
}

fn record() -> impl Strategy<Value = Consumed> {
    let kind = prop_oneof![Just(TimestampKind::Create), Just(TimestampKind::LogAppend)];
    (
        prop_oneof![Just(0), 0..i64::MAX],
        option::of((prop_oneof![Just(0), -5000_i64..1 << 42], kind)),
        option::of(bytes()),
        option::of(bytes()),
        prop::collection::vec(header(), 0..3),
    )
        .prop_map(|(offset, timestamp, key, value, headers)| {
            let joined = [
                key.clone().unwrap_or_default(),
                value.clone().unwrap_or_default(),
            ]
            .concat();
            let length = key.map(|key| key.len() as u32);
            let record = Consumed::new(
                offset,
                timestamp,
                Arc::from(joined),
                length,
                value.is_some(),
                headers,
            );
            assert_eq!(record.value(), value.as_deref());
            record
        })
}

fn delivered() -> impl Strategy<Value = Delivered> {
    (any::<(u32, u64, u32, u32, bool)>(), record()).prop_map(
        |((index, epoch, serial, attempt, is_suspect), record)| Delivered {
            token: Token {
                index,
                offset: record.offset,
                epoch,
                serial,
            },
            attempt,
            is_suspect,
            record,
        },
    )
}

fn batch() -> impl Strategy<Value = Batch> {
    (
        "[a-z]{1,200}",
        0..i32::MAX,
        prop::collection::vec(delivered(), 0..3),
    )
        .prop_map(|(topic, partition, records)| Batch {
            topic: topic.into(),
            partition,
            records,
        })
}

/// What a client is to read.
fn expected(batch: &Batch, delivered: &Delivered) -> proto::Delivery {
    let record = &delivered.record;
    let header = |header: &Header| proto::Header {
        name: header.name.clone(),
        value: header.value.clone(),
    };
    let kind = record.timestamp.map(|(_, kind)| match kind {
        TimestampKind::Create => proto::TimestampType::CreateTime,
        TimestampKind::LogAppend => proto::TimestampType::LogAppendTime,
    });
    proto::Delivery {
        token: delivered.token.encode().to_vec().into(),
        record: Some(proto::Record {
            topic: batch.topic.to_string(),
            partition: Some(batch.partition),
            key: record.key().map(Bytes::copy_from_slice),
            value: record.value().map(Bytes::copy_from_slice),
            headers: record.headers().iter().map(header).collect(),
            timestamp: record.timestamp.map(|(at, _)| convert::timestamp(at)),
            message_id: String::new(),
        }),
        offset: record.offset,
        timestamp_type: kind.unwrap_or_default().into(),
        attempt: delivered.attempt,
        suspect: delivered.is_suspect,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_what_a_client_reads(batches in prop::collection::vec(batch(), 0..4)) {
        let until = Instant::now() + Duration::from_secs(30);
        let sent = proto::SubscribeResponse {
            message: Some(proto::subscribe_response::Message::Deliveries(Deliveries::of(&batches, until))),
        };
        let read = proto::SubscribeResponse::decode(sent.encode_to_vec().as_slice()).unwrap();
        let Some(proto::subscribe_response::Message::Deliveries(read)) = read.message else {
            panic!("another message: {read:?}");
        };
        let expected: Vec<_> = batches
            .iter()
            .flat_map(|batch| batch.records.iter().map(|delivered| expected(batch, delivered)))
            .collect();
        prop_assert!(read.lease_expiry.is_some());
        prop_assert_eq!(&read.deliveries, &expected);
        // What was received may be passed on.
        prop_assert_eq!(Deliveries::decode(read.encode_to_vec().as_slice()).unwrap(), read);
    }
}
