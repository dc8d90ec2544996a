#!/usr/bin/env python3
"""Real Apache Kafka for tests: one broker or three on loopback, from the jars that pom.xml names.

    cluster.py start [--brokers 1|3] [--dir DIR] [--set KEY=VALUE ...] [--listener NAME:PROTOCOL ...]
               [--advertise NAME:PORT,... ...] [--java OPTION ...]
    cluster.py start --foreground ...      for people: says how to use it, and stays until Ctrl-C
    cluster.py tool NAME ARGS...           one of Kafka's command line tools (without a NAME: lists them)
    cluster.py fetch                       only fills the cache with the jars

`start` prints one line of JSON when all brokers serve clients, {"bootstrap": ..., "listeners": {NAME: ...}, "pids": [...], "dir": ...},
and then obeys lines on its standard input. Each is answered by one line of JSON when it is done, {"ok": true, ...} or
{"ok": false, "error": ...}:

    kill N      SIGKILL to broker N (from 1), and wait for its death
    term N      SIGTERM: a controlled shutdown, and wait for its end
    start N     start broker N again, on the same port and storage; done when it serves clients
    pause N     SIGSTOP; done when every thread of it has stopped
    resume N    SIGCONT
    topic NAME PARTITIONS [REPLICAS|-] [KEY=VALUE ...]    create a topic; done when every running broker knows its leaders
    leader NAME PARTITION    {"leader": N}; 0: it has none
    healthy     wait until every partition of the cluster has a leader and all its replicas in sync

What always holds: the brokers do not outlive this process, however it ends (the kernel kills them with it), and this
process does not outlive the one that started it: it ends at end of file on standard input, when its parent is gone, and
on SIGTERM, SIGINT and SIGHUP. Then the brokers are killed by their process ids and the storage is removed, unless
--dir said where to keep it. The brokers' ports are this process's for its whole life (see `_reserve`), so a broker that
is down cannot lose its port. Every wait is bounded. Standard library only.
"""

import argparse
import base64
import ctypes
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # nothing beside the tracked files
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import cache  # noqa: E402
import wire  # noqa: E402

POM = HERE / "pom.xml"
# A short life: start fast, stay small; what the second compiler would win does not come back before the test is over.
JVM = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
SECONDS_TO_START = 120
SECONDS_TO_STOP = 30
PR_SET_PDEATHSIG = 1

TOOLS = {
    "acls": "org.apache.kafka.tools.AclCommand",
    "configs": "kafka.admin.ConfigCommand",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "groups": "org.apache.kafka.tools.GroupsCommand",
    "leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "storage": "kafka.tools.StorageTool",
    "topics": "org.apache.kafka.tools.TopicCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
}


class ClusterError(Exception):
    """A request that cannot be met; its text is for the person who asked."""


class Over(Exception):
    """Whoever started this is gone, or asked for the end."""


# --- The jars -------------------------------------------------------------------------------------------------------


def jars() -> Path:
    """The directory of the jars; fetched with Maven the first time, and again when pom.xml changes."""
    pom = POM.read_text(encoding="utf-8")
    version = re.search(r"<kafka\.version>(.+)</kafka\.version>", pom)[1]
    return cache.filled(f"kafka-{version}", pom, _fetch) / "libs"


def _fetch(directory: Path) -> None:
    print(f"{Path(__file__).name}: fetching Apache Kafka", file=sys.stderr)
    command = ["mvn", "--quiet", "--batch-mode", "--file", str(POM), "dependency:copy-dependencies"]
    try:
        subprocess.run([*command, f"-DoutputDirectory={directory / 'libs'}"], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)
    except FileNotFoundError as error:
        raise ClusterError("mvn is not installed (Debian package: maven)") from error
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"Maven could not fetch the jars, exit code {error.returncode}") from error


def _java(*arguments: str) -> list:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if not java:
        raise ClusterError("java is not installed (Debian package: default-jdk-headless)")
    return [java, *JVM, "-cp", f"{jars()}/*", *arguments]


