//! Finds the pods in manifests, and says which of them cannot have the sidecar.
//!
//! The reasons are those of the charts' policy (`helm/outrigger/templates/injector/_conditions.tpl`), in its words.

use yaml_rust2::Yaml;

use super::{
    change::{Path, Step},
    sidecar::{PREFIX, Settings, Sidecar},
};

/// The label by which the policy injects.
const LABEL: &str = "outrigger.io/inject";

/// What has pods: API group, kind, and the way from the object to its pod.
const KINDS: [(&str, &str, &[&str]); 6] = [
    ("", "Pod", &[]),
    ("apps", "Deployment", &["spec", "template"]),
    ("apps", "StatefulSet", &["spec", "template"]),
    ("apps", "DaemonSet", &["spec", "template"]),
    ("batch", "Job", &["spec", "template"]),
    (
        "batch",
        "CronJob",
        &["spec", "jobTemplate", "spec", "template"],
    ),
];

/// An object of a stream.
#[derive(Debug)]
pub(super) struct Object {
    /// `Deployment/web`.
    pub(super) name: String,
    /// Its kind has no pods: nothing.
    pub(super) pod: Option<Pod>,
}

/// A pod, or the template of one.
#[derive(Debug)]
pub(super) struct Pod {
    /// The way to it from the documents.
    pub(super) path: Path,
    /// It, with metadata and spec.
    pub(super) object: Yaml,
    /// What the user may have meant otherwise.
    pub(super) warnings: Vec<String>,
}

/// The objects of the documents in their order, those in lists too.
pub(super) fn objects(documents: &Yaml) -> Vec<Object> {
    let mut found = Vec::new();
    for (index, document) in documents.as_vec().into_iter().flatten().enumerate() {
        collect(document, "", vec![Step::Index(index)], &mut found);
    }
    found
}

fn collect(object: &Yaml, kind: &str, path: Path, found: &mut Vec<Object>) {
    if !object.is_hash() {
        return;
    }
    // The items of a DeploymentList need not say what they are.
    let kind = object["kind"].as_str().unwrap_or(kind);
    if let Some(of) = kind.strip_suffix("List")
        && let Some(items) = object["items"].as_vec()
    {
        for (index, item) in items.iter().enumerate() {
            let item_path = [&path[..], &[Step::Key("items"), Step::Index(index)]].concat();
            collect(item, of, item_path, found);
        }
        return;
    }
    let metadata = &object["metadata"];
    let name = metadata["name"]
        .as_str()
        .or_else(|| metadata["generateName"].as_str());
    let kind = if kind.is_empty() { "object" } else { kind };
    let name = format!("{kind}/{}", name.unwrap_or("(no name)"));
    let group = object["apiVersion"].as_str().map(|version| {
        let (group, _) = version.split_once('/').unwrap_or_default();
        group
    });
    let pod = KINDS
        .iter()
        .find(|(of, name, _)| *name == kind && group.is_none_or(|group| group == *of))
        .map(|(.., way)| {
            let pod = way.iter().fold(object, |object, key| &object[*key]);
            Pod {
                path: path
                    .into_iter()
                    .chain(way.iter().map(|key| Step::Key(key)))
                    .collect(),
                object: pod.clone(),
                warnings: misplaced(metadata, &pod["metadata"], way),
            }
        });
    found.push(Object { name, pod });
}

/// Labels and annotations of ours on the workload instead of its pod template.
fn misplaced(workload: &Yaml, template: &Yaml, way: &[&str]) -> Vec<String> {
    if way.is_empty() {
        return Vec::new();
    }
    let way = way.join(".");
    let mut warnings = Vec::new();
    if has(&workload["labels"], LABEL) && !has(&template["labels"], LABEL) {
        warnings.push(format!(
            "the label {LABEL} does nothing here; it belongs to the pod template ({way}.metadata.labels)"
        ));
    }
    for part in ["labels", "annotations"] {
        let is_ours =
            |name: &&str| name.starts_with(PREFIX) || *name == LABEL && part == "annotations";
        for name in names(&workload[part]).filter(is_ours) {
            let right = if name == LABEL {
                "labels"
            } else {
                "annotations"
            };
            warnings.push(format!(
                "the {} {name} does nothing here; it belongs to the pod template ({way}.metadata.{right})",
                part.trim_end_matches('s')
            ));
        }
    }
    warnings
}

