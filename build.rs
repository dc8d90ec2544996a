//! Compiles the protos with protox, so that no protoc is needed, and keeps their descriptors (with comments) for reflection.

use std::{env, error::Error, fs, path::PathBuf};

const PROTOS: [&str; 4] = [
    "outrigger/v1/record.proto",
    "outrigger/v1/publisher.proto",
    "outrigger/v1/subscriber.proto",
    "outrigger/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
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
