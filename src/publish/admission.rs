//! The one budget of records and bytes in flight.
//!
//! Two fair semaphores of tokio, taken in one order: bytes, then records. Who waits first is admitted first, so a large request is not
//! starved by small ones. What always holds: what is charged never exceeds the bound, and an [`Admitted`] gives back exactly what it
//! took, when it is dropped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{metrics, record::Usage};

/// See the module.
#[derive(Debug)]
pub struct Admission {
    bytes: Arc<Semaphore>,
    records: Arc<Semaphore>,
    bound: Usage,
    freed: Arc<Notify>,
}

/// Room that was taken.
#[derive(Debug)]
pub struct Admitted {
    usage: Usage,
    permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    freed: Arc<Notify>,
}

impl Admission {
    /// A budget of `bound`.
    pub fn new(bound: Usage) -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(bound.bytes as usize)),
            records: Arc::new(Semaphore::new(bound.records as usize)),
            bound,
            freed: Arc::default(),
        }
    }

    /// Waits for room. `usage` must fit the bound, or it waits for ever; validation has seen to it. Dropping the future takes nothing.
    pub async fn admit(&self, usage: Usage) -> Admitted {
        const NEVER_CLOSED: &str = "the semaphore is never closed";
        let recorder = metrics::publish();
        if let Some(admitted) = self.try_admit(usage) {
            recorder.admitted_after(Duration::ZERO);
            return admitted;
        }
        let (_waiting, since) = (recorder.waiting(), Instant::now());
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(usage.bytes as u32)
            .await
            .expect(NEVER_CLOSED);
        let records = Arc::clone(&self.records)
            .acquire_many_owned(usage.records as u32)
            .await
            .expect(NEVER_CLOSED);
        recorder.admitted_after(since.elapsed());
        self.admitted(usage, bytes, records)
    }

    /// Room that is there now. It overtakes nobody: tokio sets what is free aside for those who wait.
    fn try_admit(&self, usage: Usage) -> Option<Admitted> {
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(usage.bytes as u32)
            .ok()?;
        let records = Arc::clone(&self.records)
            .try_acquire_many_owned(usage.records as u32)
            .ok()?;
        Some(self.admitted(usage, bytes, records))
    }

    fn admitted(
        &self,
        usage: Usage,
        bytes: OwnedSemaphorePermit,
        records: OwnedSemaphorePermit,
    ) -> Admitted {
        metrics::publish().admitted(usage);
        Admitted {
            usage,
            permits: Some((bytes, records)),
            freed: Arc::clone(&self.freed),
        }
    }

    /// What may be charged at most.
    pub fn bound(&self) -> Usage {
        self.bound
    }

    /// What is charged now.
    pub fn used(&self) -> Usage {
        Usage {
            records: self.bound.records - self.records.available_permits() as u64,
            bytes: self.bound.bytes - self.bytes.available_permits() as u64,
        }
    }

    /// Waits until nothing is charged.
    pub async fn idle(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.used() == Usage::default() {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        drop(self.permits.take());
        metrics::publish().answered(self.usage);
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn usage(records: u64, bytes: u64) -> Usage {
        Usage { records, bytes }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_waits_until_room_is_given_back() {
        let admission = Admission::new(usage(2, 100));
        let first = admission.admit(usage(1, 60)).await;
        let second =
            tokio::time::timeout(Duration::from_secs(1), admission.admit(usage(1, 60))).await;
        assert!(second.is_err(), "60 + 60 bytes do not fit 100");
        assert_eq!(
            admission.used(),
            usage(1, 60),
            "giving up waiting takes nothing"
        );
        drop(first);
        admission.admit(usage(1, 60)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_bounded_as_bytes_are() {
        let admission = Admission::new(usage(2, 100));
        let _held = admission.admit(usage(2, 2)).await;
        let third =
            tokio::time::timeout(Duration::from_secs(1), admission.admit(usage(1, 1))).await;
        assert!(third.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_wait_is_the_first_to_be_admitted() {
        let admission = Admission::new(usage(10, 100));
        let held = admission.admit(usage(1, 90)).await;
        let large = admission.admit(usage(1, 80));
        tokio::pin!(large);
        assert!(futures_now(large.as_mut()).await.is_none());
        let small = admission.admit(usage(1, 5));
        tokio::pin!(small);
        assert!(
            futures_now(small.as_mut()).await.is_none(),
            "5 bytes would fit, but 80 wait first"
        );
        drop(held);
        let _large = large.await;
        small.await;
    }

    #[tokio::test(start_paused = true)]
    async fn idle_ends_when_the_last_room_is_given_back() {
        let admission = Admission::new(usage(10, 100));
        admission.idle().await;
        let held = admission.admit(usage(1, 1)).await;
        assert!(
            tokio::time::timeout(Duration::from_secs(1), admission.idle())
                .await
                .is_err()
        );
        drop(held);
        admission.idle().await;
    }

    async fn futures_now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        tokio::time::timeout(Duration::ZERO, future).await.ok()
    }
}
