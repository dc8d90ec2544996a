//! The words of a stream's refusals.

use std::time::Duration;

use crate::{
    failure::{Failure, Reason},
    publish::validate,
};

/// The guilty records get their own failure, the others say that they were not sent for its sake.
pub(super) fn spread(count: usize, invalid: validate::Invalid) -> Vec<Failure> {
    let innocent = Failure::not_persisted(
        Reason::InvalidRequest,
        "not sent: another record of the same batch is not valid",
    );
    let mut failures = vec![innocent; count];
    for (index, failure) in invalid {
        if let Some(entry) = failures.get_mut(index) {
            *entry = failure;
        }
    }
    failures
}

pub(super) fn draining() -> Failure {
    Failure::not_persisted(Reason::Draining, "the sidecar is stopping")
        .with_retry_after(Duration::from_secs(1))
}

pub(super) fn exceeded(what: &str) -> Failure {
    Failure::new(
        Reason::WindowExceeded,
        format!("{what}: read the answers, and keep to the window of the welcome"),
    )
    .with_retry_after(Duration::from_secs(1))
}
