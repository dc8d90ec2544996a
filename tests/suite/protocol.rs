//! Both group protocols, for tests that hold with either.

use crate::kafka::Kafka;

/// The settings of a sidecar.
pub type Settings = Vec<(&'static str, &'static str)>;

/// How the members of a group agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Classic,
    /// KIP-848.
    Consumer,
}

impl Protocol {
    /// What chooses it.
    pub fn setting(self) -> (&'static str, &'static str) {
        let name = match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
        };
        ("consume.group_protocol", name)
    }

    /// Settings of members that agree this way, and are quick about it.
    pub fn quick(self, kafka: &Kafka, group: &str) -> Settings {
        match self {
            Self::Classic => vec![("consume.heartbeat_interval", "300ms")],
            Self::Consumer => {
                configure(kafka, group, "consumer.heartbeat.interval.ms=300");
                vec![self.setting()]
            }
        }
    }

    /// The same for members that are killed: their partitions are given on after six seconds.
    pub fn mortal(self, kafka: &Kafka, group: &str) -> Settings {
        let mut settings = self.given_up_after(kafka, group, "300ms", "6000ms");
        settings.push(("consume.revoke_drain", "3s"));
        settings
    }

    /// Settings of members with these times, in milliseconds.
    pub fn given_up_after(
        self,
        kafka: &Kafka,
        group: &str,
        heartbeat: &'static str,
        session: &'static str,
    ) -> Settings {
        match self {
            Self::Classic => vec![
                ("consume.heartbeat_interval", heartbeat),
                ("consume.session_timeout", session),
            ],
            Self::Consumer => {
                let [heartbeat, session] =
                    [heartbeat, session].map(|time| time.strip_suffix("ms").expect("milliseconds"));
                let times = format!(
                    "consumer.heartbeat.interval.ms={heartbeat},consumer.session.timeout.ms={session}"
                );
                configure(kafka, group, &times);
                vec![self.setting()]
            }
        }
    }
}

/// With KIP-848 the times are the brokers', for each group.
fn configure(kafka: &Kafka, group: &str, times: &str) {
    let of = ["--alter", "--entity-type", "groups", "--entity-name", group];
    let arguments = [&of[..], &["--add-config", times]].concat();
    kafka.tool("configs", &arguments);
}

/// A test by its name, once with each protocol, from a function that takes it.
macro_rules! with_each_protocol {
    ($($name:ident: $body:ident;)*) => {$(
        mod $name {
            use crate::protocol::Protocol;

            #[tokio::test(flavor = "multi_thread")]
            async fn with_the_classic_protocol() {
                super::$body(Protocol::Classic).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn with_the_consumer_protocol() {
                super::$body(Protocol::Consumer).await;
            }
        }
    )*};
}

pub(crate) use with_each_protocol;
