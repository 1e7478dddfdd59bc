"""What every device promises in `grfsaxs_lib.physics.kernels`, against independent rewrites."""

import cmath
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from grfsaxs_lib.physics import backend

# Random123's published vectors for philox4x32-10: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
WORD = 2**32
SINGLE = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="session", params=[*backend.DEVICES, "gpu-emulated"])
def device(request):
    """Each device, and the GPU in emulation."""
    if request.param in backend.DEVICES:
        try:
            backend.get_kernels(request.param)
        except backend.DeviceError as error:
            pytest.skip(str(error))
    return request.param


# Independent rewrites -------------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10 in Python's own integers."""
    c0, c1, c2, c3 = counter
    for n in range(10):
        k0, k1 = (key[0] + n * 0x9E3779B9) % WORD, (key[1] + n * 0xBB67AE85) % WORD
        high0, low0 = divmod(0xD2511F53 * c0, WORD)
        high1, low1 = divmod(0xCD9E8D57 * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return c0, c1, c2, c3


def mode(i, j, k, size, seed):
    """Standard complex normal number of a mode with -N/2 <= i, j < N/2 and 0 <= k <= N/2."""
    mirror = tuple(-n if n > -size // 2 else n for n in (i, j))
    if k in (0, size // 2) and (i, j) < mirror:
        return mode(*mirror, k, size, seed).conjugate()
    words = philox((i % WORD, j % WORD, k, 0), (seed % WORD, seed // WORD))
    uniform = [(word + 0.5) / WORD for word in words]
    z = math.sqrt(-math.log(uniform[0])) * cmath.exp(2j * math.pi * uniform[1])
    return math.sqrt(2) * z.real + 0j if k in (0, size // 2) and (i, j) == mirror else z


def dense_field(size, amplitude, seed):
    """The sum over all modes of the full cube, in float64."""
    spectrum = np.zeros((size,) * 3, complex)
    for i, j, k in itertools.product(range(-size // 2, size // 2), repeat=3):
        square = i * i + j * j + k * k
        if 0 < square < len(amplitude):
            if k >= 0:
                z = mode(i, j, k, size, seed)
            elif k == -size // 2:
                z = mode(i, j, -k, size, seed)
            else:  # the mode opposite, conjugated; -N/2 is its own opposite
                opposite = (-n if n > -size // 2 else n for n in (i, j))
                z = mode(*opposite, -k, size, seed).conjugate()
            spectrum[i, j, k] = amplitude[square] * z
    return np.fft.ifftn(spectrum) * size**3


def dense_shell_sums(phases, densities, max_square):
    """|FFT|^2 of the full cube in float64, binned."""
    rho = np.asarray(densities)[phases]
    power = np.abs(np.fft.fftn(rho - rho.mean())) ** 2
    axis = np.fft.fftfreq(len(phases), 1 / len(phases)).astype(int) ** 2
    square = axis[:, None, None] + axis[:, None] + axis
    return np.bincount(square.ravel(), power.ravel(), minlength=max_square + 1)[: max_square + 1]


def random_phases(size, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (size,) * 3, dtype=np.uint8)


# Random numbers and the field -----------------------------------------------------------------------


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers(kernels, counter, key, expected):
    assert philox(counter, key) == expected  # the rewrite above, which stands for every device below
    words = kernels.philox(tuple(map(np.uint32, counter)), tuple(map(np.uint32, key)))
    assert tuple(map(int, words)) == expected


@pytest.mark.parametrize("size", [8, 10, 12])
@pytest.mark.parametrize("share", [0.1, 0.4, 1.0], ids=lambda share: f"{share:.0%} of the shells")
@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**64 - 1])
def test_field_is_the_dense_sum_of_its_modes(kernels, to_host, size, share, seed):
    n_shell = round(share * 3 * (size // 2) ** 2) + 1
    amplitude = np.random.default_rng(size).uniform(0.5, 1.5, n_shell).astype(np.float32)
    expected = dense_field(size, amplitude.astype(float), seed)
    # A real field, Nyquist planes included: what is left is the rounding of float64.
    assert np.abs(expected.imag).max() < 1e-12 * np.abs(expected.real).max()
    field = to_host(kernels.gaussian_random_field(size, amplitude, seed))
    assert field.dtype == np.float32
    # An FFT in float32 rounds by a few units of the field's standard deviation.
    np.testing.assert_allclose(field, expected.real, atol=10 * SINGLE * expected.real.std(), rtol=0)


def test_white_noise_from_a_flat_amplitude(kernels, to_host):
    # Equal amplitudes on all modes but zero: independent voxels but for their common mean. A wrong
    # variance or symmetry of any mode, those on the Nyquist planes included, correlates voxels.
    size, n_seed = 8, 2000
    amplitude = np.full(3 * (size // 2) ** 2 + 1, (size**3 - 1) ** -0.5, np.float32)
    fields = np.stack([to_host(kernels.gaussian_random_field(size, amplitude, seed)).ravel() for seed in range(n_seed)])
    n = size**3
    expected = (np.eye(n) - 1 / n) * n / (n - 1)
    covariance = fields.T.astype(float) @ fields / n_seed
    # Each entry of a sample covariance has variance (c_ii c_jj + c_ij^2) / n_seed.
    z = (covariance - expected) / np.sqrt((1 + expected**2) / n_seed)
    upper = z[np.triu_indices(n, 1)]
    # The mean of z^2 over n^2/2 pairs has standard error sqrt(2 / (n^2/2)) = 2/n; four of them.
    assert abs(np.mean(upper**2) - 1) < 4 * 2 / n
    assert np.abs(upper).max() < 6.5  # 131 000 normal numbers: beyond 6.5 with probability 1e-5
    assert abs(np.diag(z).mean()) < 4 / math.sqrt(n)
    # Gaussian: kurtosis 3 within four of its standard errors sqrt(24 / number).
    assert abs(np.mean(fields**4) / np.mean(fields**2) ** 2 - 3) < 4 * math.sqrt(24 / fields.size)


# Order statistics -----------------------------------------------------------------------------------


@st.composite
def cubes_of_floats(draw):
    """Any floats but NaN, often tied; 3-D as the package has them."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    floats = st.floats(width=8 * dtype().itemsize, allow_nan=False, allow_subnormal=True)
    tiny = float(np.finfo(dtype).smallest_subnormal)
    ties = st.sampled_from([-1.0, -tiny, -0.0, 0.0, tiny, 1.0])
    shape = draw(st.tuples(st.integers(1, 3), *[st.integers(1, 4)] * 2))
    return draw(arrays(dtype, shape, elements=floats | ties))


@settings(max_examples=50)
@given(cubes_of_floats(), st.data())
def test_order_statistics_are_those_of_a_sort(kernels, to_device, values, data):
    ranks = data.draw(st.lists(st.integers(1, values.size), min_size=1, max_size=4))
    expected = np.sort(values, axis=None)[np.array(ranks) - 1].astype(float)
    found = kernels.order_statistics(to_device(values), ranks)
    assert all(type(value) is float for value in found)
    np.testing.assert_array_equal(found, expected)  # exact; -0.0 equals 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 15.0], ids=["narrow", "normal", "60 decades"])
def test_order_statistics_of_a_large_array(kernels, to_device, dtype, spread):
    rng = np.random.default_rng(3)
    values = rng.normal(size=(50, 50, 50))
    values = np.sign(values) * np.exp(spread * values) if spread > 1 else 1 + spread * values
    values = values.astype(dtype)
    ranks = [1, 2, values.size // 3, values.size // 2, values.size - 1, values.size]
    np.testing.assert_array_equal(
        kernels.order_statistics(to_device(values), ranks),
        np.sort(values, axis=None)[np.array(ranks) - 1].astype(float),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rank_zero_is_below_everything(kernels, to_device, dtype):
    values = to_device(np.full((4, 4, 4), -np.finfo(dtype).max, dtype))
    lowest = -float(np.finfo(dtype).max)
    assert kernels.order_statistics(values, [0]) == [-math.inf]
    assert kernels.order_statistics(values, [0, 64]) == [-math.inf, lowest]


# Thresholds -----------------------------------------------------------------------------------------


@given(cubes_of_floats(), st.data())
def test_thresholds(kernels, to_device, to_host, values, data):
    # At the values themselves: <= on one side, > on the other, as in Eqs. (8)-(10).
    lower, upper = sorted(data.draw(st.tuples(*[st.sampled_from([-math.inf, *values.ravel().tolist()])] * 2)))
    binary = to_host(kernels.binarise(to_device(values), lower))
    assert binary.dtype == np.uint8
    np.testing.assert_array_equal(binary, values > lower)
    phases = to_host(kernels.classify(to_device(values), lower, upper))
    assert phases.dtype == np.uint8
    np.testing.assert_array_equal(phases, (values > lower).astype(int) + (values > upper))


# Smoothing ------------------------------------------------------------------------------------------


def gaussian_half(sigma, radius, dtype):
    taps = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    return (taps / (2 * taps.sum() - taps[0])).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "sigma", "radius"), [(24, 2.0, 12), (30, 1.0, 12), (32, 3.0, 30), (16, 0.4, 1)])
def test_smoothing_against_scipy(kernels, to_device, to_host, dtype, size, sigma, radius):
    binary = (np.random.default_rng(size).random((size,) * 3) > 0.9).astype(np.uint8)
    taps = gaussian_half(sigma, radius, dtype)
    expected = ndimage.gaussian_filter(binary.astype(float), sigma, mode="wrap", radius=radius)
    smoothed = to_host(kernels.smooth(to_device(binary), taps))
    assert smoothed.dtype == dtype
    # Relative: three sums of radius + 1 non-negative terms, each product and sum rounded once, and the taps.
    rtol = 3 * (radius + 3) * np.finfo(dtype).eps
    np.testing.assert_allclose(smoothed, expected, rtol=max(rtol, 1e-13), atol=0)


@pytest.mark.parametrize(("size", "sigma"), [(8, 2.0), (12, 1.0), (16, 3.0)])
def test_smoothing_with_a_kernel_wider_than_the_box(kernels, to_device, to_host, size, sigma):
    binary = (np.random.default_rng(size).random((size,) * 3) > 0.95).astype(np.uint8)
    taps = gaussian_half(sigma, math.ceil(37 * sigma), np.float64)
    expected = binary.astype(float)
    for axis in range(3):
        expected = sum(taps[abs(t)] * np.roll(expected, t, axis) for t in range(1 - taps.size, taps.size))
    # 3 sums of 2 * 37 sigma + 1 <= 223 terms in float64, in another order: 3 * 223 * 2.2e-16.
    np.testing.assert_allclose(to_host(kernels.smooth(to_device(binary), taps)), expected, rtol=1.5e-13, atol=0)


def test_smoothing_keeps_its_relative_precision_in_the_deep_tail(kernels, to_device, to_host):
    # One solid voxel: the filter itself, down to exp(-3 * 16^2 / 2 / 0.75^2) = 1e-296.
    size, sigma = 32, 0.75
    binary = np.zeros((size,) * 3, np.uint8)
    binary[5, 0, 31] = 1
    taps = gaussian_half(sigma, 16, np.float64)
    taps[16] = 0  # or the voxels opposite would be reached from two sides
    offset = np.minimum(np.arange(size), size - np.arange(size))
    weight = [np.roll(taps[offset], shift) for shift in (5, 0, 31)]
    expected = weight[0][:, None, None] * weight[1][:, None] * weight[2]
    smoothed = to_host(kernels.smooth(to_device(binary), taps))
    assert 0 < expected[expected > 0].min() < 1e-250
    np.testing.assert_allclose(smoothed, expected, rtol=1e-15, atol=0)  # two products: 4 half units


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_smoothing_some_planes_only(kernels, to_device, to_host, dtype):
    binary = to_device((random_phases(24) == 1).astype(np.uint8))
    taps = gaussian_half(2.0, 12, dtype)
    planes = np.array([0, 5, 23])
    np.testing.assert_array_equal(
        to_host(kernels.smooth(binary, taps, planes)), to_host(kernels.smooth(binary, taps))[planes]
    )


# Shell sums -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 10, 24, 30])
@pytest.mark.parametrize("reach", [0.2, 0.7, 1.0, "all"])
def test_shell_sums_against_a_dense_transform(kernels, to_device, size, reach):
    max_square = 3 * (size // 2) ** 2 if reach == "all" else int((reach * size / 2) ** 2)
    phases, densities = random_phases(size), (0.0, 0.65, 1.0)
    sums = kernels.shell_sums(to_device(phases), densities, max_square)()
    assert type(sums) is np.ndarray and sums.dtype == np.float64 and sums.shape == (max_square + 1,)
    expected = dense_shell_sums(phases, densities, max_square)
    # Each |F|^2 is rounded at float32, ten units, of the mean |F|^2 of this white sample.
    np.testing.assert_allclose(sums, expected, rtol=10 * SINGLE, atol=10 * SINGLE * size**3)


@pytest.mark.parametrize("size", [8, 24, 30])
def test_parseval_over_all_modes(kernels, to_device, size):
    phases, densities = random_phases(size, seed=1), np.array([-2.0, 0.5, 3.0])
    sums = kernels.shell_sums(to_device(phases), tuple(densities), 3 * (size // 2) ** 2)()
    # The three densities are rounded to float32, so is each pass of the FFT; other errors average out.
    assert sums.sum() == pytest.approx(size**6 * densities[phases].var(), rel=4 * SINGLE)
    assert sums[0] <= (SINGLE * size**3) ** 2  # the mean is taken out


# Threads --------------------------------------------------------------------------------------------

DIGESTS_BY_THREADS = """
import hashlib, numba, numpy as np
from grfsaxs_lib.physics.kernels import cpu
for threads in (1, 2, 3, 5):
    numba.set_num_threads(threads)
    digest = hashlib.sha256()
    for size in (18, 24, 50, 64):  # numbers of lines that no vector width and no thread count divides, too
        for limit in (5, size // 2):
            field = cpu.gaussian_random_field(size, np.full(limit**2, 0.01, np.float32), 7)
            digest.update(field)
        threshold = cpu.order_statistics(field, [field.size // 2])[0]
        binary = cpu.binarise(field, threshold)
        for dtype in (np.float32, np.float64):
            smoothed = cpu.smooth(binary, np.linspace(0.2, 0.01, 8).astype(dtype))
            lower, upper = cpu.order_statistics(smoothed, [size**3 // 5, size**3 // 2])
            phases = cpu.classify(smoothed, lower, upper)
            for array in (smoothed, np.array([lower, upper]), phases):
                digest.update(array)
        for max_square in (30, 3 * (size // 2) ** 2):
            digest.update(cpu.shell_sums(phases, (0.0, 0.65, 1.0), max_square)())
    print(digest.hexdigest())
"""


def test_results_do_not_depend_on_the_threads():
    # In a process of its own, as the largest number of threads is fixed when Numba starts.
    digests = subprocess.run(
        [sys.executable, "-c", DIGESTS_BY_THREADS],
        env=os.environ | {"NUMBA_NUM_THREADS": "5"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert len(digests) == 4
    assert len(set(digests)) == 1
