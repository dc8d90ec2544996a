//! What a pod lacks of the sidecar, and what it has of it.
//!
//! Additions are what the charts' policy does. A replacement takes out only container and volumes, which differ with the settings; env and mounts
//! of the other containers are always the same, and one that stands already may be the user's own.

use yaml_rust2::Yaml;

use super::{
    change::{Change, Path, Step, What, find, same},
    pods::Pod,
    sidecar::Sidecar,
};

/// The lists that hold containers.
const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// The sidecar with its volumes.
pub(super) fn removed(pod: &Pod, sidecar: &Sidecar) -> Vec<Change> {
    let names = sidecar.volume_names();
    let is_ours = |volume: &Yaml| {
        volume["name"]
            .as_str()
            .is_some_and(|name| names.contains(&name))
    };
    vec![
        removal(pod, vec![], "initContainers", |container| {
            sidecar.is(container)
        }),
        removal(pod, vec![], "volumes", is_ours),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the other containers have of it.
pub(super) fn unmounted(pod: &Pod, sidecar: &Sidecar) -> Vec<Change> {
    let mut changes = Vec::new();
    for (within, _) in others(pod, sidecar) {
        let env = removal(pod, within.clone(), "env", |entry| {
            among(&sidecar.env, entry)
        });
        let mounts = removal(pod, within, "volumeMounts", |mount| {
            among(&sidecar.mounts, mount)
        });
        changes.extend(env.into_iter().chain(mounts));
    }
    changes
}

/// All that is missing, in a pod without the sidecar.
pub(super) fn added(pod: &Pod, sidecar: &Sidecar) -> Vec<Change> {
    let mut changes = Vec::new();
    for (within, container) in others(pod, sidecar) {
        let missing = |list: &str, wanted: &[Yaml], key: &str| {
            let own = container[list].as_vec().cloned().unwrap_or_default();
            let is_missing = |new: &&Yaml| !own.iter().any(|own| is_same(&own[key], &new[key]));
            wanted.iter().filter(is_missing).cloned().collect()
        };
        let env = missing("env", &sidecar.env, "name");
        let mounts = missing("volumeMounts", &sidecar.mounts, "mountPath");
        changes.extend(addition(pod, within.clone(), "env", env));
        changes.extend(addition(pod, within, "volumeMounts", mounts));
    }
    changes.extend(addition(pod, vec![], "volumes", sidecar.volumes.clone()));
    changes.push(Change {
        // The first, so that the pod's other init containers find it.
        what: What::Prepend(vec![sidecar.container.clone()]),
        list: "initContainers",
        within: vec![],
        spec: spec(pod),
    });
    changes
}

fn among(ours: &[Yaml], entry: &Yaml) -> bool {
    ours.iter().any(|own| same(own, entry))
}

/// Names, or paths.
fn is_same(a: &Yaml, b: &Yaml) -> bool {
    let text = |value: &Yaml| Some(value.as_str()?.trim_end_matches('/').to_owned());
    text(a) == text(b)
}

/// The containers that find the sidecar, each with its way from the spec.
fn others<'a>(pod: &'a Pod, sidecar: &'a Sidecar) -> impl Iterator<Item = (Path, &'a Yaml)> + 'a {
    CONTAINERS.into_iter().flat_map(move |key| {
        pod.containers(key)
            .filter(|(_, container)| !sidecar.is(container))
            .map(move |(index, container)| (vec![Step::Key(key), Step::Index(index)], container))
    })
}

fn removal(
    pod: &Pod,
    within: Path,
    list: &'static str,
    is_ours: impl Fn(&Yaml) -> bool,
) -> Option<Change> {
    let map = find(&pod.object["spec"], within.iter())?;
    let entries = map[list].as_vec().into_iter().flatten().enumerate();
    let ours: Vec<usize> = entries
        .filter(|(_, entry)| is_ours(entry))
        .map(|(index, _)| index)
        .collect();
    (!ours.is_empty()).then(|| Change {
        spec: spec(pod),
        within,
        list,
        what: What::Remove(ours),
    })
}

fn addition(pod: &Pod, within: Path, list: &'static str, entries: Vec<Yaml>) -> Option<Change> {
    (!entries.is_empty()).then(|| Change {
        spec: spec(pod),
        within,
        list,
        what: What::Append(entries),
    })
}

fn spec(pod: &Pod) -> Path {
    [&pod.path[..], &[Step::Key("spec")]].concat()
}
