"""Many tasks, in one process or on a Dask cluster.

A task is a small picklable description; the function that does it leaves its result on
the disk and returns a few words about it. Any process that sees the same folder can
therefore do a task, and do it again after a crash. Without a scheduler the tasks run in
this process, one after another or on a few threads, and Dask is not imported.
"""

import logging
import os
import platform
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from .files import versions

# Workers report their progress at most this often [s].
_REPORT_EVERY = 0.5
# A worker or scheduler that does not answer for this long is given up [s].
_TIMEOUT = 20
_MARK = ".folder-of-the-cluster"


class ClusterError(RuntimeError):
    """The cluster, not the task, has failed. Finished work is on the disk."""


def parse_scheduler(scheduler):
    """Interpret the text that names a scheduler, without connecting.

    Parameters
    ----------
    scheduler : str
        ``""``: no cluster. ``"local:4"``: four worker processes on this machine. Else the
        address of a running Dask scheduler, such as ``"tcp://10.0.0.7:8786"``.

    Returns
    -------
    None, int or str
        No cluster, a number of local workers, or an address.

    Raises
    ------
    ValueError
        If the text is none of these.
    """
    if scheduler == "":
        return None
    if isinstance(scheduler, str) and (local := re.fullmatch(r"local:([1-9][0-9]{0,3})", scheduler)):
        return int(local[1])
    if isinstance(scheduler, str) and re.fullmatch(r"(?!local:)([a-z]+://)?[\w.\[\]:-]+:[0-9]+", scheduler):
        return scheduler
    raise ValueError(f"scheduler must be local:N with N >= 1, or an address like tcp://host:8786; got {scheduler!r}")