def tool(name: str, arguments: list) -> None:
    """Becomes the tool, so that its output and exit code are its own. NAME may be a class, or a Java source file."""
    java = _java("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", TOOLS.get(name, name), *arguments)
    os.execv(java[0], java)


# --- One broker -----------------------------------------------------------------------------------------------------


def _reserve() -> socket.socket:
    """A port that is ours until the socket is closed.

    The socket is bound and never listens. Java's listening sockets have SO_REUSEADDR too, so the broker may listen on
    the port beside it, again and again, while the kernel gives the port to nobody else: neither to a bind to port 0 nor
    to an outgoing connection. Without a broker, a connection is refused as usual.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


_prctl = ctypes.CDLL(None, use_errno=True).prctl


def _die_with_parent(parent: int):
    """Runs in a child before exec. The kernel ties it to the thread that forked it, which here is the only one."""

    def in_child():
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return in_child


class Broker:
    """One node, broker and controller in one process, with its storage, its ports and its log."""

    def __init__(self, node: int, directory: Path, listeners: dict, advertised: dict, java: list):
        self.node = node
        self.directory = directory / f"broker-{node}"
        self.log = self.directory / "log"
        self.holders = [_reserve(), _reserve()]
        self.port, self.controller_port = (holder.getsockname()[1] for holder in self.holders)
        self.java = java
        # Further listeners, by host name: a certificate is for a name.
        self.protocols = listeners
        self.listeners = {}
        for name in listeners:
            self.holders.append(_reserve())
            self.listeners[name] = f"localhost:{self.holders[-1].getsockname()[1]}"
        # Where clients are told to find them: there, or at a proxy's port.
        self.advertised = {**self.listeners, **{name: f"localhost:{ports[node - 1]}" for name, ports in advertised.items()}}
        self.process = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def configure(self, settings: dict) -> None:
        """Writes the properties; `settings` win over what is set here."""
        own = {
            "node.id": self.node,
            "process.roles": "broker,controller",
            "listeners": ",".join(
                [f"PLAINTEXT://127.0.0.1:{self.port}", f"CONTROLLER://127.0.0.1:{self.controller_port}"]
                + [f"{name}://{address}" for name, address in self.listeners.items()]
            ),
            "advertised.listeners": ",".join(
                [f"PLAINTEXT://127.0.0.1:{self.port}"] + [f"{name}://{address}" for name, address in self.advertised.items()]
            ),
            "listener.security.protocol.map": ",".join(
                ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"] + [f"{name}:{protocol}" for name, protocol in self.protocols.items()]
            ),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.directory / "data",
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{key}={value}\n" for key, value in {**own, **settings}.items())
        (self.directory / "server.properties").write_text(text, encoding="utf-8")

    @property
    def formatted(self) -> bool:
        """True for storage that an earlier run left in --dir; it keeps its cluster id."""
        return (self.directory / "data" / "meta.properties").exists()

    def format(self, cluster_id: str) -> subprocess.Popen:
        arguments = ["format", "--cluster-id", cluster_id, "--config", str(self.directory / "server.properties")]
        return self._spawn("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", TOOLS["storage"], *arguments)

    def start(self, heap: str) -> None:
        if self.running:
            raise ClusterError(f"broker {self.node} is running")
        self.process = self._spawn(
            f"-Xmx{heap}",
            *self.java,
            f"-Dorg.slf4j.simpleLogger.logFile={self.log}",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "kafka.Kafka",
            str(self.directory / "server.properties"),
        )

    def _spawn(self, *arguments: str) -> subprocess.Popen:
        with open(self.directory / "output", "ab") as output:
            return subprocess.Popen(
                _java(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A Ctrl-C of the terminal is for this process, which then stops its brokers.
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),
            )

    def is_stopped(self) -> bool:
        """Whether every thread of it is stopped."""
        states = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                continue  # it ended meanwhile
            states.append(stat.rpartition(")")[2].split()[0])
        return all(state == "T" for state in states)

    def send(self, number: int) -> None:
        if not self.running:
            raise ClusterError(f"broker {self.node} is not running")
        self.process.send_signal(number)

    def last_words(self) -> str:
        """The end of what it wrote, for the person who looks for the cause of a failure."""
        text = ""
        for file in (self.directory / "output", self.log):
            if file.exists():
                text += "".join(file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-15:])
        return text


# --- The cluster ----------------------------------------------------------------------------------------------------


class Cluster:
    """All brokers of one run. `check` is called during waits and raises to end them."""

    def __init__(self, count: int, directory: Path, settings: dict, check, listeners: dict, advertised: dict, java: list):
        self.check = check
        self.heap = "512m" if count == 1 else "384m"
        self.paused = set()
        self.brokers = [Broker(node, directory, listeners, advertised, java) for node in range(1, count + 1)]
        self.listeners = {name: ",".join(broker.listeners[name] for broker in self.brokers) for name in listeners}
        self.bootstrap = ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)
        self.replicas = min(3, count)
        voters = ",".join(f"{broker.node}@127.0.0.1:{broker.controller_port}" for broker in self.brokers)
        shared = {**_settings(count), "controller.quorum.voters": voters, **settings}
        for broker in self.brokers:
            broker.configure(shared)

    def start(self) -> None:
        # One that begins with a dash, as one in 64 does, would be taken for an option; Kafka's own ids never do.
        cluster_id = "-"
        while cluster_id.startswith("-"):
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        fresh = [broker for broker in self.brokers if not broker.formatted]
        # Side by side: each is a JVM's start.
        for broker, process in [(broker, broker.format(cluster_id)) for broker in fresh]:
            try:
                code = process.wait(SECONDS_TO_START)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if code != 0:
                raise ClusterError(f"the storage of broker {broker.node} could not be formatted:\n{broker.last_words()}")
        for broker in self.brokers:
            broker.start(self.heap)
        for broker in self.brokers:
            self._serves(broker)

    def stop(self) -> None:
        """Kills every broker and reaps it; a paused one too."""
        for broker in self.brokers:
            if broker.running:
                broker.process.kill()
        for broker in self.brokers:
            if broker.process:
                broker.process.wait()

    def obey(self, words: list) -> dict:
        """Carries out one line of standard input and returns what to answer beside "ok"."""
        match words:
            case ["kill", node]:
                self._end(self._broker(node), signal.SIGKILL)
            case ["term", node]:
                self._end(self._broker(node), signal.SIGTERM)
            case ["start", node]:
                broker = self._broker(node)
                broker.start(self.heap)
                self._serves(broker)
                return {"pid": broker.process.pid}
            case ["pause", node]:
                broker = self._broker(node)
                broker.send(signal.SIGSTOP)
                self.paused.add(broker.node)
                # One thread takes the signal and stops the others: until it is scheduled, they go on.
                self._wait(f"broker {broker.node} does not stop", broker.is_stopped, SECONDS_TO_STOP)
            case ["resume", node]:
                broker = self._broker(node)
                broker.send(signal.SIGCONT)
                self.paused.discard(broker.node)
            case ["topic", name, partitions, *rest]:
                replicas = rest.pop(0) if rest and "=" not in rest[0] else "-"
                self._create_topic(name, int(partitions), self.replicas if replicas == "-" else int(replicas), _pairs(rest))
            case ["leader", name, partition]:
                return {"leader": self._leader(name, int(partition))}
            case ["healthy"]:
                self._wait("partitions without a leader or with replicas out of sync", self._all_in_sync)
            case _:
                raise ClusterError("unknown command")
        return {}

    def _broker(self, node: str) -> Broker:
        for broker in self.brokers:
            if node == str(broker.node):
                return broker
        raise ClusterError(f"no broker {node}")

    def _active(self) -> list:
        return [broker for broker in self.brokers if broker.running and broker.node not in self.paused]

    def _end(self, broker: Broker, number: int) -> None:
        broker.send(number)
        self._wait(f"broker {broker.node} does not end", lambda: not broker.running, SECONDS_TO_STOP)
        self.paused.discard(broker.node)

    def _serves(self, broker: Broker) -> None:
        """Waits until the broker, and every other one that can answer, counts it among the brokers of the cluster."""

        def counted():
            if not broker.running:
                raise ClusterError(f"broker {broker.node} ended while it started:\n{broker.last_words()}")
            answers = [wire.metadata(other.port, []) for other in {broker, *self._active()}]
            return all(broker.node in answer.brokers and answer.controller > 0 for answer in answers)

        try:
            self._wait(f"broker {broker.node} does not serve clients", counted)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{broker.last_words()}") from error

    def _create_topic(self, name: str, partitions: int, replicas: int, settings: dict) -> None:
        active = self._active()
        if not active:
            raise ClusterError("no broker is running")
        # Longer than the 30 s after which a broker gives up on a controller that was paused and asks its successor.
        wire.create_topic(active[0].port, name, partitions, replicas, settings, timeout=45)

        def known():
            views = [wire.metadata(broker.port, [name]).partitions for broker in active]
            return all(len(view) == partitions and all(part.leader > 0 for part in view) for view in views)

        self._wait(f"topic {name} is not known to every broker", known)

    def _leader(self, name: str, partition: int) -> int:
        for broker in self._active():
            for part in wire.metadata(broker.port, [name]).partitions:
                if part.index == partition:
                    return max(0, part.leader)
        raise ClusterError("no such partition, or no broker is running")

    def _all_in_sync(self) -> bool:
        active = self._active()
        if not active:
            raise ClusterError("no broker is running")
        views = [wire.metadata(broker.port) for broker in active]
        return all(part.leader > 0 and set(part.in_sync) == set(part.replicas) for view in views for part in view.partitions)

    def _wait(self, problem: str, done, seconds: float = SECONDS_TO_START) -> None:
        """Waits until `done()`; a broker that does not answer yet is not done."""
        end = time.monotonic() + seconds
        while True:
            self.check()
            try:
                if done():
                    return
                last = "no"
            except wire.WireError as error:
                last = str(error)
            if time.monotonic() > end:
                raise ClusterError(f"after {seconds} s: {problem} ({last})")
            time.sleep(0.02)


def _settings(count: int) -> dict:
    """What all brokers share. What is not here is Kafka's default, so that tests meet what users meet."""
    replicas = min(3, count)
    in_sync = 1 if count == 1 else 2
    return {
        # Internal topics: as safe as the cluster allows, with few partitions, for each costs files and time.
        "offsets.topic.num.partitions": 5,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": 3,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 3,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        # Tests write records with times of any age. By default those older than a week vanish at the next check, which
        # comes 30 s after the broker's start and then every 5 min: now and then in the middle of a test.
        "log.retention.ms": -1,
        # The default, said because tests lean on it: a topic that appears by itself was asked for by the client.
        "auto.create.topics.enable": "true",
        # A group is there at once, and a dead member is noticed in a test's time, if the client asks for that.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.min.heartbeat.interval.ms": 100,
        # A killed broker loses its partitions after this long: half of the default, and still far from a slow machine's hiccup.
        "broker.session.timeout.ms": 4500,
        "broker.heartbeat.interval.ms": 500,
        # Few threads and small buffers for a small machine. The cleaner's default buffer alone is 128 MiB of heap.
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "log.cleaner.dedupe.buffer.size": 8 << 20,
        # A partition's first index entry, after 4 KiB of records, is a page fault in each of two sparse files of 10 MiB, for which the kernel
        # fills as much of the file with zeros as the disk is set to read ahead: with 8 MiB, as on virtual machines, 5,000 partitions
        # that grow alike need 80 GB at the same moment, and the broker answers nobody for a minute. This is what is read ahead by default.
        "log.index.size.max.bytes": 128 << 10,
    }


def _pairs(words: list) -> dict:
    for word in words:
        if "=" not in word:
            raise ClusterError(f"not KEY=VALUE: {word}")
    return dict(word.split("=", 1) for word in words)


# --- The process ----------------------------------------------------------------------------------------------------


def _on_end_signals(handler) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


def _end_by_signal(number, _frame):
    raise Over(signal.Signals(number).name)


def _parent_watch():
    parent = os.getppid()

    def check():
        if os.getppid() != parent:
            raise Over("the parent is gone")

    return check


def _lines(check):
    """The lines of standard input, until its end."""
    pending = b""
    while True:
        check()
        if not select.select([0], [], [], 1.0)[0]:
            continue
        data = os.read(0, 4096)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def _serve(cluster: Cluster, check) -> None:
    for line in _lines(check):
        try:
            answer = {"ok": True, **cluster.obey(shlex.split(line))}
        except (ClusterError, wire.WireError, ValueError) as error:
            answer = {"ok": False, "error": f"{line}: {error}"}
        print(json.dumps(answer), flush=True)


def _stay(cluster: Cluster, directory: Path, check) -> None:
    me = os.path.relpath(__file__)
    print(
        f"Apache Kafka is up. Bootstrap servers: {cluster.bootstrap}\n"
        f"Storage and logs: {directory}\n\n"
        f"Kafka's own tools, from another terminal ({me} tool: lists them):\n"
        f"  {me} tool topics --bootstrap-server {cluster.bootstrap} --create --topic greetings --partitions 6\n"
        f"  {me} tool console-consumer --bootstrap-server {cluster.bootstrap} --topic greetings --from-beginning\n"
        f"  {me} tool consumer-groups --bootstrap-server {cluster.bootstrap} --describe --all-groups\n\n"
        "Ctrl-C stops it.",
        flush=True,
    )
    while True:
        check()
        for broker in cluster.brokers:
            if not broker.running:
                raise ClusterError(f"broker {broker.node} ended:\n{broker.last_words()}")
        time.sleep(0.5)


