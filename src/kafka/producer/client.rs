//! One client of librdkafka's, and the thread that waits for its events.
//!
//! Not here: what is done with them (`reports`), when a client is replaced (`replace`). What always holds: whoever lets the last handle of a client
//! go waits for its threads, librdkafka's too; hence [`Client::discard`].

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::producer::{BaseProducer, Producer as _};
use tokio::time::Instant;

use super::{
    lane::Succession,
    reports::{Callbacks, Reports},
};
use crate::kafka::{
    Cluster, connection::Connection, ffi, security::Live, statistics::Statistics, token::Token,
};

/// The thread looks at least so often whether it is over.
const LOOK: Duration = Duration::from_secs(1);

/// See the module. It is used as librdkafka's.
pub(super) struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    // Before the producer, whose they are.
    events: ffi::Events,
    _epochs: ffi::Epochs,
    producer: BaseProducer<Callbacks>,
    is_over: AtomicBool,
}

impl Deref for Client {
    type Target = BaseProducer<Callbacks>;

    fn deref(&self) -> &Self::Target {
        &self.shared.producer
    }
}

impl Client {
    /// Makes a client of `cluster` that reports to `reports`.
    pub(super) fn connect(
        cluster: &Cluster,
        reports: &Arc<Reports>,
        succession: &Arc<Succession>,
    ) -> Result<Arc<Self>, String> {
        let callbacks = Callbacks {
            statistics: Statistics::of_producer(reports.partitions.clone()),
            reports: Arc::clone(reports),
            succession: Arc::clone(succession),
            cluster: cluster.clone(),
            connection: Connection::default(),
            fatal: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            gives_up: AtomicBool::new(false),
        };
        let producer: BaseProducer<Callbacks> = cluster
            .producer_properties()?
            .set("batch.size", succession.batch_bytes.to_string())
            .create_with_context(callbacks)
            .map_err(|error| error.to_string())?;
        let shared = Arc::new(Shared {
            events: ffi::Events::of(producer.client()),
            _epochs: ffi::Epochs::of(producer.client()),
            producer,
            is_over: AtomicBool::new(false),
        });
        let polled = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("producer".into())
            .spawn(move || polled.poll())
            .map_err(|error| error.to_string())?;
        let client = Arc::new(Self {
            shared,
            thread: Some(thread),
        });
        cluster.security().register(&client);
        Ok(client)
    }

    /// Waits until every record has its report, or the time is over.
    pub(super) async fn emptied(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.in_flight_count() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Lets a client go where that may take its time.
    pub(super) fn discard(self: Arc<Self>) {
        drop(tokio::task::spawn_blocking(move || drop(self)));
    }
}

impl Shared {
    fn poll(&self) {
        let context = self.producer.context();
        while !self.is_over.load(Ordering::Acquire) {
            if let Some(reports) = self.events.wait(LOOK, &**context) {
                context.reported(reports);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.shared.events.wake();
        if let Some(thread) = self.thread.take() {
            // It ends by itself, and what it panics of was said.
            let _ = thread.join();
        }
    }
}

impl Live for Client {
    fn set_credentials(&self, username: &str, password: &str) {
        ffi::set_credentials(self.client(), username, password);
    }

    fn set_token(&self, token: &Token, extensions: &[(String, String)]) -> Result<(), String> {
        ffi::set_token(self.client(), token, extensions)
    }
}
