//! The sidecar that is measured, its own child or somebody's, and what processes cost by `/proc`.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{ChildStderr, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};

use crate::cli::Settings;

/// How long a sidecar may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of `/proc/*/stat`: Linux shows times to user space in this unit on every architecture.
const TICKS: f64 = 100.0;

/// A sidecar.
pub(super) struct Target {
    pub(super) address: String,
    /// As in `/proc`.
    pub(super) pid: String,
    /// The bench's own; it ends with it.
    child: Option<std::process::Child>,
}

impl Target {
    /// One that runs already.
    pub(super) fn running(address: String, pid: u32) -> Self {
        Self {
            address,
            pid: pid.to_string(),
            child: None,
        }
    }

    /// Starts this very binary with `settings`, waits until it serves, and says how long that took. `trouble` hears of its warnings.
    pub(super) fn start(
        settings: &Settings,
        trouble: fn(&str),
    ) -> anyhow::Result<(Self, Duration)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve");
        if let Some(file) = &settings.config {
            command.arg("--config").arg(file);
        }
        // Last, so that they win: a port of its own, and no other listener.
        let own = [
            ("listen.tcp", "127.0.0.1:0"),
            ("listen.unix", ""),
            ("admin.listen", ""),
            ("log.format", "json"),
            ("log.level", "info"),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        for (key, value) in settings.set.iter().chain(&own) {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = command
            .spawn()
            .context("the sidecar could not be started")?;
        let stderr = child.stderr.take();
        // From here on it is ended whatever happens.
        let mut target = Self {
            address: String::new(),
            pid: child.id().to_string(),
            child: Some(child),
        };
        target.address = serving(stderr.context("it has no standard error")?, trouble)?;
        Ok((target, begun.elapsed()))
    }

    /// Stops the bench's own as a supervisor would; somebody's is left alone.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let asked = Command::new("kill").arg(&self.pid).status();
        let deadline = Instant::now() + PATIENCE;
        while asked.is_ok() && Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the sidecar ended with {status}");
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        child.kill()?;
        child.wait()?;
        match asked {
            Ok(_) => bail!("the sidecar did not stop in time and was killed"),
            // There is no such command here; what is measured is measured.
            Err(_) => Ok(()),
        }
    }

    /// User and system time so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.pid)
    }

    /// Resident memory.
    pub(super) fn resident_kib(&self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// The most that was resident so far.
    pub(super) fn peak_kib(&self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    /// How many threads it has.
    pub(super) fn threads(&self) -> anyhow::Result<u64> {
        self.status("Threads:")
    }

    fn status(&self, field: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.split_whitespace().next());
        Ok(value.context("an odd /proc/*/status")?.parse()?)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Gone already, if this fails.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Processes that stand still as long as this lives.
pub(super) struct Halted(Vec<String>);

impl Halted {
    pub(super) fn stop(pids: &[u32]) -> anyhow::Result<Self> {
        let halted = Self(pids.iter().map(u32::to_string).collect());
        ensure!(
            halted.signal("-STOP")?,
            "not all of the processes {pids:?} are there to be stopped"
        );
        Ok(halted)
    }

    /// Says whether all of them got it.
    fn signal(&self, signal: &str) -> anyhow::Result<bool> {
        let sent = Command::new("kill").arg(signal).args(&self.0).status();
        Ok(sent.context("there is no kill")?.success())
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        // Who is gone cannot go on.
        let _ = self.signal("-CONT");
    }
}

/// Reads the log until the sidecar serves, and returns its address. A thread reads on, or the sidecar would block on a full pipe, and passes on
/// what is wrong; it ends with the sidecar.
fn serving(log: ChildStderr, trouble: fn(&str)) -> anyhow::Result<String> {
    let (tell, told) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("sidecar-log".into())
        .spawn(move || {
            let mut said = Vec::new();
            let mut started = false;
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if event["message"] == "serving" {
                    started = true;
                    let address = event["tcp"].as_str().unwrap_or_default().to_owned();
                    // Nobody waits any more: the wait was over.
                    let _ = tell.try_send(Ok(address));
                } else if !started {
                    said.push(line);
                } else if event["level"] == "WARN" || event["level"] == "ERROR" {
                    trouble(&line);
                }
            }
            if !started {
                let _ = tell.try_send(Err(said.join("\n")));
            }
        })
        .context("no thread could be started to read the sidecar's log")?;
    told.recv_timeout(PATIENCE)
        .map_err(|_| anyhow!("the sidecar did not start in time"))?
        .map_err(|said| anyhow!("the sidecar ended at its start: {said}"))
}

/// User and system time of a process so far, in seconds; `self` is this one.
pub(super) fn cpu_seconds(pid: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    cpu_of(&stat).with_context(|| format!("{path} is odd"))
}

fn cpu_of(stat: &str) -> Option<f64> {
    // After the command's name, which may hold anything but ends with the last parenthesis. proc_pid_stat(5): fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read_too() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 9 0 1 2 3";
        assert_eq!(cpu_of(stat), Some(3.0));
        assert_eq!(cpu_of("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_costs_something() {
        assert!(cpu_seconds("self").is_ok());
        assert!(cpu_seconds("no-such-process").is_err());
    }
}
