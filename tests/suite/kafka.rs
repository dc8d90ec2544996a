//! Real Apache Kafka for the tests: brokers of this machine's own, started by `tests/kafka/cluster.py`, which ends them when its standard
//! input closes, whatever happened to the test.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use serde_json::Value;

pub struct Kafka {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    bootstrap: String,
    listeners: Value,
    pids: Vec<u32>,
}

impl Kafka {
    /// The one broker that tests share which do it no harm.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(1, &[]))
    }

    /// Brokers of a test's own.
    pub fn start(brokers: i32, settings: &[&str]) -> Self {
        let settings: Vec<String> = settings
            .iter()
            .map(|setting| format!("--set={setting}"))
            .collect();
        Self::start_with(brokers, &settings)
    }

    /// The same, with options of `cluster.py start`.
    pub fn start_with(brokers: i32, options: &[String]) -> Self {
        let mut command = Command::new("python3");
        command
            .arg(script())
            .arg("start")
            .arg("--brokers")
            .arg(brokers.to_string())
            .args(options);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let stdin = child.stdin.take().expect("piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let started = line(&mut stdout);
        Self {
            child,
            pipes: Mutex::new((stdin, stdout)),
            bootstrap: started["bootstrap"]
                .as_str()
                .expect("an address")
                .to_owned(),
            listeners: started["listeners"].clone(),
            pids: serde_json::from_value(started["pids"].clone()).expect("process ids"),
        }
    }

    /// The process of a broker, by its number from 1, as it was started first.
    pub fn pid(&self, broker: usize) -> u32 {
        self.pids[broker - 1]
    }

    /// The address of a further listener.
    pub fn listener(&self, name: &str) -> &str {
        self.listeners[name].as_str().expect("a listener")
    }

    /// Runs one of Kafka's own tools.
    pub fn tool(&self, name: &str, arguments: &[&str]) {
        let output = Command::new("python3")
            .arg(script())
            .args(["tool", name, "--bootstrap-server", &self.bootstrap])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{name} {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Changes settings of a topic.
    pub fn configure_topic(&self, topic: &str, settings: &str) {
        let of = ["--alter", "--entity-type", "topics", "--entity-name", topic];
        let arguments = [&of[..], &["--add-config", settings]].concat();
        self.tool("configs", &arguments);
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// `kill 1`, `start 1`, `pause 1`, `resume 1`, `term 1`: what the script obeys, broker numbers from 1.
    pub fn tell(&self, command: &str) {
        let (stdin, stdout) = &mut *self.pipes.lock().unwrap();
        writeln!(stdin, "{command}").unwrap();
        let answer = line(stdout);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
    }

    /// Creates a topic under a fresh name that begins with `name`.
    pub async fn topic(&self, name: &str, partitions: i32) -> String {
        self.topic_with(name, partitions, &[]).await
    }

    pub async fn topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> String {
        let topic = fresh(name);
        self.create(&topic, partitions, settings).await;
        topic
    }

    /// Creates a topic under exactly this name.
    pub async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .create()
            .unwrap();
        let mut new = NewTopic::new(
            topic,
            partitions,
            TopicReplication::Fixed(self.pids.len() as i32),
        );
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let results = admin.create_topics([&new], &options).await.unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // The script stops its brokers on a SIGTERM too; the end of its input comes with this struct's.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// A name that no other test uses.
pub fn fresh(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

pub fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/cluster.py")
}

/// The directory of Kafka's jars; there since a broker runs.
pub fn jars() -> PathBuf {
    let cache = std::env::var_os("OUTRIGGER_TEST_CACHE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".cache"),
        PathBuf::from,
    );
    cache.join("kafka-4.3.1/libs")
}

fn line(from: &mut impl BufRead) -> Value {
    let mut text = String::new();
    from.read_line(&mut text).expect("cluster.py answers");
    assert!(
        !text.is_empty(),
        "cluster.py ended; it says why on standard error"
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("cluster.py says {text:?}: {error}"))
}
