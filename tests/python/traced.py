"""Publishes inside an active span and processes what comes back inside another, with OpenTelemetry's own SDK; both are exported over OTLP.

One record gets its context from the metadata of the call, the other carries its own in its header. Prints the trace ids of the two, a line each.
"""

import argparse
import faulthandler

import grpc
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from outrigger.v1 import publisher_pb2, publisher_pb2_grpc, record_pb2, subscriber_pb2, subscriber_pb2_grpc

faulthandler.dump_traceback_later(60, exit=True)
parser = argparse.ArgumentParser()
for name in ("--address", "--bootstrap", "--topic", "--group", "--collector"):
    parser.add_argument(name, required=True)
options = parser.parse_args()

provider = TracerProvider(resource=Resource.create({"service.name": "application"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"http://{options.collector}", insecure=True)))
tracer = provider.get_tracer("application")
channel = grpc.insecure_channel(options.address)
publisher = publisher_pb2_grpc.PublisherServiceStub(channel)


def publish(value, in_header):
    with tracer.start_as_current_span(f"client {value}") as span:
        carrier = {}
        propagate.inject(carrier)
        record = record_pb2.Record(topic=options.topic, value=value.encode())
        if in_header:
            record.headers.extend(record_pb2.Header(name=name, value=text.encode()) for name, text in carrier.items())
        metadata = [] if in_header else list(carrier.items())
        publisher.Publish(publisher_pb2.PublishRequest(records=[record]), metadata=metadata, timeout=30)
        print(f"{span.get_span_context().trace_id:032x}")


publish("by-metadata", in_header=False)
publish("by-header", in_header=True)

init = subscriber_pb2.Init(group=options.group, topics=[options.topic], ordering=subscriber_pb2.ORDERING_UNORDERED)
requests = [subscriber_pb2.SubscribeRequest(init=init)]


def said():
    sent = 0
    while True:
        if sent < len(requests):
            sent += 1
            yield requests[sent - 1]
        else:
            waiting.acquire()


import threading  # noqa: E402

waiting = threading.Semaphore(0)
seen = 0
for response in subscriber_pb2_grpc.SubscriberServiceStub(channel).Subscribe(said(), timeout=60):
    if response.HasField("settled"):
        if seen == 2:
            break
        continue
    for delivery in response.deliveries.deliveries:
        headers = {header.name: header.value.decode() for header in delivery.record.headers}
        with tracer.start_as_current_span(f"consumer {delivery.record.value.decode()}", context=propagate.extract(headers)):
            seen += 1
        settle = subscriber_pb2.Settle(request_id=seen, items=[subscriber_pb2.SettleItem(token=delivery.token, ack=subscriber_pb2.Ack())])
        requests.append(subscriber_pb2.SubscribeRequest(settle=settle))
        waiting.release()
provider.shutdown()
