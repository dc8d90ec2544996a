//! Outrigger: a Kafka sidecar. An application in any language publishes and subscribes over local gRPC; the sidecar is the Kafka client.
//!
//! The map, in reading order: the composition root; the vocabulary; configuration and lifecycle; what is seen from outside; the two edges
//! (`grpc` towards applications, `kafka` towards brokers) and between them the two paths (`publish`, `consume`); the command line.
//! ARCHITECTURE.md says how they work together.

pub mod app;

pub mod failure;
pub mod record;

pub mod config;
pub mod lifecycle;

pub mod access;
pub mod admin;
pub mod metrics;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod traces;

pub mod grpc;
pub mod publish;

pub mod consume;
pub mod kafka;

pub mod cli;
