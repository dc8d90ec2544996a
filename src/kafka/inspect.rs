//! What can be found out of a cluster without changing it: the facts behind `outrigger check`.
//!
//! [`survey`] looks at each bootstrap broker, then at each broker that they tell of, step by step: its name, a connection, TLS, the requests
//! it takes, a login; then it asks one that let us in for topics and a group. Not here: what a fact is called and what to do about it
//! (`cli::check`). Nothing is written: no record, no topic, no offset; a group is described, never joined. No state is kept.
//! What always holds: every step is bounded, a step whose precondition failed is absent, and no secret is in a fact.

mod facts;
mod handshake;
mod login;
mod reach;
mod versions;

use std::{collections::BTreeSet, fmt, net::SocketAddr, sync::Arc, time::Duration};

use tokio::task::JoinSet;

pub use self::{
    facts::{
        Answers, ClusterFacts, Denial, GroupFacts, Node, Operation, PartitionFacts, TopicFacts,
        denial,
    },
    handshake::{Handshake, TlsProblem},
    login::LoginProblem,
    reach::{NameProblem, TcpProblem},
    versions::{Versions, VersionsProblem},
};
use super::{Cluster, ffi, tls};
use crate::config::{Config, Identity};

/// The bound of one step at one address.
const STEP: Duration = Duration::from_secs(5);

/// The bound of one question to the cluster.
const QUESTION: Duration = Duration::from_secs(10);

/// How many brokers are looked at at once: each costs a client with its threads.
const AT_ONCE: usize = 8;

/// The most addresses of one name that are looked at.
const ADDRESSES: usize = 8;

/// Where a broker is, as clients are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// A name, or an address without brackets.
    pub host: String,
    /// Of TCP.
    pub port: u16,
}

impl Endpoint {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.parse().ok()?,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What is asked for beside the brokers.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// By name, each once.
    pub topics: Vec<String>,
    /// By name.
    pub group: Option<String>,
}

/// Everything that was found.
#[derive(Debug)]
pub struct Survey {
    /// Whether there is a token to log in with, and for how long; `None` where none is used.
    pub token: Option<Result<Duration, String>>,
    /// The bootstrap brokers as configured, then those that were only told of.
    pub brokers: Vec<Seen>,
    /// What one of them said of the cluster; `None` when none let us in.
    pub cluster: Option<ClusterFacts>,
    /// What the cluster answered; `None` when none of the brokers that it tells of let us in, to which all questions go.
    pub answers: Option<Answers>,
}

/// One broker.
#[derive(Debug)]
pub struct Seen {
    /// Where.
    pub endpoint: Endpoint,
    /// Its number, once the cluster has told it.
    pub id: Option<i32>,
    /// Whether the configuration names it, rather than the cluster.
    pub is_bootstrap: bool,
    /// What its name stands for.
    pub addresses: Result<Vec<SocketAddr>, NameProblem>,
    /// Each of them.
    pub looks: Vec<Look>,
    /// How a client fared with it; `None` when no connection was good enough to try, or there is no token.
    pub login: Option<Result<Duration, LoginProblem>>,
}

/// One address.
#[derive(Debug)]
pub struct Look {
    /// Which.
    pub address: SocketAddr,
    /// How long a connection took.
    pub tcp: Result<Duration, TcpProblem>,
    /// `None` without TLS, or without a connection.
    pub tls: Option<Result<Handshake, TlsProblem>>,
    /// `None` when there was nothing to ask over.
    pub versions: Option<Result<Versions, VersionsProblem>>,
}

impl Look {
    fn is_good(&self) -> bool {
        matches!(self.versions, Some(Ok(_)))
    }
}

/// See the module.
pub async fn survey(config: Arc<Config>, questions: &Questions) -> Survey {
    let cluster = Cluster::new(config);
    let token = cluster.security().fetch_token().await;
    let may_log_in = !matches!(token, Some(Err(_)));
    let named = &cluster.config().kafka.bootstrap_servers;
    let bootstrap: Vec<Endpoint> = named.split(',').filter_map(Endpoint::parse).collect();
    let (mut brokers, mut clients) = visit(&cluster, &bootstrap, true, may_log_in).await;
    let told: Vec<Node> = clients
        .iter()
        .flat_map(|client| client.brokers.clone())
        .collect();
    let known: BTreeSet<Endpoint> = bootstrap.into_iter().collect();
    let further: BTreeSet<Endpoint> = told
        .iter()
        .map(Node::endpoint)
        .filter(|endpoint| !known.contains(endpoint))
        .collect();
    let further: Vec<Endpoint> = further.into_iter().collect();
    let (others, more) = visit(&cluster, &further, false, may_log_in).await;
    brokers.extend(others);
    clients.extend(more);
    for seen in &mut brokers {
        let told = told.iter().find(|node| node.endpoint() == seen.endpoint);
        seen.id = told.map(|node| node.id);
    }
    let open = brokers
        .iter()
        .filter(|seen| matches!(seen.login, Some(Ok(_))))
        .find_map(|seen| seen.id);
    let questions = questions.clone();
    // Asking blocks, and so does the end of a client.
    let asked = tokio::task::spawn_blocking(move || {
        let first = clients.first();
        let cluster = first.map(login::Client::cluster);
        let answers = first
            .zip(open)
            .map(|(client, broker)| client.ask(&questions, broker));
        drop(clients);
        (cluster, answers)
    });
    let (cluster, answers) = asked.await.unwrap_or_default();
    Survey {
        token,
        brokers,
        cluster,
        answers,
    }
}

