//! Compiles the protos with protox, so that no protoc is needed, and keeps their descriptors (with comments) for reflection. Wraps functions of
//! librdkafka's.

use std::{env, error::Error, fs, path::PathBuf};

const PROTOS: [&str; 4] = [
    "outrigger/v1/record.proto",
    "outrigger/v1/publisher.proto",
    "outrigger/v1/subscriber.proto",
    "outrigger/v1/admin.proto",
];

/// See `kafka/ffi/epochs`.
const WRAPPED: [&str; 5] = [
    "rd_kafka_bufq_purge",
    "rd_kafka_idemp_inflight_toppar_add",
    "rd_kafka_toppar_leader_unavailable",
    "rd_kafka_toppar_pid_change",
    "rd_kafka_toppar_retry_msgq",
];

fn main() -> Result<(), Box<dyn Error>> {
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        for function in WRAPPED {
            println!("cargo:rustc-link-arg=-Wl,--wrap={function}");
        }
    }
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(PROTOS)?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("outrigger.v1.bin");
    fs::write(out, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".outrigger.v1")
        // Written by hand: see the modules.
        .extern_path(
            ".outrigger.v1.Deliveries",
            "crate::grpc::deliveries::Deliveries",
        )
        .extern_path(".outrigger.v1.Settle", "crate::grpc::settle::Settle")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
