"""The environment of run_all.sh, its locks and its signals, in small repositories with a stand-in for Python."""

import contextlib
import locale
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# It does what FAKE/<step> says, if that file is there, and notes each step. Short programs it leaves to a real Python.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    *_base_executable*) echo "$FAKE/python"; exit ;;
    "-I -S -c"*) exec "$REAL_PYTHON" "$@" ;;
    --version) echo "Python 3.12.0"; exit ;;
    "-m venv "*) step=venv; mkdir -p "$3/bin" && cp "$FAKE/python" "$3/bin/python" ;;
    "-m pip "*) step=pip ;;
    "-m uv "*) step=uv ;;
    "-m grfsaxs_lib.cli "*) step=pipeline ;;
    *) step=other ;;
esac
echo "$step" >>"$FAKE/steps"
echo "$*" >>"$FAKE/calls"
[[ ! -e $FAKE/$step ]] || source "$FAKE/$step"
"""
# A step that lasts, with a process of its own; both leave their numbers.
LASTS = 'sleep 60 & echo "$! $BASHPID" >"$FAKE/pids.new"; mv "$FAKE/pids.new" "$FAKE/pids"; wait'


class Repository:
    """A repository with nothing in it but run_all.sh and what that looks for."""

    def __init__(self, folder, fake):
        self.folder, self.fake, self.venv = folder, fake, folder / ".venv"
        for name in ("grfsaxs_lib", "notebooks"):
            (folder / name).mkdir(parents=True)
        for path in (ROOT / "run_all.sh", *ROOT.glob("environment.sh")):
            shutil.copy(path, folder)
        (folder / "pyproject.toml").write_text('[project]\nname = "grfsaxs"\n')
        (folder / "requirements.lock").write_text("numpy==2.0\n")
        fake.mkdir()
        (fake / "python").write_text(STAND_IN)
        (fake / "python").chmod(0o755)

    def start(self, *words, script=None, cwd=None, **variables):
        """Start run_all.sh, in a session of its own."""
        keep = {name: value for name, value in os.environ.items() if not re.match("PYTHON|PIP_|UV_|LC_|LANG", name)}
        env = keep | {"FAKE": str(self.fake), "REAL_PYTHON": sys.executable, "PYTHON": str(self.fake / "python")}
        return subprocess.Popen(
            ["bash", "--", script or self.folder / "run_all.sh", *words],
            env=env | variables,
            cwd=cwd or self.folder.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, *words, **options):
        """Run it to its end: exit status, output, errors."""
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def steps(self):
        """The steps so far, which are then forgotten."""
        path = self.fake / "steps"
        steps = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return steps

    def at(self, step, script):
        """Say what the stand-in does at a step from now on."""
        (self.fake / step).write_text(script)

    def change(self):
        """As git pull does."""
        (self.folder / "requirements.lock").write_text("numpy==2.1\n")


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository", tmp_path / "fake")


@pytest.fixture
def made(repository):
    """One that has its environment."""
    assert repository.call("status", "quick")[0] == 0
    repository.steps()
    (repository.venv / "first").touch()
    return repository


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(number):
    """Whether there is such a process, other than one that has ended and waits to be noticed."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


MADE = ["venv", "pip", "uv", "uv"]


def test_the_environment_is_made_once(repository):
    assert repository.call("status", "quick")[0] == 0
    assert repository.steps() == [*MADE, "pipeline"]
    assert repository.call("quick")[0] == 0
    assert repository.steps() == ["pipeline"]
    repository.change()
    assert repository.call("quick")[0] == 0
    assert repository.steps() == [*MADE, "pipeline"]


# ------------------------------------------------------------------------- which folder


@pytest.fixture
def elsewhere(tmp_path):
    """Another project, with an environment that has taken its owner a day."""
    folder = tmp_path / "elsewhere" / "repository"
    (folder / ".venv").mkdir(parents=True)
    (folder / ".venv" / "precious").touch()
    return folder


def test_a_link_to_the_script_leads_to_its_own_folder(repository, elsewhere):
    (elsewhere / "link").symlink_to(Path("../../repository/run_all.sh"))
    (elsewhere / "run_all.sh").symlink_to("link")
    assert repository.call("status", "quick", script=elsewhere / "run_all.sh", cwd=elsewhere)[0] == 0
    assert (elsewhere / ".venv" / "precious").exists()
    assert (repository.venv / "made-from.txt").exists()


