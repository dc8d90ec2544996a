//! The steps of publishing that cost by the record or the batch, for `tests/instructions` to count under callgrind.
//!
//! The first argument names a step; it is done [`ROUNDS`] times with a batch of [`RECORDS`] records. Callgrind counts inside the step's function
//! alone, so what prepares a round costs nothing. By the clock this says nothing: `outrigger bench` does.

use std::{env, hint::black_box, sync::Arc, time::Instant};

use bytes::Bytes;
use outrigger::{
    config::{self, Sources},
    grpc::{self, proto},
    kafka::{Answered, Cluster, Delivery, Keys, Producer, Registration, Trust},
    publish::{Admission, Claim, Claimant},
    record::Usage,
};
use prost::Message;

const ROUNDS: usize = 1000;
const RECORDS: usize = 100;

/// From the bytes of a message of a stream to records.
#[inline(never)]
fn step_conversion(message: Bytes) -> Vec<outrigger::record::Record> {
    let batch = proto::PublishBatch::decode(message).expect("a batch");
    grpc::records(batch.records).expect("valid records")
}

/// Room is taken, and given back.
#[inline(never)]
fn step_admission(runtime: &tokio::runtime::Runtime, admission: &Admission, claim: Claim) {
    drop(runtime.block_on(admission.admit(claim)));
}

/// A batch is registered, each record gets its report, and the last one completes it.
#[inline(never)]
fn step_completion(producer: &Producer) {
    let registration = Registration {
        records: RECORDS,
        keys: Keys::Unknown,
        failed: None,
        longest: None,
        done: Box::new(discard),
    };
    let batch = producer.register(Instant::now(), vec![registration])[0];
    for index in 0..RECORDS {
        let delivery = Delivery::Published {
            partition: 0,
            offset: Some(index as i64),
            timestamp: None,
            duplicate: false,
        };
        producer.complete(batch, index, delivery);
    }
}

/// A function, not a closure: that would bear the step's name, and callgrind would stop to count in it.
fn discard(deliveries: Vec<Delivery>, _: Answered) {
    drop(black_box(deliveries));
}

fn conversion() {
    let record = proto::Record {
        topic: "topic".to_owned(),
        key: Some(Bytes::from_static(b"a key")),
        value: Some(Bytes::from_static(&[7; 100])),
        ..Default::default()
    };
    let batch = proto::PublishBatch {
        sequence: 1,
        records: vec![record; RECORDS],
        ack_level: 0,
    };
    let message = Bytes::from(batch.encode_to_vec());
    for _ in 0..ROUNDS {
        black_box(step_conversion(message.clone()));
    }
}

fn admission() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let bound = Usage {
        records: 100_000,
        bytes: 64 << 20,
    };
    let admission = Admission::new(bound);
    let claim = Claim {
        claimant: Claimant::Stream(0),
        usage: Usage {
            records: RECORDS as u64,
            bytes: 40_000,
        },
        parts: Vec::new(),
        keys: Keys::Unknown,
    };
    for _ in 0..ROUNDS {
        step_admission(&runtime, &admission, claim.clone());
    }
}

fn completion() {
    // Nobody is there, and nothing is sent.
    let broker = (
        "kafka.bootstrap_servers".to_owned(),
        "127.0.0.1:1".to_owned(),
    );
    let sources = Sources {
        flags: vec![broker],
        ..Sources::default()
    };
    let config = config::load(&sources)
        .expect("a valid configuration")
        .config;
    let producer = Producer::new(Cluster::new(Arc::new(config)), Trust::Everything);
    let producer = producer.expect("the producer is made");
    for _ in 0..ROUNDS {
        step_completion(&producer);
    }
}

fn main() {
    match env::args().nth(1).as_deref() {
        Some("conversion") => conversion(),
        Some("admission") => admission(),
        Some("completion") => completion(),
        // As `cargo bench` runs it: that all steps can be done.
        _ => {
            conversion();
            admission();
            completion();
        }
    }
}
