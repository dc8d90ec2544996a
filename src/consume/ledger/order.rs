//! Which record may go out next, and to whom.
//!
//! Knows offsets only; what has become of a record is the ledger's. What always holds: of the records of one key only the first that is not
//! settled is ever ready, and a key belongs to one stream as long as the same streams are there.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    offsets::Offsets,
    terms::{Ordering, StreamId, mix},
};

/// The records that wait.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) ordering: Ordering,
    /// PARTITION: everything that is neither delivered nor settled, whether it may go out yet or not.
    row: Offsets,
    ready: Ready,
    /// Those that may have killed a client: each goes out alone.
    suspects: Ready,
    /// KEY: the last record in the line of each key.
    lines: HashMap<u64, i64, BuildHasherDefault<AsItIs>>,
    /// KEY: the streams that keys are spread over.
    members: Vec<StreamId>,
}

/// Records that may go out, by the stream they are for; without one to whoever has room.
type Ready = BTreeMap<Option<StreamId>, Offsets>;

/// Keys are hashes already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl Order {
    pub(super) fn new(ordering: Ordering) -> Self {
        Self {
            ordering,
            row: Offsets::default(),
            ready: Ready::new(),
            suspects: Ready::new(),
            lines: HashMap::default(),
            members: Vec::new(),
        }
    }

    /// Puts a new record of a key at the end of the key's line; gives the one before it there.
    pub(super) fn join(&mut self, key: Option<u64>, offset: i64) -> Option<i64> {
        match self.ordering {
            Ordering::Key => self.lines.insert(key?, offset),
            Ordering::Partition | Ordering::Unordered => None,
        }
    }

    /// The last record of a key is settled.
    pub(super) fn close(&mut self, key: Option<u64>) {
        if let Some(key) = key {
            self.lines.remove(&key);
        }
    }

    /// The record may go out. With PARTITION it may when those before it have.
    pub(super) fn put(&mut self, offset: i64, key: Option<u64>, is_suspect: bool) {
        if self.ordering == Ordering::Partition {
            self.row.insert(offset);
            return;
        }
        let whose = self.whose(key);
        self.pile(is_suspect)
            .entry(whose)
            .or_default()
            .insert(offset);
    }

    /// The record goes out.
    pub(super) fn take(&mut self, offset: i64, key: Option<u64>, is_suspect: bool) {
        if self.ordering == Ordering::Partition {
            self.row.remove(offset);
            return;
        }
        let whose = self.whose(key);
        let ready = self.pile(is_suspect);
        if let Some(offsets) = ready.get_mut(&whose) {
            offsets.remove(offset);
            if offsets.is_empty() && whose.is_some() {
                ready.remove(&whose);
            }
        }
    }

    /// PARTITION: the record has to go out, but not yet: those after it wait for it.
    pub(super) fn hold(&mut self, offset: i64) {
        if self.ordering == Ordering::Partition {
            self.row.insert(offset);
        }
    }

    /// PARTITION: the record is settled without having gone out again.
    pub(super) fn drop(&mut self, offset: i64) {
        self.row.remove(offset);
    }

    /// PARTITION: the first record that has to go out; whether it may now, the ledger knows.
    pub(super) fn head(&self) -> Option<i64> {
        self.row.first()
    }

    /// The first record for `stream`, suspects before others.
    pub(super) fn first(&self, stream: StreamId) -> Option<i64> {
        first(&self.suspects, stream).or_else(|| first(&self.ready, stream))
    }

    /// Whether a suspect waits for `stream`.
    pub(super) fn has_suspect(&self, stream: StreamId) -> bool {
        first(&self.suspects, stream).is_some()
    }

    /// KEY: spreads the keys over these streams. What is out stays where it is: the next record of its key follows the key.
    pub(super) fn spread(&mut self, members: &[StreamId], key_of: impl Fn(i64) -> Option<u64>) {
        if self.members == members {
            return;
        }
        self.members = members.to_vec();
        if self.ordering != Ordering::Key {
            return;
        }
        for is_suspect in [false, true] {
            for offsets in std::mem::take(self.pile(is_suspect)).into_values() {
                for offset in offsets {
                    self.put(offset, key_of(offset), is_suspect);
                }
            }
        }
    }

    fn pile(&mut self, is_suspect: bool) -> &mut Ready {
        match is_suspect {
            true => &mut self.suspects,
            false => &mut self.ready,
        }
    }

    /// The stream that a key belongs to: the one with the highest draw for it (rendezvous hashing), so that a stream that comes or goes moves
    /// no other's keys.
    fn whose(&self, key: Option<u64>) -> Option<StreamId> {
        let key = key.filter(|_| self.ordering == Ordering::Key)?;
        match self.members[..] {
            [only] => Some(only),
            _ => self
                .members
                .iter()
                .copied()
                .max_by_key(|&stream| mix(key ^ mix(stream))),
        }
    }
}

fn first(ready: &Ready, stream: StreamId) -> Option<i64> {
    let of = |whose| ready.get(&whose).and_then(Offsets::first);
    match (of(None), of(Some(stream))) {
        (Some(anyone), Some(own)) => Some(anyone.min(own)),
        (anyone, own) => anyone.or(own),
    }
}
