//! The binary: hands over to the command line and exits with its code.

use std::process::ExitCode;

/// librdkafka's too: each record is allocated by one thread and freed by another, which is what glibc's allocator is slow at, and keeps memory for.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    outrigger::cli::main()
}
