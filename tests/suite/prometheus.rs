//! Prometheus as Debian ships it, unpacked by `tests/setup`: a server of a test's own that reads running sidecars.
//!
//! It runs with the configuration and the rules of `deploy/prometheus`, in which two things are changed: intervals and the time for which an alert must hold
//! are seconds, so that a test need not wait for minutes, and the targets are the test's sidecars.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::sidecar::{PATIENCE, Sidecar};

/// The path of a file of `deploy`.
pub fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

/// `prometheus` or `promtool`.
pub fn tool(name: &str) -> PathBuf {
    let cache = std::env::var_os("OUTRIGGER_TEST_CACHE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".cache"),
        PathBuf::from,
    );
    cache.join("tools/bin").join(name)
}

pub struct Prometheus {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one that reads these sidecars.
    pub fn start(sidecars: &[&Sidecar]) -> Self {
        let targets: Vec<_> = sidecars
            .iter()
            .map(|sidecar| sidecar.admin.to_string())
            .collect();
        let config = replaced(&read("prometheus/prometheus.yml"), "interval: ", "500ms");
        let config = config.replace("outrigger:7421", &targets.join(", "));
        let rules = replaced(&read("prometheus/alerts.yaml"), "  for: ", "1s");
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        fs::write(directory.path().join("alerts.yaml"), rules).unwrap();
        let mut child = Command::new(tool("prometheus"))
            .args([
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--web.listen-address=127.0.0.1:0",
                "--log.format=json",
            ])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/setup has unpacked it");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let address = listening(log);
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// The data of an answer of its API.
    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // HTTP/1.0: the answer comes in one piece, and its end is the end of the connection.
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let answer: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {body}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The samples that an expression has now.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        let data = self.get(&format!("query?query={encoded}"));
        data["result"].as_array().expect("a vector").clone()
    }

    /// The alert of that name that fires for the sidecar with this admin port, if it does.
    pub fn firing(&self, name: &str, admin: SocketAddr) -> Option<Value> {
        let instance = admin.to_string();
        let fires = |alert: &&Value| {
            let labels = &alert["labels"];
            alert["state"] == "firing"
                && labels["alertname"] == name
                && labels["instance"] == *instance
        };
        let alerts = self.get("alerts");
        let alerts = alerts["alerts"].as_array().expect("a list");
        alerts.iter().find(fires).cloned()
    }

    /// Every rule it evaluates.
    pub fn rules(&self) -> Vec<Value> {
        let groups = self.get("rules");
        let groups = groups["groups"].as_array().expect("a list");
        let rules = |group: &Value| group["rules"].as_array().expect("a list").clone();
        groups.iter().flat_map(rules).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `found` finds what it looks for; until then it says what it lacks.
#[track_caller]
pub fn wait_until<T>(mut found: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match found() {
            Ok(found) => return found,
            Err(lack) => assert!(begun.elapsed() < PATIENCE, "not in time: {lack}"),
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap()
}

/// The text with another value behind each `key` that begins with digits.
fn replaced(text: &str, key: &str, value: &str) -> String {
    let mut parts = text.split(key);
    let mut all = parts.next().unwrap_or_default().to_owned();
    let mut count = 0;
    for part in parts {
        let rest = part.find('\n').unwrap_or(part.len());
        let is_duration = part.starts_with(|first: char| first.is_ascii_digit());
        count += usize::from(is_duration);
        all.push_str(key);
        all.push_str(if is_duration { value } else { &part[..rest] });
        all.push_str(&part[rest..]);
    }
    assert!(count > 1, "{key:?} stands nowhere");
    all
}

/// Waits until it serves, and says where; its further log is read and dropped.
fn listening(mut log: impl BufRead + Send + 'static) -> String {
    let (mut address, mut said) = (None, String::new());
    loop {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "Prometheus ended:\n{said}");
        said.push_str(&line);
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if line["msg"] == "Listening on" {
            address = line["address"].as_str().map(str::to_owned);
        }
        if line["msg"] == "Server is ready to receive web requests." {
            break;
        }
    }
    thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    address.expect("it listens before it is ready")
}
