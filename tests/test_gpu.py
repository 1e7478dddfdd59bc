"""The GPU's kernels where there is no GPU: compiled for one, run in emulation, compared with the CPU's.

What every device promises is tested in test_kernels.py, in emulation too. Where there is a GPU, what does not look
into the emulation runs on that as well.
"""

import ast
import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cuda_emulator
import golden_gpu
import numpy as np
import pytest

import grfsaxs_lib as gx
from grfsaxs_lib.physics import backend, field, scattering, structure
from grfsaxs_lib.physics.kernels import cpu

SOURCE = Path(cuda_emulator.GPU).with_name("kernels.cu")
SINGLE = float(np.finfo(np.float32).eps)
LIMIT = 4 * 2**30  # bytes, so that small cards work

needs_emulator = pytest.mark.skipif(cuda_emulator.COMPILER is None, reason="the emulation of a GPU needs g++")


@pytest.fixture(params=["gpu-emulated", "gpu"])
def gpu(request, monkeypatch):
    """Kernels of the GPU, in emulation or on one, and the functions that move arrays there and back.

    The package's own functions take arrays of either.
    """
    if request.param == "gpu":
        try:
            kernels = backend.get_kernels("gpu")
        except backend.DeviceError as error:
            pytest.skip(str(error))
        arrays = pytest.importorskip("cupy")
    else:
        kernels, arrays, kernels_of = request.getfixturevalue("emulated"), cuda_emulator, backend.kernels_of
        monkeypatch.setattr(field.backend, "get_kernels", {"gpu": kernels, "cpu": cpu}.get)
        for module in (structure, scattering):
            monkeypatch.setattr(
                module, "kernels_of", lambda a: kernels if isinstance(a, cuda_emulator.ndarray) else kernels_of(a)
            )
    return SimpleNamespace(kernels=kernels, asarray=arrays.asarray, asnumpy=arrays.asnumpy)


# The compiler ---------------------------------------------------------------------------------------


def _nvrtc():
    """NVIDIA's run-time compiler from its Python package or from the system, or None."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations) if spec else []
    names = [str(path) for folder in folders for path in Path(folder).glob("*/lib/libnvrtc.so.*")]
    for name in [*names, "libnvrtc.so"]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _compile_with_nvrtc(nvrtc, code, options):
    """Return whether the code compiles, and all that the compiler has to say."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"program.cu", 0, None, None)
    options = [option.encode() for option in options]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return not failed, log.value.decode()


@pytest.fixture(scope="session")
def compile_cuda(tmp_path_factory):
    """Function of CUDA code and options: whether it compiles, and the compiler's words."""
    nvrtc, nvcc = _nvrtc(), shutil.which("nvcc")
    if nvrtc is not None:
        return lambda code, options: _compile_with_nvrtc(nvrtc, code, options)
    if nvcc is None:
        pytest.skip("neither NVRTC (pip install nvidia-cuda-nvrtc) nor nvcc is here to compile for a GPU")

    def compile_with_nvcc(code, options):
        path = tmp_path_factory.mktemp("cuda") / "program.cu"
        path.write_text(code)
        command = [nvcc, "-cubin", "-o", path.with_suffix(".cubin"), *options, path]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode == 0, done.stdout + done.stderr

    return compile_with_nvcc


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("real", ["float", "double"])
def test_kernels_compile_without_a_word(compile_cuda, architecture, real):
    options = [*cuda_emulator.load_kernels()._options(real), f"-arch={architecture}"]
    assert compile_cuda(SOURCE.read_text(), options) == (True, "")


def test_compiler_names_file_and_line(compile_cuda):
    compiled, words = compile_cuda('#line 1 "kernels.cu"\n\n__global__ void f() { oops; }', ["-arch=sm_90"])
    assert not compiled
    assert "kernels.cu(2)" in words


