//! The configuration: whether it is right, and whether the secrets that it names can be read.
//!
//! A wrong one is told in full, with the exit code of `config check`; nothing else is looked at then.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    machine::Machine,
    report::{Category, Report},
};
use crate::{
    config::{self, Config, Loaded, Problem, Sasl, SecretValue, TokenSource},
    grpc,
};

const CATEGORY: Category = Category::Configuration;

/// The problems of a configuration that could not be loaded.
pub(super) fn problems<'a>(report: &mut Report, problems: impl Iterator<Item = &'a Problem>) {
    for Problem {
        key,
        source,
        message,
    } in problems
    {
        report.failed(CATEGORY, key, format!("{message} ({source})"), hint(key));
    }
}

/// The problems that its users found, as `key: problem`.
pub(super) fn further(report: &mut Report, problems: &[String]) {
    for problem in problems {
        let (key, message) = problem
            .split_once(": ")
            .unwrap_or(("configuration", problem));
        report.failed(CATEGORY, key, message, hint(key));
    }
}

fn hint(key: &str) -> String {
    if key == "configuration file" {
        return "Correct the file, or name another with --config or $OUTRIGGER_CONFIG.".to_owned();
    }
    if key.starts_with("kafka.properties.") {
        return "Correct or remove it; librdkafka's properties are listed in its CONFIGURATION.md."
            .to_owned();
    }
    let is_known = config::keys().iter().any(|known| known.name == key);
    if !is_known {
        return "Correct its spelling or remove it; `outrigger config show` prints every key."
            .to_owned();
    }
    let variable = key.to_uppercase().replace('.', "__");
    format!("Set {key} in the file, OUTRIGGER_{variable} in the environment, or --set {key}=….")
}

/// What is right about a loaded one, and the files of secrets.
pub(super) fn rows(report: &mut Report, loaded: &Loaded, machine: &Machine) {
    let from = match &loaded.file {
        Some(file) => format!("{}, the environment and flags", file.display()),
        None => "the environment and flags; there is no file".to_owned(),
    };
    report.ok(CATEGORY, "settings", format!("valid; from {from}"));
    for (key, file) in secrets(&loaded.config) {
        secret(report, key, &file, machine);
    }
    if let Some(file) = &loaded.config.listen.tokens_file {
        let key = "listen.tokens_file";
        match grpc::tokens_in(file) {
            Ok(count) => report.ok(CATEGORY, key, format!("{}: {count} tokens", file.display())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => report.failed(
                CATEGORY,
                key,
                format!("{}: {error}", file.display()),
                "Write a line for each caller: its name, a blank, its token; the sidecar does not start with this file.",
            ),
            Err(error) => unreadable(report, CATEGORY, key, file, &error, machine),
        }
    }
}

/// The files that hold secrets for brokers, by the key that names each.
fn secrets(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut files = Vec::new();
    let mut add = |key, value: &SecretValue| {
        if let SecretValue::File(file) = value {
            files.push((key, file.clone()));
        }
    };
    match &config.kafka.sasl {
        Some(Sasl::Password {
            username, password, ..
        }) => {
            add("kafka.sasl.username_file", username);
            add("kafka.sasl.password_file", password);
        }
        Some(Sasl::Token {
            source: TokenSource::Endpoint { client_secret, .. },
            ..
        }) => add("kafka.sasl.oauth.client_secret_file", client_secret),
        Some(Sasl::Token {
            source: TokenSource::File(file),
            ..
        }) => files.push(("kafka.sasl.oauth.token_file", file.clone())),
        _ => {}
    }
    let identity = config
        .kafka
        .tls
        .as_ref()
        .and_then(|tls| tls.identity.as_ref());
    if let Some(file) = identity.and_then(|identity| identity.key_password_file.clone()) {
        files.push(("kafka.tls.key_password_file", file));
    }
    files
}

fn secret(report: &mut Report, key: &'static str, file: &Path, machine: &Machine) {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return unreadable(report, CATEGORY, key, file, &error, machine),
    };
    let file = file.display();
    // Of line breaks at the end the sidecar takes off one, and a token it trims.
    let used = text.strip_suffix('\n').unwrap_or(&text);
    let used = used.strip_suffix('\r').unwrap_or(used);
    if used.trim().is_empty() {
        report.failed(
            CATEGORY,
            key,
            format!("{file} is empty"),
            "Write the secret into the file; in Kubernetes, look at the Secret's key.",
        );
    } else if used.trim() != used && !key.ends_with("token_file") {
        report.warning(
            CATEGORY,
            key,
            format!("{file} begins or ends with a blank or a line break, which counts as part of the secret"),
            "If it is not part of it, write the file anew without it: printf %s instead of echo.",
        );
    } else {
        report.ok(CATEGORY, key, format!("{file} can be read"));
    }
}

/// A file that cannot be read, for one of the reasons that there are.
pub(super) fn unreadable(
    report: &mut Report,
    category: Category,
    key: &str,
    file: &Path,
    error: &io::Error,
    machine: &Machine,
) {
    let path = file.display();
    let (why, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            "does not exist".to_owned(),
            format!(
                "Put the file there, or correct {key}; in Kubernetes, look at the volume and its mount."
            ),
        ),
        io::ErrorKind::PermissionDenied => {
            let user = machine.user().unwrap_or_default();
            (
                format!("may not be read by this process (user id {user})"),
                format!(
                    "Make it readable for user id {user}; in Kubernetes, by securityContext.fsGroup or the volume's defaultMode."
                ),
            )
        }
        _ => (
            format!("cannot be read: {error}"),
            format!("Correct {key}, or what is there."),
        ),
    };
    report.failed(category, key, format!("{path} {why}"), hint);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_says_where_a_key_is_set_and_what_to_do_with_one_that_does_not_exist() {
        let known = hint("kafka.bootstrap_servers");
        assert!(
            known.contains("OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS"),
            "{known}"
        );
        assert!(hint("kafka.bootstrapservers").contains("spelling"));
        assert!(hint("kafka.properties.x").contains("librdkafka"));
        assert!(hint("configuration file").contains("--config"));
    }

    #[test]
    fn a_secret_that_is_empty_or_has_a_stray_line_break_is_noticed_without_being_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut report = Report::default();
        for (name, text) in [
            ("empty", "\n"),
            ("stray", "canary\n\n"),
            ("good", "canary\n"),
        ] {
            let file = directory.path().join(name);
            fs::write(&file, text).unwrap();
            secret(
                &mut report,
                "kafka.sasl.password_file",
                &file,
                &Machine::of_process(),
            );
        }
        let missing = directory.path().join("missing");
        secret(
            &mut report,
            "kafka.sasl.password_file",
            &missing,
            &Machine::of_process(),
        );
        let rows = report.rows();
        let statuses: Vec<String> = rows.iter().map(|row| format!("{:?}", row.status)).collect();
        assert_eq!(statuses, ["Failed", "Warning", "Ok", "Failed"]);
        assert!(!format!("{rows:?}").contains("canary"));
    }
}
