//! The figures of a bench, as a table and as JSON.

use std::fs;

use serde_json::{Value, json};

use super::latencies::{SHARES, named};

/// One run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) records: u64,
    pub(super) seconds: f64,
    /// From the subscription; absent where that is no figure.
    pub(super) seconds_since_init: Option<f64>,
    /// Of the process of the bench: of the client, or of the direct client.
    pub(super) client_cpu: f64,
    /// Absent for a direct run.
    pub(super) sidecar_cpu: Option<f64>,
    /// In seconds, of a run at a rate.
    pub(super) latency: Option<[f64; SHARES.len()]>,
}

impl Run {
    pub(super) fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    fn rate_since_init(&self) -> Option<f64> {
        Some(self.records as f64 / self.seconds_since_init?)
    }

    fn per_million(&self, cpu: f64) -> f64 {
        cpu * 1e6 / self.records as f64
    }

    fn total_cpu(&self) -> f64 {
        self.per_million(self.client_cpu + self.sidecar_cpu.unwrap_or_default())
    }

    fn json(&self) -> Value {
        json!({
            "path": if self.sidecar_cpu.is_some() { "sidecar" } else { "direct" },
            "records": self.records,
            "seconds": self.seconds,
            "seconds_since_init": self.seconds_since_init,
            "client_cpu_seconds": self.client_cpu,
            "sidecar_cpu_seconds": self.sidecar_cpu,
            "latency_seconds": self.latency.map(named),
        })
    }
}

/// The middle, and the ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            (values[half - 1] + values[half]) / 2.0
        };
        Some(Self { median, min, max })
    }

    pub(super) fn text(self, digits: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }

    pub(super) fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// One line of a sheet.
struct Figure {
    /// In JSON.
    key: String,
    /// In the table.
    name: String,
    spread: Spread,
    /// To print.
    digits: usize,
}

/// All counted runs of a bench.
pub(super) struct Sheet {
    /// What was run, in words.
    what: String,
    /// The same, by name.
    load: Value,
    pairs: Vec<(Run, Option<Run>)>,
}

