"""The one place that knows which device is in use."""

from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np

from ..parameters import refuse_masked

DEVICES = ("cpu", "gpu")


class DeviceError(RuntimeError):
    """The device that was asked for is not there."""


def check_device(device):
    """Raise ValueError unless `device` is the name of one, there or not."""
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}; got {device!r}")


def get_kernels(device):
    """Return the kernel module of `device`, see `grfsaxs_lib.physics.kernels`.

    Parameters
    ----------
    device : {"cpu", "gpu"}

    Raises
    ------
    ValueError
        If the device is unknown.
    DeviceError
        If there is no such device here. There is no silent fallback.
    """
    check_device(device)
    if device == "gpu":
        try:
            cupy = import_module("cupy")
        except ImportError:
            raise DeviceError("device='gpu' needs CuPy, which is not installed; use device='cpu'") from None
        if not cupy.is_available():
            raise DeviceError("device='gpu' needs an NVIDIA GPU with its driver, and none answers; use 'cpu'")
    return import_module(f"grfsaxs_lib.physics.kernels.{device}")


def plain_array(name, array):
    """Return `array` as one of its device without labels; refuse masked elements, which would be numbers there."""
    refuse_masked(name, array)
    if isinstance(getattr(array, "values", None), np.ndarray):  # of xarray or pandas
        array = array.values
    on_device = hasattr(array, "dtype") and not isinstance(array, np.ndarray)
    return array if on_device else np.asarray(array)


# Most memory of a simulation: 2.0 GiB at 512^3 [bytes a voxel].
_MEMORY = 16


def check_memory(device, size):
    """Raise MemoryError unless a structure of ``size**3`` voxels fits into the free memory of the host.

    A GPU is not asked: CuPy's own error says what was wanted and what there is, and comes at once.
    """
    needed, free = _MEMORY * size**3, _free_memory()
    if device == "cpu" and free is not None and needed > free:
        raise MemoryError(
            f"{size}^3 voxels need about {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free; "
            f"use a grid of at most {int((free / _MEMORY) ** (1 / 3)) // 2 * 2}^3"
        )


def _free_memory():
    """Bytes, or None where it is not known."""
    free = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    with suppress(OSError, ValueError):  # what a container or a batch system allows
        group = Path("/sys/fs/cgroup")
        allowed, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(allowed - used)
    return min(free, default=None)


def kernels_of(array):
    """The kernel module of the device that a caller's array lives on; inside the package the module is passed down."""
    return get_kernels("gpu" if hasattr(array, "__cuda_array_interface__") else "cpu")
