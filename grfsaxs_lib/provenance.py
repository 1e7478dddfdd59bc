"""Where a file comes from, and how it reaches the disk whole."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import uuid
from contextlib import contextmanager
from pathlib import Path

# Libraries that decide the numbers.
_LIBRARIES = ("numpy", "scipy", "numba", "ducc0", "xgboost", "xgboost-cpu", "cupy-cuda12x", "cupy-cuda13x")


def package_version():
    """Version of this package."""
    from . import __version__  # not at import, when the package is half made

    return __version__


def versions():
    """Versions of Python, of this package and of the installed libraries that decide the numbers, by name."""
    return dict(_versions(_LIBRARIES))


@functools.cache
def _versions(libraries):
    found = {"python": platform.python_version(), "grfsaxs": package_version()}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit():
    """The git commit of the code, with ``+changes`` if it was edited since; ``unknown`` outside git."""
    try:
        ask = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "timeout": 10, "check": True}
        tracked = subprocess.run(["git", "ls-files", "__init__.py"], **ask).stdout
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **ask).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain", "--", "."], **ask).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    # An installed copy may lie inside some other project's repository.
    return commit + ("+changes" if changes else "") if tracked else "unknown"


@contextmanager
def moved_into_place(path):
    """Yield a temporary name beside `path`; when the block ends well, make it durable and rename it.

    The folder is made if it is not there. A block that raises, or a process that dies, leaves what was at
    `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)  # the rename itself
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(paths):
    """Remove temporary files of `moved_into_place` that killed processes have left beside finished files.

    No lock is needed: the temporary file of a finished file is superfluous, whoever wrote it.
    """
    names = {path.name for path in paths}
    for folder in {path.parent for path in paths}:
        for temporary in folder.glob(".*.tmp"):
            if temporary.name[1:].rsplit(".", 2)[0] in names:
                temporary.unlink(missing_ok=True)


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