impl Sheet {
    pub(super) fn new(what: String, load: Value) -> Self {
        Self {
            what,
            load,
            pairs: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, sidecar: Run, direct: Option<Run>) {
        self.pairs.push((sidecar, direct));
    }

    /// What compares is made pair by pair: the two runs of a pair were neighbours in time.
    fn figures(&self) -> Vec<Figure> {
        let sidecar = || self.pairs.iter().map(|(sidecar, _)| sidecar);
        let direct = || self.pairs.iter().filter_map(|(_, direct)| direct.as_ref());
        let both = || {
            self.pairs
                .iter()
                .filter_map(|(sidecar, direct)| Some((sidecar, direct.as_ref()?)))
        };
        let client = |run: &Run| run.per_million(run.client_cpu);
        let own = |run: &Run| Some(run.per_million(run.sidecar_cpu?));
        let figures = [
            (
                "sidecar_rate",
                "sidecar, records/s",
                Spread::of(sidecar().map(Run::rate)),
                0,
            ),
            (
                "direct_rate",
                "direct, records/s",
                Spread::of(direct().map(Run::rate)),
                0,
            ),
            (
                "rate_ratio",
                "rate, sidecar / direct",
                Spread::of(both().map(|(s, d)| s.rate() / d.rate())),
                2,
            ),
            (
                "sidecar_rate_since_init",
                "sidecar since init, records/s",
                Spread::of(sidecar().filter_map(Run::rate_since_init)),
                0,
            ),
            (
                "direct_rate_since_init",
                "direct since init, records/s",
                Spread::of(direct().filter_map(Run::rate_since_init)),
                0,
            ),
            (
                "client_cpu",
                "client CPU-s per million",
                Spread::of(sidecar().map(client)),
                2,
            ),
            (
                "sidecar_cpu",
                "sidecar CPU-s per million",
                Spread::of(sidecar().filter_map(own)),
                2,
            ),
            (
                "direct_cpu",
                "direct CPU-s per million",
                Spread::of(direct().map(client)),
                2,
            ),
            (
                "cpu_ratio",
                "CPU, (client + sidecar) / direct",
                Spread::of(both().map(|(s, d)| s.total_cpu() / d.total_cpu())),
                2,
            ),
            (
                "sidecar_cpu_ratio",
                "CPU, sidecar / direct",
                Spread::of(both().filter_map(|(s, d)| Some(own(s)? / d.total_cpu()))),
                2,
            ),
        ];
        let figures = figures
            .map(|(key, name, spread, digits)| (key.to_owned(), name.to_owned(), spread, digits));
        figures
            .into_iter()
            .chain(self.latencies())
            .filter_map(|(key, name, spread, digits)| {
                Some(Figure {
                    key,
                    name,
                    spread: spread?,
                    digits,
                })
            })
            .collect()
    }

    /// Of runs at a rate: each share through both paths in milliseconds, and what the sidecar adds in microseconds.
    fn latencies(&self) -> impl Iterator<Item = (String, String, Option<Spread>, usize)> {
        SHARES.iter().enumerate().flat_map(|(index, (share, _))| {
            let of = move |run: &Run| Some(run.latency?[index]);
            let sidecar = self.pairs.iter().filter_map(move |(run, _)| of(run));
            let direct = (self.pairs.iter()).filter_map(move |(_, run)| of(run.as_ref()?));
            let added = (self.pairs.iter())
                .filter_map(move |(sidecar, direct)| Some(of(sidecar)? - of(direct.as_ref()?)?));
            [
                (
                    format!("sidecar_{share}_ms"),
                    format!("sidecar, {share}, ms"),
                    Spread::of(sidecar.map(|seconds| seconds * 1e3)),
                    3,
                ),
                (
                    format!("direct_{share}_ms"),
                    format!("direct, {share}, ms"),
                    Spread::of(direct.map(|seconds| seconds * 1e3)),
                    3,
                ),
                (
                    format!("added_{share}_us"),
                    format!("added, {share}, µs"),
                    Spread::of(added.map(|seconds| seconds * 1e6)),
                    0,
                ),
            ]
        })
    }

    /// One figure, if there is such a one.
    pub(super) fn spread(&self, key: &str) -> Option<Spread> {
        let mut figures = self.figures().into_iter();
        let figure = figures.find(|figure| figure.key == key);
        figure.map(|figure| figure.spread)
    }

    pub(super) fn table(&self) -> String {
        let mut lines = vec![
            command(),
            self.what.clone(),
            machine(),
            "median (min to max) over the runs".to_owned(),
        ];
        for figure in self.figures() {
            let Figure {
                name,
                spread,
                digits,
                ..
            } = figure;
            lines.push(format!("  {name:<34} {}", spread.text(digits)));
        }
        lines.join("\n")
    }

    pub(super) fn json(&self) -> Value {
        let figures: serde_json::Map<String, Value> = self
            .figures()
            .into_iter()
            .map(|figure| (figure.key, figure.spread.json()))
            .collect();
        let runs: Vec<Value> = self
            .pairs
            .iter()
            .flat_map(|(sidecar, direct)| [Some(sidecar), direct.as_ref()])
            .flatten()
            .map(Run::json)
            .collect();
        json!({
            "command": command(),
            "machine": machine(),
            "load": self.load,
            "figures": figures,
            "runs": runs,
        })
    }
}

/// As it was typed, without values that may be secrets.
pub(super) fn command() -> String {
    std::env::args()
        .skip(1)
        .fold("outrigger".to_owned(), |text, argument| {
            text + " " + shown(&argument)
        })
}

fn shown(argument: &str) -> &str {
    let value = argument
        .find("kafka.properties")
        .and_then(|at| Some(at + argument[at..].find('=')? + 1));
    value.map_or(argument, |value| &argument[..value])
}

/// The machine and the versions, for whoever reads the figures elsewhere.
pub(super) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |model| {
            model.trim_start_matches(['\t', ' ', ':'])
        });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores, {}; Linux {}; outrigger {}{}, librdkafka {}",
        model.trim_end(),
        kernel.trim_end(),
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) {
            " (debug build: figures mean nothing)"
        } else {
            ""
        },
        crate::kafka::direct::version(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: f64, client_cpu: f64, sidecar_cpu: Option<f64>) -> Run {
        Run {
            records: 2_000_000,
            seconds,
            seconds_since_init: None,
            client_cpu,
            sidecar_cpu,
            latency: None,
        }
    }

    #[test]
    fn what_the_sidecar_adds_to_a_latency_is_told_pair_by_pair() {
        let timed = |p50| Run {
            latency: Some([p50, 0.002, 0.003, 0.004, 0.005]),
            ..run(1.0, 1.0, None)
        };
        let mut sheet = Sheet::new("what".to_owned(), Value::Null);
        sheet.add(timed(0.0013), Some(timed(0.0010)));
        sheet.add(timed(0.0016), Some(timed(0.0015)));
        let table = sheet.table();
        for line in [
            "  sidecar, p50, ms                   1.450 (1.300 to 1.600)",
            "  added, p50, µs                     200 (100 to 300)",
            "  direct, max, ms                    5.000 (5.000 to 5.000)",
        ] {
            assert!(table.contains(line), "{line}\n{table}");
        }
        assert!(sheet.spread("added_p99.9_us").is_some());
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        let odd = Spread::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!(
            odd,
            Some(Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            })
        );
        let even = Spread::of([4.0, 1.0, 2.0, 3.0].into_iter());
        assert_eq!(even.map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn rates_and_cpu_are_compared_within_each_pair() {
        let mut sheet = Sheet::new("what".to_owned(), Value::Null);
        sheet.add(run(4.0, 1.0, Some(2.0)), Some(run(2.0, 2.0, None)));
        sheet.add(run(8.0, 1.0, Some(3.0)), Some(run(8.0, 2.0, None)));
        let table = sheet.table();
        for line in [
            "  sidecar, records/s                 375000 (250000 to 500000)",
            "  direct, records/s                  625000 (250000 to 1000000)",
            "  rate, sidecar / direct             0.75 (0.50 to 1.00)",
            "  sidecar CPU-s per million          1.25 (1.00 to 1.50)",
            "  CPU, (client + sidecar) / direct   1.75 (1.50 to 2.00)",
        ] {
            assert!(table.contains(line), "{line}\n{table}");
        }
        assert!(!table.contains("since init"), "{table}");
    }

    #[test]
    fn properties_are_not_shown_since_they_may_be_secrets() {
        for (argument, expected) in [
            (
                "--set=kafka.properties.sasl.password=x=y",
                "--set=kafka.properties.sasl.password=",
            ),
            ("kafka.properties={\"a\":1}", "kafka.properties="),
            ("publish.linger=5ms", "publish.linger=5ms"),
            ("--direct", "--direct"),
        ] {
            assert_eq!(shown(argument), expected);
        }
    }

    #[test]
    fn without_direct_runs_nothing_is_compared() {
        let mut sheet = Sheet::new("what".to_owned(), Value::Null);
        sheet.add(run(4.0, 1.0, Some(2.0)), None);
        assert!(!sheet.table().contains("direct"), "{}", sheet.table());
        let json = sheet.json();
        assert_eq!(json["figures"]["sidecar_rate"]["median"], 500_000.0);
        assert_eq!(json["runs"][0]["path"], "sidecar");
    }
}
