//! The sidecar that is injected: the one of `deploy/kubernetes/sidecar.yaml`, which is made from the library chart, with the user's settings.
//!
//! A setting is what an annotation `config.outrigger.io/KEY` of the charts' policy is: `image`, `config-map`, `secret`, CPU and memory, or a
//! configuration key. The command line sets what the chart's values would, and a pod's own annotations come before it.

use std::collections::BTreeMap;

use yaml_rust2::{Yaml, YamlLoader, yaml::Hash};

/// What annotations that are settings begin with.
pub(super) const PREFIX: &str = "config.outrigger.io/";

const RESOURCES: [(&str, &str, &str); 4] = [
    ("cpu-limit", "limits", "cpu"),
    ("cpu-request", "requests", "cpu"),
    ("memory-limit", "limits", "memory"),
    ("memory-request", "requests", "memory"),
];

/// Settings by name.
pub(super) type Settings = BTreeMap<String, String>;

/// What a pod gets.
#[derive(Clone, Debug)]
pub(super) struct Sidecar {
    /// The first of the pod's init containers.
    pub(super) container: Yaml,
    /// For the pod.
    pub(super) volumes: Vec<Yaml>,
    /// For each other container.
    pub(super) env: Vec<Yaml>,
    /// For each other container.
    pub(super) mounts: Vec<Yaml>,
    /// The variables that the container has of itself, which nobody may set. Where the sidecar listens is among them: the application, the probes
    /// and the drain look there.
    fixed: Vec<String>,
}

impl Sidecar {
    /// As the library chart has it.
    ///
    /// # Panics
    ///
    /// Never: the file is part of the program, and a test reads it.
    pub(super) fn library() -> Self {
        let file = include_str!("../../../deploy/kubernetes/sidecar.yaml");
        let mut parts = YamlLoader::load_from_str(file).expect("sidecar.yaml is YAML");
        let parts = parts.remove(0);
        let list = |name: &str| parts[name].as_vec().cloned().unwrap_or_default();
        Self {
            container: parts["container"].clone(),
            volumes: list("volumes"),
            env: list("env"),
            mounts: list("volumeMounts"),
            fixed: parts["container"]["env"]
                .as_vec()
                .into_iter()
                .flatten()
                .map(|entry| text(&entry["name"]).to_owned())
                .collect(),
        }
    }

    /// Its container's name.
    pub(super) fn name(&self) -> &str {
        text(&self.container["name"])
    }

    /// The names of its volumes.
    pub(super) fn volume_names(&self) -> Vec<&str> {
        self.volumes.iter().map(|v| text(&v["name"])).collect()
    }

    /// Whether a container of this name and kind is the sidecar, and not somebody's own.
    pub(super) fn is(&self, container: &Yaml) -> bool {
        container["name"] == self.container["name"]
            && container["restartPolicy"] == self.container["restartPolicy"]
    }

    /// Whether `name` is a configuration key that may be set.
    fn is_configuration(&self, name: &str) -> bool {
        let is_key = name.contains('.') && name == name.to_ascii_lowercase();
        is_key && !self.fixed.contains(&variable(name))
    }

    /// Whether there is such a setting.
    pub(super) fn has(&self, setting: &str) -> bool {
        ["image", "config-map", "secret"].contains(&setting)
            || RESOURCES.iter().any(|(name, ..)| *name == setting)
            || self.is_configuration(setting)
    }

    /// With what the command line says: `env` are further variables of the container.
    pub(super) fn configured(mut self, settings: &Settings, env: &[(String, String)]) -> Self {
        let ours = self.configuration(settings);
        self.set(settings);
        let list = entries(&mut self.container, "env");
        let is_setting = |entry: &Yaml| text(&entry["name"]).starts_with("OUTRIGGER_");
        let after = list
            .iter()
            .rposition(is_setting)
            .map_or(0, |index| index + 1);
        list.splice(after..after, ours);
        for (name, value) in env {
            let new = entry(name, value);
            match list.iter_mut().find(|entry| entry["name"] == new["name"]) {
                Some(old) => *old = new,
                None => list.push(new),
            }
        }
        self
    }

    /// With what a pod's annotations say, which comes before all else.
    pub(super) fn annotated(mut self, settings: &Settings) -> Self {
        let theirs = self.configuration(settings);
        self.set(settings);
        let list = entries(&mut self.container, "env");
        list.retain(|entry| !theirs.iter().any(|new| new["name"] == entry["name"]));
        list.extend(theirs);
        self
    }

    /// The variables of the configuration keys among the settings, in order of their names.
    fn configuration(&self, settings: &Settings) -> Vec<Yaml> {
        let variables: BTreeMap<String, &String> = settings
            .iter()
            .filter(|(name, _)| self.is_configuration(name))
            .map(|(name, value)| (variable(name), value))
            .collect();
        variables
            .iter()
            .map(|(name, value)| entry(name, value))
            .collect()
    }

    /// The settings that are no configuration keys.
    fn set(&mut self, settings: &Settings) {
        if let Some(image) = settings.get("image") {
            put(&mut self.container, "image", string(image));
        }
        for (name, kind, resource) in RESOURCES {
            if let Some(quantity) = settings.get(name) {
                let mut resources = self.container["resources"].clone();
                let mut quantities = resources[kind].clone();
                // An empty one takes ours away.
                put(&mut quantities, resource, string(quantity));
                if quantity.is_empty() {
                    quantities
                        .as_mut_hash()
                        .map(|hash| hash.remove(&string(resource)));
                }
                put(&mut resources, kind, quantities);
                put(&mut self.container, "resources", resources);
            }
        }
        for volume in &mut self.volumes {
            let Some(sources) = volume
                .as_mut_hash()
                .and_then(|volume| volume.get_mut(&string("projected")))
                .map(|projected| entries(projected, "sources"))
            else {
                continue;
            };
            if let Some(name) = settings.get("config-map") {
                for source in sources.iter_mut() {
                    let mut config_map = source["configMap"].clone();
                    put(&mut config_map, "name", string(name));
                    put(source, "configMap", config_map);
                }
            }
            if let Some(name) = settings.get("secret") {
                let secret = map([("name", string(name))]);
                sources.push(map([("secret", secret)]));
            }
        }
    }
}

/// The environment variable of a configuration key, as the policy makes it.
fn variable(key: &str) -> String {
    format!("OUTRIGGER_{}", key.to_ascii_uppercase().replace('.', "__"))
}

fn text(value: &Yaml) -> &str {
    value.as_str().unwrap_or_default()
}

fn string(text: &str) -> Yaml {
    Yaml::String(text.to_owned())
}

fn map<const N: usize>(entries: [(&str, Yaml); N]) -> Yaml {
    let entries = entries.into_iter().map(|(key, value)| (string(key), value));
    Yaml::Hash(entries.collect())
}

fn entry(name: &str, value: &str) -> Yaml {
    map([("name", string(name)), ("value", string(value))])
}

/// Sets a key; its place stays.
fn put(object: &mut Yaml, key: &str, value: Yaml) {
    if !object.is_hash() {
        *object = Yaml::Hash(Hash::new());
    }
    if let Some(hash) = object.as_mut_hash() {
        hash.replace(string(key), value);
    }
}

/// The list at a key, which is made if it is not there.
fn entries<'a>(object: &'a mut Yaml, key: &str) -> &'a mut Vec<Yaml> {
    if !object[key].is_array() {
        put(object, key, Yaml::Array(Vec::new()));
    }
    object
        .as_mut_hash()
        .and_then(|hash| hash.get_mut(&string(key)))
        .and_then(Yaml::as_mut_vec)
        .expect("it was made a list")
}
