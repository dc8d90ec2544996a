//! The rules of the house that no compiler holds: who may name what. A breach names the file and the line.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every source file with its text up to its tests.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 30, "the sources were found");
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&root)
                .expect("below src")
                .display()
                .to_string();
            let text = fs::read_to_string(&path).expect("a source file is text");
            let code = text
                .split("\n#[cfg(test)]")
                .next()
                .unwrap_or_default()
                .to_owned();
            (name, code)
        })
        .filter(|(name, _)| !is_test(name))
        .collect()
}

fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

/// The lines of code outside of comments that hold one of `words`, in files that `may_not` name them.
fn breaches(words: &[&str], may_not: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, code) in sources() {
        for (number, line) in code.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if may_not(&name) && words.iter().any(|word| code.contains(word)) {
                found.push(format!("src/{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[track_caller]
fn none(found: &[String]) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn rdkafka_is_named_only_in_the_kafka_room() {
    none(&breaches(&["rdkafka::", "rdkafka_sys"], |file| {
        !file.starts_with("kafka")
    }));
}

#[test]
fn tonic_and_the_generated_types_are_named_only_at_the_grpc_edge_and_by_its_clients() {
    none(&breaches(&["tonic", "prost", "proto::"], |file| {
        // A client too: the exporter of spans speaks gRPC to its collector.
        !file.starts_with("grpc") && !file.starts_with("cli") && file != "traces/export.rs"
    }));
}

#[test]
fn unsafe_code_stands_only_in_the_ffi_room() {
    none(&breaches(&["unsafe"], |file| {
        !file.starts_with("kafka/ffi")
    }));
}

/// librdkafka may abort the process with it when the coordinator goes away; `outrigger check` is a process of its own.
#[test]
fn a_groups_coordinator_is_asked_by_the_admin_api_only_for_the_command_check() {
    none(&breaches(&["describe::group("], |file| {
        !file.starts_with("kafka/inspect")
    }));
    none(&breaches(&["inspect::survey", "survey("], |file| {
        !file.starts_with("kafka/inspect") && !file.starts_with("cli/check")
    }));
}

#[test]
fn the_pure_files_know_neither_tokio_nor_a_clock() {
    let pure = [
        "consume/ledger.rs",
        "consume/ledger/look.rs",
        "consume/ledger/order.rs",
        "consume/ledger/retry.rs",
        "consume/ledger/terms.rs",
        "consume/map.rs",
        "consume/session/durable.rs",
        "consume/token.rs",
        "publish/dedup.rs",
        "publish/print.rs",
        "publish/validate.rs",
        "kafka/error.rs",
        "kafka/patterns.rs",
    ];
    for file in pure {
        assert!(
            sources().iter().any(|(name, _)| name == file),
            "{file} is gone"
        );
    }
    none(&breaches(
        &[
            "tokio",
            "Instant",
            "SystemTime",
            "thread",
            "std::fs",
            "std::net",
        ],
        |file| pure.contains(&file),
    ));
}

#[test]
fn the_vocabulary_imports_no_other_room() {
    none(&breaches(&["crate::"], |file| {
        file == "record.rs" || file == "failure.rs"
    }));
}

#[test]
fn nobody_imports_the_composition_root_but_the_command_line() {
    none(&breaches(&["app::", "crate::app"], |file| {
        !file.starts_with("cli") && file != "app.rs"
    }));
}

#[test]
fn metrics_are_named_only_in_their_files() {
    none(&breaches(&["counter!", "gauge!", "histogram!"], |file| {
        !["metrics.rs", "metrics/publish.rs"].contains(&file)
    }));
}

#[test]
fn every_file_says_what_it_is_for() {
    let bare: Vec<String> = sources()
        .into_iter()
        .filter(|(_, code)| !code.starts_with("//!"))
        .map(|(name, _)| format!("src/{name} has no module documentation"))
        .collect();
    none(&bare);
}

#[test]
fn no_file_is_longer_than_400_lines_without_its_tests() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(_, code)| code.lines().count() > 400)
        .map(|(name, code)| format!("src/{name}: {} lines", code.lines().count()))
        .collect();
    none(&long);
}

#[test]
fn there_is_no_room_for_odds_and_ends() {
    let odd: Vec<String> = sources()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| {
            let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str());
            ["mod", "util", "utils", "common", "helpers", "misc"]
                .contains(&stem.unwrap_or_default())
        })
        .collect();
    none(&odd);
}

#[test]
fn h2_counts_unread_small_frames_against_half_the_connection_window() {
    // Before 0.4.19 the guard's budget was smaller, and it closed connections of slow readers.
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"))
        .expect("Cargo.lock");
    let version = lock
        .split("name = \"h2\"\nversion = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("h2 is in Cargo.lock");
    let parts: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().expect("a version"))
        .collect();
    assert!(parts >= vec![0, 4, 19], "h2 {version}");
}
