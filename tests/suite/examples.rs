//! The examples of `deploy/examples`, each in its language and with that language's own gRPC, run by the commands of their READMEs beside a real
//! sidecar and real Kafka, over TCP and over the Unix socket.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use yaml_rust2::{Yaml, YamlLoader};

use crate::{
    client::{committed, read_topic},
    kafka::{Kafka, fresh},
    sidecar::{PATIENCE, Sidecar},
};

/// Each with its one file of code.
const EXAMPLES: [(&str, &str); 4] = [
    ("go", "main.go"),
    ("java", "src/main/java/App.java"),
    ("node", "app.js"),
    ("python", "app.py"),
];

const PARTITIONS: i32 = 3;

fn directory(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/examples")
        .join(language)
}

/// The directory in which `tests/examples` has built an example: stubs and libraries of its language are there.
pub fn built(language: &str) -> PathBuf {
    let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples"))
        .arg(language)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(built.status.success(), "the {language} example is built");
    String::from_utf8(built.stdout).unwrap().trim().into()
}

/// The commands of an example's README.
fn commands(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(directory(language).join("README.md")).unwrap();
    let block = readme.split("```sh\n").nth(1).expect("a block of commands");
    let block = block.split("```").next().unwrap();
    block.lines().map(str::to_owned).collect()
}

/// A running example.
struct App {
    child: Child,
    output: Receiver<String>,
}

impl App {
    /// Runs an example by the last command of its README, where `tests/examples` has built it by the one before.
    fn start(language: &str, address: &str, topic: &str, group: &str) -> Self {
        let command = commands(language).pop().unwrap();
        let command = command
            .strip_prefix("OUTRIGGER_ADDRESS=127.0.0.1:7420 ")
            .and_then(|command| command.strip_suffix(" greetings workers"))
            .unwrap_or_else(|| panic!("{command}"));
        let mut child = Command::new("bash")
            .args(["-c", &format!("exec {command} {topic} {group}")])
            .current_dir(built(language))
            .env("OUTRIGGER_ADDRESS", address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, output) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, output }
    }

    /// The next line that it prints, without `prefix`.
    fn line(&self, prefix: &str) -> String {
        let line = self.output.recv_timeout(PATIENCE).expect("a line in time");
        line.strip_prefix(prefix)
            .unwrap_or_else(|| panic!("not {prefix:?}: {line}"))
            .to_owned()
    }

    /// Where it says that its records are: partitions and offsets.
    fn published(&self) -> BTreeSet<(i32, i64)> {
        let line = self.line("published: partitions ");
        let (places, failures) = line.split_once(" failures ").unwrap();
        assert_eq!(failures, "[]", "nothing failed");
        let (partitions, offsets) = places.split_once(" offsets ").unwrap();
        let numbers = |list: &str| -> Vec<i64> {
            let words = list.split(|letter: char| !letter.is_ascii_digit());
            words.filter_map(|word| word.parse().ok()).collect()
        };
        let partitions = numbers(partitions).into_iter().map(|it| it as i32);
        partitions.zip(numbers(offsets)).collect()
    }

    /// The next `count` records that it prints, as kcat prints them.
    fn received(&self, topic: &str, count: usize) -> BTreeSet<String> {
        (0..count)
            .map(|_| self.line(&format!("received: {topic}")))
            .collect()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, of its own or after a signal: in order, and with all that it started.
    fn ends(mut self) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the example does not end");
            thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(0), "{status}");
        // The kernel may still be at their end.
        while let left @ [_, ..] = &group(self.child.id())[..] {
            assert!(Instant::now() < deadline, "left running: {left:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes of a process group.
fn group(id: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let process: u32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        // pid (name) state parent group …: the name may hold anything, a parenthesis too.
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let group: u32 = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(2)?
            .parse()
            .ok()?;
        (group == id).then_some(process)
    });
    processes.collect()
}

