//! The words of a stream's refusals.

use std::time::Duration;

use crate::{
    failure::{Failure, Reason},
    kafka::Delivery,
    publish::validate,
};

/// Guilty records of a batch that have a failure of their own. A caller is told fewer words; the others share one a reason.
const DISTINCT: usize = 100;

/// The guilty records get their own failure, the others say that they were not sent for its sake.
pub(super) fn spread(count: usize, invalid: validate::Invalid) -> Vec<Delivery> {
    let innocent = Failure::not_persisted(
        Reason::InvalidRequest,
        "not sent: another record of the same batch is not valid",
    );
    let mut deliveries = vec![Delivery::failed(innocent); count];
    let mut shared: Vec<(Reason, Delivery)> = Vec::new();
    for (nth, (index, failure)) in invalid.into_iter().enumerate() {
        let Some(entry) = deliveries.get_mut(index) else {
            continue;
        };
        let reason = failure.reason;
        let known = shared.iter().find(|(known, _)| *known == reason);
        *entry = match known {
            Some((_, delivery)) if nth >= DISTINCT => delivery.clone(),
            Some(_) => Delivery::failed(failure),
            None => {
                let delivery = Delivery::failed(failure);
                shared.push((reason, delivery.clone()));
                delivery
            }
        };
    }
    deliveries
}

/// One failure of all records of a batch, or of a batch without any.
pub(super) fn alike(failure: Failure, count: usize) -> Vec<Delivery> {
    vec![Delivery::failed(failure); count.max(1)]
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;

    #[test]
    fn records_that_are_refused_have_few_failures_among_them() {
        let invalid = |index: usize| {
            let reason = [Reason::InvalidRecord, Reason::NotAllowed][index % 2];
            (
                index,
                Failure::invalid(reason, format!("records[{index}]"), "x"),
            )
        };
        let deliveries = spread(10_000, (0..5000).map(invalid).collect());
        let mut failures = BTreeSet::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let Delivery::Failed(failure) = delivery else {
                panic!("{delivery:?}");
            };
            failures.insert(Arc::as_ptr(failure).addr());
            match index {
                0..100 => assert_eq!(**failure, invalid(index).1),
                100..5000 => assert_eq!(failure.reason, invalid(index).1.reason),
                _ => assert_eq!(failure.reason, Reason::InvalidRequest),
            }
        }
        assert_eq!(failures.len(), DISTINCT + 1);
        assert_eq!(alike(draining(), 0).len(), 1);
    }
}
