//! The composition root: bind every port, build, supervise, drain.
//!
//! Owns the one task set of the process. [`App::bind`] returns the real addresses, so that a test can ask for port 0. What always holds: every
//! port is bound before anything is started, and [`App::run`] ends within the drain deadline of the first signal.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    access::Access,
    admin::{self, Admin},
    config::{self, Config, Loaded},
    consume::Pool,
    grpc::{self, Health, admin::Service, listen::Listener},
    kafka::{Cluster, Producer, Trust},
    lifecycle::{Lifecycle, Pending, Phase, signal::Signals},
    metrics::{self, Exposition},
    publish::Publisher,
    status,
    telemetry::LogLevel,
};

/// How often histograms are folded, or they grow (metrics-exporter-prometheus asks for it).
const UPKEEP: Duration = Duration::from_secs(5);

/// What is kept of the drain time to give up what is unanswered, and say so.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything outstanding was answered, settled and committed.
    Complete,
    /// The deadline came first.
    Incomplete,
    /// A second SIGINT.
    Aborted,
    /// Something that the process cannot do without ended by itself.
    Failed,
}

/// Where a sidecar listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// gRPC over TCP.
    pub tcp: Option<SocketAddr>,
    /// gRPC over a Unix socket.
    pub unix: Option<PathBuf>,
    /// Probes and metrics.
    pub admin: Option<SocketAddr>,
}

/// A sidecar with its ports bound.
#[expect(
    missing_debug_implementations,
    reason = "librdkafka's handles show nothing"
)]
pub struct App {
    listeners: Vec<Listener>,
    admin_listener: Option<TcpListener>,
    admin: Admin,
    server: grpc::Server,
    lifecycle: Lifecycle,
    publisher: Publisher,
    pool: Pool,
    cluster: Cluster,
    starting: Pending,
}

