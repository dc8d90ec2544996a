//! The one budget of records and bytes in flight, and the wait for room in it.
//!
//! Who comes next is decided by `shares`. What always holds: what is charged never exceeds the bound, and an [`Admitted`] gives back
//! exactly what it took, when it is dropped; who gives up waiting takes nothing.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use super::shares::{Claim, Shares, Ticket};
use crate::{kafka::Keys, metrics, record::Usage};

/// See the module.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // A std mutex: sections are short, and nothing waits in them.
    state: Mutex<State>,
    bound: Usage,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    shares: Shares,
    next: Ticket,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    marks: Marks,
}

/// The most and the least that was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Records and bytes, each on its own.
    pub highest: Usage,
    /// The same.
    pub lowest: Usage,
}

/// Room that was taken.
#[derive(Debug)]
pub struct Admitted {
    claim: Claim,
    inner: Arc<Inner>,
}

impl Admitted {
    /// Where the records go: to be taken once.
    pub(super) fn keys(&mut self) -> Keys {
        std::mem::take(&mut self.claim.keys)
    }
}

/// A request that waits, or was given room that nobody has taken yet.
struct Waiting<'a> {
    inner: &'a Inner,
    ticket: Ticket,
    claim: Option<Claim>,
}

impl Admission {
    /// A budget of `bound`.
    pub fn new(bound: Usage) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                shares: Shares::new(bound),
                next: 0,
                waiting: HashMap::new(),
                marks: Marks::of(Usage::default()),
            }),
            bound,
            freed: Notify::new(),
        }))
    }

    /// Waits for room. The claim must fit the bound, or it waits for ever; validation has seen to it. Dropping the future takes nothing.
    pub async fn admit(&self, claim: Claim) -> Admitted {
        match self.ask(claim) {
            Ok(admitted) => admitted,
            Err(waits) => waits.await,
        }
    }

    /// Room for the first of `claims`: for as many as there is room for now.
    pub(super) fn take(&self, mut claims: Vec<Claim>) -> Vec<Admitted> {
        let mut state = self.0.state();
        let taken = claims
            .iter()
            .take_while(|claim| claim.usage == Usage::default() || state.shares.take(claim));
        let count = taken.count();
        state.note();
        drop(state);
        claims.truncate(count);
        let mut usage = Usage::default();
        for claim in &claims {
            usage.add(claim.usage);
        }
        let recorder = metrics::publish();
        recorder.admitted(count as u64, usage, Duration::ZERO);
        let admitted = |claim| Admitted {
            claim,
            inner: Arc::clone(&self.0),
        };
        claims.into_iter().map(admitted).collect()
    }

    /// Room that is there now, or the wait for it: for who asks often, and mostly need not wait.
    pub(super) fn ask(
        &self,
        claim: Claim,
    ) -> Result<Admitted, Pin<Box<impl Future<Output = Admitted>>>> {
        if claim.usage == Usage::default() {
            // All of it is known by its message ids.
            return Ok(self.admitted(claim, Duration::ZERO));
        }
        let (mut asked, room) = match self.0.ask(claim) {
            Ok(claim) => return Ok(self.admitted(claim, Duration::ZERO)),
            Err(waits) => waits,
        };
        let (counted, since) = (metrics::publish().waiting(), Instant::now());
        Err(Box::pin(async move {
            let _counted = counted;
            room.await.expect("who waits is told, or has gone");
            let claim = asked.claim.take().expect("it is taken once");
            self.admitted(claim, since.elapsed())
        }))
    }

    fn admitted(&self, claim: Claim, waited: Duration) -> Admitted {
        metrics::publish().admitted(1, claim.usage, waited);
        Admitted {
            claim,
            inner: Arc::clone(&self.0),
        }
    }

    /// What may be charged at most.
    pub fn bound(&self) -> Usage {
        self.0.bound
    }

    /// What is charged now.
    pub fn used(&self) -> Usage {
        self.0.state().shares.used()
    }

    /// The most and the least that was charged since this was asked last.
    pub fn marks(&self) -> Marks {
        let mut state = self.0.state();
        let now = Marks::of(state.shares.used());
        std::mem::replace(&mut state.marks, now)
    }

    /// Waits until nothing is charged.
    pub async fn idle(&self) {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.used() == Usage::default() {
                return;
            }
            freed.await;
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claim, if there is room for it now.
    fn ask(&self, claim: Claim) -> Result<Claim, (Waiting<'_>, oneshot::Receiver<()>)> {
        let mut state = self.state();
        if state.shares.take(&claim) {
            state.note();
            return Ok(claim);
        }
        let ticket = state.next;
        state.next += 1;
        let granted = state.shares.ask(ticket, claim.clone());
        let is_granted = granted.contains(&ticket);
        state.granted(&granted);
        if is_granted {
            return Ok(claim);
        }
        let (told, room) = oneshot::channel();
        state.waiting.insert(ticket, told);
        let asked = Waiting {
            inner: self,
            ticket,
            claim: Some(claim),
        };
        Err((asked, room))
    }

    fn give_back(&self, claim: &Claim) {
        let mut state = self.state();
        let granted = state.shares.give_back(claim);
        state.granted(&granted);
        if state.shares.used() == Usage::default() {
            self.freed.notify_waiters();
        }
    }
}