@pytest.mark.parametrize("name", ["repository", "-"])
def test_where_cd_looks_does_not_matter(repository, elsewhere, name):
    repository.folder.rename(repository.folder.with_name(name))
    elsewhere.rename(elsewhere.with_name(name))
    options = {
        "CDPATH": str(elsewhere.parent),
        "OLDPWD": str(elsewhere.with_name(name)),
        "script": f"{name}/run_all.sh",
    }
    assert repository.call("status", "quick", **options)[0] == 0
    assert (elsewhere.with_name(name) / ".venv" / "precious").exists()


def test_a_copy_of_the_script_elsewhere_does_nothing(repository, elsewhere):
    for path in repository.folder.glob("*.sh"):
        shutil.copy(path, elsewhere)
    status, out, err = repository.call("status", "quick", script=elsewhere / "run_all.sh")
    assert (status, out) == (1, "") and re.fullmatch(r"run_all.sh: .* repository of grfsaxs, .*\n", err)
    assert str(elsewhere) in err
    assert (elsewhere / ".venv" / "precious").exists()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_an_environment_of_somebody_else_stays(repository, elsewhere, kind):
    if kind == "folder":
        shutil.copytree(elsewhere / ".venv", repository.venv)
    else:
        repository.venv.symlink_to(elsewhere / ".venv")
    status, out, err = repository.call("quick")
    assert status == 1 and repository.steps() == []
    assert re.fullmatch(rf"run_all.sh: {repository.venv} was not made by run_all.sh.* delete it.*\n", err)
    assert (repository.venv / "precious").exists() and (elsewhere / ".venv" / "precious").exists()


# ------------------------------------------------------------- set-ups that are cut off


def test_a_killed_set_up_starts_anew(repository):
    repository.at("pip", LASTS)
    process = repository.start("status", "quick")
    wait_for((repository.fake / "pids").exists)
    os.killpg(process.pid, signal.SIGKILL)
    for number in (repository.fake / "pids").read_text().split():
        os.kill(int(number), signal.SIGKILL)
    process.communicate()
    assert (repository.venv / "made-from.txt").read_text() == "incomplete\n"
    (repository.fake / "pip").unlink()
    repository.steps()
    assert repository.call("status", "quick")[0] == 0
    assert repository.steps() == [*MADE, "pipeline"]


def test_a_set_up_that_fails_gives_the_environment_before_back(made):
    made.change()
    made.at("uv", "echo 'no network' >&2; exit 2")
    status, out, err = made.call("quick")
    assert status == 2 and "no network" in err and err.endswith("the one before is back in its place\n")
    assert (made.venv / "first").exists()
    assert sorted(path.name for path in made.folder.glob(".venv*")) == [".venv", ".venv.lock", ".venv.used"]
    (made.fake / "uv").unlink()
    assert made.call("quick")[0] == 0
    assert not (made.venv / "first").exists() and not Path(f"{made.venv}.before").exists()


def test_a_set_up_that_was_killed_at_its_very_end_leaves_nothing(made):
    shutil.copytree(made.venv, f"{made.venv}.before")
    assert made.call("quick")[0] == 0
    assert made.steps() == ["pipeline"] and not Path(f"{made.venv}.before").exists()


# ------------------------------------------------------------------------ several at once


@pytest.mark.parametrize("when", ["first", "changed", "failing"])
def test_two_calls_at_once(repository, when):
    if when != "first":
        assert repository.call("status", "quick")[0] == 0
        repository.change()
        repository.steps()
    # Longer than the second call waits in silence. The first one to come may fail, and the other tries in its turn.
    fails = 'if mkdir "$FAKE/failed" 2>/dev/null; then exit 5; fi' if when == "failing" else ":"
    repository.at("pip", f"sleep 1.5; {fails}")
    processes = [repository.start("quick") for _ in range(2)]
    outputs, errors = zip(*[process.communicate(timeout=30) for process in processes], strict=True)
    expected = [0, 5] if when == "failing" else [0, 0]
    assert sorted(process.returncode for process in processes) == expected, errors
    steps = ["venv", "pip", *MADE, "pipeline"] if when == "failing" else [*MADE, "pipeline", "pipeline"]
    assert sorted(repository.steps()) == sorted(steps)
    assert sum("Waiting for another run_all.sh" in out for out in outputs) == 1