@needs_emulator
def test_gpu_module_names_its_source_to_the_compiler(monkeypatch, emulated):
    monkeypatch.setattr(Path, "read_text", lambda path: "\noops")
    with pytest.raises(RuntimeError, match="kernels.cu:2:"):
        emulated._module.__wrapped__("float")


def test_imports_of_the_gpu_module():
    imported = set()
    for node in ast.walk(ast.parse(cuda_emulator.GPU.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            imported |= {name.split(".")[0] for name in names}
    assert imported - sys.stdlib_module_names == {"cupy", "numpy"}


# The emulator ---------------------------------------------------------------------------------------

REVERSE = """
    __shared__ float s[64];
    s[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    %s
    y[blockIdx.x * 64 + threadIdx.x] = s[63 - threadIdx.x];
"""
MISTAKES = {
    "deserted": ("if (threadIdx.x) __syncthreads();", "barrier"),
    "unasked": ("extern __shared__ float s[]; s[threadIdx.x] = 0;", "beyond its shared memory"),
    "beyond": ("y[threadIdx.x + 1] = 0;", "outside an array"),
    "before": ("y[-1] = 0;", "outside an array"),
}
SMALL = {
    "reverse(const float* x, float* y)": REVERSE % "__syncthreads();",
    "without_a_barrier(const float* x, float* y)": REVERSE % "",
    **{f"{name}(float* y)": body for name, (body, _) in MISTAKES.items()},
    "typed(float* y, int n)": "y[0] = n;",
    "last_block(float* y)": "y[0] = blockIdx.x;",
    "last_thread(float* y)": "y[0] = threadIdx.x;",
}


def launch(name, grid, threads, *args):
    """One of the kernels above, which are one source: the compiler takes a second for each."""
    code = "".join(f'extern "C" __global__ void {head} {{ {body} }}\n' for head, body in SMALL.items())
    cuda_emulator.RawModule(code=code).get_function(name)(grid, threads, args)


@needs_emulator
def test_emulator_sees_a_missing_barrier():
    x = np.arange(640, dtype=np.float32)
    expected = x.reshape(10, 64)[:, ::-1].ravel()
    for name, is_right in (("reverse", True), ("without_a_barrier", False)):
        y = cuda_emulator.empty(640, np.float32)
        launch(name, (10,), (64,), cuda_emulator.asarray(x), y)
        assert np.array_equal(cuda_emulator.asnumpy(y), expected) == is_right


@needs_emulator
@pytest.mark.parametrize("name", MISTAKES)
def test_emulator_complains(name):
    with pytest.raises(AssertionError, match=MISTAKES[name][1]):
        launch(name, (1,), (32,), cuda_emulator.empty(32, np.float32))


@needs_emulator
def test_emulator_checks_the_types_of_arguments():
    with pytest.raises(AssertionError, match="typed takes"):
        launch("typed", (1,), (1,), cuda_emulator.empty(1, np.float32), np.int64(1))


@needs_emulator
def test_emulator_has_no_atomic_sums_of_floats():
    with pytest.raises(RuntimeError, match="atomicAdd"):
        cuda_emulator.RawModule(code='extern "C" __global__ void f(float* y) { atomicAdd(y, 1.0f); }')


@needs_emulator
@pytest.mark.parametrize("name", ["last_block", "last_thread"])
def test_emulator_runs_blocks_and_threads_in_any_order(name):
    last = set()
    for _ in range(20):
        y = cuda_emulator.empty(1, np.float32)
        launch(name, (8,), (8,), y)
        last.add(cuda_emulator.asnumpy(y).item())
    assert len(last) > 4  # 20 draws of 8: fewer than 5 different ones happen once in 10^4


@needs_emulator
def test_emulator_leaves_no_trace(emulated):
    assert sys.modules.get("cupy") is not cuda_emulator
    assert backend.kernels_of(np.zeros(1)) is cpu
    assert emulated.__name__ not in sys.modules
    with pytest.raises(TypeError, match="unasked"):
        np.asarray(cuda_emulator.zeros(3, np.float32))


# Searching ------------------------------------------------------------------------------------------


def _values(case):
    """Values whose order statistics are hard on a bracket, and how many of them the last search reads."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 40, 40)).astype(np.float32)
    sampled = values.reshape(-1)[:: int(0.618 * 40) + 1]
    if case == "ties":
        values[:30] = 0.25
    elif case == "missed":
        sampled[:] = 100 + np.arange(sampled.size)
    elif case == "crowded":  # in what four blocks of 64 read
        values = rng.normal(size=(64, 64, 64)).astype(np.float32)
        values[:4] *= 0.2
    elif case == "too many":
        sampled[:] = 1e6 * np.abs(rng.normal(size=sampled.size))
        sampled[::2] *= -1
    return values


@pytest.mark.parametrize("blocks", [1, 5, 1024])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", ["plain", "ties", "missed", "crowded", "too many"])
def test_where_the_last_search_goes(monkeypatch, gpu, dtype, case, blocks):
    monkeypatch.setattr(gpu.kernels, "_FILL", blocks)
    values = _values(case).astype(dtype)
    seen, launch_kernel = {}, gpu.kernels._launch

    def launch(name, grid, *args, **options):
        launch_kernel(name, grid, *args, **options)
        if name == "search_brackets":
            seen["n"] = gpu.asnumpy(args[3])[:, 1].tolist()

    monkeypatch.setattr(gpu.kernels, "_launch", launch)
    ranks = [values.size // 2, values.size // 2 + 1, 7]
    found = gpu.kernels.order_statistics(gpu.asarray(values), ranks)
    np.testing.assert_array_equal(found, np.sort(values, axis=None)[np.array(ranks) - 1].astype(float))
    assert len(seen["n"]) == 3
    n = seen["n"][1]  # for the median
    if case == "ties":
        assert n == 0  # the lower end of the bracket was the answer
    elif case == "plain" or (case == "crowded" and blocks < 64):
        assert 0 < n < values.size / 2
    else:
        assert n == values.size


# The same as on the CPU -----------------------------------------------------------------------------


def test_same_words(gpu):
    words = np.random.default_rng(0).integers(0, 2**32, (200, 6), dtype=np.uint32)
    for row in words:
        counter, key = tuple(row[:4]), tuple(row[4:])
        assert gpu.kernels.philox(counter, key) == tuple(map(np.uint32, cpu.philox(counter, key)))


@pytest.mark.parametrize(("size", "limit"), [(32, 9), (36, 18), (64, 21)])
def test_same_fields(gpu, size, limit):
    amplitude = np.linspace(1, 0.1, limit**2 + 1, dtype=np.float32)
    expected = cpu.gaussian_random_field(size, amplitude, 2**40 + 7)
    found = gpu.asnumpy(gpu.kernels.gaussian_random_field(size, amplitude, 2**40 + 7))
    # The modes are the same float32; two transforms in single precision round by some units of the deviation each.
    np.testing.assert_allclose(found, expected, atol=20 * SINGLE * expected.std(), rtol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "sigma", "radius"), [(36, 2.0, 12), (64, 2.0, 24), (30, 1.0, 37), (64, 0.5, 3)])
def test_same_smoothing(gpu, dtype, size, sigma, radius):
    binary = (np.random.default_rng(size).random((size,) * 3) > 0.9).astype(np.uint8)
    taps = structure.gaussian_taps(sigma, radius, dtype)
    expected, found = cpu.smooth(binary, taps), gpu.kernels.smooth(gpu.asarray(binary), taps)
    # Sums of positive terms in another order. Along each of three axes a sum rounds, on either side, by at most half
    # a unit for each tap and for the pair it multiplies.
    ulp = np.spacing(np.maximum(np.abs(expected), np.finfo(dtype).tiny))
    assert (np.abs(gpu.asnumpy(found) - expected) <= 3 * (radius + 2) * ulp).all()


@pytest.mark.filterwarnings("ignore::grfsaxs_lib.SmallBoxWarning")
def test_many_structures_in_one_call_are_those_of_single_calls(gpu):
    given = dict(q=[0.5, 1.0], smoothing_sigma=1.0, device="gpu")
    points = dict(scaling_parameter=[1.2, 1.5, 1.2], porosity=[0.5, 0.4, 0.7], layer_fraction=[0.0, 0.3, 0.1])
    together = gx.simulate(gx.Grid(32, 1.0), **points, seed=[1, 2, 3], **given)
    for n, curve in enumerate(together):
        one = {name: values[n] for name, values in points.items()}
        np.testing.assert_array_equal(gx.simulate(gx.Grid(32, 1.0), **one, seed=n + 1, **given), curve)


def test_views_are_as_good_as_arrays(gpu):
    values = np.random.default_rng(0).normal(size=(16, 16, 32)).astype(np.float32)
    view = gpu.asarray(values)[:, :, ::2]
    assert not view.flags.c_contiguous
    threshold = gpu.kernels.order_statistics(view, [1000])
    assert threshold == [np.sort(values[:, :, ::2], axis=None)[999]]
    np.testing.assert_array_equal(
        gpu.asnumpy(gpu.kernels.binarise(view, threshold[0])), values[:, :, ::2] > threshold[0]
    )
    shifted = gpu.asarray(values.ravel())[1:]
    assert shifted.data.ptr % 16 and gpu.kernels._aligned(shifted).data.ptr % 16 == 0


@pytest.mark.parametrize("name", golden_gpu.STRUCTURES)
@pytest.mark.filterwarnings("ignore::grfsaxs_lib.SmallBoxWarning")
def test_same_structures_and_curves_from_the_same_seeds(gpu, name):
    first, second = golden_gpu.simulate(name, "gpu"), golden_gpu.simulate(name, "gpu")
    psi, phases, intensity = first
    psi, phases = map(gpu.asnumpy, (psi, phases))
    # Blocks and threads ran in another order each time.
    np.testing.assert_array_equal(gpu.asnumpy(second[0]), psi)
    np.testing.assert_array_equal(gpu.asnumpy(second[1]), phases)
    np.testing.assert_array_equal(second[2], intensity)
    same_as_on_the_cpu(name, psi[0], phases, intensity)


def same_as_on_the_cpu(name, plane, phases, intensity):
    psi, expected, curve = golden_gpu.simulate(name, "cpu")
    np.testing.assert_allclose(plane, psi[0], atol=20 * SINGLE, rtol=0)
    # The two fields differ by up to 2e-6 standard deviations, so up to 1e-6 of the voxels change sides at the first
    # cut: none or one here. A voxel that does moves the smoothed values around it by at most its weight, 1/(2 pi
    # sigma^2)^(3/2) = 1/126 for sigma = 2, next to nothing at the second cut.
    assert np.count_nonzero(phases != expected) <= 8
    np.testing.assert_allclose(intensity, curve, rtol=1e-4)
    # The same phases: what is left is the rounding of the transforms.
    np.testing.assert_allclose(intensity, golden_gpu.curve(name, phases), rtol=1e-5)


@pytest.mark.parametrize("name", golden_gpu.STRUCTURES)
@pytest.mark.filterwarnings("ignore::grfsaxs_lib.SmallBoxWarning")
def test_same_as_a_real_gpu(name):
    with np.load(golden_gpu.FILE) as golden:
        same_as_on_the_cpu(name, *(golden[f"{name}, {what}"] for what in ("plane", "phases", "curve")))


@pytest.mark.parametrize("case", golden_gpu.REFERENCES)
def test_reference_curves_same_as_on_a_real_gpu(case):
    """Both are files; test_reference.py makes the CPU's again."""
    from grfsaxs_lib.datasets import reference  # needs netCDF4, which what runs on a GPU does not

    with np.load(golden_gpu.FILE) as golden:
        curves = reference.load(case, "test")["intensity"].values[: golden_gpu.N_REFERENCE]
        np.testing.assert_allclose(curves, golden[case], rtol=1e-4)


@pytest.mark.parametrize("size", [30, 64])
def test_work_in_small_pieces(monkeypatch, gpu, size):
    # Grids as small as these go through in one piece. Large ones do not.
    def run():
        psi = gpu.kernels.gaussian_random_field(size, np.linspace(1, 0.1, 100, dtype=np.float32), 3)
        binary = gpu.kernels.binarise(psi, 0.5)
        phases = gpu.kernels.classify(psi, -0.5, 0.5)
        smoothed = [gpu.kernels.smooth(binary, structure.gaussian_taps(2.0, r, t)) for r, t in [(12, "f4"), (70, "f8")]]
        return [*map(gpu.asnumpy, (psi, *smoothed)), gpu.kernels.shell_sums(phases, (0.0, 0.65, 1.0), 150)()]

    whole = run()
    for name, value in dict(_BLOCK=64 * size, _PLANES=7 * size**2, _PART=16, _FILL=3).items():
        monkeypatch.setattr(gpu.kernels, name, value)
    lines = gpu.kernels._lines(size * 10, size)
    assert len(lines) > 4 and len(gpu.kernels._slabs(size)[0]) > 4  # the last one smaller than the others
    psi, narrow, wide, sums = run()
    # Transforms of other numbers of lines may round otherwise.
    np.testing.assert_allclose(psi, whole[0], atol=10 * SINGLE * psi.std(), rtol=0)
    assert np.count_nonzero((psi > 0.5) != (whole[0] > 0.5)) == 0
    np.testing.assert_array_equal(narrow, whole[1])
    np.testing.assert_array_equal(wide, whole[2])
    np.testing.assert_allclose(sums, whole[3], rtol=10 * SINGLE, atol=10 * SINGLE * size**3)


# Memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [500, 512])
def test_memory_at_the_papers_size(size):
    gpu = cuda_emulator.load_kernels()  # with no plans yet
    grid = gx.Grid(size, 0.5)
    n, taps = size**3, structure.gaussian_taps(2.0, 74, np.float64)
    start, psi = cuda_emulator.bytes_in_use, None
    with cuda_emulator.dry_run():
        for a in (0.8, 3.0, 8.0, 0.8):  # from many modes to few and back: the plans of all stay
            amplitude = field.mode_amplitudes(grid, a).astype(np.float32)
            psi = gpu.gaussian_random_field(size, amplitude, 0, psi)
            gpu.order_statistics(psi, [n // 2])
            binary = gpu.binarise(psi, 0.0)
            smoothed = gpu.smooth(binary, taps)  # while the caller keeps the field
            gpu.order_statistics(smoothed, [n // 4, n // 2])
            phases = gpu.classify(smoothed, 0.0, 0.5, binary)
            del smoothed
            gpu.shell_sums(phases, (0.0, 0.65, 1.0), scattering.orientation_average(grid, gx.PAPER_Q).last_shell)()
    peak = cuda_emulator.peak_bytes - start
    # Field, indicator and smoothed indicator alone take 13 bytes a voxel. The pool may need more than is in use.
    assert 13 * n < peak < 0.7 * LIMIT


def test_memory_of_a_gpu():
    try:
        backend.get_kernels("gpu")
    except backend.DeviceError as error:
        pytest.skip(str(error))
    code = """
import grfsaxs_lib as gx
given = dict(scaling_parameter=[0.8, 8.0], porosity=[0.5, 0.9], layer_fraction=[0.0, 0.5])
gx.simulate(gx.PAPER_GRID, **given, seed=[0, 1], device="gpu")
"""
    environment = os.environ | {"CUPY_GPU_MEMORY_LIMIT": str(LIMIT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