/// Looks at brokers, some at once; what comes back is in their order.
async fn visit(
    cluster: &Cluster,
    endpoints: &[Endpoint],
    is_bootstrap: bool,
    may_log_in: bool,
) -> (Vec<Seen>, Vec<login::Client>) {
    let (mut all, mut clients) = (Vec::new(), Vec::new());
    for some in endpoints.chunks(AT_ONCE) {
        let mut visits = JoinSet::new();
        for (place, endpoint) in some.iter().enumerate() {
            let visit = one(cluster.clone(), endpoint.clone(), is_bootstrap, may_log_in);
            visits.spawn(async move { (place, visit.await) });
        }
        let mut done = visits.join_all().await;
        done.sort_by_key(|(place, _)| *place);
        for (_, (seen, client)) in done {
            all.push(seen);
            clients.extend(client);
        }
    }
    (all, clients)
}

async fn one(
    cluster: Cluster,
    endpoint: Endpoint,
    is_bootstrap: bool,
    may_log_in: bool,
) -> (Seen, Option<login::Client>) {
    let family = reach::Family::of(&cluster.config().kafka);
    let addresses = reach::addresses(&endpoint, family).await;
    let mut looks = Vec::new();
    for address in addresses.iter().flatten().take(ADDRESSES) {
        looks.push(look(&cluster, &endpoint, *address).await);
    }
    let (mut login, mut client) = (None, None);
    if may_log_in && looks.iter().any(Look::is_good) {
        let broker = endpoint.to_string();
        let tried =
            tokio::task::spawn_blocking(move || login::Client::log_in(&cluster, &broker)).await;
        match tried {
            Ok(Ok((took, let_in))) => (login, client) = (Some(Ok(took)), Some(let_in)),
            Ok(Err(problem)) => login = Some(Err(problem)),
            // The runtime is ending.
            Err(_) => {}
        }
    }
    let seen = Seen {
        endpoint,
        id: None,
        is_bootstrap,
        addresses,
        looks,
        login,
    };
    (seen, client)
}

async fn look(cluster: &Cluster, endpoint: &Endpoint, address: SocketAddr) -> Look {
    let mut look = Look {
        address,
        tcp: Err(TcpProblem::TimedOut),
        tls: None,
        versions: None,
    };
    let stream = match reach::connect(address).await {
        Ok((stream, took)) => {
            look.tcp = Ok(took);
            stream
        }
        Err(problem) => {
            look.tcp = Err(problem);
            return look;
        }
    };
    let client_id = &cluster.config().kafka.client_id;
    let Some(settings) = &cluster.config().kafka.tls else {
        look.versions = Some(versions::ask(stream, client_id).await);
        return look;
    };
    match handshake::shake_hands(settings, &endpoint.host, stream).await {
        Ok((stream, handshake)) => {
            look.tls = Some(Ok(handshake));
            look.versions = Some(versions::ask(stream, client_id).await);
        }
        Err(problem) => look.tls = Some(Err(problem)),
    }
    look
}

/// Whether a client's certificate goes with its key. The error names the key of the configuration.
pub fn identity_fits(identity: &Identity) -> Result<(), String> {
    let key = tls::private_key(identity)?;
    let pem = std::fs::read(&identity.certificate_file).map_err(|error| {
        let file = identity.certificate_file.display();
        format!("kafka.tls.certificate_file: {file}: {error}")
    })?;
    crate::tls::belongs(&pem, &key)
        .then_some(())
        .ok_or_else(|| "kafka.tls.key_file is not the key of kafka.tls.certificate_file".to_owned())
}

/// Whether this machine's clock is kept right, and how far off it may be at most; `None` where the kernel does not tell.
pub fn clock() -> Option<(bool, Duration)> {
    ffi::synchronised()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_and_written_as_clients_do() {
        for text in ["localhost:9092", "[::1]:9", "10.0.0.1:65535"] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::parse("localhost"), None);
        assert_eq!(Endpoint::parse("localhost:99999"), None);
    }
}
