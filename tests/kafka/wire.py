"""The two requests of the Kafka protocol that cluster.py needs: Metadata (who is up, who leads) and CreateTopics.

Not a client for tests of behaviour: those use confluent-kafka, Kafka's own tools and kcat. It is here because a tool of
Kafka's costs a JVM, about a second each time, and every test creates topics. Both requests are in the last version
before the protocol's flexible encoding; field names and order follow MetadataRequest.json and CreateTopicsRequest.json
of Apache Kafka. A call opens a connection of its own and ends within its timeout.
"""

import socket
import struct
from dataclasses import dataclass

METADATA, CREATE_TOPICS = (3, 4), (19, 4)  # (API key, version)


class WireError(Exception):
    """The broker could not be asked, or refused."""


@dataclass
class Partition:
    """What one broker believes about one partition."""

    topic: str
    index: int
    leader: int
    replicas: list
    in_sync: list


@dataclass
class Metadata:
    """What one broker believes about the cluster."""

    brokers: set
    controller: int
    partitions: list


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def string(self):
        length = self.number("h")
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def array(self, item) -> list:
        return [item() for _ in range(max(0, self.number("i")))]

    def numbers(self) -> list:
        return self.array(lambda: self.number("i"))


def _string(text) -> bytes:
    if text is None:
        return struct.pack(">h", -1)
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _ask(port: int, api, body: bytes, timeout: float) -> _Reader:
    request = struct.pack(">hhi", *api, 1) + _string("cluster.py") + body
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answers:
                (length,) = struct.unpack(">i", answers.read(4))
                answer = answers.read(length)
        if len(answer) < length:
            raise WireError(f"port {port}: the connection ended within an answer")
    except (OSError, struct.error) as error:
        raise WireError(f"port {port}: {error}") from error
    return _Reader(answer[4:])  # without the correlation id


def metadata(port: int, topics=None, timeout: float = 2.0) -> Metadata:
    """Asks the broker on `port` about `topics` (None: all), without creating any."""
    names = struct.pack(">i", -1) if topics is None else struct.pack(">i", len(topics)) + b"".join(map(_string, topics))
    answer = _ask(port, METADATA, names + struct.pack(">?", False), timeout)
    answer.number("i")  # throttle time

    def broker():
        node = answer.number("i")
        answer.string(), answer.number("i"), answer.string()  # host, port, rack
        return node

    partitions = []

    def topic():
        answer.number("h")  # error: a missing topic has no partitions, which is what callers look at
        name = answer.string()
        answer.number("b")  # internal

        def partition():
            answer.number("h")  # error: no leader is leader -1
            index, leader = answer.number("i"), answer.number("i")
            partitions.append(Partition(name, index, leader, answer.numbers(), answer.numbers()))

        answer.array(partition)

    brokers = set(answer.array(broker))
    answer.string()  # cluster id
    controller = answer.number("i")
    answer.array(topic)
    return Metadata(brokers, controller, partitions)


def create_topic(port: int, name: str, partitions: int, replicas: int, settings: dict, timeout: float) -> None:
    """Creates a topic through the broker on `port`, which passes it on to the controller."""
    body = struct.pack(">i", 1) + _string(name) + struct.pack(">ihi", partitions, replicas, 0)
    body += struct.pack(">i", len(settings)) + b"".join(_string(key) + _string(value) for key, value in settings.items())
    body += struct.pack(">i?", int(timeout * 1000), False)
    answer = _ask(port, CREATE_TOPICS, body, timeout)
    answer.number("i")  # throttle time
    for topic, code, message in answer.array(lambda: (answer.string(), answer.number("h"), answer.string())):
        if code != 0:
            raise WireError(f"topic {topic} not created: error {code}, {message}")
