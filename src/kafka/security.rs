//! How the clients show brokers who they are, and how that is kept fresh while they run.
//!
//! [`Security::properties`] is what a new client begins with. [`Security::keep_fresh`] is one task: a new name or password is given to the
//! running clients, a token is fetched ahead of its expiry and given to them, a new certificate is announced, since a client takes one
//! only when it is made. Files are compared by content every 2 s: Kubernetes swaps directories, which file watchers miss.
//! What always holds: no secret is in an error or a log line.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use rdkafka::{
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
};
use tokio::{sync::watch, time::Instant};

use super::{
    ffi,
    token::{self, Token},
};
use crate::{
    config::{Kafka, Sasl, SecretValue, Tls},
    failure::{Failure, Reason},
};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The wait after a token could not be fetched, doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A running client that takes new credentials.
pub(super) trait Live: Send + Sync {
    /// Used from its next connection on.
    fn set_credentials(&self, username: &str, password: &str);
    /// Used from its next connection on; wakes those that wait for one. The error is librdkafka's.
    fn set_token(&self, token: &Token, extensions: &[(String, String)]) -> Result<(), String>;
}

impl<C: ConsumerContext> Live for BaseConsumer<C> {
    fn set_credentials(&self, username: &str, password: &str) {
        ffi::set_credentials(self.client(), username, password);
    }

    fn set_token(&self, token: &Token, extensions: &[(String, String)]) -> Result<(), String> {
        ffi::set_token(self.client(), token, extensions)
    }
}

/// The credentials of the process, and the clients that use them.
pub(super) struct Security {
    tls: Option<Tls>,
    sasl: Option<Sasl>,
    // A std mutex: sections are short and nothing awaits inside.
    state: Mutex<State>,
    /// Counts the certificates.
    certificates: watch::Sender<u64>,
    /// Whether `state` has an error of the last fetch, for the path of every record.
    tokenless: AtomicBool,
}

#[derive(Default)]
struct State {
    clients: Vec<Weak<dyn Live>>,
    token: Option<Token>,
    /// Why there is no newer one.
    token_error: Option<String>,
}

