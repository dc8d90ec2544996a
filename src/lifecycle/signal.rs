//! The operating system's signals.
//!
//! SIGTERM and SIGINT stop the process within its drain deadline; a second SIGINT ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the process listens for.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen; from now on the signals no longer end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first signal, and names it.
    pub async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for a SIGINT after the first signal: somebody is impatient.
    pub async fn abort(&mut self) {
        self.interrupt.recv().await;
    }
}
