//! What ends a client command before its work is done: signals, bounds on waiting, and a stream that ends.
//!
//! The first signal ends it in order; a second SIGINT ends it at once.

use tokio::time::{Instant, sleep_until};
use tonic::Status;
use tonic_types::StatusExt;

use super::client::refusal;
use crate::lifecycle::signal::Signals;

/// Waits for the first signal, or for the one after it.
pub(super) async fn signal(signals: &mut Signals, ending: bool) {
    if ending {
        signals.abort().await;
    } else {
        signals.stop().await;
    }
}

/// Waits until a moment; for ever if there is none.
pub(super) async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// What the end of a stream says. A status without the sidecar's details is not its own: it died, or something between broke.
pub(super) fn ended(status: &Status) -> anyhow::Error {
    match status.get_details_error_info() {
        Some(_) => refusal(status),
        None => refusal(status).context("the stream to the sidecar broke"),
    }
}
