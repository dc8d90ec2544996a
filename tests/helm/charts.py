"""The charts as a user gets them: copied out of the tree, with their dependencies built, and rendered by the pinned helm."""

import pathlib
import shutil
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binaries():
    """Where helm and kubectl are."""
    return pathlib.Path(subprocess.run([ROOT / "tests/kube/build"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


class Refused(Exception):
    """Helm said no; its text is what it said."""


class Charts:
    """A temporary directory with the charts outrigger-sidecar, outrigger, and two that depend on the first."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="outrigger-charts-"))
        self.helm = binaries() / "helm"
        self.environment = {"HOME": str(self.directory), "PATH": "/usr/bin:/bin"}
        for source in [ROOT / "helm/outrigger-sidecar", ROOT / "helm/outrigger", ROOT / "tests/helm/app", ROOT / "tests/helm/parts"]:
            shutil.copytree(source, self.directory / source.name, ignore=shutil.ignore_patterns("charts"))
        for chart in ["outrigger", "app", "parts"]:
            self.run("dependency", "update", self.path(chart))

    def path(self, chart):
        return self.directory / chart

    def run(self, *arguments):
        done = subprocess.run([self.helm, *map(str, arguments)], capture_output=True, text=True, timeout=60, env=self.environment)
        if done.returncode:
            raise Refused(done.stderr + done.stdout)
        return done.stdout

    def template(self, chart, *arguments, version="1.36.1", namespace="default", release="demo"):
        """What `helm template` prints."""
        return self.run("template", release, self.path(chart), "--namespace", namespace, "--kube-version", version, *arguments)

    def objects(self, *arguments, **named):
        return [document for document in yaml.safe_load_all(self.template(*arguments, **named)) if document]

    def close(self):
        shutil.rmtree(self.directory)