impl App {
    /// Binds every port, then builds.
    pub async fn bind(
        loaded: &Loaded,
        recorder: Exposition,
        log: Option<LogLevel>,
        trust: Trust,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(loaded.config.clone());
        let (listeners, admin_listener) = listeners(&config).await?;
        let lifecycle = Lifecycle::new(config.drain.deadline);
        let starting = lifecycle.expect("listeners");
        let cluster = Cluster::new(Arc::clone(&config));
        let producer = Producer::new(cluster.clone(), trust)
            .map_err(|error| anyhow!("the Kafka producer could not be created: {error}"))?;
        let producer = Arc::new(producer);
        let publisher = Publisher::new(Arc::clone(&producer), config.publish.clone());
        let pool = Pool::new(Arc::clone(&config), cluster.clone(), producer);
        let shown: Arc<str> = loaded.show().into();
        let status = status::Source {
            lifecycle: lifecycle.clone(),
            publisher: publisher.clone(),
            pool: pool.clone(),
        };
        let service = Service {
            lifecycle: lifecycle.clone(),
            status: status.clone(),
            publisher: publisher.clone(),
            pool: pool.clone(),
            config: Arc::clone(&shown),
            access: Access::new(&config.access),
            log,
        };
        let server = grpc::server(
            &config,
            &lifecycle,
            publisher.clone(),
            pool.clone(),
            service,
        )
        .map_err(|error| anyhow!(error))?;
        let admin = Admin {
            lifecycle: lifecycle.clone(),
            metrics: recorder.sampling(sampler(publisher.clone(), lifecycle.clone())),
            status,
            config: shown,
        };
        Ok(Self {
            listeners,
            admin_listener,
            admin,
            server,
            lifecycle,
            publisher,
            pool,
            cluster,
            starting,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            tcp: self.listeners.iter().find_map(Listener::address),
            unix: self.listeners.iter().find_map(Listener::path),
            admin: self
                .admin_listener
                .as_ref()
                .and_then(|listener| listener.local_addr().ok()),
        }
    }

    /// Serves until a signal, then drains.
    pub async fn run(self, mut signals: Signals) -> Exit {
        let Self {
            listeners,
            admin_listener,
            admin,
            server,
            lifecycle,
            publisher,
            pool,
            cluster,
            starting,
        } = self;
        let health = server.health.clone();
        health.set(true, true).await;
        let mut connections = JoinSet::new();
        for listener in listeners {
            connections.spawn(server.serve(listener));
        }
        // Before the probes are answered: the first of them must not find the start unfinished by a hair.
        drop(starting);
        let mut critical = JoinSet::new();
        if let Some(listener) = admin_listener {
            critical.spawn(admin.clone().serve(listener));
        }
        critical.spawn(upkeep(admin.metrics));
        critical.spawn(cluster.keep_fresh());
        critical.spawn(server.keep_fresh());
        critical.spawn(supervise(publisher.clone()));
        critical.spawn(follow_quiet(lifecycle.clone(), health.clone()));
        let failed = tokio::select! {
            signal = signals.stop() => {
                tracing::info!(signal, "stopping");
                false
            }
            _ = critical.join_next() => true,
            _ = connections.join_next() => true,
        };
        if failed {
            tracing::error!("a part that the sidecar cannot do without has ended; stopping");
        }
        let deadline = lifecycle.stop();
        health.set(false, false).await;
        let complete = tokio::select! {
            complete = drain(&publisher, &pool, &mut connections, deadline) => complete,
            () = signals.abort() => return Exit::Aborted,
        };
        tracing::info!(complete, "stopped");
        match (failed, complete) {
            (true, _) => Exit::Failed,
            (false, true) => Exit::Complete,
            (false, false) => Exit::Incomplete,
        }
    }
}

/// Settles, flushes, commits, leaves the groups, and lets the last calls end; says whether all of it was done by the deadline.
async fn drain(
    publisher: &Publisher,
    pool: &Pool,
    connections: &mut JoinSet<()>,
    deadline: Instant,
) -> bool {
    let soft = deadline.checked_sub(LAST_WORDS).unwrap_or(deadline);
    let ended = async {
        let calls = async { while connections.join_next().await.is_some() {} };
        tokio::time::timeout_at(soft.into(), calls).await.is_ok()
    };
    let (settled, ended) = tokio::join!(pool.close(deadline), ended);
    // What is still in flight at the soft deadline is given up here, and its callers are answered.
    let flushed = publisher.flush(soft).await;
    if !ended {
        let calls = async { while connections.join_next().await.is_some() {} };
        // Calls that do not end are cut with the process.
        let _ = tokio::time::timeout_at(deadline.into(), calls).await;
    }
    if !(settled && ended && flushed) {
        tracing::warn!(
            settled,
            ended,
            flushed,
            "the drain deadline came before everything was done"
        );
    }
    settled && ended && flushed
}

async fn listeners(config: &Config) -> anyhow::Result<(Vec<Listener>, Option<TcpListener>)> {
    let mut listeners = Vec::new();
    if let Some(address) = config.listen.tcp {
        let listener = Listener::tcp(address)
            .await
            .with_context(|| format!("listen.tcp: {address} cannot be bound"))?;
        listeners.push(listener);
    }
    if let Some(path) = &config.listen.unix {
        let listener = Listener::unix(path, config.listen.unix_mode)
            .with_context(|| format!("listen.unix: {} cannot be bound", path.display()))?;
        listeners.push(listener);
    }
    let admin = match config.admin.listen {
        None => None,
        Some(address) => Some(
            admin::bind(address)
                .await
                .with_context(|| format!("admin.listen: {address} cannot be bound"))?,
        ),
    };
    Ok((listeners, admin))
}

/// What the metrics only look at when they are asked for.
fn sampler(publisher: Publisher, lifecycle: Lifecycle) -> impl Fn() + Send + Sync + 'static {
    move || {
        metrics::publish().oldest(publisher.oldest().unwrap_or_default());
        let ((now, _), marks) = (publisher.in_flight(), publisher.marks());
        metrics::publish().in_flight(now, marks.highest, marks.lowest);
        metrics::publish().message_ids(publisher.message_ids());
        let left = lifecycle
            .deadline()
            .saturating_duration_since(Instant::now());
        let is_draining = lifecycle.phase() == Phase::Draining;
        metrics::process().drain(is_draining.then_some(left));
    }
}

async fn upkeep(recorder: Exposition) {
    let mut interval = tokio::time::interval(UPKEEP);
    loop {
        interval.tick().await;
        recorder.upkeep();
    }
}

async fn supervise(publisher: Publisher) {
    publisher.supervise().await;
}

/// Tells the health service of the first phase of a drain: subscriptions are not served any more.
async fn follow_quiet(lifecycle: Lifecycle, health: Health) {
    lifecycle.quieting().await;
    if !lifecycle.is_stopping() {
        health.set(true, false).await;
    }
    std::future::pending().await
}

/// Installs the process's metrics recorder.
pub fn recorder(config: &config::Metrics) -> anyhow::Result<Exposition> {
    metrics::install(config).context("the metrics recorder could not be installed")
}
