"""The kernels on the CPU: NumPy and Numba for element-wise work, ducc0 for the Fourier transforms.

All of them release Python's lock, and work on blocks of a fixed size that are shared out to a few threads here.
ducc0 with threads of its own would round a line differently when it falls into the remainder of a SIMD group, so that
the last bits would depend on their number; Numba with threads of its own takes twice as long to compile.
"""

import math

import ducc0.fft
import numpy as np

from ...compiled import serial, share_out

# Planes, or columns of the pruned spectrum, that one thread transforms at a time: they stay in its cache.
_PLANES = 4
_COLUMNS = 4
# Parts of an array that are searched independently: a fixed number, for the same result on any threads.
_BLOCKS = 32
# An order statistic is bracketed by a sample of rows, this step apart so that they spread over both other
# axes, and by this share of all values on both sides.
_GOLDEN = 0.618
_BRACKET = 0.01
# Elements compared with every bracket while they are in registers and the first cache.
_RUN = 64

# contract allows fused multiply-add, the only liberty taken with IEEE arithmetic.
_jit = serial("contract")


def to_host(array):
    return array


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


@_jit
def _fill_modes(spectrum, rows, columns, half, amplitude, key):
    for r in range(rows.size):
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


def gaussian_random_field(size, amplitude, seed, out=None):
    columns, n_depth, n_positive = _pruned(size, math.isqrt(amplitude.size - 1))
    first_negative = size - (columns.size - n_positive)
    key = (np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32))
    spectrum = np.zeros((size, columns.size, n_depth), np.complex64)
    field = np.empty((size, size, size), np.float32) if out is None else out

    def draw(blocks):
        for block in blocks:
            _fill_modes(spectrum, columns[block], columns, size // 2, amplitude, key)

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

    share_out(draw, columns.size, _COLUMNS)
    share_out(along_z, columns.size, _COLUMNS)
    share_out(along_y_and_x, size, _PLANES)
    return field


# Order statistics -----------------------------------------------------------------------------------


@_jit
def _count(run, lower, upper):
    """How many elements are below `lower`, and how many in [lower, upper]."""
    below, not_above = np.int32(0), np.int32(0)
    for index in range(run.size):
        below += np.int32(run[index] < lower)
        not_above += np.int32(run[index] <= upper)
    return below, not_above - below


@_jit
def _keep(run, lower, upper, kept, n_kept):
    """Append the elements in [lower, upper] while there is room; return how many there would be."""
    for index in range(run.size):
        # Written always and counted only if inside: no branch to mispredict.
        kept[min(n_kept, kept.size - 1)] = run[index]
        n_kept += (run[index] >= lower) & (run[index] <= upper)
    return n_kept


@_jit
def _between(values, lower, upper, kept, n_kept, n_below):
    """For each bracket [lower, upper]: the elements inside, how many they are, and how many are below."""
    for start in range(0, values.size, _RUN):
        run = values[start : min(start + _RUN, values.size)]
        for b in range(lower.size):
            n_below_run, n_inside = _count(run, lower[b], upper[b])
            n_below[b] += n_below_run
            if n_inside:  # rare: a field is smooth, and few of its runs cross the bracket
                n_kept[b] = _keep(run, lower[b], upper[b], kept[b], n_kept[b])


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
    kept = np.empty((_BLOCKS, wanted.size, values.size // _BLOCKS // 4 + 1), values.dtype)
    n_kept, n_below = np.zeros((2, _BLOCKS, wanted.size), np.int64)
    line, step = values.reshape(-1), -(-values.size // _BLOCKS)

    def search(blocks):
        for block in blocks:
            n = block.start // step
            _between(line[block], lower, upper, kept[n], n_kept[n], n_below[n])

    share_out(search, line.size, step)
    found = {0: -math.inf}
    for b, rank in enumerate(wanted.tolist()):
        position = rank - n_below[:, b].sum() - 1
        if 0 <= position < n_kept[:, b].sum() and n_kept[:, b].max() < kept.shape[2]:
            inside = np.concatenate([block[:n] for block, n in zip(kept[:, b], n_kept[:, b], strict=True)])
            found[rank] = float(np.partition(inside, position)[position])
        else:  # the sample has missed it, or there are very many ties
            found[rank] = float(np.partition(values, rank - 1, axis=None)[rank - 1])
    return [found[int(rank)] for rank in ranks]


# Phases ---------------------------------------------------------------------------------------------


def binarise(values, threshold):
    out = np.empty(values.shape, np.uint8)

    def compare(blocks):
        for block in blocks:
            np.greater(values[block], values.dtype.type(threshold), out=out[block].view(np.bool_))

    share_out(compare, len(values), _PLANES)
    return out


@_jit
def _scale(row, factor, source):
    for x in range(row.size):
        row[x] = factor * row.dtype.type(source[x])


@_jit
def _add_taps(row, taps, t, b0, a0, b1, a1, b2, a2, b3, a3):
    """Add four taps at once, from the rows before and after: a quarter of the traffic of `row`."""
    tap0, tap1, tap2, tap3 = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
    for x in range(row.size):
        row[x] += (tap0 * (b0[x] + a0[x]) + tap1 * (b1[x] + a1[x])) + (tap2 * (b2[x] + a2[x]) + tap3 * (b3[x] + a3[x]))


@_jit
def _filter(row, taps, source, centre):
    """row = sum over t of taps[|t|] source[centre + t]."""
    _scale(row, taps[0], source[centre])
    for t in range(1, taps.size, 4):
        _add_taps(
            row, taps, t,
            source[centre - t], source[centre + t], source[centre - t - 1], source[centre + t + 1],
            source[centre - t - 2], source[centre + t + 2], source[centre - t - 3], source[centre + t + 3],
        )  # fmt: skip


@_jit
def _filter_line(row, taps, line):
    """row[x] = sum over t of taps[|t|] line[radius + x + t]; slices let the compiler use vectors."""
    n, r = row.size, taps.size - 1
    _scale(row, taps[0], line[r : r + n])
    for t in range(1, r, 4):
        _add_taps(
            row, taps, t,
            line[r - t :][:n], line[r + t :][:n], line[r - t - 1 :][:n], line[r + t + 1 :][:n],
            line[r - t - 2 :][:n], line[r + t + 2 :][:n], line[r - t - 3 :][:n], line[r + t + 3 :][:n],
        )  # fmt: skip


@_jit
def _smooth(binary, taps, planes, across, out):
    """Neighbouring planes together: across the planes, then along y, then along x."""
    size, radius, one = binary.shape[0], taps.size - 1, taps.dtype.type(1)
    reach = planes[-1] - planes[0] + 1 + 2 * radius
    column = np.empty((reach, size), taps.dtype)
    for y in range(size):
        for z in range(reach):
            _scale(column[z], one, binary[(planes[0] - radius + z) % size, y])
        for p in range(planes.size):
            _filter(across[p, radius + y], taps, column, planes[p] - planes[0] + radius)
    line = np.empty(size + 2 * radius, taps.dtype)
    for p in range(planes.size):
        for y in range(radius):
            _scale(across[p, y], one, across[p, radius + (y - radius) % size])
            _scale(across[p, radius + size + y], one, across[p, radius + y % size])
        for y in range(size):
            row = line[radius : radius + size]
            _filter(row, taps, across[p], radius + y)
            for x in range(radius):
                line[x] = row[(x - radius) % size]
                line[radius + size + x] = row[x % size]
            _filter_line(out[p, y], taps, line)


def smooth(binary, taps, planes=None, out=None):
    taps = np.append(taps, np.zeros(-(taps.size - 1) % 4, taps.dtype))  # they are added four by four
    size, planes = len(binary), np.arange(len(binary)) if planes is None else np.asarray(planes)
    out = np.empty((planes.size, size, size), taps.dtype) if out is None else out

    def along_all_axes(blocks):
        across = np.empty((_PLANES, size + 2 * (taps.size - 1), size), taps.dtype)
        for block in blocks:
            _smooth(binary, taps, planes[block], across, out[block])

    share_out(along_all_axes, planes.size, _PLANES)
    return out


def classify(values, lower, upper, out=None):
    out = np.empty(values.shape, np.uint8) if out is None else out
    lower, upper = values.dtype.type(lower), values.dtype.type(upper)

    def compare(blocks):
        for block in blocks:
            np.greater(values[block], lower, out=out[block].view(np.bool_))
            out[block] += values[block] > upper

    share_out(compare, len(values), 1)  # a plane stays in the cache for both comparisons
    return out


# Scattering -----------------------------------------------------------------------------------------


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
    counts = np.zeros((size, len(densities)), np.int64)

    def count(blocks):
        for block in blocks:
            counts[block.start] = [np.count_nonzero(phases[block] == phase) for phase in range(len(densities))]

    share_out(count, size, _PLANES)
    fractions = counts.sum(axis=0) / phases.size
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

    share_out(along_x_and_y, size, _PLANES)
    share_out(along_z, columns.size, _COLUMNS)
    return lambda: sums.sum(axis=0)
