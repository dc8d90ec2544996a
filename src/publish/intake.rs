//! Room for what callers send: messages that are being read, and batches that were read and wait to be admitted. One bound for all callers together.
//!
//! A message takes room for its whole length before it is read past its head, so a thousand callers cannot each fill a message that nobody has room
//! for. First come, first served. Room that comes free is given to whoever is next at once, whether it looks or not: who does not look holds what it
//! asked for, as if it were reading, but never the turn of those behind it. What always holds: beyond the bound are only what batches are charged more
//! than their messages were, and one message when nothing else is held.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::sync::oneshot;

/// See the module; a cheap handle.
#[derive(Clone, Debug)]
pub struct Intake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // A std mutex: sections are short, and nothing waits in them.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bound: u64,
    used: u64,
    next: Ticket,
    /// Who waits, in turn: for how much, and how it is told.
    waiting: BTreeMap<Ticket, (u64, oneshot::Sender<()>)>,
}

type Ticket = u64;

/// What one call holds of it, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    intake: Intake,
    held: u64,
    asked: Option<Asked>,
}

/// Room that is waited for, or was given and not taken yet.
#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    bytes: u64,
    given: oneshot::Receiver<()>,
}

impl Intake {
    /// Room for so many bytes.
    pub fn new(bound: u64) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                bound,
                used: 0,
                next: 0,
                waiting: BTreeMap::new(),
            }),
        }))
    }

    /// A place that holds nothing yet.
    pub fn place(&self) -> Place {
        Place {
            intake: self.clone(),
            held: 0,
            asked: None,
        }
    }

    /// A place that holds what has been read already, whether there is room or not.
    pub(super) fn charged(&self, bytes: u64) -> Place {
        self.state().used += bytes;
        Place {
            intake: self.clone(),
            held: bytes,
            asked: None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, bytes: u64) -> bool {
        self.used == 0 || self.used.saturating_add(bytes) <= self.bound
    }

    fn give_back(&mut self, bytes: u64) {
        self.used -= bytes;
        self.give();
    }

    /// Gives those who come next what there is room for.
    fn give(&mut self) {
        while let Some((_, (bytes, _))) = self.waiting.first_key_value()
            && self.has_room(*bytes)
        {
            let Some((_, (bytes, told))) = self.waiting.pop_first() else {
                return;
            };
            self.used += bytes;
            // Whoever it is has not gone, for that takes the lock and leaves the queue.
            let _ = told.send(());
        }
    }
}

impl Place {
    /// Takes room, or waits for it. A place waits for one thing at a time: until it has it, `bytes` are what was asked for first.
    pub fn poll_take(&mut self, bytes: u64, context: &mut Context<'_>) -> Poll<()> {
        if bytes == 0 {
            return Poll::Ready(());
        }
        let asked = match &mut self.asked {
            Some(asked) => asked,
            None => {
                let mut state = self.intake.state();
                if state.waiting.is_empty() && state.has_room(bytes) {
                    state.used += bytes;
                    self.held += bytes;
                    return Poll::Ready(());
                }
                let ticket = state.next;
                state.next += 1;
                let (told, given) = oneshot::channel();
                state.waiting.insert(ticket, (bytes, told));
                self.asked.insert(Asked {
                    ticket,
                    bytes,
                    given,
                })
            }
        };
        // Its other end is dropped only after it told.
        let _ = ready!(Pin::new(&mut asked.given).poll(context));
        self.held += asked.bytes;
        self.asked = None;
        Poll::Ready(())
    }

    /// Gives back all but so much of what it holds.
    pub fn keep(&mut self, bytes: u64) {
        if bytes < self.held {
            self.intake.state().give_back(self.held - bytes);
            self.held = bytes;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.asked.is_none() && self.held == 0 {
            return;
        }
        let mut state = self.intake.state();
        let given = match &self.asked {
            // Those behind it may have room now.
            Some(asked) if state.waiting.remove(&asked.ticket).is_some() => 0,
            Some(asked) => asked.bytes,
            None => 0,
        };
        state.give_back(self.held + given);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Waker,
    };

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
        assert!(!takes(&mut small, 30), "it would pass the one before it");
        first.keep(0);
        assert!(!takes(&mut small, 30));
        assert!(takes(&mut large, 80));
        drop(large);
        assert!(takes(&mut small, 30));
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

    #[test]
    fn who_does_not_look_holds_up_nobody_behind_it() {
        let intake = Intake::new(100);
        let [mut first, mut blind, mut next] = std::array::from_fn(|_| intake.place());
        assert!(takes(&mut first, 100));
        assert!(!takes(&mut blind, 60));
        assert!(!takes(&mut next, 40));
        first.keep(0);
        assert!(takes(&mut next, 40), "the other one has its own");
        assert!(!takes(&mut intake.place(), 1), "which is held");
        drop(blind);
        assert!(takes(&mut intake.place(), 60));
        drop(next);
        assert_eq!(intake.state().used, 0);
    }

    #[test]
    fn who_went_before_it_was_given_room_takes_none() {
        let intake = Intake::new(100);
        let [mut first, mut gone] = std::array::from_fn(|_| intake.place());
        assert!(takes(&mut first, 100));
        assert!(!takes(&mut gone, 60));
        drop(gone);
        assert_eq!(intake.state().used, 100);
        drop(first);
        assert_eq!(intake.state().used, 0);
        assert!(takes(&mut intake.place(), 0), "nothing needs no room");
    }
}
