//! Every command that the README shows is run, as it is printed. A command that is not known here fails the test.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::{kafka::Kafka, sidecar::Sidecar};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The commands of the README's shell blocks, in order, and those of its table of make targets.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut commands = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if let Some(rest) = line.strip_prefix("| `make ") {
            commands.push(format!("make {}", rest.split('`').next().unwrap()));
        } else if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside {
            commands.push(line.to_owned());
        }
    }
    commands
}

/// A shell in which `outrigger` is the binary under test and localhost:9092 the test's broker, on ports of the test's own.
fn shell(command: &str, address: &str) -> Command {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_outrigger"));
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut shell = Command::new("bash");
    shell
        .arg("-euo")
        .arg("pipefail")
        .arg("-c")
        .arg(command.replace("localhost:9092", Kafka::shared().bootstrap()))
        .env("PATH", path)
        .env("OUTRIGGER_ADDRESS", address)
        .env("OUTRIGGER_LISTEN__TCP", "127.0.0.1:0")
        .env("OUTRIGGER_ADMIN__LISTEN", "127.0.0.1:0");
    shell
}

fn run(command: &str, address: &str) -> String {
    let output = shell(command, address).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The shell replaced itself with the sidecar.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Starts `outrigger dev` and learns its address from what it prints.
fn dev(command: &str) -> (Running, String) {
    let mut shell = shell(&format!("exec {command}"), "");
    let mut child = shell.stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    let child = Running(child);
    let mut printed = Vec::new();
    for line in lines.lines().map_while(Result::ok) {
        if let Some(address) = line.trim().strip_prefix("gRPC") {
            return (child, address.trim().to_owned());
        }
        printed.push(line);
    }
    panic!("{command} printed no address: {printed:?}");
}

#[test]
fn every_command_of_the_readme_works_as_printed() {
    let commands = commands();
    assert!(commands.len() >= 9, "{commands:?}");
    let mut sidecar: Option<(Running, String)> = None;
    for command in &commands {
        let address = sidecar
            .as_ref()
            .map(|(_, address)| address.clone())
            .unwrap_or_default();
        match command.as_str() {
            // This very run.
            "make test" => {}
            "make demo" => {
                let output = Command::new(root().join("tests/demo"))
                    .arg(env!("CARGO_BIN_EXE_outrigger"))
                    .env("DEMO_ONCE", "1")
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(
                    output.status.success(),
                    "{text}{}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            "outrigger dev" => sidecar = Some(dev(command)),
            "echo hello | outrigger publish greetings" => {
                assert!(run(command, &address).starts_with("greetings["))
            }
            "outrigger subscribe greetings -n 1" | "outrigger subscribe '^greet.*' -n 1" => {
                assert_eq!(run(command, &address), "hello\n");
            }
            "outrigger serve --set kafka.bootstrap_servers=localhost:9092" => {
                let mut shell = shell(&format!("exec {command}"), "");
                shell.stdin(Stdio::null());
                assert!(Sidecar::spawn(shell).stop().success());
            }
            "outrigger check --set kafka.bootstrap_servers=localhost:9092" => {
                assert!(run(command, "").contains("API versions"));
            }
            "outrigger config check --set kafka.bootstrap_servers=localhost:9092" => {
                assert!(run(command, "").contains("valid"));
            }
            "outrigger config show --set kafka.bootstrap_servers=localhost:9092" => {
                assert!(run(command, "").contains("bootstrap_servers"));
            }
            "outrigger subscriptions" => assert!(!run(command, &address).is_empty()),
            "outrigger drain" => assert!(run(command, &address).contains("drained")),
            _ if command.starts_with("outrigger bench ") => {
                // The figures are of a release build; here only that it works, on a small load.
                let small = match command.split(' ').nth(2) {
                    Some("idle") => "--runs 1",
                    Some("sheet") => "--pairs 1 --records 300 --seconds 1",
                    // At a rate, the time says how many records there are.
                    _ if command.contains("--rate") => "--runs 1 --seconds 1",
                    _ => "--records 2000 --runs 1",
                };
                let small = format!("{command} {small}");
                assert!(run(&small, "").contains("outrigger "), "{command}");
            }
            _ => panic!("the README shows a command that no test runs: {command}"),
        }
    }
}

#[test]
fn in_dev_a_group_that_comes_back_goes_on_at_once() {
    // The group's last member leaves between the two, as it does for everybody who tries the command again a little later.
    let (_sidecar, address) = dev("outrigger dev --set consume.idle_leave=200ms");
    run(
        "printf 'one\\ntwo\\n' | outrigger publish greetings --key k",
        &address,
    );
    let command = "outrigger subscribe greetings -n 1 --group g";
    assert_eq!(run(command, &address), "one\n");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let begun = std::time::Instant::now();
    assert_eq!(run(command, &address), "two\n");
    // Without a goodbye to the group, after the session timeout of 45 s.
    assert!(begun.elapsed().as_secs() < 25, "{:?}", begun.elapsed());
}

#[test]
fn dev_runs_beside_a_real_kafka_too() {
    let (_sidecar, address) = dev("outrigger dev --bootstrap localhost:9092");
    let topic = crate::kafka::fresh("dev");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let topic = runtime.block_on(Kafka::shared().topic(&topic, 1));
    assert_eq!(
        run(&format!("outrigger publish {topic} a b"), &address),
        format!("{topic}[0]@0\n{topic}[0]@1\n")
    );
    assert_eq!(
        run(
            &format!("outrigger subscribe {topic} -n 2 -f '%o=%s '"),
            &address
        ),
        "0=a 1=b "
    );
}
