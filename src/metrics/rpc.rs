//! The calls of the gRPC server: OpenTelemetry's RPC convention in its Prometheus form, and the `grpc_server_*` series of other servers.
//!
//! Conventions: v1.44.0 (`docs/rpc/rpc-metrics.md`). The methods are known from the start; what else is called is `_OTHER`. Both families are
//! drawn from the same counts, one histogram for each method and code. What always holds: a call that was begun ends once.

use std::{
    collections::HashMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    exposition::options,
    histogram::{CONVENTION, Histogram},
    names::OTHER,
    table::{Kind, Metric, row},
    text::{Label, Text},
};

const DURATION: Metric = row(
    "rpc_server_call_duration_seconds",
    Kind::Histogram,
    &[
        "rpc_system_name",
        "rpc_method",
        "rpc_response_status_code",
        "error_type",
    ],
    "From the head of a call to its status: the whole life of a stream. A method that is not served is `_OTHER`; a call that its caller gave up is \
     CANCELLED. `error_type` is the code, where the server is to blame.",
);
const STARTED: Metric = row(
    "grpc_server_started_total",
    Kind::Counter,
    &["grpc_type", "grpc_service", "grpc_method"],
    "Calls begun. With `metrics.aliases`.",
);
const HANDLED: Metric = row(
    "grpc_server_handled_total",
    Kind::Counter,
    &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
    "Calls ended, by code. With `metrics.aliases`.",
);
const RECEIVED: Metric = row(
    "grpc_server_msg_received_total",
    Kind::Counter,
    &["grpc_type", "grpc_service", "grpc_method"],
    "Messages received. With `metrics.aliases`.",
);
const SENT: Metric = row(
    "grpc_server_msg_sent_total",
    Kind::Counter,
    &["grpc_type", "grpc_service", "grpc_method"],
    "Messages sent. With `metrics.aliases`.",
);
const HANDLING: Metric = row(
    "grpc_server_handling_seconds",
    Kind::Histogram,
    &["grpc_type", "grpc_service", "grpc_method"],
    "From the head of a call to its status. With `metrics.aliases`.",
);

pub(super) const ROWS: &[Metric] = &[DURATION, STARTED, HANDLED, RECEIVED, SENT, HANDLING];

/// The bounds of `grpc_server_handling_seconds`: those of Prometheus' Go client, all of them among the convention's.
const HANDLING_BOUNDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// A gRPC code by number: its name in the convention, and in Go's metrics.
const CODES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("CANCELLED", "Canceled"),
    ("UNKNOWN", "Unknown"),
    ("INVALID_ARGUMENT", "InvalidArgument"),
    ("DEADLINE_EXCEEDED", "DeadlineExceeded"),
    ("NOT_FOUND", "NotFound"),
    ("ALREADY_EXISTS", "AlreadyExists"),
    ("PERMISSION_DENIED", "PermissionDenied"),
    ("RESOURCE_EXHAUSTED", "ResourceExhausted"),
    ("FAILED_PRECONDITION", "FailedPrecondition"),
    ("ABORTED", "Aborted"),
    ("OUT_OF_RANGE", "OutOfRange"),
    ("UNIMPLEMENTED", "Unimplemented"),
    ("INTERNAL", "Internal"),
    ("UNAVAILABLE", "Unavailable"),
    ("DATA_LOSS", "DataLoss"),
    ("UNAUTHENTICATED", "Unauthenticated"),
];

/// The codes that the convention calls a server's errors.
const ERRORS: [usize; 6] = [2, 4, 12, 13, 14, 15];

const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;

/// A method that is served.
#[derive(Clone, Debug)]
pub struct MethodName {
    /// With its package.
    pub service: String,
    /// As in the protocol file.
    pub method: String,
    /// `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub kind: &'static str,
}

#[derive(Debug)]
struct Method {
    name: MethodName,
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    ended: [Histogram; CODES.len()],
}

impl Method {
    fn new(name: MethodName) -> Self {
        Self {
            name,
            started: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            ended: [const { Histogram::new(CONVENTION) }; CODES.len()],
        }
    }
}

#[derive(Debug)]
struct Methods {
    /// In the order in which they are drawn.
    all: Vec<Method>,
    by_path: HashMap<String, usize>,
    other: Method,
}

static METHODS: OnceLock<Methods> = OnceLock::new();

/// Says what is served. Calls before it, and of what is not among it, are counted as `_OTHER`.
pub fn serve(names: Vec<MethodName>) {
    let _ = METHODS.set(Methods::new(names));
}

impl Methods {
    fn new(names: Vec<MethodName>) -> Self {
        let path = |name: &MethodName| format!("/{}/{}", name.service, name.method);
        Self {
            by_path: names.iter().map(path).zip(0..).collect(),
            all: names.into_iter().map(Method::new).collect(),
            other: Method::new(MethodName {
                service: OTHER.to_owned(),
                method: OTHER.to_owned(),
                kind: "unary",
            }),
        }
    }

    fn get(&self, path: &str) -> &Method {
        self.by_path
            .get(path)
            .map_or(&self.other, |index| &self.all[*index])
    }
}

/// A call that was begun. Dropped without a status, it was given up by its caller.
#[derive(Debug)]
pub struct Call {
    method: &'static Method,
    since: Instant,
    ended: bool,
}

