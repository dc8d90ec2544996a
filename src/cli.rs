//! The command line: one file for each command, and the exit codes.
//!
//! Exit codes: 0 done; 1 the command failed (a drain that was not complete, a record that was not published); 2 the command line is wrong;
//! 78 the configuration is wrong (sysexits' EX_CONFIG); 130 interrupted. The client commands speak to a sidecar's own gRPC API.

mod bench;
mod check;
mod client;
mod config;
mod dev;
mod drain;
mod ending;
mod format;
mod inject;
mod json;
mod publish;
mod serve;
mod stdout;
mod subscribe;
mod subscriptions;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::config::{Loaded, Problems, Sources};

/// A configuration that is wrong.
const EXIT_CONFIG: u8 = 78;

/// Interrupted before it was done.
const EXIT_INTERRUPTED: u8 = 130;

/// A Kafka sidecar: publish and subscribe over local gRPC, with answers that are the truth.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar.
    Serve(serve::Serve),
    /// Run a sidecar with an in-memory broker, or beside a real one, without any configuration.
    Dev(dev::Dev),
    /// Publish records from arguments or standard input.
    Publish(publish::Publish),
    /// Print records to standard output, and acknowledge what was printed.
    Subscribe(subscribe::Subscribe),
    /// Show where the groups of a sidecar stand: lag, what is in flight, what waits, what is blocked.
    Subscriptions(subscriptions::Subscriptions),
    /// Stop deliveries and wait until what is delivered is settled: the preStop hook.
    Drain(drain::Drain),
    /// Say whether the sidecar would work here, and what to do where it would not.
    Check(check::Check),
    /// Measure what the sidecar costs, beside a client with librdkafka linked in.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Put the sidecar into Kubernetes manifests: YAML in, YAML out.
    Inject(inject::Inject),
    /// Take the sidecar out of Kubernetes manifests again.
    Uninject(inject::Uninject),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(config::Command),
}

/// Where settings come from.
#[derive(Clone, Debug, Default, Args)]
struct Settings {
    /// The configuration file (YAML). Default: $OUTRIGGER_CONFIG, else /etc/outrigger/outrigger.yaml if it exists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, over file and environment; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

impl Settings {
    fn load(&self) -> Result<Loaded, Problems> {
        crate::config::load(&Sources::from_process(
            self.config.clone(),
            self.set.clone(),
        ))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, e.g. kafka.bootstrap_servers=localhost:9092".to_owned()),
    }
}

/// Runs the command line of the process.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Dev(dev) => dev.run(),
        Command::Publish(publish) => publish.run(),
        Command::Subscribe(subscribe) => subscribe.run(),
        Command::Subscriptions(subscriptions) => subscriptions.run(),
        Command::Drain(drain) => drain.run(),
        Command::Check(check) => check.run(),
        Command::Bench(bench) => bench.run(),
        Command::Inject(inject) => inject.run(),
        Command::Uninject(uninject) => uninject.run(),
        Command::Config(command) => command.run(),
    }
}

/// Says what is wrong, on standard error, and fails.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
}

/// A line on standard error. Nobody may be reading: that is no reason to end.
fn complain(error: &dyn std::fmt::Display) {
    note(&format_args!("outrigger: {error}"));
}

fn note(text: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A line on standard output; a reader that is gone, as in a pipe to `head`, is no error.
fn say(text: &dyn std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}
