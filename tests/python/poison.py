"""Subscribes, acks what comes in batches, and is killed by the first record whose value is "poison": it dies with whatever it holds, like a process
that crashes. The values that the sidecar has confirmed are appended to a file, one a line, so that all lives of the client together can be counted.
"""

import argparse
import os
import queue
import signal

import grpc
from google.protobuf.duration_pb2 import Duration
from outrigger.v1 import subscriber_pb2, subscriber_pb2_grpc


def main():
    parser = argparse.ArgumentParser()
    for name in ("address", "bootstrap", "group", "topic", "window", "settled"):
        parser.add_argument("--" + name, required=True)
    arguments = parser.parse_args()
    channel = grpc.insecure_channel(arguments.address, options=[("grpc.max_receive_message_length", -1)])
    requests = queue.Queue()
    responses = subscriber_pb2_grpc.SubscriberServiceStub(channel).Subscribe(iter(requests.get, None))
    init = subscriber_pb2.Init(
        group=arguments.group,
        topics=[arguments.topic],
        window=subscriber_pb2.Window(max_records=int(arguments.window)),
        retry=subscriber_pb2.RetryPolicy(min_delay=Duration(nanos=50_000_000), max_attempts=3),
        dead_letter=subscriber_pb2.DeadLetterPolicy(),
    )
    requests.put(subscriber_pb2.SubscribeRequest(init=init))
    waiting = {}
    request_id = 0
    with open(arguments.settled, "a", encoding="utf-8") as settled:
        for response in responses:
            if response.HasField("settled"):
                assert not response.settled.outcomes, response
                settled.write(waiting.pop(response.settled.request_id))
                settled.flush()
            elif response.HasField("deliveries"):
                deliveries = response.deliveries.deliveries
                if any(delivery.record.value == b"poison" for delivery in deliveries):
                    os.kill(os.getpid(), signal.SIGKILL)
                request_id += 1
                items = [subscriber_pb2.SettleItem(token=delivery.token, ack=subscriber_pb2.Ack()) for delivery in deliveries]
                waiting[request_id] = "".join(f"{delivery.record.value.decode()}\n" for delivery in deliveries)
                requests.put(subscriber_pb2.SubscribeRequest(settle=subscriber_pb2.Settle(request_id=request_id, items=items)))


main()
