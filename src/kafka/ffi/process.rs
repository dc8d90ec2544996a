//! The end of a process in which librdkafka's threads still run.

/// Ends the process now, without the exit handlers of the libraries that are linked in: OpenSSL's frees what threads use that still shake hands
/// with a broker, and the process would end by a SIGSEGV. Nothing is flushed.
pub fn leave(code: i32) -> ! {
    // SAFETY: it takes a number, touches no memory, and does not come back.
    unsafe { libc::_exit(code) }
}
