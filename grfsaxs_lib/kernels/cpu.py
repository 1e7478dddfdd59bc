"""The kernels on the CPU: Numba for element-wise work, ducc0 for the Fourier transforms.

ducc0 rounds a line differently when it falls into the remainder of a SIMD group, so its own threads would
make the last bits depend on their number. It is called with one thread on blocks of a fixed size instead,
and the blocks are shared out here.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import ducc0.fft
import numpy as np
from numba import get_num_threads, njit, prange

# Planes, or columns of the pruned spectrum, that one thread transforms at a time: they stay in its cache.
_PLANES = 4
_COLUMNS = 4
# Parts of an array that are searched independently: a fixed number, for the same result on any threads.
_BLOCKS = 32
# An order statistic is bracketed by a sample of rows, this step apart so that they spread over both other
# axes, and by this share of all values on both sides.
_GOLDEN = 0.618
_BRACKET = 0.01
# Elements read once from memory and compared with every bracket.
_RUN = 4096

# contract allows fused multiply-add, the only liberty taken with IEEE arithmetic.
_jit = njit(cache=True, nogil=True, fastmath={"contract"})
_parallel = njit(cache=True, nogil=True, parallel=True, fastmath={"contract"})


def _share_out(work, n, block):
    """Call ``work`` once on every thread with the iterator of slices of n items that all of them draw from."""
    slices = iter([slice(start, min(start + block, n)) for start in range(0, n, block)])
    with ThreadPoolExecutor(get_num_threads()) as pool:
        for done in [pool.submit(work, slices) for _ in range(get_num_threads())]:
            done.result()


# Gaussian random field ------------------------------------------------------------------------------


@_jit
def philox(counter, key):
    """Philox4x32-10 of Salmon et al. (2011): four 32-bit words from a 128-bit counter and a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0 = np.uint64(0xD2511F53) * np.uint64(c0)
        product1 = np.uint64(0xCD9E8D57) * np.uint64(c2)
        c0 = np.uint32(np.uint32(product1 >> np.uint64(32)) ^ c1 ^ k0)
        c1 = np.uint32(product1)
        c2 = np.uint32(np.uint32(product0 >> np.uint64(32)) ^ c3 ^ k1)
        c3 = np.uint32(product0)
        k0 = np.uint32(k0 + np.uint32(0x9E3779B9))
        k1 = np.uint32(k1 + np.uint32(0xBB67AE85))
    return c0, c1, c2, c3


@_jit
def _standard_complex_normal(i, j, k, key):
    """Box-Muller in float64, so that every device rounds to the same float32."""
    words = philox((np.uint32(i), np.uint32(j), np.uint32(k), np.uint32(0)), key)
    radius = math.sqrt(-math.log((words[0] + 0.5) * 2.0**-32))  # E|z|^2 = 1
    angle = 2.0 * math.pi * ((words[1] + 0.5) * 2.0**-32)
    return radius * math.cos(angle), radius * math.sin(angle)


@_jit
def _mode(i, j, k, half, key):
    """Standard complex normal number of mode (i, j, k), with the symmetry that makes the field real.

    On the planes k = 0 and k = N/2 the modes (i, j) and (-i, -j) are conjugates: the one with the larger
    (i, j) is drawn. A mode that is its own conjugate is real.
    """
    if 0 < k < half:
        return _standard_complex_normal(i, j, k, key)
    mirror_i = i if i == -half else -i
    mirror_j = j if j == -half else -j
    if i == mirror_i and j == mirror_j:
        re, im = _standard_complex_normal(i, j, k, key)
        return math.sqrt(2.0) * re, 0.0
    if i > mirror_i or (i == mirror_i and j > mirror_j):
        return _standard_complex_normal(i, j, k, key)
    re, im = _standard_complex_normal(mirror_i, mirror_j, k, key)
    return re, -im


@_parallel
def _fill_modes(spectrum, rows, columns, half, amplitude, key):
    for r in prange(rows.size):
        i = rows[r]
        for c in range(columns.size):
            j = columns[c]
            for k in range(spectrum.shape[2]):
                square = i * i + j * j + k * k
                if 0 < square < amplitude.size:  # the zero mode only shifts the field
                    re, im = _mode(i, j, k, half, key)
                    spectrum[i, c, k] = amplitude[square] * complex(re, im)