def test_an_environment_in_use_is_not_replaced(made):
    made.at("pipeline", f"[[ $3 == run ]] || exit 0; {LASTS}")
    running = made.start("laptop")
    wait_for((made.fake / "pids").exists)
    made.change()
    made.steps()
    status, out, err = made.call("status", "quick")
    assert status == 0 and "was made from an earlier requirements.lock" in err
    assert made.steps() == ["pipeline"] and (made.venv / "first").exists()
    status, out, err = made.call("quick")
    assert status == 1 and re.fullmatch(r"run_all.sh: .* has changed, and another run still uses \.venv.*\n", err)
    assert made.steps() == [] and (made.venv / "first").exists()
    # The first process, killed with no chance to say so; what it had started still uses the environment.
    sleeper = int((made.fake / "pids").read_text().split()[0])
    running.kill()
    running.wait()
    assert made.call("quick")[0] == 1
    os.kill(sleeper, signal.SIGKILL)
    wait_for(lambda: not is_alive(sleeper))
    made.at("pipeline", "")
    assert made.call("quick")[0] == 0
    assert made.steps() == [*MADE, "pipeline"]


def test_where_locks_cannot_be_made_an_environment_is_only_used(made):
    """A folder in their place stands for a read-only disk, which root could write."""
    for name in (".venv.lock", ".venv.used"):
        (made.folder / name).unlink()
        (made.folder / name).mkdir()
    assert made.call("quick")[0] == 0
    made.change()
    status, out, err = made.call("quick")
    assert status == 1 and re.fullmatch(rf"run_all.sh: cannot write in {made.folder}, .*\n", err)
    assert made.steps() == ["pipeline"] and (made.venv / "first").exists()


# ------------------------------------------------------------------ what the caller has set

LEAKING = {
    "PYTHONOPTIMIZE": "1", "PYTHONPATH": "/nowhere", "PYTHONHASHSEED": "1", "PYTHONWARNINGS": "error",
    "PIP_USER": "1", "PIP_TARGET": "/nowhere", "PIP_NO_DEPS": "1", "PIP_CONSTRAINT": "/nowhere",
    "UV_PROJECT_ENVIRONMENT": "/nowhere", "UV_PYTHON": "2.7", "UV_SYSTEM_PYTHON": "1", "UV_TARGET": "/nowhere",
    "UV_RESOLUTION": "lowest", "VIRTUAL_ENV": "/nowhere", "GRFSAXS_ROOT": "/nowhere", "CDPATH": "/nowhere",
}  # fmt: skip
STAYING = {
    "PIP_INDEX_URL": "a", "PIP_EXTRA_INDEX_URL": "b", "PIP_CERT": "c", "PIP_CONFIG_FILE": "d", "PIP_FIND_LINKS": "e",
    "UV_INDEX_URL": "f", "UV_DEFAULT_INDEX": "g", "UV_INDEX": "h", "UV_INDEX_OURS_PASSWORD": "i", "SSL_CERT_FILE": "j",
    "https_proxy": "k", "REQUESTS_CA_BUNDLE": "l", "OMP_NUM_THREADS": "2",
}  # fmt: skip


@pytest.mark.parametrize("step", ["pip", "uv", "pipeline"])
def test_variables_that_stay_outside(repository, step):
    repository.at(step, 'env >"$FAKE/environment"')
    assert repository.call("status", "quick", **LEAKING, **STAYING)[0] == 0
    lines = (repository.fake / "environment").read_text().splitlines()
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert seen.keys() & LEAKING.keys() == set()
    assert {name: seen.get(name) for name in STAYING} == STAYING
    assert seen["PYTHONNOUSERSITE"] == "1"


@pytest.mark.skipif(locale.getencoding().lower() != "utf-8", reason="this machine shows no locale with UTF-8")
@pytest.mark.parametrize("setting", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LANG": "C", "LC_CTYPE": "C"}])
def test_a_path_beyond_ascii(tmp_path, setting):
    """An environment leads to the repository by a .pth file, which Python 3.11 reads in the locale's encoding."""
    repository = Repository(tmp_path / "répertoire à lire", tmp_path / "fake")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "editable.pth").write_text(f"{repository.folder}\n", encoding="utf-8")
    program = "import site, sys; site.addsitedir(sys.argv[1]); print(sys.path[-1]); open('maß', 'w').write('µ')"
    repository.at("pipeline", f'exec "$REAL_PYTHON" -S -c "{program}" {tmp_path}/site')
    status, out, err = repository.call("status", "quick", **setting)
    assert (status, out.splitlines()[-1]) == (0, str(repository.folder)), err
    assert (repository.folder / "maß").read_bytes() == "µ".encode()