def start(options) -> None:
    check = _parent_watch()
    _on_end_signals(_end_by_signal)
    directory = cluster = None
    try:
        jars()
        directory = Path(options.dir or tempfile.mkdtemp(prefix="outrigger-kafka-")).absolute()
        listeners = dict(listener.split(":", 1) for listener in options.listener)
        advertised = {name: ports.split(",") for name, ports in (one.split(":", 1) for one in options.advertise)}
        cluster = Cluster(options.brokers, directory, _pairs(options.set), check, listeners, advertised, options.java)
        cluster.start()
        if options.foreground:
            _stay(cluster, directory, check)
        pids = [broker.process.pid for broker in cluster.brokers]
        print(json.dumps({"bootstrap": cluster.bootstrap, "listeners": cluster.listeners, "pids": pids, "dir": str(directory)}), flush=True)
        _serve(cluster, check)
    except Over as over:
        # The normal end, but whoever waits for an answer wants to know who ended it.
        print(f"cluster.py: ended: {over}", file=sys.stderr)
    except BrokenPipeError:
        pass  # nobody reads the answers any more
    finally:
        _on_end_signals(signal.SIG_IGN)  # a second one must not break off what the first began
        if cluster:
            cluster.stop()
        if directory and not options.dir:
            shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster.py", description="Real Apache Kafka for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("start", help="start brokers, and obey standard input")
    begin.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    begin.add_argument("--dir", help="keep storage and logs here (default: a temporary directory)")
    begin.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a broker setting; may be repeated")
    begin.add_argument("--listener", action="append", default=[], metavar="NAME:PROTOCOL", help="a further listener on localhost; may be repeated")
    begin.add_argument("--advertise", action="append", default=[], metavar="NAME:PORT,...", help="where clients find a listener, a port for each broker: a proxy's")
    begin.add_argument("--java", action="append", default=[], metavar="OPTION", help="for the brokers' JVMs, as in --java=-Dkey=value")
    begin.add_argument("--foreground", action="store_true", help="for people: stay until Ctrl-C")
    run = commands.add_parser("tool", help="run one of Kafka's command line tools")
    run.add_argument("name", nargs="?", help="a short name, a class, or a Java source file that uses Kafka's client")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    commands.add_parser("fetch", help="only fill the cache")
    options = parser.parse_args()
    try:
        match options.command:
            case "start":
                start(options)
            case "tool" if options.name:
                tool(options.name, options.arguments)
            case "tool":
                print("\n".join(f"{name:20} {path}" for name, path in TOOLS.items()))
            case "fetch":
                jars()
    except ClusterError as error:
        print(f"cluster.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
