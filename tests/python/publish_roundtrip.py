"""Publishes through the sidecar with stubs generated from our protos, and reads back directly with confluent_kafka.

Proves: every record is there, once, in the order of its partition; keys, headers (duplicate, binary, null), null and empty values and
timestamps are intact, and absent timestamps are those of the admission; every reported partition and offset is true. Exit code 0: proven. What
hangs fails: after --patience seconds it ends with a stack dump.
"""

import argparse
import collections
import faulthandler
import os
import queue
import sys
import time

import grpc
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from google.protobuf.timestamp_pb2 import Timestamp
from outrigger.v1 import publisher_pb2, publisher_pb2_grpc, record_pb2

PARTITIONS = 6
BATCH = 200
PADDING = os.urandom(1000)


def record(topic, number):
    """Record `number`: the number itself says what is special about it."""
    made = record_pb2.Record(topic=topic)
    kind = number % 8
    if kind == 0:
        pass  # A null key.
    elif kind == 1:
        made.key = b""
    else:
        made.key = b"key-%d" % (number % 101)
    if kind == 2:
        pass  # A null value.
    elif kind == 3:
        made.value = b""
    else:
        made.value = b"%d:" % number + PADDING
    headers = made.headers
    headers.add(name="number", value=b"%d" % number)
    if kind == 4:
        headers.add(name="twice", value=b"first")
        headers.add(name="twice", value=b"\x00\xff\xfe")
        headers.add(name="null")
        headers.add(name="empty", value=b"")
        headers.add(name="ünïcode", value="ü".encode())
    if kind == 5:
        made.timestamp.CopyFrom(Timestamp(seconds=1_600_000_000 + number, nanos=(number % 1000) * 1_000_000))
    if kind == 6:
        made.partition = number % PARTITIONS
    return made


def publish(address, topic, count):
    """Returns the reported (partition, offset) of each record."""
    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    requests = queue.Queue()
    responses = publisher_pb2_grpc.PublisherServiceStub(channel).PublishStream(iter(requests.get, None))
    requests.put(publisher_pb2.PublishStreamRequest(open=publisher_pb2.PublishOpen()))
    welcome = next(responses).welcome
    reported = [None] * count
    sent = answered = sequence = 0
    while answered < count:
        while sent < count and sent - answered + BATCH <= welcome.window_records and (sent - answered + BATCH) * 1500 <= welcome.window_bytes:
            sequence += 1
            batch = [record(topic, number) for number in range(sent, min(sent + BATCH, count))]
            requests.put(publisher_pb2.PublishStreamRequest(batch=publisher_pb2.PublishBatch(sequence=sequence, records=batch)))
            sent += len(batch)
        for ack in next(responses).acks.acks:
            assert not ack.notes, ack
            first = (ack.sequence - 1) * BATCH
            for index, place in enumerate(zip(ack.partitions, ack.offsets)):
                assert reported[first + index] is None, f"record {first + index} is answered twice"
                reported[first + index] = place
                answered += 1
    requests.put(None)
    assert next(responses, None) is None, "the stream ends cleanly"
    return reported


def check(bootstrap, topic, count, reported, published):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "direct", "enable.auto.commit": False})
    ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p))[1] for p in range(PARTITIONS)}
    assert sum(ends.values()) == count, f"{sum(ends.values())} records are in Kafka, not {count}"
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    last = collections.defaultdict(lambda: -1)
    seen = 0
    while seen < count:
        for message in consumer.consume(1000, timeout=30):
            assert message.error() is None, message.error()
            seen += 1
            headers = message.headers()
            number = int(headers[0][1])
            partition = message.partition()
            assert number > last[partition], f"record {number} is out of order in partition {partition}"
            last[partition] = number
            assert reported[number] == (partition, message.offset()), f"record {number}: told {reported[number]}"
            sent = record(topic, number)
            expected_key = sent.key if sent.HasField("key") else None
            assert message.key() == expected_key, f"record {number}: key {message.key()!r}"
            expected_value = sent.value if sent.HasField("value") else None
            assert message.value() == expected_value, f"record {number}: value {message.value()!r}"
            expected = [(header.name, header.value if header.HasField("value") else None) for header in sent.headers]
            assert headers == expected, f"record {number}: headers {headers}"
            if sent.HasField("timestamp"):
                assert message.timestamp()[1] == sent.timestamp.ToMilliseconds(), f"record {number}: {message.timestamp()}"
            else:
                begun, ended = published
                assert begun <= message.timestamp()[1] <= ended, f"record {number}: {message.timestamp()}, published in {published}"
            if sent.HasField("partition"):
                assert partition == sent.partition
    consumer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--patience", type=int, default=300, help="seconds")
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(arguments.patience, exit=True)
    admin = AdminClient({"bootstrap.servers": arguments.bootstrap})
    for created in admin.create_topics([NewTopic(arguments.topic, PARTITIONS, 1)]).values():
        created.result()
    begun = time.time_ns() // 1_000_000
    reported = publish(arguments.address, arguments.topic, arguments.records)
    check(arguments.bootstrap, arguments.topic, arguments.records, reported, (begun, time.time_ns() // 1_000_000))
    print(f"{arguments.records} records published, read back and compared")


if __name__ == "__main__":
    sys.exit(main())
