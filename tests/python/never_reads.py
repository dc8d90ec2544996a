"""Clients of the sidecar that misbehave, on grpcio's own HTTP/2 stack: its flow control is not that of our Rust tests.

Not a judge of the sidecar: it behaves badly for --seconds and prints what it saw as one line of JSON; the caller looks at the sidecar meanwhile
(memory, other clients) and afterwards. Exit code 0: it could misbehave as asked. The topic must exist; --fill writes records into it first.

    publish                    sends batches as fast as the transport takes them, and never reads an answer
    subscribe-never-reads      opens a subscription, and never reads a delivery
    subscribe-never-settles    reads every delivery, and never settles one
    vanish                     the process ends without a goodbye after --after deliveries, none of them settled
"""

import argparse
import faulthandler
import json
import os
import queue
import sys
import threading

import grpc
from confluent_kafka import Producer
from outrigger.v1 import publisher_pb2, publisher_pb2_grpc, record_pb2, subscriber_pb2, subscriber_pb2_grpc

VALUE = os.urandom(1000)


def fill(bootstrap, topic, count):
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for number in range(count):
        producer.produce(topic, b"%d" % number)
    if producer.flush(60) != 0:
        sys.exit("the topic could not be filled")


def publish(channel, options, over):
    sent = 0

    def requests():
        nonlocal sent
        yield publisher_pb2.PublishStreamRequest(open=publisher_pb2.PublishOpen(client_id="never-reads"))
        records = [record_pb2.Record(topic=options.topic, value=VALUE)] * 100
        # grpcio asks for the next message when the transport has taken the one before.
        while not over.is_set():
            sent += 1
            yield publisher_pb2.PublishStreamRequest(batch=publisher_pb2.PublishBatch(sequence=sent, records=records))

    call = publisher_pb2_grpc.PublisherServiceStub(channel).PublishStream(requests())
    over.wait(options.seconds)
    over.set()
    # Only now it looks. grpcio learns that a stream was cut when what came before is read; until then it takes, and drops, what is sent. So
    # `batches` says nothing of the sidecar once the stream is cut.
    answers = 0
    try:
        for response in call:
            answers += len(response.acks.acks)
    except grpc.RpcError:
        pass  # told by `ending`
    return {"batches": sent, "answers": answers, **ending(call)}


def ending(call):
    """How the stream ended; empty if it has not."""
    return {"code": call.code().name, "details": call.details()} if call.done() else {}


def subscribe(channel, options, over):
    requests = queue.SimpleQueue()
    init = subscriber_pb2.Init(
        group=options.group,
        topics=[options.topic],
        ordering=subscriber_pb2.Ordering.Value(options.ordering),
        window=subscriber_pb2.Window(max_records=options.window),
        client_id=options.mode,
    )
    if options.lease:
        init.lease.seconds = options.lease
    requests.put(subscriber_pb2.SubscribeRequest(init=init))
    call = subscriber_pb2_grpc.SubscriberServiceStub(channel).Subscribe(iter(requests.get, None))
    seen = {"deliveries": 0, "records": 0, "highest_attempt": 0, "window": None}
    places = set()

    def read():
        try:
            for response in call:
                if response.HasField("welcome"):
                    seen["window"] = response.welcome.granted.max_records
                for delivery in response.deliveries.deliveries:
                    seen["deliveries"] += 1
                    seen["highest_attempt"] = max(seen["highest_attempt"], delivery.attempt)
                    places.add((delivery.record.partition, delivery.offset))
                if options.mode == "vanish" and seen["deliveries"] >= options.after:
                    print(json.dumps({**seen, "records": len(places)}), flush=True)
                    os._exit(0)
        except grpc.RpcError:
            pass  # told by `ending`
        over.set()

    if options.mode != "subscribe-never-reads":
        threading.Thread(target=read, name="reader", daemon=True).start()
    over.wait(options.seconds)
    saw = {**seen, "records": len(places), **ending(call)}
    call.cancel()
    requests.put(None)
    return saw


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--mode", required=True, choices=("publish", "subscribe-never-reads", "subscribe-never-settles", "vanish"))
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--group", default="never")
    parser.add_argument("--ordering", default="ORDERING_UNORDERED")
    parser.add_argument("--window", type=int, default=1000, help="records")
    parser.add_argument("--lease", type=int, default=0, help="seconds; 0: the sidecar's default")
    parser.add_argument("--after", type=int, default=100, help="deliveries")
    parser.add_argument("--fill", type=int, default=0, help="records to write into the topic first")
    options = parser.parse_args()
    # The writing of --fill and the connection are bounded; beyond that nothing takes longer than asked.
    faulthandler.dump_traceback_later(options.seconds + 120, exit=True)
    if options.fill:
        fill(options.bootstrap, options.topic, options.fill)
    with grpc.insecure_channel(options.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        misbehave = publish if options.mode == "publish" else subscribe
        saw = misbehave(channel, options, threading.Event())
    print(json.dumps(saw))
    # A publisher is cut sooner or later; a subscriber that did as asked is not.
    if options.mode == "vanish" or (options.mode != "publish" and "code" in saw):
        sys.exit("the sidecar did not let it misbehave")


if __name__ == "__main__":
    sys.exit(main())
