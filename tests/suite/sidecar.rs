//! A sidecar process under test: the real binary, on free ports, ended whatever happens to the test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use outrigger::grpc::proto::{
    admin_service_client::AdminServiceClient, publisher_service_client::PublisherServiceClient,
    subscriber_service_client::SubscriberServiceClient,
};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

/// What a step of a test may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Sidecar {
    child: Child,
    log: Arc<Log>,
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Value>>,
    more: Condvar,
    closed: AtomicBool,
}

impl Sidecar {
    /// Starts one beside the brokers at `bootstrap`.
    pub fn start(bootstrap: &str, settings: &[(&str, &str)]) -> Self {
        Self::spawn(Self::command(bootstrap, settings))
    }

    /// The command that starts one, to be changed by a test.
    pub fn command(bootstrap: &str, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.arg("serve");
        let bootstrap = ("kafka.bootstrap_servers", bootstrap);
        let ports = [
            ("listen.tcp", "127.0.0.1:0"),
            ("admin.listen", "127.0.0.1:0"),
        ];
        for (key, value) in ports.iter().chain([&bootstrap]).chain(settings) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
    }

    /// Runs `command` and waits until it serves.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if writer.closed.load(Ordering::Relaxed) {
                    return;
                }
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                writer
                    .lines
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push(line);
                writer.more.notify_all();
            }
        });
        let serving = log.wait(|line| line["message"] == "serving");
        let address = |key: &str| {
            serving[key]
                .as_str()
                .expect("an address")
                .parse()
                .expect("an address")
        };
        Self {
            grpc: address("tcp"),
            admin: address("admin"),
            child,
            log,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc))
            .unwrap()
            .connect()
            .await
            .expect("the sidecar accepts a connection")
    }

    pub async fn publisher(&self) -> PublisherServiceClient<Channel> {
        PublisherServiceClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    pub async fn subscriber(&self) -> SubscriberServiceClient<Channel> {
        SubscriberServiceClient::new(self.channel().await)
    }

    pub async fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel().await)
    }

    /// Waits for a line of the log.
    pub fn wait_for_log(&self, matches: impl Fn(&Value) -> bool) -> Value {
        self.log.wait(matches)
    }

    pub fn log(&self) -> Vec<Value> {
        self.log
            .lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Stops reading the log: after the next line, whoever writes it finds the pipe closed.
    pub fn close_log(&self) {
        self.log.closed.store(true, Ordering::Relaxed);
    }

    /// GET on the admin port: the status line and the body.
    pub fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.admin).expect("the admin port accepts");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// The value of a series of `/metrics`, e.g. `outrigger_x_total{reason="Y"}`; 0 when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, body) = self.get("/metrics");
        body.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until something is so.
    pub async fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a series has this value.
    pub async fn wait_for_metric(&self, series: &str, expected: f64) {
        let begun = Instant::now();
        loop {
            let value = self.metric(series);
            if value == expected {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{series} is {value}, not {expected}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The processor's time that it has taken.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // After the name come the fields from the third on; user and system time are the 14th and 15th, in hundredths of a second.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks = |field: usize| fields[field - 3].parse::<u64>().unwrap();
        Duration::from_millis((ticks(14) + ticks(15)) * 10)
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it was.
    pub fn peak_rss(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([format!("-{signal}"), self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success(), "signal {signal}");
    }

    /// Waits for the end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the sidecar did not end within {within:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it in order; if that does not succeed, its log and the status say why.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        let status = self.wait(PATIENCE);
        if !status.success() {
            self.tell(&format!("it ended with {status}"));
        }
        status
    }

    /// Prints its log and how it ended.
    fn tell(&self, end: &str) {
        for line in self.log() {
            eprintln!("sidecar: {line}");
        }
        eprintln!("sidecar: {end}");
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.tell("it was killed with the test");
        }
    }
}

impl Log {
    fn wait(&self, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self
            .lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        loop {
            if let Some(line) = lines.iter().find(|line| matches(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no such line in the log: {lines:#?}");
            lines = self.more.wait_timeout(lines, left).unwrap().0;
        }
    }
}
