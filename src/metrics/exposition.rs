//! All metrics as one text, and what of them the configuration wants told.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;

use super::{clients, live, messaging, publish, rpc, text::Text};
use crate::config;

static OPTIONS: OnceLock<config::Metrics> = OnceLock::new();

/// What is told. Without a recorder, as in a client command, nothing has a label of its own.
pub(super) fn options() -> &'static config::Metrics {
    const NOTHING: config::Metrics = config::Metrics {
        statistics_interval: Duration::ZERO,
        max_topics: 0,
        max_groups: 0,
        max_partitions: 0,
        partition_label: false,
        aliases: false,
    };
    OPTIONS.get().unwrap_or(&NOTHING)
}

/// Chooses, once for the process.
pub(super) fn choose(options: &config::Metrics) {
    let _ = OPTIONS.set(options.clone());
}

/// All metrics of the process as text.
#[derive(Clone)]
#[expect(
    missing_debug_implementations,
    reason = "the recorder's handle shows nothing"
)]
pub struct Exposition {
    recorder: PrometheusHandle,
    samplers: Vec<Arc<dyn Fn() + Send + Sync>>,
}

impl Exposition {
    pub(super) fn of(recorder: PrometheusHandle) -> Self {
        Self {
            recorder,
            samplers: Vec::new(),
        }
    }

    /// Runs `sample` before each rendering: for what is only worth knowing then.
    pub fn sampling(mut self, sample: impl Fn() + Send + Sync + 'static) -> Self {
        self.samplers.push(Arc::new(sample));
        self
    }

    /// In Prometheus' text format.
    pub fn render(&self) -> String {
        for sample in &self.samplers {
            sample();
        }
        let mut text = Text::after(self.recorder.render());
        publish().draw(&mut text);
        messaging::draw(&mut text);
        rpc::draw(&mut text);
        live::draw(&mut text);
        clients::draw(&mut text);
        text.finish()
    }

    /// What the recorder asks for now and then.
    pub fn upkeep(&self) {
        self.recorder.run_upkeep();
    }
}
