"""The kernels on an NVIDIA GPU: CUDA through CuPy for element-wise work, cuFFT for the Fourier transforms.

Everything runs on the current stream, and nothing but order statistics and shell sums comes back to the host.
What is kept between calls: the compiled modules, the plans of the transforms and the tables of the filters.

Memory at 512^3 in MiB, counted by tests/test_gpu.py: the field takes 512 and the caller keeps it. Beside it the
columns of the spectrum (384 for a = 0.8 nm, the largest), its rows (448) and the rows of some planes (128) make the
field; the indicator (128), its bits (22), the smoothed one in double precision (1024) and what lies inside two
brackets (81) make the cut; and the phases (128) with rows (256) and columns (128) of the spectrum up to q = 3 nm^-1
make the curve. The plans hold 660 if cuFFT wants as much again as it transforms. Never more than 2420 are in use, and
all of this together, could the pool use no block twice, makes 3800. A block of a filter takes 72 bytes of shared memory
for each voxel of a line and of twice the radius, which may be half the box: up to 512^3 any card has that.

tests/golden_gpu.npz holds what an H200 made of some seeds. The tests compare the CPU with it, compile the kernels and
run all of this in emulation where there is no GPU (tests/test_gpu.py).
"""

import functools
import math
from pathlib import Path

import cupy
import numpy as np
from cupy.cuda import cufft

_THREADS = 256
# Lines that are transformed in one go: with their length, 32 MiB of complex64. Their number is a power of two, so that
# a few plans serve every end of the spectrum.
_BLOCK = 2**22
# Voxels of the planes that are transformed along their rows in one go, 128 MiB.
_PLANES = 2**25
# Order statistics: a key is resolved by its bits from `above` down to `shift`, eleven at a time. Each rank is
# bracketed by about so many samples, by this many standard deviations of independent ones on both sides; for few
# values a bracket does not pay.
_DIGITS = [(64, 53), (53, 42), (42, 31), (31, 20), (20, 9), (9, 0)]
_BRACKET_DIGITS = 2  # are enough for the ends of a bracket: 10 or 13 bits after those of sign and exponent
_BINS = 2048  # values of a digit
_SAMPLES = 2**18
_MARGIN = 8
_BRACKETED = 2**15
_GOLDEN = 0.618
# Blocks of a kernel that goes on until all is done: a few on each multiprocessor.
_FILL = 1024
_UNROLL = 8  # neighbouring voxels that a thread filters
# Bytes of neighbouring lines that are filtered together: two sectors of a cache line, and in shared memory so far apart
# that the threads of a warp use all banks.
_WIDTH, _PITCH = 64, 72
_PART = 256  # voxels of a column that a block filters; a multiple of those of a thread
_STATIC_SHARED = 48 * 1024  # more has to be asked for


def _options(real):
    """The compiler's. CuPy adds -ftz=true: subnormal float32 count as 0, far below what is trusted in float32."""
    constants = {"REAL": real, "THREADS": _THREADS, "BINS": _BINS, "UNROLL": _UNROLL}
    constants |= {"WIDTH_BYTES": _WIDTH, "PITCH_BYTES": _PITCH}
    return ("--std=c++17", "-fmad=false", *(f"-D{name}={value}" for name, value in constants.items()))


@functools.cache
def _module(real):
    """kernels.cu for float or double; CuPy keeps what it compiles, for each device, in memory and on disk."""
    source = Path(__file__).with_name("kernels.cu").read_text()
    return cupy.RawModule(code=f'#line 1 "kernels.cu"\n{source}', options=_options(real))


@functools.cache
def _kernel(name, real):
    return _module(real).get_function(name)


def _launch(name, grid, *args, threads=_THREADS, shared=0, dtype=np.float32):
    """Launch a kernel; Python's integers are passed as int."""
    kernel = _kernel(name, {np.float32: "float", np.float64: "double"}[np.dtype(dtype).type])
    if shared > _STATIC_SHARED:
        kernel.max_dynamic_shared_size_bytes = shared
    args = tuple(np.int32(arg) if type(arg) is int else arg for arg in args)
    kernel(grid, (threads,), args, shared_mem=shared)


