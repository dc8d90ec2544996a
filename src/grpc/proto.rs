//! The generated code, and nothing else.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    rustdoc::all,
    reason = "generated from proto/, which documents it"
)]

pub use super::{deliveries::Deliveries, settle::Settle};

tonic::include_proto!("outrigger.v1");

/// The descriptors of all files, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/outrigger.v1.bin"));