fn has(map: &Yaml, name: &str) -> bool {
    names(map).any(|found| found == name)
}

fn names(map: &Yaml) -> impl Iterator<Item = &str> {
    map.as_hash()
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| name.as_str())
}

impl Pod {
    /// The containers at a key, each with its place.
    pub(super) fn containers(&self, key: &str) -> impl Iterator<Item = (usize, &Yaml)> {
        self.object["spec"][key]
            .as_vec()
            .into_iter()
            .flatten()
            .enumerate()
    }

    /// The pod's containers but the sidecar.
    fn own<'a>(&'a self, sidecar: &'a Sidecar) -> impl Iterator<Item = &'a Yaml> {
        let init = self
            .containers("initContainers")
            .map(|(_, container)| container);
        self.containers("containers")
            .map(|(_, container)| container)
            .chain(init.filter(|container| !sidecar.is(container)))
    }

    /// Whether it has the sidecar.
    pub(super) fn has(&self, sidecar: &Sidecar) -> bool {
        self.containers("initContainers")
            .any(|(_, container)| sidecar.is(container))
    }

    /// Its annotations that are settings.
    pub(super) fn settings(&self) -> Settings {
        let annotations = self.object["metadata"]["annotations"].as_hash();
        annotations
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| {
                let name = name.as_str()?.strip_prefix(PREFIX)?;
                Some((name.to_owned(), value.as_str()?.to_owned()))
            })
            .collect()
    }

    /// Why it is left alone.
    pub(super) fn refusal(&self, sidecar: &Sidecar) -> Option<String> {
        let spec = &self.object["spec"];
        let metadata = &self.object["metadata"];
        let names = sidecar.volume_names();
        let ours = |name: &Yaml| name.as_str().is_some_and(|name| names.contains(&name));
        let directory = sidecar.mounts[0]["mountPath"].as_str().unwrap_or_default();
        let list = |value: &'_ Yaml| value.as_vec().cloned().unwrap_or_default();
        let is_taken = |container: &Yaml| {
            list(&container["volumeMounts"]).iter().any(|mount| {
                let path = mount["mountPath"].as_str().unwrap_or_default();
                path.strip_suffix('/').unwrap_or(path) == directory
                    && mount["name"] != sidecar.mounts[0]["name"]
            })
        };

        if self.containers("containers").next().is_none() {
            return Some("it has no containers".to_owned());
        }
        if metadata["labels"][LABEL].as_str() == Some("false") {
            return Some(format!("its label {LABEL} says false"));
        }
        if spec["hostNetwork"].as_bool() == Some(true) {
            let why = "it has hostNetwork, so that the sidecar's ports would be the node's";
            return Some(why.to_owned());
        }
        if has(&metadata["annotations"], "kubernetes.io/config.mirror") {
            let why = "it is a static pod, which its node runs as the node's file has it";
            return Some(why.to_owned());
        }
        if spec["os"]["name"].as_str() == Some("windows") {
            return Some("the sidecar is a program for Linux".to_owned());
        }
        if self
            .own(sidecar)
            .any(|container| container["name"].as_str() == Some(sidecar.name()))
        {
            return Some(format!(
                "it has a container of its own called {}",
                sidecar.name()
            ));
        }
        if !self.has(sidecar)
            && list(&spec["volumes"])
                .iter()
                .any(|volume| ours(&volume["name"]))
        {
            return Some(format!(
                "it has a volume of its own called {}",
                names.join(" or ")
            ));
        }
        if self.own(sidecar).any(is_taken) {
            return Some(format!(
                "a container mounts something of its own at {directory}"
            ));
        }
        None
    }
}
