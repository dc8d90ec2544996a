//! Prometheus' text format, for what the recorder cannot hold: our histograms, and series that go away.
//!
//! A metric's head is written before its first sample, so that one without samples does not appear. Source: Prometheus' "Exposition
//! formats", text version 0.0.4.

use std::fmt::{Display, Write as _};

use super::{
    histogram::Histogram,
    table::{Kind, Metric},
};

/// A label's name and value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// An exposition that is being written.
pub(super) struct Text(String);

/// The samples of one metric.
pub(super) struct Family<'a> {
    text: &'a mut Text,
    metric: &'a Metric,
    begun: bool,
}

impl Text {
    /// Goes on after `text`.
    pub(super) fn after(text: String) -> Self {
        Self(text)
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    /// Writes one metric; all of its samples, since a name may come only once.
    pub(super) fn family(&mut self, metric: &Metric, write: impl FnOnce(&mut Family<'_>)) {
        let mut family = Family {
            text: self,
            metric,
            begun: false,
        };
        write(&mut family);
        if family.begun {
            self.0.push('\n');
        }
    }
}

impl Family<'_> {
    /// One sample of a counter or a gauge.
    pub(super) fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// A histogram's samples.
    pub(super) fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram) {
        let (counts, sum) = histogram.read();
        self.buckets(labels, histogram.bounds(), &counts, sum);
    }

    /// A histogram's samples, from what each bucket holds by itself.
    pub(super) fn buckets(
        &mut self,
        labels: &[Label<'_>],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        let mut below = 0;
        for (bound, count) in bounds.iter().zip(counts) {
            below += count;
            self.line("_bucket", labels, Some(bound.to_string()), below);
        }
        let all: u64 = counts.iter().sum();
        self.line("_bucket", labels, Some("+Inf".to_owned()), all);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, all);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[Label<'_>],
        bound: Option<String>,
        value: impl Display,
    ) {
        self.begin();
        let text = &mut self.text.0;
        text.push_str(self.metric.name);
        text.push_str(suffix);
        let bound = bound.as_deref().map(|bound| ("le", bound));
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            text.push(open);
            open = ',';
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value);
            text.push('"');
        }
        if open == ',' {
            text.push('}');
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, " {value}");
    }

    fn begin(&mut self) {
        if self.begun {
            return;
        }
        self.begun = true;
        let Metric {
            name, kind, help, ..
        } = self.metric;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            _ => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRIC: Metric = Metric {
        name: "x_seconds",
        kind: Kind::Histogram,
        labels: &["topic"],
        help: "What it is.",
    };

    #[test]
    fn a_histogram_counts_upwards_and_ends_with_all() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        histogram.record(0.1, 2);
        histogram.record(3.0, 1);
        let mut text = Text::after(String::new());
        text.family(&METRIC, |family| {
            family.histogram(&[("topic", "a")], &histogram);
        });
        let expected = "# HELP x_seconds What it is.\n# TYPE x_seconds histogram\n\
            x_seconds_bucket{topic=\"a\",le=\"0.5\"} 2\nx_seconds_bucket{topic=\"a\",le=\"1\"} 2\n\
            x_seconds_bucket{topic=\"a\",le=\"+Inf\"} 3\nx_seconds_sum{topic=\"a\"} 3.2\nx_seconds_count{topic=\"a\"} 3\n\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn a_label_cannot_end_its_own_quotes_and_no_sample_means_no_head() {
        let mut text = Text::after("before\n".to_owned());
        text.family(&METRIC, |_| {});
        assert_eq!(text.0, "before\n");
        text.family(&METRIC, |family| family.sample(&[("a", "q\"\\\n")], 1));
        assert!(
            text.finish()
                .ends_with("x_seconds{a=\"q\\\"\\\\\\n\"} 1\n\n")
        );
    }
}
