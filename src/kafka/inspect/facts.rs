//! What a cluster says of itself, its topics and its groups.

use std::collections::BTreeMap;

use rdkafka::types::RDKafkaErrorCode as Code;

use super::Endpoint;

/// A broker, as the cluster names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: i32,
    /// Where it is, as it advertises.
    pub host: String,
    /// The same.
    pub port: u16,
}

impl Node {
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.host.clone(),
            port: self.port,
        }
    }
}

/// A cluster, as a broker that let us in tells of it.
#[derive(Debug)]
pub struct ClusterFacts {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its brokers.
    pub brokers: Vec<Node>,
}

/// What was answered to the questions. Each error is in words.
#[derive(Debug)]
pub struct Answers {
    /// In the order asked for.
    pub topics: Result<Vec<TopicFacts>, String>,
    /// Of the topics whose settings could be read: those, by name.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Of the group, if one was asked for.
    pub group: Option<Result<GroupFacts, String>>,
}

/// A topic.
#[derive(Debug)]
pub struct TopicFacts {
    /// Which.
    pub name: String,
    /// Why the broker says nothing of it.
    pub error: Option<(Code, String)>,
    /// Its partitions.
    pub partitions: Vec<PartitionFacts>,
    /// What we may do with it; `None` when the broker did not say.
    pub may: Option<Vec<Operation>>,
}

/// What a refusal to describe something means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// There is no such thing.
    Missing,
    /// We may not even see it.
    Forbidden,
    /// The broker has no such question.
    Unknown,
    /// Something else.
    Other,
}

/// The meaning of an error with which a topic or a group is not described.
pub fn denial(code: Code) -> Denial {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic => Denial::Missing,
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => Denial::Forbidden,
        Code::UnsupportedFeature | Code::UnsupportedVersion => Denial::Unknown,
        _ => Denial::Other,
    }
}

/// A partition.
#[derive(Debug)]
pub struct PartitionFacts {
    /// Its number.
    pub partition: i32,
    /// Whether a broker leads it.
    pub has_leader: bool,
    /// How many brokers should hold it.
    pub replicas: usize,
    /// How many of them are up to date.
    pub in_sync: usize,
}

/// A group.
#[derive(Debug)]
pub struct GroupFacts {
    /// Why the coordinator says nothing of it.
    pub error: Option<(Code, String)>,
    /// In Kafka's word.
    pub state: &'static str,
    /// Whether it is of the protocol that we speak, rather than of KIP-848.
    pub is_classic: bool,
    /// How it shares partitions out; empty without members.
    pub assignor: String,
    /// How many.
    pub members: usize,
    /// The broker that leads it.
    pub coordinator: Option<Node>,
    /// What we may do with it; `None` when the broker did not say.
    pub may: Option<Vec<Operation>>,
}

/// What one may do, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fetch records, commit as a group.
    Read,
    /// Publish.
    Write,
    /// Read settings.
    DescribeConfigs,
}