/// What is in a topic, by kcat: `[partition]@offset value`.
fn kcat(bootstrap: &str, topic: &str) -> BTreeSet<String> {
    let format = "[%p]@%o %s\n";
    let output = Command::new("kcat")
        .args(["-C", "-e", "-q", "-b", bootstrap, "-t", topic, "-f", format])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Waits until the group has committed all that is in the topic.
fn wait_until_committed(bootstrap: &str, group: &str, topic: &str) {
    // A partition without a record has no offset to commit.
    let log = read_topic(bootstrap, topic);
    let ends: Vec<i64> = log.values().map(|records| records.len() as i64).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let committed = committed(bootstrap, group, topic, PARTITIONS);
        let committed: Vec<i64> = committed.into_iter().map(|offset| offset.max(0)).collect();
        if committed == ends {
            return;
        }
        assert!(Instant::now() < deadline, "{committed:?}, not {ends:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

async fn works(language: &str) {
    let kafka = Kafka::shared();
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("o.sock");
    let socket = socket.to_str().unwrap();
    let sidecar = Sidecar::start(kafka.bootstrap(), &[("listen.unix", socket)]);
    for address in [sidecar.grpc.to_string(), format!("unix://{socket}")] {
        let topic = kafka.topic(language, PARTITIONS).await;
        let group = fresh(language);
        let app = App::start(language, &address, &topic, &group);
        let published = app.published();
        let there = kcat(kafka.bootstrap(), &topic);
        assert!(published.len() > 1, "a few records");
        let places: BTreeSet<_> = there.iter().map(|line| place_of(line)).collect();
        assert_eq!(published, places, "{address}");
        assert_eq!(app.received(&topic, there.len()), there, "{address}");
        app.signal("TERM");
        app.ends();
        sidecar
            .wait_for_metric("outrigger_subscribe_streams", 0.0)
            .await;
        sidecar
            .wait_for_metric("outrigger_grpc_connections", 0.0)
            .await;
        wait_until_committed(kafka.bootstrap(), &group, &topic);
    }

    // The sidecar drains while the example runs, as it does when its pod ends.
    let topic = kafka.topic(language, PARTITIONS).await;
    let group = fresh(language);
    let app = App::start(language, &sidecar.grpc.to_string(), &topic, &group);
    let published = app.published();
    app.received(&topic, published.len());
    let drain = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .arg("drain")
        .env("OUTRIGGER_ADDRESS", sidecar.grpc.to_string())
        .output()
        .unwrap();
    assert!(drain.status.success(), "{drain:?}");
    app.ends();
    wait_until_committed(kafka.bootstrap(), &group, &topic);
    assert!(sidecar.stop().success());
}

fn place_of(line: &str) -> (i32, i64) {
    let (place, _) = line.split_once(' ').unwrap();
    let (partition, offset) = place.split_once("]@").unwrap();
    let partition = partition.strip_prefix('[').unwrap();
    (partition.parse().unwrap(), offset.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_example_publishes_acknowledges_and_ends_in_order() {
    works("go").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_example_publishes_acknowledges_and_ends_in_order() {
    works("java").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_example_publishes_acknowledges_and_ends_in_order() {
    works("node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_example_publishes_acknowledges_and_ends_in_order() {
    works("python").await;
}

/// Lines of code: neither blank, nor a comment, nor what names the file's package and imports.
fn lines_of_code(code: &str) -> usize {
    let mut inside = false;
    let counts = |line: &&str| {
        let line = line.trim();
        if inside || line == "import (" {
            inside = line != ")";
            return false;
        }
        let comment = ["//", "/*", "*", "#", "\"\"\""];
        let import = ["import ", "from ", "package "];
        !line.is_empty()
            && !comment
                .iter()
                .chain(&import)
                .any(|word| line.starts_with(word))
    };
    code.lines().filter(counts).count()
}

#[test]
fn no_example_has_more_than_40_lines_of_code_or_a_longer_readme_than_15() {
    for (language, file) in EXAMPLES {
        let lines = lines_of_code(&fs::read_to_string(directory(language).join(file)).unwrap());
        assert!((10..=40).contains(&lines), "{language}: {lines} lines");
        let readme = fs::read_to_string(directory(language).join("README.md")).unwrap();
        assert!(readme.lines().count() <= 15, "{language}");
        assert_eq!(commands(language).len(), 3, "{language}");
    }
}

#[test]
fn the_manifests_ask_for_the_sidecar_and_know_nothing_of_kafka() {
    for (language, _) in EXAMPLES {
        let text = fs::read_to_string(directory(language).join("kubernetes.yaml")).unwrap();
        let documents = YamlLoader::load_from_str(&text).unwrap();
        assert_eq!(documents.len(), 1, "{language}");
        let deployment = &documents[0];
        assert_eq!(deployment["kind"].as_str(), Some("Deployment"));
        let pod = &deployment["spec"]["template"];
        let labels = &pod["metadata"]["labels"];
        assert_eq!(labels["outrigger.io/inject"].as_str(), Some("true"));
        let selected = deployment["spec"]["selector"]["matchLabels"]
            .as_hash()
            .unwrap();
        for (label, value) in selected {
            assert_eq!(&labels[label.as_str().unwrap()], value, "{language}");
        }
        let context = &pod["spec"]["securityContext"];
        assert_eq!(context["runAsNonRoot"].as_bool(), Some(true), "{language}");
        assert_eq!(
            context["seccompProfile"]["type"].as_str(),
            Some("RuntimeDefault")
        );
        let containers = pod["spec"]["containers"].as_vec().unwrap();
        assert_eq!(containers.len(), 1, "{language}");
        assert!(containers[0]["image"].as_str().unwrap().contains(":0."));
        let context = &containers[0]["securityContext"];
        for (key, expected) in [
            ("allowPrivilegeEscalation", false),
            ("readOnlyRootFilesystem", true),
        ] {
            assert_eq!(context[key].as_bool(), Some(expected), "{language}: {key}");
        }
        assert_eq!(context["capabilities"]["drop"][0], Yaml::from_str("ALL"));
        let mut strings = Vec::new();
        collect(deployment, &mut strings);
        let kafka = ["kafka", "9092", "sasl", "bootstrap"];
        for text in strings {
            let small = text.to_lowercase();
            assert!(!kafka.iter().any(|word| small.contains(word)), "{text}");
        }
    }
}

/// Every string of a document, keys too.
fn collect(yaml: &Yaml, strings: &mut Vec<String>) {
    match yaml {
        Yaml::String(text) => strings.push(text.clone()),
        Yaml::Array(items) => items.iter().for_each(|item| collect(item, strings)),
        Yaml::Hash(entries) => {
            for (key, value) in entries {
                collect(key, strings);
                collect(value, strings);
            }
        }
        _ => {}
    }
}