impl State {
    /// Tells those who wait for it.
    fn granted(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            if let Some(told) = self.waiting.remove(ticket) {
                // It may have gone this moment; then it gives the room back.
                let _ = told.send(());
            }
        }
        self.note();
    }

    fn note(&mut self) {
        self.marks.note(self.shares.used());
    }
}

impl Marks {
    fn of(usage: Usage) -> Self {
        Self {
            highest: usage,
            lowest: usage,
        }
    }

    fn note(&mut self, usage: Usage) {
        let Self { highest, lowest } = self;
        highest.records = highest.records.max(usage.records);
        highest.bytes = highest.bytes.max(usage.bytes);
        lowest.records = lowest.records.min(usage.records);
        lowest.bytes = lowest.bytes.min(usage.bytes);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        let mut state = self.inner.state();
        state.waiting.remove(&self.ticket);
        let granted = match state.shares.forget(claim.claimant, self.ticket) {
            Some(granted) => granted,
            None => state.shares.give_back(&claim),
        };
        state.granted(&granted);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.claim.usage != Usage::default() {
            self.inner.give_back(&self.claim);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::publish::shares::Claimant;

    fn usage(records: u64, bytes: u64) -> Usage {
        Usage { records, bytes }
    }

    /// Of a caller of its own.
    fn claim(records: u64, bytes: u64) -> Claim {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Claim {
            claimant: Claimant::Stream(NEXT.fetch_add(1, Ordering::Relaxed)),
            usage: usage(records, bytes),
            parts: Vec::new(),
            keys: Keys::Unknown,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_waits_until_room_is_given_back() {
        let admission = Admission::new(usage(2, 100));
        let first = admission.admit(claim(1, 60)).await;
        let second =
            tokio::time::timeout(Duration::from_secs(1), admission.admit(claim(1, 60))).await;
        assert!(second.is_err(), "60 + 60 bytes do not fit 100");
        assert_eq!(
            admission.used(),
            usage(1, 60),
            "giving up waiting takes nothing"
        );
        drop(first);
        admission.admit(claim(1, 60)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_bounded_as_bytes_are() {
        let admission = Admission::new(usage(2, 100));
        let _held = admission.admit(claim(2, 2)).await;
        let third =
            tokio::time::timeout(Duration::from_secs(1), admission.admit(claim(1, 1))).await;
        assert!(third.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_taken_as_there_is_room_for_and_nobody_who_waits_is_overtaken() {
        let admission = Admission::new(usage(10, 100));
        let known = claim(0, 0);
        let claims = vec![
            claim(1, 60),
            known.clone(),
            claim(1, 30),
            claim(1, 20),
            known,
        ];
        let mut taken = admission.take(claims);
        assert_eq!(
            taken.len(),
            3,
            "the fourth has no room, the fifth comes after it"
        );
        assert_eq!(admission.used(), usage(2, 90));
        let mut waits = Box::pin(admission.admit(claim(1, 50)));
        assert!(futures_now(waits.as_mut()).await.is_none());
        assert!(admission.take(vec![claim(1, 5)]).is_empty());
        taken.remove(0);
        assert_eq!(admission.used(), usage(2, 80));
        drop(waits.await);
        assert_eq!(admission.take(vec![claim(1, 5)]).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn room_for_who_has_gone_meanwhile_goes_to_the_next() {
        let admission = Admission::new(usage(10, 100));
        let held = admission.admit(claim(1, 90)).await;
        let mut gone = Box::pin(admission.admit(claim(1, 80)));
        assert!(futures_now(gone.as_mut()).await.is_none());
        let mut next = Box::pin(admission.admit(claim(1, 70)));
        assert!(futures_now(next.as_mut()).await.is_none());
        drop(held);
        assert_eq!(
            admission.used(),
            usage(1, 80),
            "it has room and does not know"
        );
        drop(gone);
        let _next = next.await;
        assert_eq!(admission.used(), usage(1, 70));
    }

    #[tokio::test(start_paused = true)]
    async fn marks_are_of_the_time_since_they_were_asked_for() {
        let admission = Admission::new(usage(10, 100));
        let held = admission.admit(claim(2, 20)).await;
        drop(admission.admit(claim(3, 30)).await);
        let marks = |highest, lowest| Marks { highest, lowest };
        assert_eq!(admission.marks(), marks(usage(5, 50), usage(0, 0)));
        assert_eq!(admission.marks(), marks(usage(2, 20), usage(2, 20)));
        drop(held);
        assert_eq!(admission.marks(), marks(usage(2, 20), usage(0, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_ends_when_the_last_room_is_given_back() {
        let admission = Admission::new(usage(10, 100));
        admission.idle().await;
        let held = admission.admit(claim(1, 1)).await;
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
