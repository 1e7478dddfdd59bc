"""Real faults, really caused: after each, all curves are there once, with the same bits, and nothing else is."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from disturbed_run import plan

from grfsaxs_lib import tasks
from grfsaxs_lib.datasets import block, store
from grfsaxs_lib.trees import runs, samples

RUN = Path(__file__).with_name("disturbed_run.py")
ONE_THREAD = os.environ | {"NUMBA_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Checksums by file name, of a plain loop in this process."""
    made = store.generate(plan(tmp_path_factory.mktemp("undisturbed")), progress=False)
    return {path.name: checksum for path, checksum in made.items()}


@pytest.fixture(scope="module")
def client():
    """Two worker processes, restarted by their nannies if they die."""
    with tasks.connect("local:2") as client:
        yield client


@pytest.fixture
def check(undisturbed):
    def check(folder):
        files = {path for path in Path(folder).iterdir() if path.name != tasks._MARK}
        found = {path.name: block.verify(path)[0]["checksum"] for path in files}
        assert found == undisturbed
        for split, n in (("train", 60), ("test", 24)):
            np.testing.assert_array_equal(store.load("three_phase_high", split, folder)["index"], np.arange(n))

    return check


def wait_for_files(folder, n, timeout=60):
    start = time.monotonic()
    while len(list(Path(folder).glob("*.nc"))) < n:
        assert time.monotonic() - start < timeout
        time.sleep(0.01)


@contextlib.contextmanager
def meanwhile(action, *args):
    """Do something in another thread, and raise here what it raises."""
    errors = []

    def work():
        try:
            action(*args)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()
    assert errors == []


def test_workers_make_the_same_files(client, tmp_path, check):
    made = store.generate(plan(tmp_path)[::-1], client=client, progress=False)
    assert list(made) == [shard.path for shard in plan(tmp_path)[::-1]]
    check(tmp_path)


def slowly(task, report):
    for _ in range(8):
        time.sleep(0.3)
        report(1)
    return task


def test_progress_reaches_the_client(client, tmp_path, capfd):
    (done,) = tasks.run(
        slowly, ["one"], [8], client=client, directory=tmp_path, label="slow", unit="step", progress=True
    )
    shown = {int(n) for n in re.findall(r"(\d)/8", capfd.readouterr().err)}
    assert done == ("one", "one") and {0, 8} < shown  # something between, which only the worker can know


def test_a_worker_killed_in_mid_shard(client, tmp_path, check):
    pids = set(client.run(os.getpid).values())

    def kill():
        wait_for_files(tmp_path, 2)
        os.kill(min(pids), signal.SIGKILL)

    with meanwhile(kill):
        store.generate(plan(tmp_path), client=client, progress=False)
    check(tmp_path)
    client.wait_for_workers(2, timeout=60)
    assert min(pids) not in client.run(os.getpid).values()


