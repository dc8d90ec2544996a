//! What a cluster says of itself, its topics and its groups, with what the asking user may do with them: librdkafka's admin requests that
//! only read, which the crate does not wrap (or, for settings, only in a client of another kind).

use std::{
    collections::BTreeMap,
    ffi::{CString, c_char},
    ptr,
    time::Duration,
};

use rdkafka::{
    client::{Client, ClientContext},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use rdkafka_sys as rd;

use super::admin::{Answer, array, ask, failure, millis, text};
use crate::kafka::inspect::{GroupFacts, Node, Operation, PartitionFacts, TopicFacts};

/// The brokers that a broker knows of; blocks for at most `timeout`.
pub(in crate::kafka) fn brokers<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
) -> Result<Vec<Node>, Code> {
    let mut metadata = ptr::null();
    // SAFETY: the client is alive; a null topic with `all_topics` 0 asks for topics that the client knows, which are none. The answer is
    // ours to destroy, and its array of brokers has the length that it says; the texts are NUL-terminated and copied.
    unsafe {
        let code = rd::rd_kafka_metadata(
            client.native_ptr(),
            0,
            ptr::null_mut(),
            &raw mut metadata,
            millis(timeout),
        );
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || metadata.is_null() {
            return Err(code.into());
        }
        let found = array(
            (*metadata).brokers.cast_const(),
            usize::try_from((*metadata).broker_cnt).unwrap_or(0),
        );
        let nodes = found
            .iter()
            .map(|broker| Node {
                id: broker.id,
                host: text(broker.host),
                port: u16::try_from(broker.port).unwrap_or(0),
            })
            .collect();
        rd::rd_kafka_metadata_destroy(metadata);
        Ok(nodes)
    }
}

/// The cluster's id, as a broker has told it; blocks for at most `timeout`.
pub(in crate::kafka) fn cluster_id<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
) -> Option<String> {
    // SAFETY: the client is alive; the text is a copy of our own, or null, and is freed once, as the client's.
    unsafe {
        let id = rd::rd_kafka_clusterid(client.native_ptr(), millis(timeout));
        if id.is_null() {
            return None;
        }
        let copy = text(id);
        rd::rd_kafka_mem_free(client.native_ptr(), id.cast());
        Some(copy)
    }
}

/// Whether a consumer is a member of its group now, as the last answer to it said.
pub(in crate::kafka) fn is_member<C: ClientContext>(client: &Client<C>) -> bool {
    // SAFETY: the client is alive; what is answered is ours to destroy, or null.
    unsafe {
        let member = rd::rd_kafka_consumer_group_metadata(client.native_ptr());
        if member.is_null() {
            return false;
        }
        let generation = rd::rd_kafka_consumer_group_metadata_generation_id(member);
        rd::rd_kafka_consumer_group_metadata_destroy(member);
        generation > 0
    }
}

/// Topics, in the order asked for.
pub(in crate::kafka) fn topics<C: ClientContext>(
    client: &Client<C>,
    names: &[String],
    broker: Option<i32>,
    timeout: Duration,
) -> Answer<Vec<TopicFacts>> {
    let names = texts(names)?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: `ask` gives live handles, and what the result points to lives as long as the event and is copied. The names are NUL-terminated and outlive the call, which copies them; the collection is ours to destroy.
    unsafe {
        ask(
            client,
            op,
            broker,
            timeout,
            |rk, options, queue| {
                let collection = rd::rd_kafka_TopicCollection_of_topic_names(
                    pointers.as_mut_ptr(),
                    pointers.len(),
                );
                rd::rd_kafka_DescribeTopics(rk, collection, options, queue);
                rd::rd_kafka_TopicCollection_destroy(collection);
            },
            |event| {
                let result = rd::rd_kafka_event_DescribeTopics_result(event);
                let mut count = 0;
                let found = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
                array(found, count)
                    .iter()
                    .map(|found| topic(*found))
                    .collect()
            },
        )
    }
}

