"""Fixtures and settings of all tests: whatever runs on a device runs on each of them."""

import os
import signal

import cuda_emulator
import numba
import numpy as np
import pytest
from hypothesis import settings

from grfsaxs_lib.physics import backend

# The same examples in every run; the first call of a kernel may have to compile it, so there is no deadline.
settings.register_profile("grfsaxs", deadline=None, derandomize=True)
settings.load_profile("grfsaxs")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Grids as small as these lose time on threads; the test of the threads starts a process of its own."""
    numba.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_power_cut():
    """Files of tests end with them: there is nothing to gain from waiting until a disk has each of thousands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def usual_signals():
    """What signals do from the start: libraries of earlier tests, or nohup, may have left something else."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", params=backend.DEVICES)
def device(request):
    """Each device by name; one that is not there is skipped and says why."""
    try:
        backend.get_kernels(request.param)
    except backend.DeviceError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="session")
def emulated():
    """The kernels of the GPU, run on the CPU: see `cuda_emulator`."""
    if cuda_emulator.COMPILER is None:
        pytest.skip("the emulation of a GPU needs g++, which is not installed")
    return cuda_emulator.load_kernels()


@pytest.fixture(scope="session")
def kernels(device, request):
    """The kernels of the device, see `grfsaxs_lib.physics.kernels`."""
    return request.getfixturevalue("emulated") if device == "gpu-emulated" else backend.get_kernels(device)


def _arrays(device):
    """The module that makes arrays of the device."""
    return cuda_emulator if device == "gpu-emulated" else pytest.importorskip("cupy")


@pytest.fixture(scope="session")
def to_device(device):
    """Function that moves a NumPy array to the device."""
    return np.asarray if device == "cpu" else _arrays(device).asarray


@pytest.fixture(scope="session")
def to_host(device):
    """Function that returns an array of the device as a NumPy array."""
    return np.asarray if device == "cpu" else _arrays(device).asnumpy


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="how often test_faults kills a whole run")
