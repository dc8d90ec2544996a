//! A set of offsets, in their order.
//!
//! Quick for what comes in the log's order and goes from the front, as nearly all do; what comes later is kept beside.

use std::collections::{BTreeSet, VecDeque};

#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// Each came above the one before it.
    row: VecDeque<i64>,
    /// The others.
    late: BTreeSet<i64>,
}

impl Offsets {
    pub(super) fn insert(&mut self, offset: i64) {
        if self.row.back().is_some_and(|last| *last >= offset) {
            if self.row.binary_search(&offset).is_err() {
                self.late.insert(offset);
            }
        } else if !self.late.contains(&offset) {
            self.row.push_back(offset);
        }
    }

    pub(super) fn remove(&mut self, offset: i64) {
        if self.row.front() == Some(&offset) {
            self.row.pop_front();
        } else if !self.late.remove(&offset)
            && let Ok(index) = self.row.binary_search(&offset)
        {
            self.row.remove(index);
        }
    }

    pub(super) fn first(&self) -> Option<i64> {
        match (self.row.front(), self.late.first()) {
            (Some(row), Some(late)) => Some(*row.min(late)),
            (row, late) => row.or(late).copied(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.row.is_empty() && self.late.is_empty()
    }
}

impl IntoIterator for Offsets {
    type Item = i64;
    type IntoIter = std::iter::Chain<
        std::collections::vec_deque::IntoIter<i64>,
        std::collections::btree_set::IntoIter<i64>,
    >;

    /// In no order.
    fn into_iter(self) -> Self::IntoIter {
        self.row.into_iter().chain(self.late)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0_i64..20), 0..200)) {
            let mut offsets = Offsets::default();
            let mut set = BTreeSet::new();
            for (comes, offset) in steps {
                if comes {
                    offsets.insert(offset);
                    set.insert(offset);
                } else {
                    offsets.remove(offset);
                    set.remove(&offset);
                }
                prop_assert_eq!(offsets.first(), set.first().copied());
                prop_assert_eq!(offsets.is_empty(), set.is_empty());
            }
            let mut all: Vec<i64> = offsets.into_iter().collect();
            all.sort_unstable();
            prop_assert_eq!(all, set.into_iter().collect::<Vec<_>>());
        }
    }
}
