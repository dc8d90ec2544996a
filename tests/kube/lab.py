"""A Kubernetes control plane on loopback: etcd, API server, controller manager; no kubelet, so pods stay Pending.

    with Lab() as lab:
        lab.kubectl("get", "pods")
        lab.helm("install", …)

Everything lives in one temporary directory, and every process that was started is ended by its id.
"""

import ctypes
import datetime
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKEN = "lab"
START_SECONDS = 90


def build():
    """The directory with the binaries."""
    return pathlib.Path(subprocess.run([ROOT / "tests/kube/build"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def reserve_ports(count):
    """Sockets with a port each that nobody else is given: bound with SO_REUSEADDR and never listening, so that a program may listen beside them."""
    holders = [socket.socket() for _ in range(count)]
    for holder in holders:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
    return holders


def certificate(directory):
    """A self-signed certificate for the API server, and its key, which signs the tokens of service accounts too."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.IPAddress(ipaddress.ip_address("10.96.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )


def end_with_parent():
    """In a child before it runs its program: the kernel kills it when the tests are killed, and cannot end it themselves (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Refused(Exception):
    """A command of the lab failed; its text is what it said."""


class Lab:
    def __init__(self):
        self.bin = build()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="outrigger-kube-"))
        self.processes = []
        self.holders = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self):
        d = self.directory
        certificate(d)
        self.holders = reserve_ports(4)
        etcd, peer, api, controllers = (holder.getsockname()[1] for holder in self.holders)
        self.server = f"https://127.0.0.1:{api}"
        self.kubeconfig = d / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "lab", "cluster": {"server": self.server, "certificate-authority": str(d / "tls.crt")}}],
                    "users": [{"name": "lab", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
                    "current-context": "lab",
                }
            )
        )
        (d / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n')
        # HOME, because kubectl and helm keep caches there.
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(d), "KUBECONFIG": str(self.kubeconfig)}

        self._run(
            "etcd", "--data-dir", d / "etcd", "--unsafe-no-fsync", "--log-level", "warn",
            "--listen-client-urls", f"http://127.0.0.1:{etcd}", "--advertise-client-urls", f"http://127.0.0.1:{etcd}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer}",
        )  # fmt: skip
        self._run(
            "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{etcd}", "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
            "--secure-port", api, "--tls-cert-file", d / "tls.crt", "--tls-private-key-file", d / "tls.key",
            "--token-auth-file", d / "tokens.csv", "--authorization-mode", "RBAC", "--endpoint-reconciler-type", "none",
            "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", d / "tls.key",
            "--service-account-signing-key-file", d / "tls.key", "--service-cluster-ip-range", "10.96.0.0/16",
        )  # fmt: skip
        self.until("the API server is ready", self._ready, START_SECONDS)
        self._run(
            "kube-controller-manager", "--kubeconfig", self.kubeconfig, "--service-account-private-key-file", d / "tls.key",
            "--root-ca-file", d / "tls.crt", "--use-service-account-credentials=false", "--leader-elect=false",
            "--bind-address", "127.0.0.1", "--secure-port", controllers,
        )  # fmt: skip
        self.until("there is a default service account", lambda: self.find("serviceaccount", "default"), START_SECONDS)

    def _run(self, name, *arguments):
        command = [self.bin / name, *map(str, arguments)]
        with open(self.directory / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory, env=self.environment, preexec_fn=end_with_parent
            )
        self.processes.append((name, process))

    def _ready(self):
        context = ssl.create_default_context(cafile=self.directory / "tls.crt")
        request = urllib.request.Request(self.server + "/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            return urllib.request.urlopen(request, timeout=2, context=context).status == 200
        except OSError:
            return False

    def until(self, what, condition, seconds=60):
        """Waits until `condition` is true, and gives what it was. A refusal counts as not yet, and is told where nothing else comes."""
        deadline = time.monotonic() + seconds
        while True:
            for name, process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}:\n{self._tail(name)}")
            last = None
            try:
                last = condition()
                if last:
                    return last
            except Refused as refusal:
                last = refusal
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {seconds} s: {what}; the last thing seen: {last}")
            time.sleep(0.2)

    def _tail(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]

    def stop(self):
        # The API server last but one, since the controller manager talks to it and it to etcd.
        for _, process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(15)
        self.processes = []
        for holder in self.holders:
            holder.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self, name, *arguments, input=None):
        """Runs kubectl or helm, and gives what it printed: (standard output, standard error)."""
        done = subprocess.run([self.bin / name, *map(str, arguments)], input=input, capture_output=True, text=True, timeout=120, env=self.environment, cwd=self.directory)
        if done.returncode:
            raise Refused(done.stderr.strip())
        return done.stdout, done.stderr

    def kubectl(self, *arguments, input=None):
        return self.command("kubectl", *arguments, input=input)[0]

    def helm(self, *arguments, input=None):
        return self.command("helm", *arguments, input=input)[0]

    def get(self, kind, name, namespace="default"):
        return json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))

    def find(self, kind, name, namespace="default"):
        found = self.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json")
        return json.loads(found) if found else None

    def create(self, manifest, *arguments):
        """Creates an object, and gives what it became and what the server warned of."""
        out, warnings = self.command("kubectl", "create", "-f", "-", "-o", "json", *arguments, input=json.dumps(manifest))
        return json.loads(out), warnings