def _pruned(size, limit):
    """Wave numbers within ±limit of a full and of a half axis, in FFT order, and where the negative ones lie."""
    wave_numbers = np.concatenate([np.arange(size // 2), np.arange(-size // 2, 0)])
    kept = wave_numbers[np.abs(wave_numbers) <= limit]
    return kept, min(limit, size // 2) + 1, np.count_nonzero(kept >= 0)


def gaussian_random_field(size, amplitude, seed):
    columns, n_depth, n_positive = _pruned(size, math.isqrt(amplitude.size - 1))
    first_negative = size - (columns.size - n_positive)
    key = (np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32))
    spectrum = np.zeros((size, columns.size, n_depth), np.complex64)
    _fill_modes(spectrum, columns, columns, size // 2, amplitude, key)
    field = np.empty((size, size, size), np.float32)

    def along_z(blocks):
        for block in blocks:
            part = spectrum[:, block]
            ducc0.fft.c2c(part, axes=(0,), forward=False, out=part)

    def along_y_and_x(blocks):
        half_spectrum = np.zeros((_PLANES, size, size // 2 + 1), np.complex64)
        for block in blocks:
            part = spectrum[block]
            planes = half_spectrum[: len(part)]
            kept = planes[:, :, :n_depth]
            kept[:, :n_positive] = part[:, :n_positive]
            kept[:, n_positive:first_negative] = 0
            kept[:, first_negative:] = part[:, n_positive:]
            ducc0.fft.c2c(kept, axes=(1,), forward=False, out=kept)
            ducc0.fft.c2r(planes, axes=(2,), lastsize=size, forward=False, out=field[block])

    _share_out(along_z, columns.size, _COLUMNS)
    _share_out(along_y_and_x, size, _PLANES)
    return field


# Order statistics -----------------------------------------------------------------------------------


@_parallel
def _between(values, lower, upper, capacity):
    """For each bracket [lower, upper]: the elements inside, kept per block, and the number below."""
    n_bracket = lower.size
    step = (values.size + _BLOCKS - 1) // _BLOCKS
    kept = np.empty((n_bracket, _BLOCKS, capacity + 1), values.dtype)
    n_kept = np.zeros((n_bracket, _BLOCKS), np.int64)
    n_below = np.zeros((n_bracket, _BLOCKS), np.int64)
    for block in prange(_BLOCKS):
        stop = min((block + 1) * step, values.size)
        for start in range(block * step, stop, _RUN):
            for b in range(n_bracket):
                mine, low, high = kept[b, block], lower[b], upper[b]
                kept_here, below_here = n_kept[b, block], 0
                for index in range(start, min(start + _RUN, stop)):
                    value = values[index]
                    below_here += value < low
                    # Written always and kept only if it counts: no branch to mispredict.
                    mine[min(kept_here, capacity)] = value
                    kept_here += (value >= low) & (value <= high)
                n_kept[b, block] = kept_here
                n_below[b, block] += below_here
    return kept, n_kept, n_below.sum(axis=1)


def order_statistics(values, ranks):
    """Bracket each rank with a sample, then sort what lies inside: one pass over the values for all ranks."""
    wanted = np.array(sorted({int(rank) for rank in ranks} - {0}))
    rows = values.reshape(-1, values.shape[-1])
    sample = np.sort(rows[:: int(_GOLDEN * rows.shape[1]) + 1], axis=None)
    padded = np.concatenate([[-math.inf], sample, [math.inf]]).astype(values.dtype)
    centre = wanted / values.size * sample.size
    margin = _BRACKET * sample.size
    lower = padded[np.clip(centre - margin, 0, None).astype(int)]
    upper = padded[np.clip(centre + margin, None, sample.size).astype(int) + 1]
    kept, n_kept, n_below = _between(values.reshape(-1), lower, upper, values.size // _BLOCKS // 4)

    found = {0: -math.inf}
    for b, rank in enumerate(wanted.tolist()):
        place = rank - n_below[b] - 1
        if 0 <= place < n_kept[b].sum() and n_kept[b].max() < kept.shape[2]:
            inside = np.concatenate([block[:n] for block, n in zip(kept[b], n_kept[b], strict=True)])
            found[rank] = float(np.partition(inside, place)[place])
        else:  # an unlucky sample, or very many ties
            found[rank] = float(np.partition(values, rank - 1, axis=None)[rank - 1])
    return [found[int(rank)] for rank in ranks]


# Phases ---------------------------------------------------------------------------------------------


@_parallel
def _binarise(values, threshold, out):
    for z in prange(values.shape[0]):
        for y in range(values.shape[1]):
            for x in range(values.shape[2]):
                out[z, y, x] = values[z, y, x] > threshold


def binarise(values, threshold):
    out = np.empty(values.shape, np.uint8)
    _binarise(values, values.dtype.type(threshold), out)
    return out


@_jit
def _add_pairs(row, tap0, before0, behind0, tap1, before1, behind1):
    """Add two taps of a symmetric filter; two at a time halve the traffic of `row`."""
    real = row.dtype.type
    for x in range(row.size):
        row[x] += tap0 * (real(before0[x]) + real(behind0[x])) + tap1 * (real(before1[x]) + real(behind1[x]))


@_parallel
def _smooth(binary, taps, planes, out):
    """One plane at a time: across the planes, then along y, then along x, all in the cache of one core."""
    size, radius = binary.shape[0], taps.size - 1
    for p in prange(planes.size):
        z = planes[p]
        plane = np.empty((size, size), taps.dtype)
        for y in range(size):
            row = plane[y]
            row[:] = taps[0] * binary[z, y]
            for t in range(1, radius, 2):
                _add_pairs(
                    row,
                    taps[t], binary[(z - t) % size, y], binary[(z + t) % size, y],
                    taps[t + 1], binary[(z - t - 1) % size, y], binary[(z + t + 1) % size, y],
                )  # fmt: skip
        line = np.empty(size + 2 * radius, taps.dtype)
        for y in range(size):
            row = line[radius : radius + size]
            row[:] = taps[0] * plane[y]
            for t in range(1, radius, 2):
                _add_pairs(
                    row,
                    taps[t], plane[(y - t) % size], plane[(y + t) % size],
                    taps[t + 1], plane[(y - t - 1) % size], plane[(y + t + 1) % size],
                )  # fmt: skip
            for x in range(radius):
                line[x] = row[(x - radius) % size]
                line[radius + size + x] = row[x % size]
            result = out[p, y]
            result[:] = taps[0] * row
            for t in range(1, radius, 2):
                left, right = radius - t, radius + t
                _add_pairs(
                    result,
                    taps[t], line[left : left + size], line[right : right + size],
                    taps[t + 1], line[left - 1 : left - 1 + size], line[right + 1 : right + 1 + size],
                )  # fmt: skip


def smooth(binary, taps, planes=None):
    taps = np.append(taps, taps.dtype.type(0)) if taps.size % 2 == 0 else taps  # the taps go two by two
    planes = np.arange(len(binary)) if planes is None else np.asarray(planes)
    out = np.empty((planes.size, *binary.shape[1:]), taps.dtype)
    _smooth(binary, taps, planes, out)
    return out


@_parallel
def _classify(values, lower, upper, out):
    for z in prange(values.shape[0]):
        for y in range(values.shape[1]):
            for x in range(values.shape[2]):
                out[z, y, x] = np.uint8(values[z, y, x] > lower) + np.uint8(values[z, y, x] > upper)


def classify(values, lower, upper):
    out = np.empty(values.shape, np.uint8)
    _classify(values, values.dtype.type(lower), values.dtype.type(upper), out)
    return out


# Scattering -----------------------------------------------------------------------------------------


@_parallel
def _phase_counts(phases, n_phase):
    counts = np.zeros((phases.shape[0], n_phase), np.int64)
    for z in prange(phases.shape[0]):
        for phase in range(n_phase):
            for y in range(phases.shape[1]):
                for x in range(phases.shape[2]):
                    counts[z, phase] += phases[z, y, x] == phase
    return counts.sum(axis=0)


@_jit
def _look_up(phases, table, out):
    for z in range(phases.shape[0]):
        for y in range(phases.shape[1]):
            for x in range(phases.shape[2]):
                out[z, y, x] = table[phases[z, y, x]]


@_jit
def _add_to_shells(spectrum, rows, columns, half, sums):
    for r in range(rows.size):
        for c in range(columns.size):
            square_ij = rows[r] * rows[r] + columns[c] * columns[c]
            for k in range(spectrum.shape[2]):
                square = square_ij + k * k
                if square >= sums.size:
                    break
                mode = spectrum[rows[r], c, k]
                # The half spectrum stands for both k and -k but where the two are one plane.
                multiplicity = 1.0 if k == 0 or k == half else 2.0
                sums[square] += multiplicity * (np.float64(mode.real) ** 2 + np.float64(mode.imag) ** 2)


def shell_sums(phases, densities, max_square):
    size = len(phases)
    columns, n_depth, n_positive = _pruned(size, math.isqrt(max_square))
    first_negative = size - (columns.size - n_positive)
    # Without its mean the density leaves no large zero mode to round the others off.
    fractions = _phase_counts(phases, len(densities)) / phases.size
    table = (np.asarray(densities) - fractions @ np.asarray(densities)).astype(np.float32)
    spectrum = np.empty((size, columns.size, n_depth), np.complex64)
    sums = np.zeros((-(-columns.size // _COLUMNS), max_square + 1))

    def along_x_and_y(blocks):
        density = np.empty((_PLANES, size, size), np.float32)
        half_spectrum = np.empty((_PLANES, size, size // 2 + 1), np.complex64)
        for block in blocks:
            n = block.stop - block.start
            _look_up(phases[block], table, density[:n])
            ducc0.fft.r2c(density[:n], axes=(2,), out=half_spectrum[:n])
            kept = half_spectrum[:n, :, :n_depth]
            ducc0.fft.c2c(kept, axes=(1,), out=kept)
            spectrum[block, :n_positive] = kept[:, :n_positive]
            spectrum[block, n_positive:] = kept[:, first_negative:]

    def along_z(blocks):
        for block in blocks:
            part = spectrum[:, block]
            ducc0.fft.c2c(part, axes=(0,), out=part)
            _add_to_shells(part, columns, columns[block], size // 2, sums[block.start // _COLUMNS])

    _share_out(along_x_and_y, size, _PLANES)
    _share_out(along_z, columns.size, _COLUMNS)
    return sums.sum(axis=0)
