"""The one place that knows which device is in use."""

from importlib import import_module

DEVICES = ("cpu", "gpu")


class DeviceError(RuntimeError):
    """The device that was asked for is not there."""


def check_device(device):
    """Raise ValueError unless `device` is the name of one, there or not."""
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}; got {device!r}")


def get_kernels(device):
    """Return the kernel module of `device`, see `grfsaxs_lib.kernels`.

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
    return import_module(f"grfsaxs_lib.kernels.{device}")


def kernels_of(array):
    """Return the kernel module of the device that `array` lives on."""
    return get_kernels("gpu" if hasattr(array, "__cuda_array_interface__") else "cpu")
