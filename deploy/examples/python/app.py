"""Publishes a few records through the sidecar, then prints and acknowledges what arrives, until SIGTERM or until the sidecar drains."""

import os
import queue
import signal
import sys

import grpc
from outrigger.v1 import publisher_pb2 as pub, publisher_pb2_grpc, record_pb2, subscriber_pb2 as sub, subscriber_pb2_grpc

topic, group = sys.argv[1:]
# On a Unix socket grpcio would call the server by the socket's path, and HTTP/2 servers refuse such a name.
channel = grpc.insecure_channel(os.environ["OUTRIGGER_ADDRESS"], options=[("grpc.default_authority", "localhost")])

# Many records to a message: that is where the throughput comes from.
records = [record_pb2.Record(topic=topic, key=b"key-%d" % n, value=b"%d from Python" % n) for n in range(10)]
batch = pub.PublishBatch(sequence=1, records=records)
messages = [pub.PublishStreamRequest(open=pub.PublishOpen()), pub.PublishStreamRequest(batch=batch)]
for response in publisher_pb2_grpc.PublisherServiceStub(channel).PublishStream(iter(messages), timeout=30):
    for ack in response.acks.acks:
        print("published: partitions", ack.partitions, "offsets", ack.offsets, "failures", ack.notes, flush=True)

# What the subscription has to say; a SimpleQueue, since a signal handler may put into it at any moment. Asked to drain, the sidecar ends the
# stream, without an error, when everything delivered is settled.
requests = queue.SimpleQueue()
init = sub.Init(group=group, topics=[topic], ordering=sub.ORDERING_PARTITION, confirm=sub.CONFIRM_RECORDED)
requests.put(sub.SubscribeRequest(init=init))
drain = sub.SubscribeRequest(drain=sub.Drain())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: requests.put(drain))
request_id = 0
for response in subscriber_pb2_grpc.SubscriberServiceStub(channel).Subscribe(iter(requests.get, None)):
    if response.HasField("deliveries"):
        settle = sub.Settle(request_id=(request_id := request_id + 1))
        for delivery in response.deliveries.deliveries:
            record = delivery.record
            print(f"received: {record.topic}[{record.partition}]@{delivery.offset} {record.value.decode()}", flush=True)
            settle.items.add(token=delivery.token, ack=sub.Ack())
        requests.put(sub.SubscribeRequest(settle=settle))
    elif response.HasField("draining"):
        requests.put(drain)
requests.put(None)
