"""The test cache: what tests fetch or generate once and keep between runs, outside the tracked files.

Not for anything that a test writes while it runs. A directory of the cache appears whole or not at all (it is filled
under another name and renamed), and of several processes that want the same one, one fills it and the others wait.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def root() -> Path:
    """`$OUTRIGGER_TEST_CACHE`, or `.cache` in the repository."""
    return Path(os.environ.get("OUTRIGGER_TEST_CACHE") or REPOSITORY / ".cache").absolute()


def filled(name: str, key: str, fill) -> Path:
    """The directory `name` of the cache; `fill(directory)` is called if it is missing or was filled for another `key`."""
    directory = root() / name
    if _has(directory, key):
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_name(directory.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _has(directory, key):
            return directory
        fresh = Path(tempfile.mkdtemp(prefix=directory.name + ".", dir=directory.parent))
        try:
            # mkdtemp is private to its owner; the cache may be filled by root and read by others.
            fresh.chmod(0o755)
            fill(fresh)
            (fresh / ".key").write_text(key, encoding="utf-8")
            shutil.rmtree(directory, ignore_errors=True)
            fresh.rename(directory)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return directory


def _has(directory: Path, key: str) -> bool:
    try:
        return (directory / ".key").read_text(encoding="utf-8") == key
    except FileNotFoundError:
        return False
