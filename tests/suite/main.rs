//! The whole program as a black box, against real Apache Kafka. One binary, so that the tests share a broker and one build.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that cannot go on panics, says why, and may block and spawn as it likes"
)]

mod certificates;
mod checker;
mod client;
mod collector;
mod commands;
mod commit_log;
mod history;
mod kafka;
mod network;
mod prometheus;
mod protocol;
mod secured;
mod shares;
mod sidecar;
mod tokens;

mod bad_input;
mod benches;
mod check;
mod compose;
mod connections;
mod coordinator;
mod dead_letters;
mod dedup;
mod door;
#[cfg(target_os = "linux")]
mod epochs;
mod examples;
mod foreign;
mod frames;
mod hostile;
mod inject;
mod lifecycle;
mod limits;
mod liveness;
mod logs;
mod membership;
mod metrics;
mod monitoring;
mod neighbours;
mod ordering;
mod patterns;
mod policies;
mod polling;
mod pressure;
mod publishing;
mod readme;
mod rebalances;
mod retries;
mod rolling;
mod subscribing;
mod tracing;
mod truth;
mod unary;
