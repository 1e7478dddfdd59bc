"""Where a file comes from, and how it reaches the disk whole."""

import errno
import functools
import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

# Libraries that decide the numbers.
_LIBRARIES = ("numpy", "scipy", "numba", "ducc0", "xgboost", "xgboost-cpu", "cupy-cuda12x", "cupy-cuda13x")

_MAKE_WRITABLE = "make its folder writable, or work in a copy of the repository"
# What helps where a file cannot be written, by the number of the error.
REMEDIES = {
    errno.ENOSPC: "free some space on its disk",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f unlimited)",
    errno.EACCES: _MAKE_WRITABLE,
    errno.EPERM: _MAKE_WRITABLE,
    errno.EROFS: _MAKE_WRITABLE,
}


class WriteError(OSError):
    """A file cannot be written, for a reason that lies outside of this package; the message says what helps."""

    def __str__(self):
        return f"{self.filename} could not be written: {self.strerror}; {REMEDIES[self.errno]}"


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


def sha256(path):
    """Digest of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path, *, temporary=None):
    """Turn what keeps the block from writing `path` into an error that names it and says what helps.

    Parameters
    ----------
    path : Path
    temporary : Path, optional
        What the block writes before it is renamed to `path`. Errors that concern other files pass, except those
        about a folder that `path` lies in.

    Raises
    ------
    WriteError
        If the disk or a quota is full, the file would be larger than the limit, or the folder is read-only.
    """
    written = temporary or path
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        about = error.filename
        ours = about is None or os.fsdecode(about) in map(str, (written, path, *path.parents))
        if error.errno in REMEDIES and ours:
            raise WriteError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    except Exception as error:
        # HDF5 and XGBoost have errors of their own for this, some of them obscure.
        if number := _obstacle(written):
            raise WriteError(number, os.strerror(number), str(path)) from error
        raise


def _obstacle(path):
    """Number of the error by which a file that is there cannot grow, or None."""
    try:
        size, disk = path.stat().st_size, os.statvfs(path)
    except OSError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and size >= limit:
        return errno.EFBIG
    return None if disk.f_bavail else errno.ENOSPC


@contextmanager
def moved_into_place(path):
    """Yield a temporary name beside `path`; when the block ends well, make it durable and rename it.

    The folder is made if it is not there. A block that raises, or a process that dies, leaves what was at
    `path` as it was.

    Raises
    ------
    WriteError
        See `writing`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with writing(path, temporary=temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)  # the rename itself
    finally:
        with suppress(OSError):  # which would hide what the block has raised
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
