"""What a file is made from, and that it appears whole or not at all."""

import contextlib
import ctypes
import errno
import os
import pickle
import resource
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

import grfsaxs_lib as gx
from grfsaxs_lib import files


def test_versions_name_what_decides_the_numbers():
    found = files.versions()
    assert found["grfsaxs"] == gx.__version__ and found["numpy"] == np.__version__
    assert {"python", "scipy", "numba", "ducc0"} <= found.keys()


def test_commit_names_the_state_of_the_code(tmp_path, monkeypatch):
    git = shutil.which("git") or pytest.skip("git is not installed")
    code = tmp_path / "provenance.py"
    monkeypatch.setattr(files, "__file__", str(code))
    commit = files.git_commit.__wrapped__  # without the cache
    assert commit() == "unknown"
    (tmp_path / "__init__.py").write_text("")
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*me, "commit", "-q", "--no-verify", "-m", "x"]):
        subprocess.run([git, *arguments], cwd=tmp_path, check=True)
    clean = commit()
    assert len(clean) == 40
    code.write_text("edited")
    assert commit() == clean + "+changes"


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "made" / "file.txt"
    with files.moved_into_place(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(KeyboardInterrupt), files.moved_into_place(path) as temporary:
        temporary.write_text("half of the sec")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


# Files that cannot be written ------------------------------------------------------------------------


@contextlib.contextmanager
def no_larger_than(size):
    """Files of this process may have no more bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def as_anybody():
    """Root may write anywhere; for a while it gives up that right, and only that."""
    if os.geteuid():
        yield
        return
    try:
        set_user = ctypes.CDLL(None).setfsuid
    except AttributeError:
        pytest.skip("root cannot give up its rights here")
    set_user(65534)
    try:
        yield
    finally:
        set_user(0)


def check(caught, path, number, remedy):
    error = caught.value
    assert isinstance(error, OSError) and error.errno == number
    assert str(error) == f"{path} could not be written: {os.strerror(number)}; {remedy}"
    assert "\n" not in str(error)
    again = pickle.loads(pickle.dumps(error))  # as it comes from a worker
    assert (type(again), str(again), again.errno) == (type(error), str(error), number)


def test_a_file_that_would_be_too_large_is_named(tmp_path):
    path = tmp_path / "file.bin"
    path.write_text("first")
    with pytest.raises(files.WriteError) as caught, no_larger_than(1000):
        with files.moved_into_place(path) as temporary:
            temporary.write_bytes(bytes(2000))
    check(caught, path, errno.EFBIG, "raise the limit on the size of files (ulimit -f unlimited)")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "file.bin"
    with pytest.raises(files.WriteError) as caught, files.moved_into_place(path) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("much")
    check(caught, path, errno.ENOSPC, "free some space on its disk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file.bin", "new/folder/file.bin"])
def test_a_read_only_folder_is_named(tmp_path, name):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    with pytest.raises(files.WriteError) as caught, as_anybody():
        with files.moved_into_place(folder / name) as temporary:
            temporary.write_text("anything")
    check(caught, folder / name, errno.EACCES, "make its folder writable, or work in a copy of the repository")
    assert list(folder.iterdir()) == []


def test_obscure_errors_of_compiled_libraries(tmp_path, monkeypatch):
    """HDF5 and XGBoost raise these; the state of the disk and of the file tells what they mean."""
    path = tmp_path / "file.bin"

    def write(size):
        with files.moved_into_place(path) as temporary:
            temporary.write_bytes(bytes(size))
            raise RuntimeError("NetCDF: HDF error")

    with pytest.raises(RuntimeError, match="HDF error"):
        write(1000)
    with pytest.raises(files.WriteError) as caught, no_larger_than(1000):
        write(1000)
    check(caught, path, errno.EFBIG, "raise the limit on the size of files (ulimit -f unlimited)")
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=0))
    with pytest.raises(files.WriteError) as caught:
        write(1000)
    check(caught, path, errno.ENOSPC, "free some space on its disk")


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/another/file"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_pass_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, files.moved_into_place(tmp_path / "file.bin"):
        raise error
    assert caught.value is error
