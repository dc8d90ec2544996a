"""Produces directly with confluent_kafka, subscribes through the sidecar with stubs generated from our protos, and acks everything.

Proves: every record is delivered, once, in the order of its partition; keys, headers, null and empty values and timestamps are intact; the
committed offset stands at the end of every partition, as confluent_kafka and Kafka's own ConsumerGroupCommand see it. Exit code 0: proven. What
hangs fails: after --patience seconds it ends with a stack dump.
"""

import argparse
import collections
import faulthandler
import os
import queue
import re
import subprocess
import sys
import time

import grpc
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from outrigger.v1 import subscriber_pb2, subscriber_pb2_grpc

PARTITIONS = 6
PADDING = os.urandom(1000)


def record(number):
    """Key, value, headers and timestamp of record `number`."""
    kind = number % 7
    key = None if kind == 0 else b"" if kind == 1 else b"key-%d" % (number % 101)
    value = None if kind == 2 else b"" if kind == 3 else b"%d:" % number + PADDING
    headers = [("number", b"%d" % number)]
    if kind == 4:
        headers += [("twice", b"first"), ("twice", b"\x00\xff\xfe"), ("null", None), ("empty", b"")]
    return key, value, headers, 1_600_000_000_000 + number


def produce(bootstrap, topic, count):
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20})
    for number in range(count):
        key, value, headers, timestamp = record(number)
        while True:
            try:
                producer.produce(topic, value, key, number % PARTITIONS, headers=headers, timestamp=timestamp)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def subscribe(address, group, topic, count, ordering):
    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    requests = queue.Queue()
    responses = subscriber_pb2_grpc.SubscriberServiceStub(channel).Subscribe(iter(requests.get, None))
    init = subscriber_pb2.Init(group=group, topics=[topic], ordering=ordering)
    requests.put(subscriber_pb2.SubscribeRequest(init=init))
    last = collections.defaultdict(lambda: -1)
    seen = set()
    unsettled = set()
    request_id = 0
    for response in responses:
        if response.HasField("settled"):
            assert not response.settled.outcomes, response
            unsettled.remove(response.settled.request_id)
        elif response.HasField("deliveries"):
            deliveries = response.deliveries.deliveries
            for delivery in deliveries:
                got = delivery.record
                number = int(got.headers[0].value)
                assert number not in seen, f"record {number} is delivered twice"
                seen.add(number)
                assert delivery.attempt == 1 and delivery.offset == number // PARTITIONS, delivery
                assert got.partition == number % PARTITIONS and got.topic == topic, delivery
                assert number > last[got.partition], f"record {number} is out of order"
                last[got.partition] = number
                key, value, headers, timestamp = record(number)
                assert (got.key if got.HasField("key") else None) == key, f"record {number}: key"
                assert (got.value if got.HasField("value") else None) == value, f"record {number}: value"
                assert [(h.name, h.value if h.HasField("value") else None) for h in got.headers] == headers, f"record {number}: headers"
                assert got.timestamp.ToMilliseconds() == timestamp, f"record {number}: timestamp"
                assert delivery.timestamp_type == subscriber_pb2.TIMESTAMP_TYPE_CREATE_TIME
            request_id += 1
            unsettled.add(request_id)
            items = [subscriber_pb2.SettleItem(token=delivery.token, ack=subscriber_pb2.Ack()) for delivery in deliveries]
            requests.put(subscriber_pb2.SubscribeRequest(settle=subscriber_pb2.Settle(request_id=request_id, items=items)))
        if len(seen) == count and not unsettled:
            requests.put(subscriber_pb2.SubscribeRequest(drain=subscriber_pb2.Drain()))
            count = -1
    requests.put(None)


def check_offsets(bootstrap, group, topic, count, kafka):
    ends = {p: (count - p + PARTITIONS - 1) // PARTITIONS for p in range(PARTITIONS)}
    deadline = time.time() + 30
    while True:
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        committed = consumer.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=30)
        consumer.close()
        if {entry.partition: entry.offset for entry in committed} == ends:
            break
        assert time.time() < deadline, f"committed {committed}, expected {ends}"
        time.sleep(0.5)
    tool = [sys.executable, kafka, "tool", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"]
    described = subprocess.run(
        [*tool, "--bootstrap-server", bootstrap, "--describe", "--group", group], check=True, capture_output=True, text=True
    ).stdout
    # GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
    rows = re.findall(rf"^{re.escape(group)}\s+{re.escape(topic)}\s+(\d+)\s+(\d+)\s+(\d+)\s+0\s", described, re.M)
    assert {int(p): int(current) for p, current, end in rows} == ends, described
    assert all(current == end for _, current, end in rows), described


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--kafka", required=True, help="tests/kafka/cluster.py")
    parser.add_argument("--ordering", default="ORDERING_PARTITION")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--patience", type=int, default=300, help="seconds")
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(arguments.patience, exit=True)
    admin = AdminClient({"bootstrap.servers": arguments.bootstrap})
    for created in admin.create_topics([NewTopic(arguments.topic, PARTITIONS, 1)]).values():
        created.result()
    produce(arguments.bootstrap, arguments.topic, arguments.records)
    group = arguments.topic + "-group"
    ordering = subscriber_pb2.Ordering.Value(arguments.ordering)
    subscribe(arguments.address, group, arguments.topic, arguments.records, ordering)
    check_offsets(arguments.bootstrap, group, arguments.topic, arguments.records, arguments.kafka)
    print(f"{arguments.records} records delivered, compared, acked and committed")


if __name__ == "__main__":
    sys.exit(main())
