//! `outrigger inject` and `outrigger uninject`: the sidecar into Kubernetes manifests, and out of them.
//!
//! What a pod gets is what the charts' policy gives it, and the container is theirs: `sidecar` reads it from `deploy/kubernetes`. A text is never
//! printed anew: `plan` says what changes, `splice` does it to the text, `change` to the parsed object, and only a text that reads as that object is
//! written. An error writes nothing at all.

mod change;
mod edit;
mod emit;
mod flow;
mod lines;
mod plan;
mod pods;
mod rewrite;
mod sidecar;
mod splice;
mod tree;

#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use self::{
    rewrite::{BYTE_ORDER_MARK, Problem, Rewritten, inject, uninject},
    sidecar::{Settings, Sidecar},
};
use super::{complain, fail, pair};
use crate::config::{self, Sources};
use clap::Args;

/// A command line that is wrong, as clap has it.
const EXIT_USAGE: u8 = 2;

/// See the module.
#[derive(Debug, Args)]
pub(super) struct Inject {
    #[command(flatten)]
    files: Files,
    /// The sidecar's image.
    #[arg(long)]
    image: Option<String>,
    /// The brokers; short for --set kafka.bootstrap_servers=…
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap_servers: Option<String>,
    /// The ConfigMap, in the pod's namespace, whose key outrigger.yaml is the configuration file. Default: outrigger; it need not exist.
    #[arg(long, value_name = "NAME")]
    config_map: Option<String>,
    /// A configuration key of the sidecar, or cpu-request, cpu-limit, memory-request, memory-limit, or secret (the name of a Secret, whose
    /// entries become files beside the configuration file); may be repeated. A pod's own annotations config.outrigger.io/KEY come before it.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// A further environment variable of the sidecar, such as OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
}

/// See the module.
#[derive(Debug, Args)]
pub(super) struct Uninject {
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, Args)]
struct Files {
    /// Manifests, YAML or JSON; `-` is standard input, which is read too where there are none.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Inject {
    pub(super) fn run(self) -> ExitCode {
        let mut settings: Settings = self.set.into_iter().collect();
        let named = [
            ("image", self.image),
            ("kafka.bootstrap_servers", self.bootstrap_servers),
            ("config-map", self.config_map),
        ];
        for (key, value) in named {
            settings.extend(value.map(|value| (key.to_owned(), value)));
        }
        let sidecar = Sidecar::library();
        let mistakes = mistakes(&sidecar, &settings, &self.env);
        if !mistakes.is_empty() {
            mistakes.iter().for_each(|mistake| complain(mistake));
            return ExitCode::from(EXIT_USAGE);
        }
        let sidecar = sidecar.configured(&settings, &self.env);
        self.files.rewrite(|text| inject(text, &sidecar))
    }
}

impl Uninject {
    pub(super) fn run(self) -> ExitCode {
        let sidecar = Sidecar::library();
        self.files.rewrite(|text| uninject(text, &sidecar))
    }
}

/// What is wrong with settings and variables of the command line.
fn mistakes(sidecar: &Sidecar, settings: &Settings, env: &[(String, String)]) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut flags = Vec::new();
    for (key, value) in settings {
        if !key.contains('.') && !sidecar.has(key) {
            mistakes.push(format!(
                "--set {key}: there is no such setting; the configuration keys are in the README"
            ));
        } else if key.contains('.') && !sidecar.has(key) {
            mistakes.push(format!(
                "--set {key}: this is no setting of an injected sidecar: the application, the probes and the drain look for it there"
            ));
        } else if key.contains('.') {
            flags.push((key.clone(), value.clone()));
        }
    }
    let sources = Sources {
        // It cannot be read, so that no value counts as missing which may be in the ConfigMap.
        file: Some("/dev/null/outrigger.yaml".into()),
        environment: Vec::new(),
        flags,
    };
    let problems = config::load(&sources).err();
    let ours = problems
        .iter()
        .flatten()
        .filter(|problem| problem.source == "flag --set");
    mistakes.extend(ours.map(|problem| format!("--set {}: {}", problem.key, problem.message)));
    for key in ["image", "config-map", "secret"] {
        if settings.get(key).is_some_and(String::is_empty) {
            mistakes.push(format!("--set {key}: this is a name, and not empty"));
        }
    }
    let ours = env
        .iter()
        .filter(|(name, _)| name.starts_with("OUTRIGGER_"));
    mistakes.extend(
        ours.map(|(name, _)| format!("--env {name}: use --set for settings of the sidecar")),
    );
    mistakes
}

impl Files {
    /// Writes what `change` makes of every file, or nothing.
    fn rewrite(&self, change: impl Fn(&str) -> Result<Rewritten, Problem>) -> ExitCode {
        let stdin = PathBuf::from("-");
        let files = match self.files.is_empty() {
            true if io::stdin().is_terminal() => {
                complain(&"which manifests? Name files, or - for standard input");
                return ExitCode::from(EXIT_USAGE);
            }
            true => std::slice::from_ref(&stdin),
            false => &self.files,
        };
        let mut out = String::new();
        let mut notes = Vec::new();
        for file in files {
            let name = match *file == stdin {
                true => "standard input".to_owned(),
                false => file.display().to_string(),
            };
            let text = match *file == stdin {
                true => io::read_to_string(io::stdin()),
                false => fs::File::open(file).and_then(|mut file| {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map(|_| text)
                }),
            };
            let rewritten = text
                .map_err(|error| error.to_string())
                .and_then(|text| change(&text).map_err(|problem| problem.to_string()));
            match rewritten {
                Ok(rewritten) => {
                    append(&mut out, &rewritten.text);
                    notes.extend(rewritten.notes);
                }
                Err(error) => return fail(&format!("{name}: {error}; nothing was written")),
            }
        }
        let written = io::stdout().write_all(out.as_bytes());
        notes.iter().for_each(|note| complain(note));
        match written {
            // A reader that is gone, as in a pipe to `head`, is no error.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                fail(&format!("standard output cannot be written: {error}"))
            }
            _ => ExitCode::SUCCESS,
        }
    }
}

/// Adds the text of another file, whose documents are not those of the one before.
fn append(out: &mut String, text: &str) {
    if out.is_empty() {
        out.push_str(text);
        return;
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.starts_with('%') {
        out.push_str("...\n");
    } else if !text.starts_with("---") {
        out.push_str("---\n");
    }
    out.push_str(text);
}
