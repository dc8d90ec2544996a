"""Ten thousand messages of one record and 1 to 170 bytes, to a sidecar that stands still meanwhile and then goes on.

Its HTTP/2 library counts the small frames that nobody has read yet, and closes a connection that has too many. Proves: this one stays open, and each record
is answered with its place. Exit code 0: proven. What hangs fails: after --patience seconds it ends with a stack dump.
"""

import argparse
import faulthandler
import os
import signal
import sys
import threading
import time

import grpc
from outrigger.v1 import publisher_pb2, publisher_pb2_grpc, record_pb2

COUNT = 10_000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--pid", required=True, type=int, help="the sidecar's")
    parser.add_argument("--patience", type=float, default=120)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(options.patience, exit=True)
    welcome = threading.Event()

    def requests():
        yield publisher_pb2.PublishStreamRequest(open=publisher_pb2.PublishOpen(client_id="small-messages"))
        welcome.wait()
        for number in range(1, COUNT + 1):
            record = record_pb2.Record(topic=options.topic, value=b"x" * (1 + number % 170))
            yield publisher_pb2.PublishStreamRequest(batch=publisher_pb2.PublishBatch(sequence=number, records=[record]))

    def go_on():
        time.sleep(3)
        os.kill(options.pid, signal.SIGCONT)

    answered = 0
    with grpc.insecure_channel(options.address) as channel:
        call = publisher_pb2_grpc.PublisherServiceStub(channel).PublishStream(requests())
        for response in call:
            if response.HasField("welcome"):
                os.kill(options.pid, signal.SIGSTOP)
                welcome.set()
                threading.Thread(target=go_on, daemon=True).start()
            for ack in response.acks.acks:
                if ack.notes or len(ack.offsets) != 1 or ack.offsets[0] < 0:
                    sys.exit(f"not published: {ack}")
                answered += 1
    if answered != COUNT:
        sys.exit(f"{answered} answers")


if __name__ == "__main__":
    sys.exit(main())
