"""How functions are compiled with Numba, and what must not be done with them.

A compiled function writes into arrays of its caller and returns nothing: an interrupt that arrives while Numba turns
results into Python objects would become a SystemError. Parallel ones run on the threads of Numba's threading layer, of
which two have limits that end a process or hang it; both are guarded here.
"""

import functools
import os
import shutil
import threading
from pathlib import Path

import numba

_LOCK = threading.Lock()
_layer = None  # of Numba's threads, once they run
# Whether this process was forked from one whose GNU OpenMP threads ran: a call here would wait for them for ever.
_forked = False


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


def parallel(*fastmath):
    """Decorator for a function with `numba.prange` that only Python calls, with the liberties `fastmath`.

    It raises RuntimeError in a process that was forked after a parallel function had run; start such processes with
    ``multiprocessing.get_context("spawn")``. Where the threading layer cannot serve several Python threads at once
    they take turns.
    """

    def decorate(function):
        compiled = numba.njit(**_OPTIONS, parallel=True, fastmath=set(fastmath))(function)

        @functools.wraps(function)
        def guarded(*arguments):
            global _layer
            if _forked:
                raise RuntimeError(
                    "this process was forked from one that had used grfsaxs on several threads, and would wait for "
                    'these for ever; start it with multiprocessing.get_context("spawn")'
                )
            if _layer in (None, "workqueue"):  # the first call tells which layer it is
                with _LOCK:
                    compiled(*arguments)
                    _layer = numba.threading_layer()
            else:
                compiled(*arguments)

        return guarded

    return decorate


def _in_child():
    global _forked, _LOCK
    _forked, _LOCK = _layer == "omp", threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
