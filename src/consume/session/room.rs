//! What a stream has room for: its window, and what else bounds it.

use super::stream::Stream;
use crate::record::Usage;

/// What a stream may hold, and does.
pub(super) struct Room<'a> {
    pub(super) window: Usage,
    /// Records that it may hold in any case.
    pub(super) most: u64,
    /// What others hold of the same window.
    pub(super) beside: Usage,
    pub(super) held: &'a mut Usage,
}

impl Room<'_> {
    /// Whether one more record fits. A record larger than the whole window is delivered alone, or it never would be.
    pub(super) fn fits(&self, weight: u64) -> bool {
        let one = Usage {
            records: 1,
            bytes: weight,
        };
        let Self { window, most, .. } = self;
        let held = self.held();
        let is_open = window.records > 0 && window.bytes > 0 && self.held.records < *most;
        is_open && (held.fits(one, *window) || held.records == 0)
    }

    /// What is held of the window.
    pub(super) fn held(&self) -> Usage {
        let mut held = *self.held;
        held.add(self.beside);
        held
    }
}

impl Stream {
    pub(super) fn has_room_for(&self, weight: u64) -> bool {
        Room {
            window: self.window,
            most: self.most(),
            beside: Usage::default(),
            held: &mut self.held.clone(),
        }
        .fits(weight)
    }

    /// Records that it may hold in any case.
    pub(super) fn most(&self) -> u64 {
        self.pull.unwrap_or(u64::MAX)
    }

    pub(super) fn room(&mut self, beside: Usage) -> Room<'_> {
        Room {
            window: self.window,
            most: self.most(),
            beside,
            held: &mut self.held,
        }
    }
}
