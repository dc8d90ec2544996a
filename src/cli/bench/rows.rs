//! `outrigger bench sheet`: the paths of publishing one after the other, each beside a direct client and its budget.
//!
//! A row is a command line of `outrigger bench publish` and runs as that would, on a topic and a sidecar of its own.

use clap::{Args, Parser};
use serde_json::{Value, json};

use super::{
    Kind, Ran, bed, listening, publish,
    sheet::{Sheet, Spread, command, machine},
};
use crate::cli::{Settings, note};

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Options {
    /// The brokers.
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: String,
    /// Pairs of counted runs in each row: one through the sidecar, one directly.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Records in a run of every row that has no rate, instead of the row's own number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// How long a run of the rows at a rate is. Default: 10.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
    /// Print the sheet as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// A path, and what it may cost.
struct Row {
    name: &'static str,
    /// Of `outrigger bench publish`.
    arguments: &'static str,
    /// At least so much of the direct client's rate.
    rate: Option<f64>,
    /// At most so many times its CPU time.
    cpu: Option<f64>,
    /// At most so many microseconds more at the median.
    added: Option<f64>,
}

impl Row {
    const fn new(name: &'static str, arguments: &'static str) -> Self {
        Self {
            name,
            arguments,
            rate: None,
            cpu: None,
            added: None,
        }
    }

    fn is_at_a_rate(&self) -> bool {
        self.arguments.contains("--rate")
    }
}

const ROWS: &[Row] = &[
    Row {
        rate: Some(0.8),
        cpu: Some(1.6),
        ..Row::new("100 B, 100 a message", "--records 1000000")
    },
    Row::new("16 B, 100 a message", "--size 16 --records 1000000"),
    Row::new("1 KB, 100 a message", "--size 1024 --records 300000"),
    Row::new(
        "1 MB, one a message",
        "--mode stream --size 1000000 --records 1000",
    ),
    Row {
        rate: Some(0.5),
        ..Row::new("100 B, one a message", "--mode stream --records 500000")
    },
    Row::new("100 B, 10 streams", "--streams 10 --records 1000000"),
    Row::new("100 B, 100 streams", "--streams 100 --records 1000000"),
    Row::new("100 B, 1000 streams", "--streams 1000 --records 1000000"),
    Row::new(
        "100 B, unary, 100 calls at once",
        "--mode unary --calls 100 --records 200000",
    ),
    Row {
        added: Some(150.0),
        ..Row::new(
            "100 B, unary, 200 records/s, linger 0",
            "--mode unary --linger 0ms --rate 200",
        )
    },
];

/// A row's arguments, parsed as they would be. What is said for all rows comes later, and wins.
#[derive(Debug, Parser)]
#[command(args_override_self = true)]
struct Line {
    #[command(flatten)]
    publish: publish::Options,
}

impl Line {
    fn of(row: &Row, options: &Options) -> anyhow::Result<Self> {
        let mut words: Vec<String> = ["row", "--direct", "--bootstrap", &options.bootstrap]
            .into_iter()
            .chain(row.arguments.split(' '))
            .map(str::to_owned)
            .collect();
        let mut say = |name: &str, value: u64| words.extend([name.to_owned(), value.to_string()]);
        say("--runs", options.pairs.into());
        match row.is_at_a_rate() {
            true => options.seconds.map(|seconds| say("--seconds", seconds)),
            false => options.records.map(|records| say("--records", records)),
        };
        let mut line = Self::try_parse_from(words)?;
        line.publish.load.settings = options.settings.clone();
        Ok(line)
    }
}

/// Runs all rows.
pub(super) fn measure(options: Options) -> anyhow::Result<Ran> {
    let mut beds = Vec::new();
    for row in ROWS {
        let line = Line::of(row, &options)?.publish;
        match bed(Kind::Publish(line.how), line.load)? {
            Ok(bed) => beds.push((row, bed)),
            Err(code) => return Ok(Ran::Refused(code)),
        }
    }
    let measured = listening(async |signals| {
        let mut sheets = Vec::new();
        for (row, bed) in beds {
            note(&format_args!("{} …", row.name));
            match bed.measure(signals, async |bed| bed.runs().await).await? {
                Some(sheet) => sheets.push((row, sheet)),
                None => return Ok(None),
            }
        }
        Ok(Some(sheets))
    });
    let Some(sheets) = measured? else {
        return Ok(Ran::Interrupted);
    };
    Ok(Ran::Measured(match options.json {
        true => json(&sheets),
        false => table(&options, &sheets),
    }))
}

const HEAD: [&str; 6] = [
    "path",
    "sidecar, records/s",
    "rate beside direct",
    "CPU beside direct",
    "CPU-s per million: client, sidecar, direct",
    "added p50, µs",
];

/// In Markdown, so that it can be copied.
fn table(options: &Options, sheets: &[(&Row, Sheet)]) -> String {
    let cells: Vec<[String; HEAD.len()]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(std::iter::once(["---"; HEAD.len()].map(str::to_owned)))
        .chain(sheets.iter().map(|(row, sheet)| cells(row, sheet)))
        .collect();
    let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
        let widths = cells.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or_default()
    });
    let lines = cells.iter().map(|line| {
        let cells = line.iter().zip(widths);
        cells.fold("|".to_owned(), |text, (cell, width)| {
            format!("{text} {cell:<width$} |")
        })
    });
    let about = [
        command(),
        machine(),
        format!(
            "acks=all; medians (ranges) over {} pairs of runs",
            options.pairs
        ),
    ];
    about
        .into_iter()
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n")
}

