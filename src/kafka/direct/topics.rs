//! The topics of a bench: made, put where they should be, and deleted.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, KafkaResult},
    metadata::MetadataPartition,
    types::RDKafkaErrorCode as Code,
};

use super::{TIMEOUT, properties};
use crate::config::Config;

/// Topics of one request, which has to be done in time as a whole.
const TOGETHER: usize = 500;

/// How often it is looked whether they are known.
const LOOK: Duration = Duration::from_millis(100);

fn admin(config: &Config) -> KafkaResult<(AdminClient<DefaultClientContext>, AdminOptions)> {
    let options = AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT));
    Ok((properties(config)?.create()?, options))
}

/// Creates those that are missing, with the cluster's own replication, and waits until brokers know them: the controller answers before.
pub async fn create_topics(config: &Config, topics: &[String], partitions: i32) -> KafkaResult<()> {
    // -1: the broker's default.
    let new = |topic| NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for topics in topics.chunks(TOGETHER) {
        let topics: Vec<NewTopic<'_>> = topics.iter().map(|topic| new(topic)).collect();
        create(config, &topics).await?;
    }
    let mut missing: BTreeSet<&str> = topics.iter().map(String::as_str).collect();
    let (admin, _) = admin(config)?;
    let mut since = Instant::now();
    loop {
        let before = missing.len();
        let metadata = admin.inner().fetch_metadata(None, TIMEOUT)?;
        for topic in metadata.topics() {
            let is_led = |one: &MetadataPartition| one.leader() >= 0;
            if !topic.partitions().is_empty() && topic.partitions().iter().all(is_led) {
                missing.remove(topic.name());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if missing.len() < before {
            since = Instant::now();
        }
        if since.elapsed() > TIMEOUT {
            return Err(KafkaError::MetadataFetch(Code::OperationTimedOut));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Creates a topic with a partition on each of these brokers and nowhere else: without that broker it has no leader.
pub async fn create_apart(config: &Config, topic: &str, brokers: &[i32]) -> KafkaResult<()> {
    let places: Vec<&[i32]> = brokers.iter().map(std::slice::from_ref).collect();
    let count = brokers.len() as i32;
    let topic = NewTopic::new(topic, count, TopicReplication::Variable(&places))
        .set("min.insync.replicas", "1");
    create(config, &[topic]).await
}

async fn create(config: &Config, topics: &[NewTopic<'_>]) -> KafkaResult<()> {
    let (admin, options) = admin(config)?;
    for result in admin.create_topics(topics, &options).await? {
        match result {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}

/// Deletes topics.
pub async fn delete_topics(config: &Config, topics: &[String]) -> KafkaResult<()> {
    let (admin, options) = admin(config)?;
    for topics in topics.chunks(TOGETHER) {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        for result in admin.delete_topics(&topics, &options).await? {
            result.map_err(|(_, code)| KafkaError::AdminOp(code))?;
        }
    }
    Ok(())
}

/// The brokers of the cluster, by their node ids. Blocks.
pub fn brokers(config: &Config) -> KafkaResult<Vec<i32>> {
    let (admin, _) = admin(config)?;
    let metadata = admin.inner().fetch_metadata(None, TIMEOUT)?;
    Ok(metadata
        .brokers()
        .iter()
        .map(|broker| broker.id())
        .collect())
}
