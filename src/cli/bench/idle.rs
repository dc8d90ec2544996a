//! `outrigger bench idle`: from exec to serving, and what an idle sidecar holds.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;

use super::{
    process::Target,
    sheet::{Spread, machine},
};
use crate::cli::Settings;

/// How long after its start the memory is looked at.
const SETTLED: Duration = Duration::from_secs(2);

/// Nobody is there: connecting is not part of the start.
const NOBODY: &str = "127.0.0.1:1";

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Options {
    /// The brokers; by default an address where nobody is.
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: Option<String>,
    /// How often it is started.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Print the sheet as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Starts and stops a sidecar `runs` times.
pub(super) fn measure(options: Options) -> anyhow::Result<String> {
    let mut settings = options.settings;
    let bootstrap = options.bootstrap.unwrap_or_else(|| NOBODY.to_owned());
    let bootstrap = ("kafka.bootstrap_servers".to_owned(), bootstrap);
    settings.set.insert(0, bootstrap);
    let (mut started, mut resident) = (Vec::new(), 0);
    for run in 0..options.runs {
        // That nobody is there is as it should be.
        let (target, started_in) = Target::start(&settings, |_| {})?;
        started.push(started_in.as_secs_f64() * 1000.0);
        if run == 0 {
            let look_at = Instant::now() + SETTLED;
            while let Some(left) = look_at.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
            resident = target.resident_kib()?;
        }
        target.stop()?;
    }
    let binary = fs::metadata(std::env::current_exe()?)?.len();
    let Some(started) = Spread::of(started.into_iter()) else {
        return Ok(String::new());
    };
    let mib = |bytes: f64| bytes / 1_048_576.0;
    if options.json {
        return Ok(json!({
            "machine": machine(),
            "exec_to_serving_ms": started.json(),
            "idle_resident_bytes": resident * 1024,
            "binary_bytes": binary,
        })
        .to_string());
    }
    Ok([
        format!("{} starts; median (min to max)", options.runs),
        machine(),
        format!("  {:<34} {}", "exec to serving, ms", started.text(1)),
        format!(
            "  {:<34} {:.1}",
            format!("idle RSS after {} s, MiB", SETTLED.as_secs()),
            mib(resident as f64 * 1024.0)
        ),
        format!(
            "  {:<34} {:.1}",
            "this binary, not stripped, MiB",
            mib(binary as f64)
        ),
    ]
    .join("\n"))
}
