//! Room for what callers send: messages that are being read, and batches that were read and wait to be admitted. One bound for all callers together.
//!
//! A message takes room for its whole length before it is read past its head, so a thousand callers cannot each fill a message that nobody has room
//! for. First come, first served; who holds something waits for no more. What always holds: beyond the bound are only what batches are charged more than
//! their messages were, and one message when nothing else is held.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// See the module; a cheap handle.
#[derive(Clone, Debug)]
pub struct Intake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bound: u64,
    // A std mutex: sections are short, and nothing waits in them.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    next: u64,
    /// Who waits, in turn.
    waiting: BTreeMap<u64, Waker>,
}

/// What one call holds of it, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    intake: Intake,
    held: u64,
    ticket: Option<u64>,
}

impl Intake {
    /// Room for so many bytes.
    pub fn new(bound: u64) -> Self {
        Self(Arc::new(Inner {
            bound,
            state: Mutex::default(),
        }))
    }

    /// A place that holds nothing yet.
    pub fn place(&self) -> Place {
        Place {
            intake: self.clone(),
            held: 0,
            ticket: None,
        }
    }

    /// A place that holds what has been read already, whether there is room or not.
    pub(super) fn charged(&self, bytes: u64) -> Place {
        self.state().used += bytes;
        Place {
            intake: self.clone(),
            held: bytes,
            ticket: None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets the next one look whether there is room.
    fn call_next(&self) {
        if let Some(waker) = self.waiting.values().next() {
            waker.wake_by_ref();
        }
    }
}

impl Place {
    /// Takes room, or waits for its turn.
    pub fn poll_take(&mut self, bytes: u64, context: &mut Context<'_>) -> Poll<()> {
        let bound = self.intake.0.bound;
        let mut state = self.intake.state();
        let ticket = *self.ticket.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        let first = state.waiting.keys().next();
        let is_next = first.is_none_or(|first| ticket <= *first);
        let fits = state.used == 0 || state.used.saturating_add(bytes) <= bound;
        if !(is_next && fits) {
            state.waiting.insert(ticket, context.waker().clone());
            return Poll::Pending;
        }
        state.waiting.remove(&ticket);
        state.used += bytes;
        state.call_next();
        drop(state);
        self.ticket = None;
        self.held += bytes;
        Poll::Ready(())
    }

    /// Gives back all but so much.
    pub fn keep(&mut self, bytes: u64) {
        if bytes < self.held {
            let mut state = self.intake.state();
            state.used -= self.held - bytes;
            state.call_next();
            drop(state);
            self.held = bytes;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.ticket.is_none() && self.held == 0 {
            return;
        }
        let mut state = self.intake.state();
        state.used -= self.held;
        if let Some(ticket) = self.ticket {
            state.waiting.remove(&ticket);
        }
        state.call_next();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Called(AtomicUsize);

    impl std::task::Wake for Called {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn takes(place: &mut Place, bytes: u64) -> bool {
        let called = Waker::noop();
        place
            .poll_take(bytes, &mut Context::from_waker(called))
            .is_ready()
    }

    #[test]
    fn who_comes_first_is_first_however_much_the_others_ask_for() {
        let intake = Intake::new(100);
        let [mut first, mut large, mut small] = std::array::from_fn(|_| intake.place());
        assert!(takes(&mut first, 60));
        assert!(!takes(&mut large, 80));
        assert!(!takes(&mut small, 1), "it would pass the one before it");
        first.keep(0);
        assert!(!takes(&mut small, 1));
        assert!(takes(&mut large, 80));
        assert!(takes(&mut small, 1));
    }

    #[test]
    fn who_goes_gives_back_its_place_and_its_turn() {
        let intake = Intake::new(100);
        let [mut first, mut gone, mut next] = std::array::from_fn(|_| intake.place());
        assert!(takes(&mut first, 90));
        assert!(!takes(&mut gone, 20));
        let called = Arc::new(Called::default());
        let waker = Waker::from(Arc::clone(&called));
        assert!(
            next.poll_take(10, &mut Context::from_waker(&waker))
                .is_pending()
        );
        drop(gone);
        assert_eq!(called.0.load(Ordering::Relaxed), 1, "it is its turn now");
        assert!(takes(&mut next, 10));
        drop((first, next));
        assert_eq!(intake.state().used, 0);
    }

    #[test]
    fn what_is_larger_than_all_room_is_read_alone() {
        let intake = Intake::new(100);
        let mut large = intake.place();
        let charged = intake.charged(1);
        assert!(!takes(&mut large, 200));
        drop(charged);
        assert!(takes(&mut large, 200));
        assert!(!takes(&mut intake.place(), 1));
        large.keep(50);
        assert!(takes(&mut intake.place(), 50));
    }
}