# ----------------------------------------------------------------------------- signals


def stopped(repository, number, *words):
    """Send a signal to the script once a step lasts; its exit status, when nothing is left of that step."""
    process = repository.start(*words)
    pids = repository.fake / "pids"
    wait_for(pids.exists)
    process.send_signal(number)
    process.communicate(timeout=15)
    started = [int(pid) for pid in pids.read_text().split()]
    pids.unlink()
    assert [pid for pid in started if is_alive(pid)] == []
    return process.returncode


SIGNALS = [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize("number, status", SIGNALS)
def test_a_signal_ends_a_set_up(repository, usual_signals, number, status):
    repository.at("uv", LASTS)
    assert stopped(repository, number, "quick") == status
    assert not repository.venv.exists()


@pytest.mark.parametrize("number, status", SIGNALS)
def test_a_signal_ends_the_tests(made, usual_signals, number, status):
    made.at("other", LASTS)
    assert stopped(made, number, "test") == status
    assert made.steps() == ["other"]  # and nothing after it


def test_a_step_that_clears_up_is_waited_for(made):
    made.at("other", f"trap 'sleep 0.5; touch \"$FAKE/cleared\"; exit 1' INT; {LASTS}")
    process = made.start("test")
    wait_for((made.fake / "pids").exists)
    process.terminate()
    process.communicate(timeout=15)
    assert process.returncode == 143 and (made.fake / "cleared").exists()


def test_a_tier_takes_the_place_of_the_script(made):
    """So that signals reach the process that knows its kernels and workers; test_cli.py sends some."""
    made.at("pipeline", 'echo "$BASHPID"')
    process = made.start("laptop")
    assert process.communicate(timeout=10)[0] == f"{process.pid}\n"


def test_what_fails_fails_the_script(made):
    made.at("pipeline", "exit 7")
    assert made.call("laptop")[0] == 7
    made.at("other", "exit 3")
    assert made.call("test")[0] == 3
    assert made.steps() == ["pipeline", "other"]


def test_the_tests_run_the_notebooks_with_their_solutions_after_the_quick_tier(made):
    (made.fake / "calls").unlink()
    assert made.call("test")[0] == 0
    calls = (made.fake / "calls").read_text().splitlines()
    ruff, units, quick, solutions, notebooks, claims = calls
    assert ruff.startswith("-m ruff check") and "--ignore=tests/test_claims.py" in units and "run quick" in quick
    assert solutions == "tests/with_solutions.py data/quick/with_solutions"
    assert "-p nbval" in notebooks and notebooks.endswith(" data/quick/with_solutions")
    assert claims.endswith("tests/test_claims.py")


@pytest.mark.parametrize("words, tier", [(["verify"], "laptop"), (["verify", "quick"], "quick")])
def test_verify_takes_the_laptop_tier_unless_another_is_named(made, words, tier):
    made.at("pipeline", "exit 1")
    (made.fake / "calls").unlink()
    assert made.call(*words)[0] == 1
    assert (made.fake / "calls").read_text().startswith(f"-m grfsaxs_lib.cli verify {tier} ")


# -------------------------------------------------------------------------------- help


def test_the_help_names_the_options_that_there_are():
    script = (ROOT / "run_all.sh").read_text()
    text = subprocess.run(["bash", ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True).stdout
    understood = set(re.findall(r"^ +(?:-h \| )?(--[a-z]+)\)", script, flags=re.M))
    assert understood == set(re.findall(r"^ +(--[a-z]+)", text, flags=re.M)) and "--from" in understood
    commands = re.search(r"\^\(([a-z|]+)\)\$ \]\] && command=", script)[1].split("|")
    assert set(commands) == set(re.findall(r"^  ([a-z]+) ", text, flags=re.M))
    assert f"[{'|'.join(commands)}]" in text


def test_run_times_stand_in_the_readme_alone():
    text = subprocess.run(["bash", ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"\b(?:\d+ s|\d+ min|minutes?|hours?)\b", text) == []
    assert "table of tiers in README.md" in text
