"""Tiers, data sets and status as `run_all.sh` asks for them."""

import contextlib
import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from grfsaxs_lib import cli, files, tiers
from grfsaxs_lib.datasets import keys
from grfsaxs_lib.grid import Grid
from grfsaxs_lib.paper import numbers
from grfsaxs_lib.parameters import CASES

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::grfsaxs_lib.SmallBoxWarning")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A root whose data are this test's own."""
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.setenv("GRFSAXS_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    """The quick tier with data sets of its own, of tiny structures."""
    sizes = {"n_train": 48, "n_validation": 16, "n_test": 16, "shard_size": 20, "n_estimators": 3, "pooling": (5, 0.0)}
    monkeypatch.setitem(tiers.TIERS, "quick", tiers.TIERS["quick"] | sizes | {"trained_cases": list(CASES)})
    monkeypatch.setattr(cli, "PAPER_GRID", Grid(16, 1.0))


def test_every_size_of_a_tier_is_read_somewhere():
    texts = [path.read_text() for path in cli.find_notebooks()]
    texts += [(Path(cli.__file__).parent / name).read_text() for name in ("cli.py", "settings.py", "trees/samples.py")]
    read = set(re.findall(r'\[\\?"(\w+)\\?"\]', "".join(texts)))
    names = set().union(*tiers.TIERS.values())
    assert names - read - {f"n_{split}" for split in keys.SPLITS} == set()
    assert all(sizes.keys() == names for sizes in tiers.TIERS.values())


def test_the_paper_tier_is_the_papers():
    shards = cli.plan_shards("paper")
    assert len(shards) == 896
    assert sum(shard.indices.size for shard in shards) == 4 * sum(numbers.N_SAMPLES.values()) == 3_670_016
    assert {(shard.grid.size, shard.grid.voxel_size, shard.smoothing_sigma) for shard in shards} == {(512, 0.5, 2.0)}
    sizes = tiers.TIERS["paper"]
    assert (sizes["n_estimators"], sizes["patience"], sizes["repeats"]) == (50_000, 1000, 10)
    assert sizes["trained_cases"] == list(CASES)


def test_shares_and_status(elsewhere, capsys, small):
    cli.main(["status", "quick"])
    assert "missing: 320 curves; no rate measured yet" in capsys.readouterr().out
    cli.main(["generate", "quick", "--shards", "1/7"])
    assert "3 shards are complete in" in capsys.readouterr().out
    assert len(list((elsewhere / "data/quick/datasets").iterdir())) == 3
    cli.main(["status", "quick"])
    out = capsys.readouterr().out
    made = 20 + 20 + 16
    assert re.search(rf"missing: {320 - made} curves; [0-9.]+ min at the rate so far", out)
    assert re.search(r"two_phase_low +train +1 +3 +20 +48", out)


def test_tiers_without_data_sets(elsewhere, capsys):
    cli.main(["status", "laptop"])
    assert "simulates no data sets: its models learn from the curves of emulators" in capsys.readouterr().out


def test_status_of_the_training_runs(elsewhere, capsys, small):
    cli.main(["generate", "quick"])
    # The parameters cell of notebook 07, which names the seed, is found in the repository.
    runs = cli.plan_runs("quick")
    cli.runs.execute(runs[:4], progress=False)
    cli.main(["status", "quick"])
    out = capsys.readouterr().out
    assert re.search(r"models: 4 of 10 training runs are finished; [0-9.]+ min for the rest", out)


@pytest.mark.parametrize(
    "words, message",
    [
        ("generate", "generate takes a tier"),
        ("status nothing", "cannot make sense of 'nothing'"),
        ("verify nothing", "cannot make sense of 'nothing'"),
        ("generate quick --shards 3", "--shards takes k/n, as in 3/28; got '3'"),
        ("quick --shards 1/2", "--shards goes with generate"),
        ("quick --scheduler somewhere", "--scheduler takes local:N or an address like tcp://host:8786"),
        ("quick --scheduler", "--scheduler takes local:N"),
        ("status quick --scheduler local:2", "--scheduler goes with"),
        ("quick --from 6", "--from takes the two digits"),
        ("generate quick --from 07", "--from goes with"),
        ("--device tpu", "--device must be cpu or gpu"),
    ],
)
def test_bad_calls_are_refused_before_any_work(words, message):
    call = subprocess.run(["bash", ROOT / "run_all.sh", *words.split()], capture_output=True, text=True, timeout=10)
    assert call.returncode == 1 and call.stdout == ""
    assert call.stderr.startswith("run_all.sh: ") and message in call.stderr


def test_bad_values_end_without_a_traceback(elsewhere, small):
    with pytest.raises(SystemExit, match="run_all.sh: shards must read 'k/n' with 1 <= k <= n"):
        cli.main(["generate", "quick", "--shards", "3/2"])
    with pytest.raises(SystemExit, match="run_all.sh: device='gpu' needs"):
        cli.main(["generate", "quick", "--device", "gpu"])


# What takes no more -----------------------------------------------------------------------------------


def closed_pipe():
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "opened, reason", [(closed_pipe, "Broken pipe"), (lambda: os.open("/dev/full", os.O_WRONLY), "No space left")]
)
def test_an_output_that_takes_no_more(elsewhere, monkeypatch, opened, reason, at_once):
    with os.fdopen(opened(), "w") as output:  # closing it must not raise the same again
        output.reconfigure(write_through=at_once)
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit, match="^run_all.sh: the standard output takes no more text: " + reason):
            cli.main(["status", "quick"])


def test_no_output_at_all(elsewhere, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    cli.main(["status", "quick"])


def test_a_shard_that_cannot_be_written(elsewhere, monkeypatch, small):
    target = cli.plan_shards("quick")[1].path

    def generate(shards, client):
        raise files.WriteError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(cli.store, "generate", generate)
    with pytest.raises(SystemExit) as end:
        cli.main(["generate", "quick"])
    assert end.value.code == (
        f"run_all.sh: {target} could not be written: No space left on device; free some space on its disk. "
        "Finished work is kept; repeat the command"
    )


def test_errors_of_other_files_name_a_remedy(elsewhere, monkeypatch):
    def fail(*args):
        raise PermissionError(errno.EACCES, "Permission denied", "/some/file")

    monkeypatch.setattr(cli, "print_status", fail)
    with pytest.raises(SystemExit, match=r"^run_all.sh: \[Errno 13\] Permission denied: '/some/file'; make its folder"):
        cli.main(["status", "quick"])


@pytest.fixture
def one_notebook(tmp_path, monkeypatch):
    """A function that leaves a root whose only notebook has this one cell."""
    monkeypatch.setenv("GRFSAXS_ROOT", str(tmp_path))

    def write(source):
        cells = [
            nbformat.v4.new_code_cell('tier = "quick"', metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(source),
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        (tmp_path / "notebooks").mkdir()
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "notebooks" / "07_only.ipynb")
        return tmp_path

    return write


def test_an_executed_copy_that_cannot_be_written(one_notebook, monkeypatch):
    import papermill

    def execute(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    copy = one_notebook("pass") / "data" / "quick" / "executed" / "07_only.ipynb"
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "quick"])
    assert end.value.code == (
        f"run_all.sh: {copy} could not be written: No space left on device; free some space on its disk. "
        "Finished work is kept; go on with: ./run_all.sh quick --from 07"
    )


def test_a_notebook_that_cannot_write(one_notebook):
    """With a real limit on the size of files."""
    root = one_notebook(
        "from pathlib import Path\n"
        "from grfsaxs_lib import files, results\n"
        "for size in (1000, 2_000_000):\n"
        "    with files.moved_into_place(results.root_directory() / f'{size}.bin') as temporary:\n"
        "        temporary.write_bytes(bytes(size))"
    )
    run = subprocess.run(
        [sys.executable, "-m", "grfsaxs_lib.cli", "run", "quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
        timeout=60,
    )
    assert run.returncode == 1 and "Traceback" not in run.stdout + run.stderr
    assert run.stderr.splitlines()[-1] == (
        f"run_all.sh: {root / '2000000.bin'} could not be written: File too large; raise the limit on the size of "
        "files (ulimit -f unlimited). Finished work is kept; go on with: ./run_all.sh quick --from 07"
    )
    assert sorted(path.name for path in root.glob("*.bin")) == ["1000.bin"]


# Signals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("task", ["generate", "status"])
def test_signals_unwind(elsewhere, monkeypatch, capsys, usual_signals, number, task):
    cleared = []

    def work(p):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            if number != signal.SIGINT:
                os.kill(os.getpid(), number)  # batch systems and shells send them twice: no harm to the clearing up
            cleared.append(p.task)

    monkeypatch.setattr(cli, "_do", work)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        cli.main([task, "quick"])
    assert end.value.code == 128 + number and cleared == [task]
    assert signal.getsignal(number) is before
    message = "\nInterrupted. Finished work is kept; repeat the command\n" if task == "generate" else ""
    assert capsys.readouterr().err == message


def test_a_signal_that_is_ignored_stays_ignored(elsewhere, monkeypatch):
    """nohup lets a run go on when its terminal is closed."""
    monkeypatch.setattr(cli, "_do", lambda p: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        cli.main(["status", "quick"])
    finally:
        signal.signal(signal.SIGHUP, before)


def children(number):
    """Processes that a process has started, and those that these have; from /proc."""
    found = []
    for path in Path(f"/proc/{number}/task").glob("*/children"):  # of each thread
        for child in map(int, path.read_text().split()):
            found += [child, *children(child)]
    return found


def ends_with_all_its_children(process, is_busy):
    """Wait for the busy part, send SIGTERM; the exit status, once every process that it had started is gone."""
    deadline = time.monotonic() + 60
    while not is_busy():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    started = children(process.pid)
    assert started
    process.terminate()
    process.communicate(timeout=30)
    for number in started:
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline + 10:
                os.kill(number, 0)
                time.sleep(0.05)
            pytest.fail(f"process {number} is left")
    return process.returncode


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the test reads /proc")


@needs_proc
def test_a_signal_ends_the_kernel(one_notebook):
    root = one_notebook(
        "import subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from grfsaxs_lib import results\n"
        "worker = subprocess.Popen(['sleep', '60'])\n"
        "(results.root_directory() / 'busy').touch()\n"
        "time.sleep(60)"
    )
    with start("-m", "grfsaxs_lib.cli", "run", "quick") as process:
        assert ends_with_all_its_children(process, (root / "busy").exists) == 143


@needs_proc
def test_a_signal_ends_the_workers(elsewhere):
    folder = elsewhere / "data" / "quick" / "datasets"
    code = (
        "from grfsaxs_lib import cli, tiers\n"
        "from grfsaxs_lib.grid import Grid\n"
        "cli.PAPER_GRID = Grid(48, 1.0)\n"
        "tiers.TIERS['quick'] |= {'n_train': 400, 'n_validation': 40, 'n_test': 40, 'shard_size': 20}\n"
        "if __name__ == '__main__':\n"
        "    cli.main(['generate', 'quick', '--scheduler', 'local:2'])\n"
    )
    script = elsewhere / "generate.py"
    script.write_text(code)
    with start(script) as process:
        assert ends_with_all_its_children(process, lambda: folder.is_dir() and any(folder.glob("*.nc"))) == 143