def kill_at_random(folder, rng, scheduler, whole_group):
    """Start a run, and kill it once it has made a random number of files and begun the next; its process group."""
    process = subprocess.Popen(
        [sys.executable, RUN, folder, scheduler],
        env=ONE_THREAD,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    there = len(list(folder.glob("*.nc")))
    wait_for_files(folder, rng.integers(there + 1, len(plan(folder))))
    time.sleep(rng.uniform(0, 0.05))  # part of a shard's time
    if whole_group:  # as a batch system does
        os.killpg(process.pid, signal.SIGKILL)
    else:  # the workers are left alone, and end by themselves
        process.kill()
    process.wait()
    return process.pid


def test_a_run_killed_at_random_moments(tmp_path, check, request):
    kills, rng = request.config.getoption("--kills"), np.random.default_rng(4)
    all_files, files, n = len(plan(tmp_path)), [], 0
    while len(files) < kills:
        groups = []
        # Each goes on where the last was killed, until too little is left to be killed in.
        while len(files) < kills and len(list(tmp_path.glob("*.nc"))) < all_files - 1:
            scheduler, whole_group = (("local:2", True), ("", True), ("local:2", False))[n % 3]
            groups.append(kill_at_random(tmp_path, rng, scheduler, whole_group))
            files.append(len(list(tmp_path.glob("*.nc"))))
            n += 1
        store.generate(plan(tmp_path), progress=False)
        wait_for_the_end_of(groups)
        store.generate(plan(tmp_path), progress=False)  # what workers left alone may have left behind
        check(tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()
    print(f"{kills} kills; files there after each, of {all_files}: {files}")
    assert any(0 < n < all_files for n in files)


def wait_for_the_end_of(groups):
    start = time.monotonic()
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(group, 0)
                assert time.monotonic() - start < 60
                time.sleep(0.1)


def test_damaged_and_leftover_files(client, tmp_path, check, capfd):
    shards = plan(tmp_path)
    store.generate(shards, progress=False)
    shards[0].path.write_bytes(shards[0].path.read_bytes()[:-1000])
    content = bytearray(shards[1].path.read_bytes())
    content[-3000] ^= 1
    shards[1].path.write_bytes(content)
    shards[2].path.unlink()
    (tmp_path / f".{shards[2].path.name}.0badcafe.tmp").write_bytes(content[:5000])
    store.generate(shards, client=client, progress=False)
    check(tmp_path)


def test_a_full_disk(client, tmp_path, check):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"only root can mount a small disk: {mounted.stderr.strip()}")
    try:
        for workers in (None, client):
            with pytest.raises(OSError, match="No space left|is the disk full"):
                store.generate(plan(disk), client=workers, progress=False)
        there = [path.name for path in disk.iterdir() if path.suffix == ".nc"]
        assert 0 < len(there) < len(plan(disk))
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        store.generate(plan(disk), client=client, progress=False)
        check(disk)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_the_scheduler_lost(tmp_path, check):
    where, folder = tmp_path / "scheduler.json", tmp_path / "data"
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as stack:

        def start(kind, *options):
            command = [*dask[:2], dask[2] + kind, "--scheduler-file", where, "--no-dashboard", *options]
            process = stack.enter_context(subprocess.Popen(command, **quiet))
            stack.callback(process.kill)
            return process

        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        start("worker", "--nthreads", "1", "--no-nanny", "--local-directory", tmp_path, "--death-timeout", "20")
        deadline = time.monotonic() + 60
        while not where.exists() or not where.read_text().rstrip().endswith("}"):  # it is written piece by piece
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with tasks.connect(json.loads(where.read_text())["address"]) as client:
            client.wait_for_workers(1, timeout=60)

            def kill():
                wait_for_files(folder, 2)
                scheduler.kill()

            with meanwhile(kill), pytest.raises(tasks.ClusterError, match="scheduler was lost.*repeat the command"):
                store.generate(plan(folder), client=client, progress=False)
    store.generate(plan(folder), progress=False)
    check(folder)


def test_two_runs_at_once(client, tmp_path, check):
    """One in another process, one on the workers; both have their compiled code when they begin."""
    folder, ready, go = (tmp_path / name for name in ("data", "ready", "go"))
    store.generate(plan(tmp_path / "warm")[:4], client=client, progress=False)
    other = subprocess.Popen([sys.executable, RUN, folder, "", ready, go], env=ONE_THREAD)
    while not ready.exists():
        assert other.poll() is None
        time.sleep(0.05)
    go.touch()  # both write at the same time now
    store.generate(plan(folder), client=client, progress=False)
    assert other.wait(timeout=120) == 0
    check(folder)


# The cluster itself ----------------------------------------------------------------------------------


def die(task, report):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(task, report):
    if task == 3:
        raise ValueError("task three is refused")
    return task


def until_stopped(task, report):
    """One task fails soon; the others would go on for a minute."""
    for _ in range(600):
        time.sleep(0.1)
        if task == 3:
            raise ValueError("task three is refused")
        report(1)


def test_a_failure_stops_the_other_threads(tmp_path):
    start = time.monotonic()
    with pytest.raises(ValueError, match="task three is refused"):
        run(until_stopped, [1, 2, 3, 4], None, tmp_path, threads=4)
    assert time.monotonic() - start < 10


def run(function, work, client, folder, **more):
    sizes = [1] * len(work)
    setting = {"directory": folder, "label": "test", "unit": "task", "progress": False}
    return list(tasks.run(function, work, sizes, client=client, **setting | more))


def test_a_task_that_kills_its_workers_is_named(client, tmp_path):
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    with pytest.raises(tasks.ClusterError, match="several workers died one after another over the deadly task"):
        run(die, ["the deadly task"], client, tmp_path)
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 3))
    client.wait_for_workers(2, timeout=60)


