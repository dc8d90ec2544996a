//! `outrigger serve`: the sidecar.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;

use super::{EXIT_CONFIG, Settings, complain, fail};
use crate::{
    app::{self, Addresses, App, Exit},
    config::Loaded,
    kafka::{self, Trust, settings},
    lifecycle::signal::Signals,
    telemetry, traces,
};

/// How long the last spans may take at the end.
const LAST_SPANS: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) fn run(self) -> ExitCode {
        let loaded = match load(&self.settings) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        match serve(&loaded, Trust::Everything, |_| {}) {
            Ok(exit) => code(exit),
            Err(error) => fail(&format!("{error:#}")),
        }
    }
}

/// Loads and checks the configuration; says everything that is wrong with it.
pub(super) fn load(settings: &Settings) -> Result<Loaded, ExitCode> {
    let loaded = settings.load().map_err(|problems| {
        complain(&format!("the configuration is wrong:\n{problems}"));
        ExitCode::from(EXIT_CONFIG)
    })?;
    let problems = problems(&loaded);
    if problems.is_empty() {
        return Ok(loaded);
    }
    complain(&format!(
        "the configuration is wrong:\n{}",
        problems.join("\n")
    ));
    Err(ExitCode::from(EXIT_CONFIG))
}

/// What is wrong by the judgement of those who will use it.
pub(super) fn problems(loaded: &Loaded) -> Vec<String> {
    let mut problems: Vec<String> = settings::problems(&loaded.config.kafka)
        .into_iter()
        .map(|(name, problem)| format!("kafka.properties.{name}: {problem}"))
        .collect();
    if let Err(error) = telemetry::filter(&loaded.config.log.level) {
        problems.push(format!("log.level: {error}"));
    }
    problems
}

/// Runs a sidecar to its end; `bound` hears of its addresses when it is about to serve.
pub(super) fn serve(
    loaded: &Loaded,
    trust: Trust,
    bound: impl FnOnce(&Addresses),
) -> anyhow::Result<Exit> {
    let log = telemetry::install(&loaded.config.log)?;
    let recorder = app::recorder(&loaded.config.metrics)?;
    if let Some(endpoint) = traces::install()? {
        tracing::info!(endpoint, "spans are exported");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("outrigger")
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(async {
        let signals = Signals::listen().context("signals cannot be listened for")?;
        let app = App::bind(loaded, recorder, Some(log), trust).await?;
        let addresses = app.addresses();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            tcp = addresses.tcp.map(tracing::field::display),
            unix = addresses
                .unix
                .as_deref()
                .map(|path| tracing::field::display(path.display())),
            admin = addresses.admin.map(tracing::field::display),
            kafka = loaded.config.kafka.bootstrap_servers,
            "serving"
        );
        bound(&addresses);
        let exit = app.run(signals).await;
        // Threads of librdkafka may hang; those of the traces are bounded.
        let _ = tokio::task::spawn_blocking(|| traces::flush(LAST_SPANS)).await;
        leave(exit)
    })
}

/// Ends the process without waiting for librdkafka's threads, which may hang for a session timeout when the cluster is away.
/// Everything that matters was done, or given up and said, by the drain.
fn leave(exit: Exit) -> ! {
    kafka::leave(match exit {
        Exit::Complete => 0,
        Exit::Incomplete | Exit::Failed => 1,
        Exit::Aborted => 130,
    })
}

fn code(exit: Exit) -> ExitCode {
    if exit == Exit::Complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