/// # Safety
/// `found` is alive.
unsafe fn topic(found: *const rd::rd_kafka_TopicDescription_t) -> TopicFacts {
    // SAFETY: the caller's promise; each part lives as long as the description, and each array has the length that comes with it.
    unsafe {
        let (mut count, mut rights) = (0, 0);
        let partitions = rd::rd_kafka_TopicDescription_partitions(found, &raw mut count);
        let partitions = array(partitions, count).iter().map(|partition| {
            let (mut replicas, mut in_sync) = (0, 0);
            rd::rd_kafka_TopicPartitionInfo_replicas(*partition, &raw mut replicas);
            rd::rd_kafka_TopicPartitionInfo_isr(*partition, &raw mut in_sync);
            let leader = rd::rd_kafka_TopicPartitionInfo_leader(*partition);
            PartitionFacts {
                partition: rd::rd_kafka_TopicPartitionInfo_partition(*partition),
                has_leader: !leader.is_null() && rd::rd_kafka_Node_id(leader) >= 0,
                replicas,
                in_sync,
            }
        });
        let partitions = partitions.collect();
        let may = rd::rd_kafka_TopicDescription_authorized_operations(found, &raw mut rights);
        TopicFacts {
            name: text(rd::rd_kafka_TopicDescription_name(found)),
            error: failure(rd::rd_kafka_TopicDescription_error(found)),
            partitions,
            may: operations(may, rights),
        }
    }
}

/// One group.
pub(in crate::kafka) fn group<C: ClientContext>(
    client: &Client<C>,
    name: &str,
    timeout: Duration,
) -> Answer<GroupFacts> {
    let names = texts(&[name.to_owned()])?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    // SAFETY: as in `topics`.
    let answer = unsafe {
        ask(
            client,
            op,
            None,
            timeout,
            |rk, options, queue| {
                rd::rd_kafka_DescribeConsumerGroups(
                    rk,
                    pointers.as_mut_ptr(),
                    pointers.len(),
                    options,
                    queue,
                );
            },
            |event| {
                let result = rd::rd_kafka_event_DescribeConsumerGroups_result(event);
                let mut count = 0;
                let found =
                    rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
                array(found, count).first().map(|found| one_group(*found))
            },
        )
    };
    answer.and_then(|found| {
        found.ok_or_else(|| (Code::BadMessage, "an answer without the group".to_owned()))
    })
}

/// # Safety
/// `found` is alive.
unsafe fn one_group(found: *const rd::rd_kafka_ConsumerGroupDescription_t) -> GroupFacts {
    use rd::{rd_kafka_consumer_group_state_t as State, rd_kafka_consumer_group_type_t as Type};
    // SAFETY: the caller's promise; each part lives as long as the description and is copied.
    unsafe {
        let mut rights = 0;
        let may =
            rd::rd_kafka_ConsumerGroupDescription_authorized_operations(found, &raw mut rights);
        let coordinator = rd::rd_kafka_ConsumerGroupDescription_coordinator(found);
        GroupFacts {
            error: failure(rd::rd_kafka_ConsumerGroupDescription_error(found)),
            state: match rd::rd_kafka_ConsumerGroupDescription_state(found) {
                State::RD_KAFKA_CONSUMER_GROUP_STATE_PREPARING_REBALANCE => "PreparingRebalance",
                State::RD_KAFKA_CONSUMER_GROUP_STATE_COMPLETING_REBALANCE => "CompletingRebalance",
                State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE => "Stable",
                State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD => "Dead",
                State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY => "Empty",
                _ => "unknown",
            },
            is_classic: rd::rd_kafka_ConsumerGroupDescription_type(found)
                != Type::RD_KAFKA_CONSUMER_GROUP_TYPE_CONSUMER,
            assignor: text(rd::rd_kafka_ConsumerGroupDescription_partition_assignor(
                found,
            )),
            members: rd::rd_kafka_ConsumerGroupDescription_member_count(found),
            coordinator: (!coordinator.is_null()).then(|| node(coordinator)),
            may: operations(may, rights),
        }
    }
}

