//! Logs: JSON or text on standard error, at a level that can be changed while running; and the panic hook that logs.
//!
//! Owns the global subscriber. Not here: metrics (`metrics`).

use std::{io, panic};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// Changes the level of the running process.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// Why the level could not be set.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// Not a filter.
    #[error("not a log filter: {0}")]
    Filter(#[from] ParseError),
    /// The subscriber is gone.
    #[error("the log is closed")]
    Closed(#[from] reload::Error),
}

/// Installs the subscriber of the process. An invalid level is an error, as any configuration mistake.
pub fn install(log: &Log) -> Result<LogLevel, LevelError> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    // A log that nobody reads any more must not end the process: reporting it would be one more write to the same place.
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .log_internal_errors(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = match log.format {
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_span_list(false)),
        LogFormat::Text => Box::new(lines),
    };
    // Already installed when a test starts a second sidecar in one process: the first one's log serves both.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        let what = info.payload_as_str().unwrap_or("no message");
        tracing::error!(place, "panic: {what}");
    }));
    Ok(LogLevel(handle))
}

/// Reads a level or a filter (`info`, `outrigger=debug,librdkafka=warn`).
pub fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
}

impl LogLevel {
    /// Sets another filter, and returns the one before.
    pub fn set(&self, text: &str) -> Result<String, LevelError> {
        let next = filter(text)?;
        let before = self.0.with_current(ToString::to_string)?;
        self.0.reload(next)?;
        Ok(before)
    }
}