fn cells(row: &Row, sheet: &Sheet) -> [String; HEAD.len()] {
    let told = |key: &str, digits| sheet.spread(key).map(|spread| (spread, digits));
    let text = |told: Option<(Spread, usize)>| {
        told.map_or_else(|| "–".to_owned(), |(spread, digits)| spread.text(digits))
    };
    let beside = |told: Option<(Spread, usize)>, budget: Option<String>| match budget {
        Some(budget) => format!("{}, budget {budget}", text(told)),
        None => text(told),
    };
    let cpu = ["client_cpu", "sidecar_cpu", "direct_cpu"].map(|key| {
        sheet
            .spread(key)
            .map_or_else(String::new, |one| format!("{:.2}", one.median))
    });
    // At a rate, both paths have that rate.
    let rate = told("rate_ratio", 2).filter(|_| !row.is_at_a_rate());
    [
        row.name.to_owned(),
        text(told("sidecar_rate", 0)),
        beside(rate, row.rate.map(|least| format!("≥ {least}"))),
        beside(
            told("cpu_ratio", 2),
            row.cpu.map(|most| format!("≤ {most}")),
        ),
        cpu.join(", "),
        beside(
            told("added_p50_us", 0),
            row.added.map(|most| format!("≤ {most}")),
        ),
    ]
}

fn json(sheets: &[(&Row, Sheet)]) -> String {
    let rows: Vec<Value> = sheets
        .iter()
        .map(|(row, sheet)| {
            let mut all = sheet.json();
            all["name"] = json!(row.name);
            all["arguments"] = json!(row.arguments);
            all["budgets"] = json!({
                "rate_ratio": row.rate,
                "cpu_ratio": row.cpu,
                "added_p50_us": row.added,
            });
            all
        })
        .collect();
    json!({ "command": command(), "machine": machine(), "rows": rows }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            bootstrap: "localhost:1".to_owned(),
            pairs: 7,
            records: Some(11),
            seconds: Some(2),
            json: false,
            settings: Settings::default(),
        }
    }

    #[test]
    fn every_row_is_a_command_line_and_what_is_said_for_all_wins() {
        for row in ROWS {
            let line = Line::of(row, &options()).unwrap().publish;
            line.how.check(&line.load).unwrap();
            assert!(line.load.direct && line.load.runs == 7, "{}", row.name);
            match line.how.rate() {
                Some(rate) => assert_eq!(line.how.records(), 2 * rate),
                None => assert_eq!(line.load.records, Some(11)),
            }
        }
    }

    #[test]
    fn the_table_shows_each_row_with_its_budgets() {
        let sheets: Vec<_> = ROWS
            .iter()
            .map(|row| (row, Sheet::new(String::new(), Value::Null)))
            .collect();
        let table = table(&options(), &sheets);
        for budget in [
            "budget ≥ 0.8 ",
            "budget ≤ 1.6 ",
            "budget ≥ 0.5 ",
            "budget ≤ 150 ",
        ] {
            assert!(table.contains(budget), "{budget}\n{table}");
        }
        assert_eq!(table.lines().count(), 3 + 2 + ROWS.len());
    }
}