/// The settings of each topic, by name, in the order asked for; those that are secret or have no value are left out.
pub(in crate::kafka) fn topic_settings<C: ClientContext>(
    client: &Client<C>,
    names: &[String],
    broker: Option<i32>,
    timeout: Duration,
) -> Answer<Vec<Answer<BTreeMap<String, String>>>> {
    let texts = texts(names)?;
    let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
    // SAFETY: as in `topics`; the resources are ours to destroy after the call, which copies them.
    unsafe {
        ask(
            client,
            op,
            broker,
            timeout,
            |rk, options, queue| {
                let topic = rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
                let resource =
                    |name: &CString| rd::rd_kafka_ConfigResource_new(topic, name.as_ptr());
                let mut resources: Vec<_> = texts.iter().map(resource).collect();
                let (first, count) = (resources.as_mut_ptr(), resources.len());
                rd::rd_kafka_DescribeConfigs(rk, first, count, options, queue);
                rd::rd_kafka_ConfigResource_destroy_array(first, count);
            },
            |event| {
                let result = rd::rd_kafka_event_DescribeConfigs_result(event);
                let mut count = 0;
                let found = rd::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
                let mut found: BTreeMap<String, Answer<BTreeMap<String, String>>> =
                    array(found, count)
                        .iter()
                        .map(|found| {
                            (
                                text(rd::rd_kafka_ConfigResource_name(*found)),
                                settings(*found),
                            )
                        })
                        .collect();
                let told = |name| found.remove(name).unwrap_or_else(|| Ok(BTreeMap::new()));
                names.iter().map(told).collect()
            },
        )
    }
}

/// # Safety
/// `resource` is alive and of an answer.
unsafe fn settings(
    resource: *const rd::rd_kafka_ConfigResource_t,
) -> Answer<BTreeMap<String, String>> {
    // SAFETY: the caller's promise; each entry lives as long as the resource, the array has the length that comes with it, texts are copied.
    unsafe {
        let code = rd::rd_kafka_ConfigResource_error(resource);
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            let said = text(rd::rd_kafka_ConfigResource_error_string(resource));
            return Err((code.into(), said));
        }
        let mut count = 0;
        let found = rd::rd_kafka_ConfigResource_configs(resource, &raw mut count);
        let plain = array(found, count).iter().filter(|entry| {
            rd::rd_kafka_ConfigEntry_is_sensitive(**entry) == 0
                && !rd::rd_kafka_ConfigEntry_value(**entry).is_null()
        });
        Ok(plain
            .map(|entry| {
                let name = text(rd::rd_kafka_ConfigEntry_name(*entry));
                (name, text(rd::rd_kafka_ConfigEntry_value(*entry)))
            })
            .collect())
    }
}

/// # Safety
/// `found` is alive.
unsafe fn node(found: *const rd::rd_kafka_Node_t) -> Node {
    // SAFETY: the caller's promise; the text is copied.
    unsafe {
        Node {
            id: rd::rd_kafka_Node_id(found),
            host: text(rd::rd_kafka_Node_host(found)),
            port: rd::rd_kafka_Node_port(found),
        }
    }
}

/// `None` when the broker did not say.
///
/// # Safety
/// `first` is null or the first of `count`.
unsafe fn operations(
    first: *const rd::rd_kafka_AclOperation_t,
    count: usize,
) -> Option<Vec<Operation>> {
    use rd::rd_kafka_AclOperation_t as Op;
    if first.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let found = unsafe { array(first, count) };
    let known = found.iter().filter_map(|operation| match operation {
        Op::RD_KAFKA_ACL_OPERATION_READ => Some(Operation::Read),
        Op::RD_KAFKA_ACL_OPERATION_WRITE => Some(Operation::Write),
        Op::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Operation::DescribeConfigs),
        _ => None,
    });
    Some(known.collect())
}

fn texts(names: &[String]) -> Answer<Vec<CString>> {
    names
        .iter()
        .map(|name| {
            CString::new(name.as_str())
                .map_err(|_| (Code::InvalidTopic, "a NUL byte in a name".to_owned()))
        })
        .collect()
}
