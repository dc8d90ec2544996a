"""A container of a built image, run by runc as the image's configuration says and as a strict pod would: read-only root, no capabilities.

    with Container(directory, {"KEY": "value"}) as container:
        container.exec(["/outrigger", "drain"])

`directory` is what tests/image/build made. The container shares the network of this process and has its own processes and mounts, all of them
read-only. It is ended with the block, or with this process if that comes first; if the block fails, its log is printed.
"""

import ctypes
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import uuid

# How long anything may take.
SECONDS = 60
PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None).prctl


def end_with_parent(number):
    """For a child: the signal that it gets when this process ends, however that comes about."""
    return lambda: _prctl(PR_SET_PDEATHSIG, number)


class Container:
    def __init__(self, directory, environment):
        self.rootfs = directory / "rootfs"
        self.image = json.loads((directory / "image.json").read_text())["OCIv1"]["config"]
        self.environment = [*self.image["Env"], *(f"{key}={value}" for key, value in environment.items())]
        self.name = f"outrigger-{uuid.uuid4().hex[:12]}"
        self.bundle = tempfile.TemporaryDirectory(prefix="outrigger-image-")
        self.log_path = pathlib.Path(self.bundle.name, "log")

    def __enter__(self):
        pathlib.Path(self.bundle.name, "config.json").write_text(json.dumps(self._configuration()))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [*self._runc(), "run", "--bundle", self.bundle.name, self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # runc hands it on to the container, which ends, and with it runc.
                preexec_fn=end_with_parent(signal.SIGTERM),
            )
        return self

    def __exit__(self, failure, *_):
        if failure:
            print(self.log_path.read_text(errors="replace"), file=sys.stderr)
        # Of a container that ended by itself there is nothing left to delete.
        subprocess.run([*self._runc(), "delete", "--force", self.name], capture_output=True, timeout=SECONDS)
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.bundle.cleanup()

    def exec(self, arguments, stdin=b""):
        """Runs a program in the container, as a kubelet runs a hook: without a shell, as the image's user, with the container's environment."""
        return subprocess.run([*self._runc(), "exec", self.name, *arguments], input=stdin, capture_output=True, timeout=SECONDS)

    def terminate(self):
        """SIGTERM to the container's first process; returns its exit code."""
        subprocess.run([*self._runc(), "kill", self.name, "TERM"], check=True, timeout=SECONDS)
        return self.process.wait(SECONDS)

    @property
    def pid(self):
        state = subprocess.run([*self._runc(), "state", self.name], check=True, capture_output=True, timeout=SECONDS)
        return json.loads(state.stdout)["pid"]

    def _runc(self):
        return ["runc", "--root", str(pathlib.Path(self.bundle.name, "state"))]

    def _configuration(self):
        user, group = (int(number) for number in self.image["User"].split(":"))
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.rootfs), "readonly": True},
            "process": {
                "user": {"uid": user, "gid": group},
                "args": [*self.image["Entrypoint"], *self.image["Cmd"]],
                "env": self.environment,
                "cwd": self.image.get("WorkingDir") or "/",
                "capabilities": {},
                "noNewPrivileges": True,
            },
            # Less than an engine gives: no /dev/shm and no /dev/mqueue, which are writable, and the rest read-only.
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["ro", "nosuid", "nodev", "noexec"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "nosuid", "noexec", "mode=755", "size=64k"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }
