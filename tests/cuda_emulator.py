"""A test double of CuPy and of a CUDA device, so that gpu.py and kernels.cu run where there is no GPU.

`load_kernels` gives gpu.py with this module in place of CuPy. The kernels are compiled by g++ as C++ (see
cuda_emulator.h) and run on one core, with blocks and threads in a random order; the plans are SciPy's transforms
with the strides of cuFFT. Arrays live in guarded host memory, refuse to become NumPy arrays unasked, as CuPy's do,
and start as NaN.

It shows wrong results, wrong indices and types of arguments, writes outside an array, barriers that are missing or
not reached by all, and results that depend on the order of blocks or threads. It does not show races inside a step
between two barriers (threads take turns there) or between blocks (one runs after the other), reads outside an array,
what the memory model of a GPU allows, the rounding of CUDA's functions or of cuFFT, limits of registers, or any
speed. In a `dry_run` nothing is computed, so that arrays of any
size can be counted.
"""

import contextlib
import ctypes
import functools
import importlib.util
import math
import re
import shutil
import subprocess
import sys
import tempfile
import types
import weakref
from pathlib import Path
from unittest import mock

import numpy as np
from scipy import fft

HEADER = Path(__file__).with_name("cuda_emulator.h")
GPU = Path(__file__).resolve().parent.parent / "grfsaxs_lib" / "physics" / "kernels" / "gpu.py"
COMPILER = shutil.which("g++")
_GUARD = np.full(256, 0xA5, np.uint8)

seed = 0  # of the order in which blocks and threads run; every launch takes the next one
bytes_in_use = peak_bytes = 0
dry = False


@contextlib.contextmanager
def dry_run():
    """Launches and transforms are checked but do nothing, and memory is only counted."""
    global dry, peak_bytes
    dry, peak_bytes = True, bytes_in_use
    try:
        yield
    finally:
        dry = False


class _Memory:
    """One allocation, with a guard on either side."""

    def __init__(self, n_bytes):
        global bytes_in_use, peak_bytes
        whole = np.empty(n_bytes + 3 * _GUARD.size, np.uint8)  # untouched it takes no memory
        start = -whole.ctypes.data % _GUARD.size + _GUARD.size
        self.bytes = whole[start : start + n_bytes]
        self._guards = whole[start - _GUARD.size : start], whole[start + n_bytes :][: _GUARD.size]
        if not dry:
            whole[:] = 0xFF
        for guard in self._guards:
            guard[:] = _GUARD
        bytes_in_use += n_bytes
        peak_bytes = max(peak_bytes, bytes_in_use)
        weakref.finalize(self, _release, n_bytes)

    def check(self):
        if not all(np.array_equal(guard, _GUARD) for guard in self._guards):
            raise AssertionError("something was written outside an array")


def _release(n_bytes):
    global bytes_in_use
    bytes_in_use -= n_bytes


class ndarray:  # noqa: N801, CuPy's name
    """A contiguous array on the emulated device: what gpu.py and its callers ask of CuPy's, and no more."""

    def __init__(self, memory, host):
        self._memory, self._host = memory, host

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    size = property(lambda self: self._host.size)
    flags = property(lambda self: self._host.flags)
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.ctypes.data))

    def __len__(self):
        return len(self._host)

    def __getitem__(self, key):
        return ndarray(self._memory, self._host[key])

    def __array__(self, *args, **kwargs):
        raise TypeError("an array on the device does not become a NumPy array unasked")

    nbytes = property(lambda self: self._host.nbytes)

    def copy(self):
        return asarray(self._host)

    def get(self, *, out, blocking):
        out[...] = self._host

    def min(self):
        return self._host.min()

    def max(self):
        return self._host.max()


def empty(shape, dtype):
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    memory = _Memory(math.prod(shape) * dtype.itemsize)
    return ndarray(memory, memory.bytes.view(dtype).reshape(shape))


def zeros(shape, dtype):
    array = empty(shape, dtype)
    array._host[...] = 0
    return array


def asarray(values, dtype=None):
    if isinstance(values, ndarray) and dtype in (None, values.dtype):
        return values
    values = np.asarray(values, dtype)
    array = empty(values.shape, values.dtype)
    array._host[...] = values
    return array


def ascontiguousarray(array):
    return array if array.flags.c_contiguous else array.copy()


def asnumpy(array):
    return array._host.copy()


@functools.cache
def _compiled(code, defines):
    """A library with a launcher for each kernel of a CUDA source, and the bound on its threads."""
    kernels = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\((\w+)\) )?(\w+)\(', code)
    constants = dict(define.removeprefix("-D").split("=") for define in defines)
    code = re.sub(
        r"extern __shared__ (\w+) (\w+)\[\];", r"\1* const \2 = reinterpret_cast<\1*>(emulator::shared);", code
    )
    launchers = "".join(f"EMULATE({name})\n" for _, name in kernels)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        source.write_text(f'#include "{HEADER}"\n{code}\n{launchers}')
        command = [COMPILER, "-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-U_FORTIFY_SOURCE"]
        command += ["-shared", "-fPIC", *defines, source, "-o", library]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return ctypes.CDLL(str(library)), {name: int(constants.get(bound, bound or 1024)) for bound, name in kernels}


class RawModule:
    """CUDA source in C++; of the options of its compiler only the definitions count here."""

    def __init__(self, *, code, options=()):
        defines = tuple(option for option in options if option.startswith("-D"))
        self._library, self._bounds = _compiled(code, defines)

    def get_function(self, name):
        return RawKernel(self._library, name, self._bounds[name])


class RawKernel:
    max_dynamic_shared_size_bytes = 48 * 1024

    def __init__(self, library, name, bound):
        self._launch, signature = library[f"launch_{name}"], library[f"signature_{name}"]
        self._launch.restype = signature.restype = ctypes.c_char_p
        self._launch.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_size_t, ctypes.c_uint, ctypes.c_void_p]
        self._signature = re.findall(r"P|\w\d", signature().decode())
        self._name, self._bound = name, bound

    def __call__(self, grid, block, args, *, shared_mem=0):
        global seed
        grid = (*grid, 1)[:2]
        (n_thread,) = block
        assert 0 < grid[0] < 2**31 and 0 < grid[1] <= 65535 and 0 < n_thread <= self._bound, (self._name, grid, block)
        assert shared_mem <= self.max_dynamic_shared_size_bytes <= 163 * 1024, (
            f"{self._name}: {shared_mem} bytes shared"
        )
        given = "".join("P" if isinstance(arg, ndarray) else f"{arg.dtype.kind}{arg.dtype.itemsize}" for arg in args)
        assert given == "".join(self._signature), f"{self._name} takes {self._signature}, got {given}"
        values = [np.uint64(arg.data.ptr) if isinstance(arg, ndarray) else arg for arg in args]
        values = [np.array([value]) for value in values]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        seed += 1
        if dry:
            return
        error = self._launch((ctypes.c_uint * 2)(*grid), n_thread, shared_mem, seed, pointers)
        if error:
            raise AssertionError(f"{self._name}: {error.decode()}")
        for arg in args:
            if isinstance(arg, ndarray):
                arg._memory.check()


class PlanNd:
    """Transforms of lines with cuFFT's strides; the input of one to real numbers is spoilt, as cuFFT may."""

    def __init__(self, shape, inembed, istride, idist, onembed, ostride, odist, fft_type, batch, order, axis, last):
        (self._n,) = shape
        self._kind = fft_type
        self._layout = (istride, idist), (ostride, odist), batch
        self._work_area = _Memory(8 * self._n * batch)  # as large as the data, as cuFFT may want it

    def _lines(self, array, dtype, length, stride, distance):
        start = array._host.ctypes.data - array._memory.bytes.ctypes.data
        flat = array._memory.bytes[start:].view(dtype)
        batch = self._layout[2]
        assert (length - 1) * stride + (batch - 1) * distance < flat.size, "a plan reaches beyond its array"
        strides = (distance * flat.itemsize, stride * flat.itemsize)
        return np.lib.stride_tricks.as_strided(flat, (batch, length), strides)

    def fft(self, array, out, direction):
        half = self._n // 2 + 1
        real_in, real_out = self._kind == cufft.CUFFT_R2C, self._kind == cufft.CUFFT_C2R
        length_in, length_out = (self._n if real_in else half, half if real_in else self._n)
        if self._kind == cufft.CUFFT_C2C:
            length_in = length_out = self._n
        given = self._lines(array, np.float32 if real_in else np.complex64, length_in, *self._layout[0])
        result = self._lines(out, np.float32 if real_out else np.complex64, length_out, *self._layout[1])
        if dry:
            return
        if real_in:
            values = fft.rfft(given)
        elif real_out:
            values = fft.irfft(given, self._n, norm="forward")
            given[...] = np.nan
        else:
            values = fft.fft(given) if direction == cufft.CUFFT_FORWARD else fft.ifft(given, norm="forward")
        result[...] = values
        for one in (array, out):
            one._memory.check()


cufft = types.SimpleNamespace(
    PlanNd=PlanNd, CUFFT_C2C=0x29, CUFFT_R2C=0x2A, CUFFT_C2R=0x2C, CUFFT_FORWARD=-1, CUFFT_INVERSE=1
)
cuda = types.SimpleNamespace(
    cufft=cufft,
    runtime=types.SimpleNamespace(getDevice=lambda: 0),
    alloc_pinned_memory=bytearray,
    Event=lambda: types.SimpleNamespace(record=lambda: None, synchronize=lambda: None),
)


def load_kernels():
    """A module of its own from gpu.py, for which alone this one is CuPy."""
    spec = importlib.util.spec_from_file_location("gpu_on_the_emulator", GPU)
    module = importlib.util.module_from_spec(spec)
    replaced = {"cupy": sys.modules[__name__], "cupy.cuda": cuda, "cupy.cuda.cufft": cufft}
    with mock.patch.dict(sys.modules, replaced):
        spec.loader.exec_module(module)
    return module
