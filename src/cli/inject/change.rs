//! What is to be done to manifests, said once: entries that go out of lists and entries that come in.
//!
//! `plan` says which; here they are done to objects, in `splice` to text. The two know nothing of each other, and are compared before anything
//! is written.

use yaml_rust2::Yaml;

/// A step on the way into an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(&'static str),
    Index(usize),
}

/// The way to a place, from the list of a stream's documents.
pub(super) type Path = Vec<Step>;

/// A change of one list.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The way to the pod's `spec`, whose style new lines take.
    pub(super) spec: Path,
    /// The way on to the map that has the list.
    pub(super) within: Path,
    /// The list's key.
    pub(super) list: &'static str,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// These entries go, and a list that we made goes with its last entry.
    Remove(Vec<usize>),
    /// These entries come to the front of the list, which need not exist.
    Prepend(Vec<Yaml>),
    /// The same at the end.
    Append(Vec<Yaml>),
}

impl Change {
    /// The way to the map that has the list.
    pub(super) fn map(&self) -> impl Iterator<Item = &Step> {
        self.spec.iter().chain(&self.within)
    }

    fn apply(&self, root: &mut Yaml) {
        let Some(map) = find_mut(root, self.map()).and_then(Yaml::as_mut_hash) else {
            return;
        };
        let key = Yaml::String(self.list.to_owned());
        let before = map.get(&key).and_then(Yaml::as_vec);
        let mut entries = before.cloned().unwrap_or_default();
        match &self.what {
            What::Remove(gone) => {
                let mut index = 0..;
                entries.retain(|_| index.next().is_none_or(|index| !gone.contains(&index)));
            }
            What::Prepend(new) => drop(entries.splice(0..0, new.iter().cloned())),
            What::Append(new) => entries.extend(new.iter().cloned()),
        }
        map.replace(key, Yaml::Array(entries));
    }
}

/// Does the changes to the documents.
pub(super) fn apply(root: &mut Yaml, changes: &[Change]) {
    for change in changes {
        change.apply(root);
    }
}

/// Removes changed lists that are empty: whether the text still says `env: []`, or `env:`, depends on whose the key was.
pub(super) fn prune(root: &mut Yaml, changes: &[Change]) {
    for change in changes {
        let key = Yaml::String(change.list.to_owned());
        if let Some(map) = find_mut(root, change.map()).and_then(Yaml::as_mut_hash)
            && map.get(&key).is_some_and(is_empty)
        {
            map.remove(&key);
        }
    }
}

fn is_empty(list: &Yaml) -> bool {
    list.is_null() || list.as_vec().is_some_and(Vec::is_empty)
}

/// What stands at a path.
pub(super) fn find<'a>(
    root: &'a Yaml,
    mut path: impl Iterator<Item = &'a Step>,
) -> Option<&'a Yaml> {
    path.try_fold(root, |node, step| match step {
        Step::Key(key) => node.as_hash()?.get(&Yaml::String((*key).to_owned())),
        Step::Index(index) => node.as_vec()?.get(*index),
    })
}

fn find_mut<'a>(
    root: &'a mut Yaml,
    mut path: impl Iterator<Item = &'a Step>,
) -> Option<&'a mut Yaml> {
    path.try_fold(root, |node, step| match step {
        Step::Key(key) => node
            .as_mut_hash()?
            .get_mut(&Yaml::String((*key).to_owned())),
        Step::Index(index) => node.as_mut_vec()?.get_mut(*index),
    })
}

/// Whether two objects are the same; the order of keys is not part of them.
pub(super) fn same(a: &Yaml, b: &Yaml) -> bool {
    match (a, b) {
        (Yaml::Array(a), Yaml::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Yaml::Hash(a), Yaml::Hash(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
