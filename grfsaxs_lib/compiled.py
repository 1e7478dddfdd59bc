"""How functions are compiled with Numba, and what must not be done with them.

A compiled function writes into arrays of its caller and returns nothing: an interrupt that arrives while Numba turns
results into Python objects would become a SystemError.
"""

import _thread
import shutil
import time
from pathlib import Path

import numba

_ROOM = 50e6  # bytes; all compiled code takes a tenth of it


def _can_cache():
    """Whether Numba finds a place for compiled code; a read-only package in a read-only home, or a full disk, has none.

    Numba looks for the first only, and an error over the second would end the first call of each function.
    """
    try:
        folder = Path(numba.njit(cache=True)(lambda: None).stats.cache_path)
    except RuntimeError:
        return False
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free > _ROOM


_OPTIONS = {"cache": _can_cache(), "nogil": True}


def serial(*fastmath):
    """Decorator for a function of one thread, with the liberties `fastmath` in floating-point arithmetic."""
    return numba.njit(**_OPTIONS, fastmath=set(fastmath))


def share_out(work, n, block):
    """Call ``work`` once on every thread with the iterator of slices of n items that all of them draw from.

    The threads are Python's, for a time; compiled functions release its lock. Numba's own threads would take twice as
    long to compile, hang a process that was forked after their use, and on some machines serve one caller alone. A
    pool of concurrent.futures keeps a lock for ever if an interrupt arrives in its own code: two of 3 000 interrupts of
    short simulations hung. Plain locks, released by the threads at their ends, do not.

    Parameters
    ----------
    work : callable
        Of an iterator of slices.
    n : int
        Items.
    block : int
        Items in a slice: a fixed number, for the same result on any number of threads.
    """
    slices = iter([slice(start, min(start + block, n)) for start in range(0, n, block)])
    if n <= block:  # no thread is worth its start
        work(slices)
        return
    started, ended, errors = [], [], []

    def run(lock):
        try:
            work(slices)
        except BaseException as error:
            errors.append(error)
        finally:
            ended.append(lock)
            lock.release()

    try:
        for _ in range(numba.get_num_threads()):
            lock = _thread.allocate_lock()
            lock.acquire()
            _thread.start_new_thread(run, (lock,))
            started.append(lock)
        for lock in started:
            lock.acquire()
    finally:  # after an interrupt the threads finish the slices that they have
        for _ in slices:
            pass
        while len(ended) < len(started):
            time.sleep(1e-3)
    if errors:
        raise errors[0]