@contextmanager
def connect(scheduler, *, device="cpu"):
    """Yield a Dask client, or None where there is no scheduler.

    Local workers share the cores evenly; with ``device="gpu"`` each has the GPU of its
    own number. They end with the block, the workers of an address do not.

    Parameters
    ----------
    scheduler : str
        See `parse_scheduler`.
    device : {"cpu", "gpu"}
        What local workers compute on.

    Raises
    ------
    ValueError
        If the text is malformed.
    ClusterError
        If nothing answers there.
    """
    where = parse_scheduler(scheduler)
    if where is None:
        yield None
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ClusterError("a scheduler needs dask.distributed: pip install 'grfsaxs[cluster]'") from None
    if isinstance(where, int):
        threads = str(max(1, available_cores() // where))
        cluster = LocalCluster(
            n_workers=where,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            env={"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"},
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster, timeout=_TIMEOUT) as client:
            if device == "gpu":
                client.register_plugin(_one_gpu_each())
            print(f"{where} local workers, dashboard {client.dashboard_link}")
            yield client
        return
    try:
        client = Client(where, timeout=_TIMEOUT)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(f"no Dask scheduler answers at {where} ({error})") from None
    with client:
        print(f"scheduler {where}, dashboard {client.dashboard_link}")
        if not client.scheduler_info()["workers"]:
            print("no workers yet; tasks wait for them")
        yield client


def run(function, tasks, sizes, *, client=None, threads=1, directory, label, unit, progress=True):
    """Do all tasks, and yield each with its result as it is finished.

    Parameters
    ----------
    function : callable
        ``function(task, report) -> result``; it calls ``report(n)`` when n more units are done.
        It must be importable by name, because it may run in another process.
    tasks : list
        Small picklable descriptions.
    sizes : list of int
        Units of each task, for the progress bar.
    client : distributed.Client, optional
        From `connect`; without it the tasks are done here.
    threads : int
        Number of tasks at a time, without a client.
    directory : path
        The folder that the tasks write to; the workers must see it.
    label, unit : str
        Of the progress bar.
    progress : bool
        Whether to show it, with rate and time left, on the standard error stream.

    Yields
    ------
    task, result

    Raises
    ------
    ClusterError
        If the scheduler is lost, a worker does not see `directory` or has other versions of the libraries than this
        process, or several workers have died over one task.
    Exception
        Any error that a task raises. Tasks that have not begun are then dropped.
    """
    with tqdm(total=sum(sizes), desc=label, unit=unit, disable=not progress) as bar:
        if client is not None:
            yield from _run_on_workers(function, tasks, sizes, client, Path(directory), bar)
        else:
            yield from _run_on_threads(function, tasks, sizes, threads, bar)


class _Tally:
    """What each task has done so far, on one progress bar; called from several threads."""

    def __init__(self, bar, sizes):
        self.bar, self.sizes, self.done, self.lock = bar, sizes, [0] * len(sizes), threading.Lock()

    def show(self, number, units):
        """A task has done so many units, from its beginning."""
        with self.lock:  # a task that is done again after a worker's death does not count twice
            self.done[number] = max(self.done[number], min(units, self.sizes[number]))
            self.bar.update(sum(self.done) - self.bar.n)

    def finish(self, number):
        self.show(number, self.sizes[number])


def _run_on_threads(function, tasks, sizes, threads, bar):
    tally, stop = _Tally(bar, sizes), threading.Event()

    def work(number):
        units = 0

        def report(n):
            nonlocal units
            if stop.is_set():  # another task has failed, or the user has interrupted
                raise InterruptedError
            units += n
            tally.show(number, units)

        result = function(tasks[number], report)
        tally.finish(number)
        return result

    if threads == 1:  # in this thread, which an interrupt can stop
        for number, task in enumerate(tasks):
            yield task, work(number)
        return
    with ThreadPoolExecutor(threads) as pool:
        jobs = {pool.submit(work, number): task for number, task in enumerate(tasks)}
        try:
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _run_on_workers(function, tasks, sizes, client, directory, bar):
    from distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    topic = f"grfsaxs-{uuid.uuid4().hex}"
    tally, futures = _Tally(bar, sizes), {}
    directory.mkdir(parents=True, exist_ok=True)
    context = directory.absolute(), _mark(directory), versions()
    client.subscribe_topic(topic, lambda event: tally.show(*event[1]))
    try:
        for number, task in enumerate(tasks):
            # With unique keys the scheduler never takes a task for one that it has seen.
            future = client.submit(_work, function, task, number, topic, context, key=f"{topic}-{number}", pure=False)
            futures[future] = number
        for future in as_completed(list(futures)):
            number = futures[future]
            result = future.result()
            tally.finish(number)
            yield tasks[number], result
            future.release()
    except KilledWorker as error:
        raise ClusterError(f"several workers died one after another over {tasks[number]} ({error})") from None
    except (FutureCancelledError, CommClosedError, OSError, TimeoutError) as error:
        if client.status == "running" and not isinstance(error, FutureCancelledError | CommClosedError):
            raise  # the task's own
        raise ClusterError(f"the scheduler was lost; finished work is kept, so repeat the command ({error})") from None
    finally:
        if client.status == "running":
            client.unsubscribe_topic(topic)
            # A running task cannot be stopped: its file will be complete or absent.
            client.cancel([future for future in futures if not future.done()])


def _work(function, task, number, topic, context):
    """Do one task on a worker, and report now and then."""
    from distributed import get_worker

    _check_worker(*context)

    worker, units, last = get_worker(), 0, time.monotonic()

    def report(n):
        nonlocal units, last
        units += n
        if time.monotonic() - last > _REPORT_EVERY:
            last = time.monotonic()
            worker.log_event(topic, (number, units))

    return function(task, report)


def _mark(directory):
    """Mark the folder of the files, and return the mark: a worker that does not find it writes to another disk."""
    path, content = directory / _MARK, uuid.uuid4().hex
    if not path.exists():
        temporary = path.with_name(f"{_MARK}.{content}")
        temporary.write_text(content)
        with suppress(FileExistsError):  # two runs at once: the first mark stays
            os.link(temporary, path)
        temporary.unlink()
    return path.read_text()


def _check_worker(directory, mark, expected):
    """Raise if this worker, which may have joined late, sees another folder or has other libraries than the client."""
    try:
        seen = (directory / _MARK).read_text()
    except OSError:
        seen = None
    if seen != mark:
        raise ClusterError(f"a worker on {platform.node()} does not see {directory}; use a folder that all share")
    here = versions()
    differ = [
        f"{name} {here.get(name)} (client {expected.get(name)})"
        for name in sorted(here | expected)
        if here.get(name) != expected.get(name)
    ]
    if differ:  # the same key might give another curve
        raise ClusterError(f"a worker on {platform.node()} has {', '.join(differ)}; use one environment everywhere")


def available_cores():
    """Cores that this process may use: a batch system gives a job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_gpu_each():
    from distributed import WorkerPlugin

    class OneGPU(WorkerPlugin):
        """Show each worker, a restarted one too, only the GPU of its own number among those that the client sees."""

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")

        def setup(self, worker):
            number = int(worker.name)
            os.environ["CUDA_VISIBLE_DEVICES"] = self.visible.split(",")[number] if self.visible else str(number)

    return OneGPU()
