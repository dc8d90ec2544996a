//! A text of manifests with the sidecar, or without it, and what was done to whom.

use yaml_rust2::{ScanError, Yaml, YamlLoader};

use super::{
    change::{self, Change},
    plan,
    pods::{self, Object},
    sidecar::Sidecar,
    splice,
};

/// The parser would take it for a part of the first key.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A text with the sidecar, or without it, and a line for each object.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) text: String,
    pub(super) notes: Vec<String>,
}

/// Why a text was not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("line {}, column {}: this is not YAML: {}", .0.marker().line(), .0.marker().col() + 1, .0.info())]
    Parse(#[from] ScanError),
    #[error("line {line}: {message}")]
    Text { line: usize, message: &'static str },
    #[error(
        "{object}: changing this text did not give the object that was meant, so it is written in a way that is not supported; block style as kubectl prints it is"
    )]
    NotMeant { object: String },
}

pub(super) fn inject(text: &str, sidecar: &Sidecar) -> Result<Rewritten, Problem> {
    rewrite(text, |text, objects| {
        let mut notes = Vec::new();
        let mut chosen = Vec::new();
        for Object { name, pod } in objects {
            let Some(pod) = pod else {
                notes.push(format!(
                    "{name}: left alone, because its kind has no pods that can be injected"
                ));
                continue;
            };
            notes.extend(
                pod.warnings
                    .iter()
                    .map(|warning| format!("{name}: warning: {warning}")),
            );
            if let Some(reason) = pod.refusal(sidecar) {
                notes.push(format!("{name}: left alone, because {reason}"));
                continue;
            }
            let settings = pod.settings();
            let unknown: Vec<&str> = settings
                .keys()
                .map(String::as_str)
                .filter(|name| !sidecar.has(name))
                .collect();
            if !unknown.is_empty() {
                notes.push(format!(
                    "{name}: warning: a pod cannot set {} by annotation, and it is ignored",
                    unknown.join(", ")
                ));
            }
            notes.push(match pod.has(sidecar) {
                true => format!("{name}: injected, in the place of the sidecar it had"),
                false => format!("{name}: injected"),
            });
            chosen.push(pod);
        }
        let replaced = chosen
            .iter()
            .flat_map(|pod| plan::removed(pod, sidecar))
            .collect::<Vec<_>>();
        let text = changed(text, &replaced)?;
        // Places have moved; which pods were chosen has not.
        let added: Vec<Change> = pods::objects(&documents(&text)?)
            .iter()
            .filter_map(|object| object.pod.as_ref())
            .filter(|pod| chosen.iter().any(|chosen| chosen.path == pod.path))
            .flat_map(|pod| plan::added(pod, &sidecar.clone().annotated(&pod.settings())))
            .collect();
        let text = changed(&text, &added)?;
        Ok(Rewritten { text, notes })
    })
}

pub(super) fn uninject(text: &str, sidecar: &Sidecar) -> Result<Rewritten, Problem> {
    rewrite(text, |text, objects| {
        let mut notes = Vec::new();
        let mut unmounted = Vec::new();
        let mut removed = Vec::new();
        for Object { name, pod } in objects {
            match pod.filter(|pod| pod.has(sidecar)) {
                Some(pod) => {
                    unmounted.extend(plan::unmounted(&pod, sidecar));
                    removed.extend(plan::removed(&pod, sidecar));
                    notes.push(format!("{name}: the sidecar was taken out"));
                }
                None => notes.push(format!("{name}: left alone, because it has no sidecar")),
            }
        }
        // Containers last: theirs are the places of the other changes.
        let text = changed(text, &unmounted)?;
        let text = changed(&text, &removed)?;
        Ok(Rewritten { text, notes })
    })
}

/// Hands `text` without its byte order mark over, with its objects.
fn rewrite(
    text: &str,
    change: impl FnOnce(&str, Vec<Object>) -> Result<Rewritten, Problem>,
) -> Result<Rewritten, Problem> {
    let mark = text.strip_prefix(BYTE_ORDER_MARK);
    let objects = pods::objects(&documents(mark.unwrap_or(text))?);
    let mut rewritten = change(mark.unwrap_or(text), objects)?;
    if mark.is_some() {
        rewritten.text.insert(0, BYTE_ORDER_MARK);
    }
    Ok(rewritten)
}

pub(super) fn documents(text: &str) -> Result<Yaml, ScanError> {
    YamlLoader::load_from_str(text).map(Yaml::Array)
}

/// The text with the changes, if it reads as the object with the changes.
fn changed(text: &str, changes: &[Change]) -> Result<String, Problem> {
    if changes.is_empty() {
        return Ok(text.to_owned());
    }
    let mut meant = documents(text)?;
    change::apply(&mut meant, changes);
    let changed = splice::apply(text, changes)?;
    let mut read = documents(&changed).unwrap_or(Yaml::BadValue);
    change::prune(&mut meant, changes);
    change::prune(&mut read, changes);
    if change::same(&meant, &read) {
        return Ok(changed);
    }
    let objects = pods::objects(&meant);
    let differs = objects.iter().find(|object| {
        object.pod.as_ref().is_some_and(|pod| {
            !change::find(&read, pod.path.iter())
                .is_some_and(|read| change::same(read, &pod.object))
        })
    });
    let object = differs.map_or_else(|| "a document".to_owned(), |object| object.name.clone());
    Err(Problem::NotMeant { object })
}
