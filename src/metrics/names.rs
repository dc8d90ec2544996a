//! Names from outside, as labels: the first so many keep their own, the rest share [`OTHER`].
//!
//! So a caller with a thousand topics does not make a thousand series. A name that was taken in stays for the life of the process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The label of what has none of its own; the conventions' word for it.
pub(super) const OTHER: &str = "_OTHER";

/// A set of names with a bound. Asked when something is resolved, never for each record.
pub(super) struct Names(Mutex<HashMap<String, Arc<str>>>);

impl Names {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The label of `name`, which takes one of `most` places if it is new and one is free.
    pub(super) fn label(&self, name: &str, most: usize) -> Arc<str> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(label) = known.get(name) {
            return Arc::clone(label);
        }
        if known.len() >= most {
            return Arc::from(OTHER);
        }
        let label: Arc<str> = Arc::from(name);
        known.insert(name.to_owned(), Arc::clone(&label));
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_names_are_one() {
        let names = Names::new();
        let labels: Vec<_> = ["a", "b", "a", "c", "b"]
            .into_iter()
            .map(|name| names.label(name, 2))
            .collect();
        assert_eq!(
            labels.iter().map(|label| &**label).collect::<Vec<_>>(),
            ["a", "b", "a", OTHER, "b"]
        );
    }
}