/// Counts one direction's messages of a call; absent where nobody asks for them.
#[derive(Clone, Copy, Debug)]
pub struct Messages(&'static AtomicU64);

impl Messages {
    /// Counts in `count`.
    pub fn new(count: &'static AtomicU64) -> Self {
        Self(count)
    }

    /// Counts messages.
    pub fn add(self, messages: u64) {
        self.0.fetch_add(messages, Ordering::Relaxed);
    }
}

impl Call {
    /// A call of the method at `path` begins.
    pub fn begin(path: &str) -> Self {
        let method = METHODS.get_or_init(|| Methods::new(Vec::new())).get(path);
        method.started.fetch_add(1, Ordering::Relaxed);
        Self {
            method,
            since: Instant::now(),
            ended: false,
        }
    }

    /// Counts what is received.
    pub fn received(&self) -> Option<Messages> {
        options().aliases.then_some(Messages(&self.method.received))
    }

    /// Counts what is sent.
    pub fn sent(&self) -> Option<Messages> {
        options().aliases.then_some(Messages(&self.method.sent))
    }

    /// The call has its status, the number of a gRPC code; what is no number is unknown.
    pub fn end(&mut self, code: Option<usize>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let code = code.filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
        self.method.ended[code].record(self.since.elapsed().as_secs_f64(), 1);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Some(CANCELLED));
    }
}

/// Writes all of this.
pub(super) fn draw(text: &mut Text) {
    let Some(Methods { all, other, .. }) = METHODS.get() else {
        return;
    };
    let all = || all.iter().chain([other]);
    text.family(&DURATION, |family| {
        for method in all() {
            let MethodName {
                service,
                method: name,
                ..
            } = &method.name;
            let full = if name == OTHER {
                OTHER.to_owned()
            } else {
                format!("{service}/{name}")
            };
            for (code, ended) in method.ended.iter().enumerate() {
                if ended.count() == 0 {
                    continue;
                }
                let name = CODES[code].0;
                let error = ERRORS.contains(&code).then_some(("error_type", name));
                let labels: Vec<Label<'_>> = [
                    ("rpc_system_name", "grpc"),
                    ("rpc_method", &full),
                    ("rpc_response_status_code", name),
                ]
                .into_iter()
                .chain(error)
                .collect();
                family.histogram(&labels, ended);
            }
        }
    });
    if options().aliases {
        draw_aliases(text, &all);
    }
}

type Count = fn(&Method) -> &AtomicU64;

fn draw_aliases<'a, I: Iterator<Item = &'a Method>>(text: &mut Text, all: &impl Fn() -> I) {
    let labels = |method: &'a Method| {
        [
            ("grpc_type", method.name.kind),
            ("grpc_service", method.name.service.as_str()),
            ("grpc_method", method.name.method.as_str()),
        ]
    };
    let plain: [(&Metric, Count); 3] = [
        (&STARTED, |method| &method.started),
        (&RECEIVED, |method| &method.received),
        (&SENT, |method| &method.sent),
    ];
    for (metric, count) in plain {
        text.family(metric, |family| {
            for method in all() {
                family.sample(&labels(method), count(method).load(Ordering::Relaxed));
            }
        });
    }
    text.family(&HANDLED, |family| {
        for method in all() {
            let [kind, service, name] = labels(method);
            for (ended, (_, code)) in method.ended.iter().zip(CODES) {
                family.sample(&[kind, service, name, ("grpc_code", code)], ended.count());
            }
        }
    });
    text.family(&HANDLING, |family| {
        for method in all() {
            let (counts, sum) = folded(&method.ended);
            family.buckets(&labels(method), HANDLING_BOUNDS, &counts, sum);
        }
    });
}

/// All codes together, in the wider buckets of the alias.
fn folded(ended: &[Histogram]) -> (Vec<u64>, f64) {
    let mut all = vec![0; HANDLING_BOUNDS.len() + 1];
    let mut total = 0.0;
    for histogram in ended {
        let (counts, sum) = histogram.read();
        total += sum;
        for (index, count) in counts.into_iter().enumerate() {
            let wider = CONVENTION
                .get(index)
                .and_then(|bound| HANDLING_BOUNDS.iter().position(|wide| bound <= wide))
                .unwrap_or(HANDLING_BOUNDS.len());
            all[wider] += count;
        }
    }
    (all, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aliases_bounds_are_among_the_conventions_so_no_sample_changes_its_side() {
        assert!(
            HANDLING_BOUNDS
                .iter()
                .all(|bound| CONVENTION.contains(bound))
        );
        let histogram = Histogram::new(CONVENTION);
        for seconds in [0.06, 0.075, 0.09, 99.0] {
            histogram.record(seconds, 1);
        }
        let (counts, sum) = folded(&[histogram]);
        assert_eq!(counts, [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sum, 0.06 + 0.075 + 0.09 + 99.0);
    }

    #[test]
    fn a_method_that_is_not_served_is_other() {
        let methods = Methods::new(vec![MethodName {
            service: "p.S".to_owned(),
            method: "M".to_owned(),
            kind: "unary",
        }]);
        assert_eq!(methods.get("/p.S/M").name.method, "M");
        for path in ["/p.S/N", "/p.S/M/", "", "/"] {
            assert_eq!(methods.get(path).name.method, OTHER, "{path}");
        }
    }
}