impl State {
    fn living(&self) -> Vec<Arc<dyn Live>> {
        self.clients.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Whoever holds a client last destroys it, which blocks; its owner may have let go of it meanwhile.
fn let_go(clients: Vec<Arc<dyn Live>>) {
    drop(tokio::task::spawn_blocking(move || drop(clients)));
}

impl Security {
    pub(super) fn new(kafka: &Kafka) -> Self {
        let in_clear = match (&kafka.tls, &kafka.sasl) {
            (None, Some(Sasl::Password { mechanism, .. })) if *mechanism == "PLAIN" => {
                Some("the password")
            }
            (None, Some(Sasl::Token { .. })) => Some("the token"),
            _ => None,
        };
        if let Some(what) = in_clear {
            tracing::warn!(
                "{what} for Kafka goes over the network in the clear: kafka.tls.enabled is false"
            );
        }
        Self {
            tls: kafka.tls.clone(),
            sasl: kafka.sasl.clone(),
            state: Mutex::default(),
            certificates: watch::Sender::new(0),
            tokenless: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what a new client needs, read from its files now. The error names the key and the file.
    pub(super) fn properties(&self, client: &mut ClientConfig) -> Result<(), String> {
        client.set(
            "security.protocol",
            match (&self.tls, &self.sasl) {
                (None, None) => "plaintext",
                (Some(_), None) => "ssl",
                (None, Some(_)) => "sasl_plaintext",
                (Some(_), Some(_)) => "sasl_ssl",
            },
        );
        if let Some(tls) = &self.tls {
            if let Some(file) = &tls.ca_file {
                client.set("ssl.ca.location", existing("kafka.tls.ca_file", file)?);
            }
            if let Some(identity) = &tls.identity {
                client.set(
                    "ssl.certificate.location",
                    existing("kafka.tls.certificate_file", &identity.certificate_file)?,
                );
                client.set(
                    "ssl.key.location",
                    existing("kafka.tls.key_file", &identity.key_file)?,
                );
                if let Some(file) = &identity.key_password_file {
                    let password = read(file)
                        .map_err(|error| format!("kafka.tls.key_password_file: {error}"))?;
                    client.set("ssl.key.password", password);
                }
            }
        }
        match &self.sasl {
            None => {}
            Some(Sasl::Password { mechanism, .. }) => {
                let (username, password) = self.credentials()?.unwrap_or_default();
                client.set("sasl.mechanism", *mechanism);
                client
                    .set("sasl.username", username)
                    .set("sasl.password", password);
            }
            Some(Sasl::Token { .. }) => {
                client.set("sasl.mechanism", "OAUTHBEARER");
            }
        }
        Ok(())
    }

    /// From now on this client is given what is new; a token at once, if there is one.
    pub(super) fn register(&self, client: &Arc<impl Live + 'static>) {
        let client: Arc<dyn Live> = Arc::clone(client) as _;
        let mut state = self.state();
        if let Some(token) = &state.token {
            self.give(&*client, token);
        }
        state.clients.retain(|client| client.strong_count() > 0);
        state.clients.push(Arc::downgrade(&client));
    }

    /// Sees each new certificate.
    pub(super) fn certificates(&self) -> watch::Receiver<u64> {
        self.certificates.subscribe()
    }

    /// Why the clients cannot even try to log in, if so.
    pub(super) fn refused(&self) -> Option<Failure> {
        if !self.tokenless.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state();
        let error = state.token_error.as_ref()?;
        // No matter while the last one lives.
        let lives = |token: &Token| token.expires > SystemTime::now();
        if state.token.as_ref().is_some_and(lives) {
            return None;
        }
        Some(Failure::not_persisted(
            Reason::KafkaAuthenticationFailed,
            format!("there is no token to log in to Kafka with: {error}"),
        ))
    }

    /// Gets a token now, where tokens are used; clients that are registered later begin with it. Gives how long it lives.
    pub(super) async fn fetch_token(&self) -> Option<Result<Duration, String>> {
        let Some(Sasl::Token { source, .. }) = &self.sasl else {
            return None;
        };
        let fetched = token::fetch(source).await.map(|token| {
            let lifetime = token.expires.duration_since(SystemTime::now());
            self.spread(token);
            lifetime.unwrap_or_default()
        });
        Some(fetched)
    }

    /// Never ends; has nothing to do without files and tokens.
    pub(super) async fn keep_fresh(&self) {
        let mut credentials = self.credentials().ok().flatten();
        let mut identity = self.identity();
        let mut token_at = Instant::now();
        let mut wait = RETRY.0;
        let mut token_file = self.token_file();
        loop {
            let file = self.token_file();
            if file != token_file {
                token_file = file;
                token_at = Instant::now();
            }
            if let Some(Sasl::Token { source, .. }) = &self.sasl
                && Instant::now() >= token_at
            {
                match token::fetch(source).await {
                    Ok(token) => {
                        wait = RETRY.0;
                        token_at = Instant::now() + self.spread(token);
                    }
                    Err(error) => {
                        tracing::warn!("no new token for Kafka: {error}");
                        self.no_token(error);
                        token_at = Instant::now() + wait;
                        wait = (wait * 2).min(RETRY.1);
                    }
                }
            }
            tokio::time::sleep_until(
                token_at
                    .min(Instant::now() + LOOK)
                    .max(Instant::now() + RETRY.0 / 4),
            )
            .await;
            match self.credentials() {
                Ok(Some(fresh)) if credentials.as_ref() != Some(&fresh) => {
                    tracing::info!("new Kafka credentials: used from the next connection on");
                    let clients = self.state().living();
                    for client in &clients {
                        client.set_credentials(&fresh.0, &fresh.1);
                    }
                    let_go(clients);
                    credentials = Some(fresh);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(
                    "the Kafka credentials cannot be read now; the old ones stay: {error}"
                ),
            }
            let fresh = self.identity();
            if fresh.is_some() && fresh != identity {
                tracing::info!("a new certificate for Kafka: the clients are replaced");
                self.certificates.send_modify(|count| *count += 1);
                identity = fresh;
            }
        }
    }

    /// Gives a token to every client; says when to fetch the next one.
    fn spread(&self, token: Token) -> Duration {
        let lifetime = token
            .expires
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        // Before librdkafka itself asks, which it does at four fifths.
        let next = lifetime * 3 / 4;
        tracing::info!(lifetime_s = lifetime.as_secs(), "a new token for Kafka");
        let mut state = self.state();
        state.token_error = None;
        self.tokenless.store(false, Ordering::Relaxed);
        let clients = state.living();
        for client in &clients {
            self.give(&**client, &token);
        }
        state.token = Some(token);
        drop(state);
        let_go(clients);
        next
    }

    fn give(&self, client: &dyn Live, token: &Token) {
        let Some(Sasl::Token { extensions, .. }) = &self.sasl else {
            return;
        };
        if let Err(error) = client.set_token(token, extensions) {
            tracing::warn!("librdkafka does not take the token: {error}");
        }
    }

    fn no_token(&self, error: String) {
        self.state().token_error = Some(error);
        self.tokenless.store(true, Ordering::Relaxed);
    }

    fn credentials(&self) -> Result<Option<(String, String)>, String> {
        let Some(Sasl::Password {
            username, password, ..
        }) = &self.sasl
        else {
            return Ok(None);
        };
        let username =
            resolve(username).map_err(|error| format!("kafka.sasl.username_file: {error}"))?;
        let password =
            resolve(password).map_err(|error| format!("kafka.sasl.password_file: {error}"))?;
        Ok(Some((username, password)))
    }

    /// What the files of TLS hold; `None` while one of them cannot be read.
    fn identity(&self) -> Option<Vec<Vec<u8>>> {
        let tls = self.tls.as_ref()?;
        let identity = tls.identity.iter().flat_map(|identity| {
            [&identity.certificate_file, &identity.key_file]
                .into_iter()
                .chain(&identity.key_password_file)
        });
        tls.ca_file
            .iter()
            .chain(identity)
            .map(|file| fs::read(file).ok())
            .collect()
    }

    fn token_file(&self) -> Option<Vec<u8>> {
        match &self.sasl {
            Some(Sasl::Token {
                source: crate::config::TokenSource::File(path),
                ..
            }) => fs::read(path).ok(),
            _ => None,
        }
    }
}

/// The text of a value, wherever it is.
pub(super) fn resolve(value: &SecretValue) -> Result<String, String> {
    match value {
        SecretValue::Inline(secret) => Ok(secret.expose().to_owned()),
        SecretValue::File(path) => read(path),
    }
}

/// A file but its last line break, which editors add.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.contains('\0') {
        true => Err(format!("{} holds a NUL byte", path.display())),
        false => Ok(text.to_owned()),
    }
}

fn existing(key: &str, path: &Path) -> Result<String, String> {
    fs::File::open(path).map_err(|error| format!("{key}: {}: {error}", path.display()))?;
    Ok(path.to_string_lossy().into_owned())
}
