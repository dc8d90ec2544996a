//! The only unsafe code of the crate: what librdkafka offers and the rdkafka crate does not wrap.
//!
//! - `produce`: records through cached topic handles (by name, the crate scans every known topic under a lock for each record);
//! - `events`: a producer's delivery reports, as many as come together, with the persistence status of a failed record;
//! - `epochs`: no new epoch of a producer that would double records;
//! - `queue`: a consumer's event queue with commits that answer, and partition queues that are read in batches;
//! - `security`: credentials and tokens for running clients, and whether a broker answers;
//! - `admin` and `describe`: what a cluster, its topics and groups are, and what one may do with them;
//! - `clock`: whether the kernel's clock is kept right; nothing of librdkafka's, but a system call;
//! - `partitioner`: where a key goes;
//! - `process`: the end of a process whose clients still run;
//! - `regex`: the C library's regular expressions, with which librdkafka matches topics;
//! - `message`: records copied out of librdkafka's buffers, header names that are not UTF-8 included (the crate panics on them).
//!
//! Each function is safe to call: what librdkafka asks of its caller is guaranteed there and written beside the call.
//! Written against rdkafka-sys 4.10.0+2.12.1, which Cargo.toml pins.

#![expect(unsafe_code, reason = "the one place for it")]

mod admin;
mod clock;
pub(super) mod describe;
mod epochs;
mod events;
mod message;
mod partitioner;
mod process;
mod produce;
mod queue;
mod regex;
mod security;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rd;

pub use self::process::leave;
pub(super) use self::{
    clock::synchronised,
    epochs::{Epochs, said},
    events::{DeliveryReport, DeliveryReports, Events},
    partitioner::Partitioner,
    produce::{Topic, pause, purge, purge_queue, resume},
    queue::{EventQueue, PartitionQueue, metadata},
    regex::Regex,
    security::{reachable, set_credentials, set_token},
};

/// Lets the mock cluster of `client` form a new group without waiting 3 s for further members.
pub(super) fn form_groups_at_once<C: ClientContext>(client: &Client<C>) {
    // SAFETY: the client is alive, and the cluster is its own, or null.
    unsafe {
        let cluster = rd::rd_kafka_handle_mock_cluster(client.native_ptr());
        if !cluster.is_null() {
            rd::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        }
    }
}
