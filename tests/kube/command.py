"""The commands `outrigger inject` and `uninject`, of the binary that `cargo build` makes or $OUTRIGGER_BINARY names."""

import json
import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary():
    path = pathlib.Path(os.environ.get("OUTRIGGER_BINARY") or ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/outrigger")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `cargo build`, or say in OUTRIGGER_BINARY where the program is")
    return path


def rewritten(command, text, *arguments):
    """The text as the command prints it."""
    done = subprocess.run([binary(), command, *arguments], input=text, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def injected(manifest, *arguments):
    """The object with the sidecar, by way of YAML and by way of JSON, which are the same."""
    by_json = json.loads(rewritten("inject", json.dumps(manifest), *arguments))
    # Without what it shares, which would be anchors and aliases.
    alone = json.loads(json.dumps(manifest))
    by_yaml = yaml.safe_load(rewritten("inject", yaml.dump(alone, sort_keys=False), *arguments))
    if by_json != by_yaml:
        raise AssertionError(f"{by_json}\nis not\n{by_yaml}")
    return by_json
