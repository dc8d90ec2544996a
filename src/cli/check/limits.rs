//! The clock, and what the system allows beside what the configuration lets the sidecar use.

use std::time::{Duration, SystemTime};

use super::{
    machine::Machine,
    report::{Category, Report},
};
use crate::{config::Config, grpc::listen::STREAM_BYTES, publish::ID_BYTES};

const MIB: u64 = 1 << 20;

/// What the process has without any record; measured, rounded up.
const IDLE_BYTES: u64 = 16 * MIB;

/// Files beside connections: the log, listeners, event queues.
const OTHER_FILES: u64 = 64;

/// Connections of a client beside one to each broker: those to the bootstrap brokers, and to the group's coordinator.
const MORE_CONNECTIONS: u64 = 2;

/// The clock that certificates and tokens are judged by. `clock` is the kernel's word on it.
pub(super) fn clock(report: &mut Report, clock: Option<(bool, Duration)>) {
    const CATEGORY: Category = Category::Clock;
    const CHECK: &str = "this machine's clock";
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    match clock {
        Some((true, error)) => report.ok(
            CATEGORY,
            CHECK,
            format!(
                "{now}; the kernel calls it synchronised, off by at most {} ms",
                error.as_millis()
            ),
        ),
        Some((false, _)) => report.warning(
            CATEGORY,
            CHECK,
            format!("{now}; nothing tells the kernel that it is right (brokers do not tell their time, so the two are not compared)"),
            "Compare it with another machine's; if this machine keeps time by other means, such as its host's, this means nothing.",
        ),
        None => report.skipped(
            CATEGORY,
            CHECK,
            format!("the kernel does not say whether {now} is right"),
        ),
    }
}

/// Open files and memory. `brokers` and `partitions` are those that are known, or none.
pub(super) fn rows(
    report: &mut Report,
    config: &Config,
    machine: &Machine,
    brokers: usize,
    partitions: usize,
) {
    files(report, config, machine, brokers);
    memory(report, config, machine, partitions);
}

fn files(report: &mut Report, config: &Config, machine: &Machine, brokers: usize) {
    const CATEGORY: Category = Category::Limits;
    const CHECK: &str = "open files";
    let Some(allowed) = machine.open_files() else {
        return report.skipped(CATEGORY, CHECK, "the kernel does not tell");
    };
    let clients = number(config.consume.max_subscriptions) + 1;
    let connections = number(config.listen.max_connections)
        + clients * (number(brokers.max(1)) + MORE_CONNECTIONS);
    let needed = connections + OTHER_FILES;
    let words = format!(
        "{} allowed; up to {needed} are needed, for listen.max_connections={}, consume.max_subscriptions={} and connections to brokers",
        match allowed {
            u64::MAX => "any number".to_owned(),
            allowed => allowed.to_string(),
        },
        config.listen.max_connections,
        config.consume.max_subscriptions
    );
    match allowed >= needed {
        true => report.ok(CATEGORY, CHECK, words),
        false => report.warning(
            CATEGORY,
            CHECK,
            words,
            "Allow more (ulimit -n, LimitNOFILE, or the container runtime), or lower the two keys: at the bound new connections fail.",
        ),
    }
}

/// What a sidecar may need, in bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Memory {
    publishing: u64,
    ids: u64,
    subscribing: u64,
}

impl Memory {
    /// Of one that subscribes to so many partitions; at least to one.
    pub(in crate::cli) fn of(config: &Config, partitions: usize) -> Self {
        let (publish, consume) = (&config.publish, &config.consume);
        let fetched = number(consume.prefetch_bytes).saturating_mul(number(partitions.max(1)));
        Self {
            // Callers are read ahead of their admission by as much again, what waited for too long apart from them; what is not read waits in each
            // stream's window.
            publishing: number(publish.max_in_flight_bytes)
                .saturating_mul(2)
                .saturating_add(number(config.listen.max_message_bytes))
                .saturating_add(number(config.listen.max_streams).saturating_mul(STREAM_BYTES)),
            // Those in flight are kept beyond the bound.
            ids: match publish.dedup_window.is_zero() {
                true => 0,
                false => {
                    number(publish.dedup_max_ids.max(publish.max_in_flight_records)) * ID_BYTES
                }
            },
            subscribing: consume.max_bytes.saturating_add(fetched),
        }
    }

    /// Of one that only publishes, without message ids.
    pub(in crate::cli) fn publishing(self) -> u64 {
        IDLE_BYTES.saturating_add(self.publishing)
    }

    fn all(self) -> u64 {
        self.publishing()
            .saturating_add(self.ids)
            .saturating_add(self.subscribing)
    }
}

fn memory(report: &mut Report, config: &Config, machine: &Machine, partitions: usize) {
    const CATEGORY: Category = Category::Limits;
    const CHECK: &str = "memory";
    let memory = Memory::of(config, partitions);
    let (
        needed,
        Memory {
            publishing,
            ids,
            subscribing,
        },
    ) = (memory.all(), memory);
    let words = format!(
        "up to {} for publishing (twice publish.max_in_flight_bytes, {} KiB for each of listen.max_streams, and listen.max_message_bytes), {} for message ids (publish.dedup_max_ids), {} for subscribing to {} (consume.max_bytes, and prefetch_bytes for each partition)",
        mib(publishing),
        STREAM_BYTES / 1024,
        mib(ids),
        mib(subscribing),
        match partitions {
            0 | 1 => "one partition".to_owned(),
            many => format!("{many} partitions"),
        }
    );
    match machine.memory_limit() {
        None => report.ok(CATEGORY, CHECK, format!("no bound by a cgroup; {words}")),
        Some(allowed) if allowed >= needed => {
            report.ok(CATEGORY, CHECK, format!("{} allowed; {words}", mib(allowed)));
        }
        Some(allowed) => report.warning(
            CATEGORY,
            CHECK,
            format!("{} allowed, {} may be needed: {words}", mib(allowed), mib(needed)),
            "Raise the container's memory limit, or lower publish.max_in_flight_bytes or consume.max_bytes: over the limit the kernel kills the sidecar.",
        ),
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// In MiB, rounded to the nearest.
pub(super) fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.saturating_add(MIB / 2) / MIB)
}

#[cfg(test)]
mod tests {
    use super::{super::report::Status, *};
    use crate::config;

    fn status(clock_says: Option<(bool, Duration)>) -> Status {
        let mut report = Report::default();
        clock(&mut report, clock_says);
        report.rows()[0].status
    }

    #[test]
    fn a_clock_is_called_right_only_on_the_kernels_word() {
        let error = Duration::from_millis(5);
        assert_eq!(status(Some((true, error))), Status::Ok);
        assert_eq!(status(Some((false, error))), Status::Warning);
        assert_eq!(status(None), Status::Skipped);
    }

    #[test]
    fn publishing_needs_room_twice_a_message_and_something_for_each_stream() {
        let flags = vec![("kafka.bootstrap_servers".to_owned(), "b:9092".to_owned())];
        let sources = config::Sources {
            flags,
            ..config::Sources::default()
        };
        let mut config = config::load(&sources).unwrap().config;
        let before = Memory::of(&config, 0).publishing();
        config.listen.max_streams += 1;
        config.publish.max_in_flight_bytes += 1000;
        config.listen.max_message_bytes += 10;
        let after = Memory::of(&config, 0).publishing();
        assert_eq!(after - before, 2010 + STREAM_BYTES);
    }

    #[test]
    fn sizes_are_written_in_mib() {
        assert_eq!(mib(128 * MIB), "128 MiB");
        assert_eq!(mib(1_000_000), "1 MiB");
        assert_eq!(mib(0), "0 MiB");
    }
}
