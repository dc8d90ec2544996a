//! One client after another: for a new certificate, after a fatal error, and the watch over a client that brokers refuse.
//!
//! What always holds: the new client gets its first record when the old one has none left, so the order of each partition is kept; every
//! record of the old one has its true report; an old client that works is not given up for a new one that does not.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use rdkafka::{producer::Producer as _, types::RDKafkaErrorCode as Code};
use tokio::time::Instant;

use super::{
    Delivery,
    client::Client,
    lane::{Current, Lane},
    reports::failure,
};
use crate::{
    failure::{Failure, Persistence, Reason},
    kafka::{connection::GRACE, error, ffi},
    metrics,
};

/// How often the client is looked at when nothing is reported.
const LOOK: Duration = Duration::from_secs(1);

/// How long a new client may take to reach a broker before the old one is kept.
const PROOF: Duration = Duration::from_secs(10);

/// How long the old client may take to deliver what it has, while callers wait.
const EMPTYING: Duration = Duration::from_secs(10);

/// How long what a failed client will not send may lie in its queue.
const RETURNING: Duration = Duration::from_millis(50);

/// The wait before a new client that was no good is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The wait between two replacements of clients that fail.
const PAUSE: Duration = Duration::from_secs(5);

impl Lane {
    /// Keeps a client that works; never ends.
    pub(super) async fn supervise(&self) {
        let mut certificates = self.cluster.certificates();
        let mut stale = false;
        let mut renew_at = Instant::now();
        let mut refused_since = None;
        loop {
            tokio::select! {
                () = self.succession.trouble.notified() => {}
                Ok(()) = certificates.changed() => {
                    stale = true;
                    renew_at = Instant::now();
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            let client = self.client();
            let is_refused =
                client.context().connection.refused().is_some() || self.cluster.refused().is_some();
            refused_since = is_refused.then(|| refused_since.unwrap_or_else(Instant::now));
            let fatal = client.client().fatal_error();
            if fatal.is_none() {
                self.give_up_kept(not_sent);
            }
            if let Some((code, text)) = fatal {
                self.succeed(&client, code, ffi::said(&text)).await;
            } else if stale && Instant::now() >= renew_at {
                match self.renew(&client).await {
                    Ok(()) => {
                        stale = false;
                        metrics::publish().replaced("certificate");
                        tracing::info!("the producer uses the new certificate");
                    }
                    Err(error) => {
                        tracing::warn!("the producer keeps its old certificate for now: {error}");
                        renew_at = Instant::now() + RETRY;
                    }
                }
            } else if let Some(since) = refused_since {
                self.wait_for_mercy(&client, since).await;
            }
            if !Arc::ptr_eq(&client, &self.client()) {
                client.discard();
            }
        }
    }

    /// Replaces a client that has failed for good, whose records librdkafka has given up by now.
    async fn succeed(&self, old: &Arc<Client>, code: Code, text: &str) {
        let is_forbidden = error::reason(code) == Reason::KafkaNotAuthorized;
        if is_forbidden {
            self.give_up_kept(|_| forbidden(text));
        }
        // One who only subscribes need not be allowed to publish: another try only when somebody publishes.
        if is_forbidden && !old.context().wanted.swap(false, Ordering::Relaxed) {
            return;
        }
        if !is_forbidden {
            tracing::error!(error = %code, "the producer has failed for good and is replaced: {text}");
        }
        match Client::connect(&self.cluster, &self.reports, &self.succession) {
            Err(error) => {
                tracing::error!("no new producer could be created: {error}");
                self.hopeless.store(true, Ordering::Release);
                self.give_up_kept(not_sent);
            }
            Ok(fresh) => {
                self.hopeless.store(false, Ordering::Release);
                let _change = self.change.lock().await;
                self.close();
                if !wound_up(old).await {
                    old.context().gives_up.store(true, Ordering::Release);
                    ffi::purge(old.client());
                    old.emptied(EMPTYING).await;
                }
                self.open(fresh);
                metrics::publish().replaced("fatal");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Replaces a client that works by one that has been shown to work.
    async fn renew(&self, old: &Arc<Client>) -> Result<(), String> {
        let fresh = Client::connect(&self.cluster, &self.reports, &self.succession)?;
        if !reaches(&fresh, PROOF).await {
            fresh.discard();
            return Err("with the new one no broker is reached".to_owned());
        }
        let _change = self.change.lock().await;
        self.close();
        if old.context().refused().is_some() {
            // They wait for brokers that do not take them; each is told what is known of it.
            old.context().gives_up.store(true, Ordering::Release);
            ffi::purge(old.client());
        }
        if !old.emptied(EMPTYING).await {
            old.context().gives_up.store(false, Ordering::Release);
            self.reopen();
            fresh.discard();
            return Err("the old one still has records that Kafka does not acknowledge".to_owned());
        }
        self.open(fresh);
        Ok(())
    }

    fn open(&self, client: Arc<Client>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Current::new(client));
        self.send_again(&mut current);
        drop(current);
        self.reopen();
        drop(old.topics);
        old.client.discard();
    }

    /// Sends what the clients before did not.
    fn send_again(&self, current: &mut Current) {
        let again = self.succession.again.take();
        if again.is_empty() {
            return;
        }
        tracing::info!(
            records = again.len(),
            "records that the producer before has certainly not written are sent again"
        );
        metrics::publish().sent_again.increment(again.len() as u64);
        self.send_kept(current, again);
    }

    /// Answers what was kept for a client that does not come.
    pub(super) fn give_up_kept(&self, why: impl Fn(&str) -> Failure) {
        for kept in self.succession.again.take() {
            let failure = why(&kept.record.topic);
            self.complete(kept.batch, kept.index, Delivery::failed(failure));
        }
    }

    /// Looks whether brokers take the client again, and answers those who wait in vain: at once if none has ever taken it, else after a while.
    async fn wait_for_mercy(&self, client: &Arc<Client>, since: Instant) {
        let connection = &client.context().connection;
        let refused = connection.refused();
        let was_refused = refused.is_some();
        if let Some(failure) = refused {
            let (cluster, before) = (self.cluster.clone(), failure.clone());
            let explained = tokio::task::spawn_blocking(move || cluster.explain(failure)).await;
            if let Ok(after) = explained {
                if after != before {
                    tracing::warn!("{after}");
                }
                connection.explain(&before, after);
            }
        }
        // Not before it can be told why.
        let can_be_told = connection.explained().is_some() || self.cluster.refused().is_some();
        if can_be_told && (!connection.has_worked() || since.elapsed() >= GRACE) {
            client.context().gives_up.store(true, Ordering::Release);
            ffi::purge_queue(client.client());
        }
        if reaches(client, LOOK).await {
            connection.works();
            client.context().gives_up.store(false, Ordering::Release);
            // Without a token it is not brokers that refuse.
            if was_refused {
                tracing::info!("brokers take the producer again");
            }
        }
    }

    /// The failure of a record that a client refuses which has failed for good, if that is why.
    pub(super) fn failed_for_good(&self) -> Option<Failure> {
        let client = self.client();
        let (code, text) = fatal(&client)?;
        client.context().wanted.store(true, Ordering::Relaxed);
        self.succession.trouble.notify_one();
        (error::reason(code) == Reason::KafkaNotAuthorized).then(|| forbidden(&text))
    }
}

fn forbidden(text: &str) -> Failure {
    Failure::not_persisted(
        Reason::KafkaNotAuthorized,
        format!("Kafka does not allow this sidecar to publish to any topic: {text}"),
    )
}

fn not_sent(topic: &str) -> Failure {
    failure(Code::Fatal, topic, Persistence::NotPersisted)
}

/// Why the client has failed for good (`rd_kafka_fatal_error`), if it has.
fn fatal(client: &Arc<Client>) -> Option<(Code, String)> {
    if !client.context().fatal.load(Ordering::Relaxed) {
        return None;
    }
    client.client().fatal_error()
}

/// Waits until a client that has failed for good knows what became of all that it sent. What comes back to be sent again need not wait.
async fn wound_up(client: &Client) -> bool {
    let deadline = Instant::now() + EMPTYING;
    while Instant::now() < deadline {
        ffi::purge_queue(client.client());
        if client.emptied(RETURNING).await {
            return true;
        }
    }
    false
}

async fn reaches(client: &Arc<Client>, within: Duration) -> bool {
    let client = Arc::clone(client);
    tokio::task::spawn_blocking(move || ffi::reachable(client.client(), within))
        .await
        .unwrap_or(false)
}