@pytest.mark.parametrize("where", ["here", "threads", "workers"])
def test_what_a_task_raises_is_raised(client, tmp_path, where):
    workers, threads = client if where == "workers" else None, 3 if where == "threads" else 1
    with pytest.raises(ValueError, match="task three is refused"):
        run(fail, list(range(8)), workers, tmp_path, threads=threads)
    done = run(fail, [0, 1, 2], workers, tmp_path, threads=threads)
    assert sorted(done) == [(0, 0), (1, 1), (2, 2)]


def test_a_folder_that_workers_do_not_see(client, tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            pytest.skip("no /proc here")
        with pytest.raises(tasks.ClusterError, match="a worker on .* does not see .*use a folder that all share"):
            # The name of a folder in this process, and of nothing in another.
            run(fail, [0], client, Path(f"/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)
    assert [path.name for path in tmp_path.iterdir()] == [tasks._MARK]


def test_workers_of_other_versions_are_refused(client, tmp_path, monkeypatch):
    monkeypatch.setattr("grfsaxs_lib.files._LIBRARIES", ("numpy", "pytest"))
    with pytest.raises(tasks.ClusterError, match="has .*pytest None .client .*use one environment"):
        run(fail, [0], client, tmp_path)


def test_a_cluster_without_workers_says_so(capsys):
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty, tasks.connect(empty.scheduler_address):
        assert "no workers yet; tasks wait for them" in capsys.readouterr().out


def test_training_runs_on_workers(client, tmp_path):
    folder = tmp_path / "data"
    shards = plan(folder)
    others = store.plan(
        {"validation": 12}, cases=["three_phase_high"], directory=folder, grid=shards[0].grid, smoothing_sigma=1.0,
        q=shards[0].q,
    )  # fmt: skip
    store.generate(shards + others, client=client, progress=False)
    trees = []
    for name, workers in (("here", None), ("there", client)):
        planned = runs.plan_models(
            [samples.Simulated("three_phase_high", folder)], directory=tmp_path / name, repeats=2, seed=1, n_jobs=1,
            hyperparameters={"max_depth": 3}, n_estimators=8, patience=3,
        )  # fmt: skip
        runs.execute(planned, client=workers, progress=False)
        trees.append([runs.load_fit(run).booster.save_raw("ubj") for run in planned])
    assert trees[0] == trees[1]


ADDRESSES = ["tcp://a-b.c:8786", "10.0.0.7:8786", "tls://[::1]:1"]
MALFORMED = ["local", "local:0", "local:-1", "local:x", "host", "tcp://host", ":1", "a b:1", 2, None]


@pytest.mark.parametrize("text, meaning", [("", None), ("local:2", 2), *zip(ADDRESSES, ADDRESSES, strict=True)])
def test_schedulers(text, meaning):
    assert tasks.parse_scheduler(text) == meaning


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_schedulers_are_refused(text):
    with pytest.raises(ValueError, match="scheduler must be local:N"), tasks.connect(text):
        pass


def test_each_local_worker_has_a_gpu_of_its_own(client):
    client.register_plugin(tasks._one_gpu_each(), name="gpus")
    try:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(seen.values()) == ["0", "1"]
    finally:
        client.unregister_worker_plugin("gpus")
