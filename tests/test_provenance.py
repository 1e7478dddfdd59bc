"""What a file is made from, and that it appears whole or not at all."""

import shutil
import subprocess

import numpy as np
import pytest

import grfsaxs_lib as gx
from grfsaxs_lib import provenance


def test_versions_name_what_decides_the_numbers():
    found = provenance.versions()
    assert found["grfsaxs"] == gx.__version__ and found["numpy"] == np.__version__
    assert {"python", "scipy", "numba", "ducc0"} <= found.keys()


def test_commit_names_the_state_of_the_code(tmp_path, monkeypatch):
    git = shutil.which("git") or pytest.skip("git is not installed")
    code = tmp_path / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(code))
    commit = provenance.git_commit.__wrapped__  # without the cache
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
    with provenance.moved_into_place(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(KeyboardInterrupt), provenance.moved_into_place(path) as temporary:
        temporary.write_text("half of the sec")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
