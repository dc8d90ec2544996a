//! Injection into texts: against an injection into objects that is written here anew, forwards, backwards and twice.

mod examples;
mod writer;

use proptest::prelude::*;
use yaml_rust2::{Yaml, yaml::Hash};

use self::writer::{Writer, workloads};
use super::{
    change, pods,
    rewrite::{documents, inject, uninject},
    sidecar::{Settings, Sidecar},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_text_reads_as_the_object_with_the_sidecar(choices in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = text(choices);
        let sidecar = Sidecar::library();
        let injected = inject(&text, &sidecar).expect(&text).text;
        let mut meant = read(&text);
        let changed = meant_by_hand(&mut meant, &sidecar);
        prop_assert!(change::same(&read(&injected), &meant), "{text}\n=>\n{injected}");
        prop_assert_eq!(injected == text, changed == 0);
    }

    #[test]
    fn taking_it_out_again_gives_the_same_bytes(choices in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = text(choices);
        let sidecar = Sidecar::library();
        let injected = inject(&text, &sidecar).expect(&text).text;
        prop_assert_eq!(&uninject(&injected, &sidecar).expect(&injected).text, &text, "{}", injected);
    }

    #[test]
    fn injecting_twice_is_injecting_once_and_other_settings_replace(choices in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = text(choices);
        let one = Sidecar::library();
        let other = Sidecar::library().configured(&settings(&[("image", "mirror.example/o:2"), ("config-map", "mine"), ("log.level", "debug")]), &[]);
        let injected = inject(&text, &one).expect(&text).text;
        prop_assert_eq!(&inject(&injected, &one).expect(&injected).text, &injected);
        let replaced = inject(&injected, &other).expect(&injected).text;
        prop_assert_eq!(replaced, inject(&text, &other).expect(&text).text);
    }

    #[test]
    fn no_text_at_all_makes_it_panic_or_write_something_else(text in "[-a-z:{}\\[\\],#&*?|>!%@'\" \n]{0,60}") {
        let text = format!("kind: Pod\nspec:\n  containers:\n  - name: a\n{text}");
        let sidecar = Sidecar::library();
        if let Ok(injected) = inject(&text, &sidecar) {
            let mut meant = read(&text);
            meant_by_hand(&mut meant, &sidecar);
            prop_assert!(change::same(&read(&injected.text), &meant), "{text}");
        }
    }
}

fn text(choices: Vec<u8>) -> String {
    let mut writer = Writer::new(choices);
    workloads(&mut writer)
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
    pairs.iter().map(owned).collect()
}

/// The documents of a text that may have a byte order mark.
fn read(text: &str) -> Yaml {
    documents(text.trim_start_matches('\u{feff}')).expect(text)
}

/// What injection is, on objects and without any plan; says how many pods it changed.
fn meant_by_hand(documents: &mut Yaml, sidecar: &Sidecar) -> usize {
    let mut changed = 0;
    for object in pods::objects(documents) {
        let Some(pod) = object.pod.filter(|pod| pod.refusal(sidecar).is_none()) else {
            continue;
        };
        let spec = pod
            .path
            .iter()
            .fold(&mut *documents, |node, step| match step {
                change::Step::Key(key) => &mut node[*key],
                change::Step::Index(index) => &mut node.as_mut_vec().unwrap()[*index],
            });
        let spec = &mut spec["spec"];
        for key in ["containers", "initContainers"] {
            for container in list(spec, key) {
                let own: Vec<Yaml> = list(container, "env")
                    .iter()
                    .map(|own| own["name"].clone())
                    .collect();
                let new = sidecar.env.iter().filter(|new| !own.contains(&new["name"]));
                list(container, "env").extend(new.cloned());
                list(container, "volumeMounts").extend(sidecar.mounts.clone());
            }
        }
        list(spec, "initContainers").insert(0, sidecar.container.clone());
        list(spec, "volumes").extend(sidecar.volumes.clone());
        changed += 1;
    }
    changed
}

/// The list at a key, which is made if there is none.
fn list<'a>(object: &'a mut Yaml, key: &str) -> &'a mut Vec<Yaml> {
    let object: &mut Hash = object.as_mut_hash().unwrap();
    let key = Yaml::String(key.to_owned());
    if !object.get(&key).is_some_and(Yaml::is_array) {
        object.insert(key.clone(), Yaml::Array(vec![]));
    }
    object.get_mut(&key).unwrap().as_mut_vec().unwrap()
}