def _blocks(n, per_block=_THREADS):
    return -(-n // per_block)


def _aligned(array):
    """The array as the kernels read it: contiguous, from a multiple of 16 bytes on."""
    array = cupy.ascontiguousarray(array)
    return array if array.data.ptr % 16 == 0 else array.copy()


def to_host(array):
    return cupy.asnumpy(array)


# Fourier transforms ---------------------------------------------------------------------------------


@functools.cache
def _plan(device, kind, size, stride, distance, out_distance, batch):
    # The arrays in which the lines lie are one-dimensional to cuFFT: their extent is not looked at.
    return cufft.PlanNd(
        (size,), (size,), stride, distance, (size,), stride, out_distance, kind, batch, "C", 0, size
    )  # fmt: skip


def _transform(kind, array, out, direction, *layout):
    _plan(cupy.cuda.runtime.getDevice(), kind, *layout).fft(array, out, direction)


def _lines(n, size):
    """Room for n lines of `size`: (blocks, size, lines of a block), to be transformed along the middle axis."""
    width = min(1 << max(n - 1, 31).bit_length(), 1 << (_BLOCK // size).bit_length() - 1)
    return cupy.empty((_blocks(n, width), size, width), np.complex64)


def _shift(lines):
    return lines.shape[2].bit_length() - 1


def _transform_lines(lines, direction):
    _, size, width = lines.shape
    for block in lines:
        _transform(cufft.CUFFT_C2C, block, block, direction, size, width, 1, 1, width)


def _slabs(size):
    """Slices of planes, and room for the rows of one of them in their half spectrum."""
    step = min(size, max(1, _PLANES // size**2))
    slabs = [slice(start, min(start + step, size)) for start in range(0, size, step)]
    return slabs, cupy.empty((step * size, size // 2 + 1), np.complex64)


def _pruned(size, limit):
    """Number of wave numbers within ±limit of a full and of a half axis."""
    return min(2 * limit + 1, size), min(limit, size // 2) + 1


# Gaussian random field ------------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10: four 32-bit words from a 128-bit counter and a 64-bit key."""
    words = cupy.empty(4, np.uint32)
    _launch("philox_words", (1,), *map(np.uint32, (*counter, *key)), words, threads=1)
    return tuple(cupy.asnumpy(words))


def gaussian_random_field(size, amplitude, seed, out=None):
    columns, depth = _pruned(size, math.isqrt(amplitude.size - 1))
    key = (np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32))
    along_z, along_y = _lines(columns * depth, size), _lines(size * depth, size)
    field = cupy.empty((size, size, size), np.float32) if out is None else out

    n_line, shift = along_z.size // size, _shift(along_z)
    _launch(
        "draw_modes", (_blocks(n_line), size), along_z, shift, n_line, size, columns, depth,
        cupy.asarray(amplitude, np.float32), amplitude.size, *key,
    )  # fmt: skip
    _transform_lines(along_z, cufft.CUFFT_INVERSE)
    n_line = along_y.size // size
    _launch(
        "columns_to_rows", (_blocks(n_line), size), along_z, shift, along_y, _shift(along_y), n_line, size,
        columns, depth,
    )  # fmt: skip
    _transform_lines(along_y, cufft.CUFFT_INVERSE)
    slabs, rows = _slabs(size)
    length = size // 2 + 1
    for slab in slabs:
        n_row = (slab.stop - slab.start) * size
        grid = (_blocks(n_row * length, 4 * _THREADS),)
        _launch("fill_rows", grid, along_y, _shift(along_y), rows, n_row, slab.start, size, depth)
        _transform(cufft.CUFFT_C2R, rows, field[slab], cufft.CUFFT_INVERSE, size, 1, length, size, n_row)
    return field


# Order statistics -----------------------------------------------------------------------------------

# struct Search of kernels.cu.
_SEARCH = np.dtype([(name, np.uint64) for name in "data n step rank key below equal finished".split()])
_KEY_OF_INFINITY = {np.float32: 0xFF800000_00000000, np.float64: 0xFFF00000_00000000}


def _value_of(key, dtype):
    """The number that has this key, see key_of in kernels.cu."""
    bits = int(key) ^ (2**63 if int(key) >> 63 else 2**64 - 1)
    return float(np.array([bits], np.uint64).view(dtype)[-1])


def _sampled_brackets(values, ranks):
    """Two searches for each rank, for the ends of its bracket in a sample; and how much there is to search."""
    n, row, dtype = values.size, values.shape[-1], values.dtype.type
    # The golden section spreads the samples over the rows, as on the CPU.
    step = n // _SAMPLES // row * row + int(_GOLDEN * row) + 1
    n_sample = n // step
    margin = _MARGIN / 2 * math.sqrt(n_sample)
    brackets = np.zeros((len(ranks), 2), _SEARCH)
    brackets["data"], brackets["step"] = values.data.ptr, step
    centre = np.array(ranks)[:, None] / n * n_sample
    wanted = np.rint(centre + [-margin, margin + 1]).astype(int)
    brackets["rank"] = wanted.clip(0)
    brackets["n"] = np.where((wanted > 0) & (wanted <= n_sample), n_sample, 0)
    brackets["key"][:, 1] = np.where(wanted[:, 1] <= n_sample, 0, np.uint64(_KEY_OF_INFINITY[dtype]))
    return brackets, n_sample, 2 * margin / n_sample


def _select(searches, n, digits, dtype):
    histograms = cupy.zeros((len(searches), _BINS), np.uint32)
    grid = (min(_blocks(n, 4 * _THREADS), _FILL), len(searches))
    for above, shift in digits:
        _launch("select_digit", grid, searches, histograms, above, shift, dtype=dtype)


def order_statistics(values, ranks):
    """Bracket each rank by a sample, keep what lies inside and search that: one pass over the values for two ranks.

    The device decides where to search, so that the host waits but once: where a bracket misses its rank, or holds
    too much, among all values.
    """
    values = _aligned(values)
    dtype, n = values.dtype.type, values.size
    wanted = sorted({int(rank) for rank in ranks} - {0})
    if not wanted:
        return [-math.inf] * len(ranks)
    searches = np.zeros(len(wanted), _SEARCH)
    searches["rank"] = wanted
    digits = _DIGITS[: 3 if dtype == np.float32 else 6]
    if n < _BRACKETED:
        searches["data"], searches["n"], searches["step"] = values.data.ptr, n, 1
        searches = cupy.asarray(searches.view(np.uint64).reshape(-1, 8))
    else:
        brackets, n_sample, share = _sampled_brackets(values, wanted)
        both = np.concatenate([brackets.ravel(), searches])
        both = cupy.asarray(both.view(np.uint64).reshape(-1, 8))
        brackets, searches = both[: brackets.size], both[brackets.size :]
        _select(brackets, n_sample, _DIGITS[:_BRACKET_DIGITS], dtype)
        grid = (min(_blocks(n, 16 * _THREADS), _FILL), _blocks(len(wanted), 2))
        segment = _blocks(min(n, int(2 * share * n)), grid[0])
        kept = cupy.empty((len(wanted), grid[0] * segment), dtype)
        _launch(
            "search_brackets", grid, values, np.uint64(n), brackets, searches, len(wanted),
            np.uint64(2 ** _DIGITS[_BRACKET_DIGITS][0] - 1), kept, segment, dtype=dtype,
        )  # fmt: skip
    _select(searches, n, digits, dtype)
    keys = cupy.asnumpy(searches).view(_SEARCH)["key"]
    found = dict(zip(wanted, keys.ravel(), strict=True))
    return [_value_of(found[int(rank)], dtype) if rank else -math.inf for rank in ranks]


# Phases ---------------------------------------------------------------------------------------------


def classify(values, lower, upper, out=None):
    values, dtype = _aligned(values), values.dtype.type
    out = cupy.empty(values.shape, np.uint8) if out is None else out
    grid = (_blocks(values.size, 4 * _THREADS),)
    _launch("classify", grid, values, np.uint64(values.size), dtype(lower), dtype(upper), out, dtype=dtype)
    return out


def binarise(values, threshold):
    return classify(values, threshold, math.inf)


@functools.lru_cache(maxsize=32)
def _filter(device, taps, dtype, size):
    """What the filters need of the right half of a kernel: tables for z, and taps for y and x, on the device.

    The table of a chunk says for all 256 values of eight neighbouring bits what they add to a voxel.
    """
    taps = np.frombuffer(taps, dtype)
    both = np.concatenate([taps[:0:-1], taps]).astype(np.float64)
    chunks = np.append(both, np.zeros(-both.size % 8)).reshape(-1, 8)
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    table = chunks @ bits.T
    if taps.size > size // 2:  # beyond half the box they come around: add them where they meet others
        around = np.zeros(size)
        np.add.at(around, np.arange(1 - taps.size, taps.size) % size, both)
        taps = around[: size // 2 + 1]
        taps[-1] /= 2  # is added from both sides
    taps = np.append(taps, np.zeros(max(5 - taps.size, -(taps.size - 1) % 4)))  # added four by four
    return cupy.asarray(table, dtype), cupy.asarray(taps, dtype)


@functools.lru_cache(maxsize=32)
def _planes(device, planes):
    return cupy.asarray(planes, np.int32)


def smooth(binary, taps, planes=None, out=None):
    """Along z and y, then along x in place. Along z the voxels are bits, and eight at a time are looked up."""
    binary, size, dtype = _aligned(binary), len(binary), taps.dtype
    reach = taps.size - 1
    table, taps = _filter(cupy.cuda.runtime.getDevice(), taps.tobytes(), dtype, size)
    planes = _planes(cupy.cuda.runtime.getDevice(), tuple(range(size) if planes is None else planes))
    out = cupy.empty((planes.size, size, size), dtype) if out is None or out.data.ptr % 16 else out

    columns = size * size // 4
    words = cupy.empty(((size + 2 * reach) // 32 + 2, 4 * columns), np.uint32)
    _launch("pack_planes", (_blocks(columns), len(words)), binary, words, reach, size, columns)

    width, radius = _WIDTH // dtype.itemsize, taps.size - 1
    length = _blocks(size, _UNROLL) * _UNROLL
    part = min(_PART, length)
    _launch(
        "filter_zy", (_blocks(size, width) * _blocks(size, part), planes.size), words, table, len(table), planes, out,
        taps, radius, size, part, shared=(part + 2 * radius) * _PITCH, dtype=dtype,
    )  # fmt: skip
    n_row = planes.size * size
    _launch(
        "filter_x", (_blocks(n_row, width),), out, taps, radius, size, length, n_row,
        shared=(length + 2 * radius) * _PITCH, dtype=dtype,
    )  # fmt: skip
    return out


# Scattering -----------------------------------------------------------------------------------------


def shell_sums(phases, densities, max_square):
    phases, size, n_shell = _aligned(phases), len(phases), max_square + 1
    columns, depth = _pruned(size, math.isqrt(max_square))
    counts, table = cupy.zeros(2, np.uint64), cupy.empty(3, np.float32)
    # Sums in whole units, and the unit itself at the end, so that one copy brings both to the host.
    sums = cupy.zeros(n_shell + 1, np.uint64)
    unit = sums[n_shell:]
    n_word = phases.size // 8
    _launch("count_phases", (min(_blocks(n_word), _FILL),), phases, n_word, counts)
    _launch("mean_free", (1,), counts, np.float64(phases.size), *map(np.float64, densities), table, unit, threads=1)

    along_y = _lines(size * depth, size)
    slabs, rows = _slabs(size)
    length = size // 2 + 1
    for slab in slabs:
        n_row = (slab.stop - slab.start) * size
        _launch("look_up", (_blocks(n_row * (size // 2), 4 * _THREADS),), phases[slab], n_row, size, table, rows)
        _transform(cufft.CUFFT_R2C, rows, rows, cufft.CUFFT_FORWARD, size, 1, 2 * length, length, n_row)
        grid = (_blocks(n_row * depth, 4 * _THREADS),)
        _launch("keep_rows", grid, rows, n_row, slab.start, along_y, _shift(along_y), size, depth)
    _transform_lines(along_y, cufft.CUFFT_FORWARD)
    along_z = _lines(columns * depth, size)
    n_line, shift = along_z.size // size, _shift(along_z)
    _launch(
        "rows_to_columns", (_blocks(n_line), size), along_y, _shift(along_y), along_z, shift, n_line, size,
        columns, depth,
    )  # fmt: skip
    _transform_lines(along_z, cufft.CUFFT_FORWARD)
    grid = (_blocks((columns // 2 + 1) * depth), length)
    _launch("add_to_shells", grid, along_z, shift, size, columns, depth, unit, sums, n_shell)
    # What is queued from here on does not hold up the copy.
    host = np.frombuffer(cupy.cuda.alloc_pinned_memory(sums.nbytes), np.uint64, sums.size)
    sums.get(out=host, blocking=False)
    copied = cupy.cuda.Event()
    copied.record()

    def read():
        copied.synchronize()
        return host[:-1] * host[-1:].view(np.float64)

    return read
