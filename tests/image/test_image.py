"""The image: built from the Dockerfile, then looked at, and run beside real Kafka as a pod would run it."""

import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from container import SECONDS, Container, end_with_parent

HERE = pathlib.Path(__file__).resolve().parent
MEGABYTES = 40
PROBES = ("/livez", "/startupz", "/readyz", "/metrics")

directory = None
kafka = None


def setUpModule():
    global directory, kafka
    # So that a SIGTERM unwinds as a Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    temporary = tempfile.TemporaryDirectory(prefix="outrigger-image-")
    unittest.addModuleCleanup(temporary.cleanup)
    directory = pathlib.Path(temporary.name)
    subprocess.run([HERE / "build", directory], check=True, preexec_fn=end_with_parent(signal.SIGKILL))
    leave_the_network()
    kafka = Kafka()
    unittest.addModuleCleanup(kafka.close)


def leave_the_network():
    """Moves this process to a network that is a loopback and nothing else, as a pod's: the image's own ports are free in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_network, up, set_flags = 0x40000000, 0x1, 0x8914
    if libc.unshare(new_network) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh", b"lo", up))


class Kafka:
    """One broker, which ends when its standard input does."""

    def __init__(self):
        self.process = subprocess.Popen([HERE.parent / "kafka/cluster.py", "start"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.bootstrap = self._answer()["bootstrap"]

    def create_topic(self, name):
        self.process.stdin.write(f"topic {name} 1\n")
        self.process.stdin.flush()
        answer = self._answer()
        assert answer["ok"], answer

    def records(self, topic):
        """All values, read by a client that is not ours."""
        arguments = ["kcat", "-b", self.bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q"]
        return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=SECONDS).stdout.splitlines()

    def close(self):
        self.process.stdin.close()
        self.process.wait(SECONDS)
        self.process.stdout.close()

    def _answer(self):
        line = self.process.stdout.readline()
        assert line, "cluster.py ended; it says why on standard error"
        return json.loads(line)


def files(root):
    """Every path below `root` with what it is: kind, permissions, owner, size, and where a link leads."""
    found = {}
    for path, directories, names in os.walk(root):
        for name in [*directories, *names]:
            full = pathlib.Path(path, name)
            stat = full.lstat()
            size = 0 if full.is_dir() and not full.is_symlink() else stat.st_size
            link = os.readlink(full) if full.is_symlink() else None
            found["/" + str(full.relative_to(root))] = (oct(stat.st_mode), stat.st_uid, stat.st_gid, size, link)
    return found


def configuration():
    return json.loads((directory / "image.json").read_text())["OCIv1"]


class Contents(unittest.TestCase):
    def test_the_image_adds_one_small_file_to_its_base_and_changes_none(self):
        image, base = files(directory / "rootfs"), files(directory / "base")
        added = image.keys() - base.keys()
        self.assertEqual(added, {"/outrigger"})
        self.assertEqual({path: image[path] for path in base}, base)
        mode, user, group, size, _ = image["/outrigger"]
        self.assertEqual((mode, user, group), ("0o100755", 0, 0), "its own user cannot change it")
        print(f"the image adds {size / 1e6:.1f} MB to its base of {sum(entry[3] for entry in base.values()) / 1e6:.1f} MB", file=sys.stderr)
        self.assertLessEqual(size, MEGABYTES * 1e6)

    def test_there_is_no_shell_and_no_package_manager(self):
        unwanted = {"sh", "bash", "dash", "ash", "zsh", "busybox", "env", "apt", "apt-get", "dpkg", "apk", "perl", "python3"}
        self.assertEqual({path for path in files(directory / "rootfs") if path.rsplit("/", 1)[-1] in unwanted}, set())

    def test_the_binary_needs_only_libraries_of_the_base(self):
        def readelf(option):
            command = ["readelf", "--wide", option, directory / "rootfs/outrigger"]
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout

        needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", readelf("--dynamic")))
        interpreter = re.search(r"interpreter: (.+)\]", readelf("--program-headers"))[1]
        self.assertIn("libc.so.6", needed)
        # What distroless/cc has of glibc and gcc; the one that stands in for it here holds no more of C++ or OpenSSL.
        self.assertLessEqual(needed, {path.rsplit("/", 1)[-1] for path in files(directory / "base") if "/lib" in path})
        self.assertTrue((directory / "base" / interpreter.lstrip("/")).exists(), interpreter)
        self.assertNotIn(".symtab", readelf("--section-headers"), "it is stripped")

    def test_the_configuration_says_whose_image_it_is_and_how_to_run_it(self):
        config = configuration()["config"]
        self.assertEqual(config["User"], "65532:65532", "numeric, so that runAsNonRoot can be checked")
        self.assertEqual(config["Entrypoint"], ["/outrigger"])
        self.assertEqual(config["Cmd"], ["serve"])
        self.assertEqual(config["ExposedPorts"], {"7421/tcp": {}})
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
        self.assertEqual(labels["title"], "outrigger")
        self.assertEqual(labels["licenses"], "Apache-2.0")
        # What tests/image/build passes as arguments.
        self.assertEqual((labels["version"], labels["revision"]), ("1.2.3", "0123abcd"))
        self.assertRegex(labels["base.name"], "^localhost/outrigger-runtime-base:")
        for key in ("description", "source"):
            self.assertTrue(labels[key], key)


class Running(unittest.TestCase):
    @contextlib.contextmanager
    def container(self):
        """One that is ready."""
        with Container(directory, {"OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap}) as container:
            deadline = time.monotonic() + SECONDS
            while self.get("/readyz") != 200:
                self.assertIsNone(container.process.poll(), "it ended before it was ready")
                self.assertLess(time.monotonic(), deadline, "it was not ready in time")
                time.sleep(0.05)
            yield container

    def get(self, path):
        """The status of an answer of the admin port; None when nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", 7421, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()

    def test_a_record_published_inside_is_in_kafka(self):
        topic = "from-the-image"
        kafka.create_topic(topic)
        with self.container() as container:
            published = container.exec(["/outrigger", "publish", topic], b"hello from the image\n")
            self.assertEqual(published.returncode, 0, published.stderr)
        self.assertEqual(kafka.records(topic), ["hello from the image"])

    def test_every_probe_answers(self):
        with self.container():
            self.assertEqual({path: self.get(path) for path in PROBES}, dict.fromkeys(PROBES, 200))

    def test_the_stop_hook_drains_and_sigterm_ends_with_0(self):
        with self.container() as container:
            hook = container.exec(["/outrigger", "drain"])
            self.assertEqual(hook.returncode, 0, hook.stderr)
            self.assertEqual((self.get("/readyz"), self.get("/livez")), (503, 200))
            self.assertEqual(container.terminate(), 0)

    def test_sigterm_alone_ends_with_0(self):
        with self.container() as container:
            self.assertEqual(container.terminate(), 0)

    def test_a_shell_cannot_be_started(self):
        with self.container() as container:
            for shell in ("sh", "/bin/sh", "/bin/bash"):
                self.assertNotEqual(container.exec([shell, "-c", "exit 0"]).returncode, 0, shell)

    def test_it_runs_without_rights_and_without_a_place_to_write(self):
        with self.container() as container:
            process = pathlib.Path(f"/proc/{container.pid}")
            status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
            self.assertEqual(status["Uid"].split(), ["65532"] * 4)
            self.assertEqual(status["Gid"].split(), ["65532"] * 4)
            self.assertEqual(status["Groups"].split(), [])
            self.assertEqual(status["NoNewPrivs"], "1")
            self.assertEqual(status["NSpid"].split()[-1], "1", "the first process of the container")
            for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(status[kind], 16), 0, kind)

            mounts = {}
            for line in (process / "mountinfo").read_text().splitlines():
                _, _, _, _, point, options, *_ = line.split()
                mounts[point] = options.split(",")
            self.assertEqual(mounts.keys(), {"/", "/proc", "/dev"})
            self.assertEqual([point for point, options in mounts.items() if "ro" not in options], [])
            # Not even root, in the container's mounts, can write.
            for place in ("", "tmp", "run", "dev", "home/nonroot"):
                with self.assertRaisesRegex(OSError, "Read-only file system"):
                    (process / "root" / place / "file").touch()


if __name__ == "__main__":
    unittest.main()
