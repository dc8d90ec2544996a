//! What the records that are read and not settled take, of all subscriptions of the process together.
//!
//! A session that holds nothing may always read something, so that none starves beside a greedy one. Not here: what librdkafka fetches
//! ahead, which is bounded for each partition.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The part of one session.
#[derive(Debug)]
pub(super) struct Memory {
    all: Arc<AtomicU64>,
    most: u64,
    own: u64,
}

impl Memory {
    pub(super) fn new(all: Arc<AtomicU64>, most: u64) -> Self {
        Self { all, most, own: 0 }
    }

    /// Whether nothing more may be read.
    pub(super) fn is_full(&self) -> bool {
        self.own > 0 && self.all.load(Ordering::Relaxed) >= self.most
    }

    /// So much was read just now.
    pub(super) fn took(&mut self, bytes: u64) {
        self.holds(self.own + bytes);
    }

    /// So much is held.
    pub(super) fn holds(&mut self, bytes: u64) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_sub(self.own, Ordering::Relaxed);
        self.own = bytes;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.holds(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_share_what_there_is_and_each_may_have_something() {
        let all = Arc::default();
        let (mut one, mut two) = (
            Memory::new(Arc::clone(&all), 100),
            Memory::new(Arc::clone(&all), 100),
        );
        assert!(!one.is_full());
        one.took(60);
        assert!(!one.is_full() && !two.is_full());
        one.took(60);
        assert!(one.is_full());
        assert!(!two.is_full(), "it holds nothing");
        two.took(1);
        assert!(two.is_full());
        one.holds(10);
        assert!(!one.is_full() && !two.is_full());
        two.took(90);
        assert!(one.is_full());
        drop(two);
        assert!(!one.is_full(), "what has ended holds nothing");
        assert_eq!(all.load(Ordering::Relaxed), 10);
    }
}
