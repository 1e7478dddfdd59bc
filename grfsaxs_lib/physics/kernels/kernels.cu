// CUDA kernels of gpu.py, which defines REAL, float or double, and the constants in capitals.
// No header is needed, so NVRTC alone compiles it. With -fmad=false an fma stands only where one is written.

typedef REAL real;
typedef unsigned long long u64;

const int WIDTH = WIDTH_BYTES / sizeof(real);  // lines filtered side by side
const int PITCH = PITCH_BYTES / sizeof(real);  // of their elements in shared memory

// Gaussian random field --------------------------------------------------------------------------------

struct Words { unsigned w[4]; };

// Philox4x32-10 of Salmon et al. (2011): four 32-bit words from a 128-bit counter and a 64-bit key.
__device__ Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
    for (int round = 0; round < 10; ++round) {
        const u64 product0 = (u64)0xD2511F53u * c0, product1 = (u64)0xCD9E8D57u * c2;
        c0 = (unsigned)(product1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned)product1;
        c2 = (unsigned)(product0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned)product0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return Words{{c0, c1, c2, c3}};
}

extern "C" __global__ void philox_words(
    unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1, unsigned* out) {
    const Words words = philox(c0, c1, c2, c3, k0, k1);
    for (int n = 0; n < 4; ++n) out[n] = words.w[n];
}

struct Complex { double re, im; };

// Box-Muller in float64, so that every device rounds to the same float32.
__device__ Complex standard_complex_normal(int i, int j, int k, unsigned key0, unsigned key1) {
    const double pi = 3.14159265358979323846;
    const Words words = philox(i, j, k, 0, key0, key1);
    const double radius = sqrt(-log((words.w[0] + 0.5) * 0x1p-32));  // E|z|^2 = 1
    Complex z;
    sincos(2.0 * pi * ((words.w[1] + 0.5) * 0x1p-32), &z.im, &z.re);
    return Complex{radius * z.re, radius * z.im};
}

// Standard complex normal number of mode (i, j, k), with the symmetry that makes the field real: on the planes
// k = 0 and k = N/2 the modes (i, j) and (-i, -j) are conjugates, and the one with the larger (i, j) is drawn.
__device__ Complex draw(int i, int j, int k, int half, unsigned key0, unsigned key1) {
    if (0 < k && k < half) return standard_complex_normal(i, j, k, key0, key1);
    const int mirror_i = i == -half ? i : -i, mirror_j = j == -half ? j : -j;
    const bool mirrored = i < mirror_i || (i == mirror_i && j < mirror_j);
    Complex z = standard_complex_normal(mirrored ? mirror_i : i, mirrored ? mirror_j : j, k, key0, key1);
    if (mirrored) z.im = -z.im;
    if (i == mirror_i && j == mirror_j) z = Complex{sqrt(2.0) * z.re, 0.0};  // its own conjugate
    return z;
}

// Lines to be transformed lie side by side in blocks of 2^shift: element e of a line of n.
__device__ u64 place(int line, int e, int n, int shift) {
    return (((u64)(line >> shift) * n + e) << shift) + (line & ((1 << shift) - 1));
}

// Four elements a thread: enough loads under way to wait for the memory as little as may be.
#define FOUR_TIMES(e) \
    _Pragma("unroll") for (int turn = 0, e = 4 * blockIdx.x * blockDim.x + threadIdx.x; turn < 4; \
                           ++turn, e += blockDim.x)

// Signed wave number at a position of an axis in FFT order that keeps `count` wave numbers.
__device__ int wave_number(int position, int count) { return position < (count + 1) / 2 ? position : position - count; }

// All modes of the columns (j, k), line = column * depth + k, along z; zero where the amplitude ends.
extern "C" __global__ void draw_modes(
    float2* spectrum, int shift, int n_line, int size, int columns, int depth, const float* amplitude, int n_shell,
    unsigned key0, unsigned key1) {
    const int line = blockIdx.x * blockDim.x + threadIdx.x, z = blockIdx.y;
    if (line >= n_line) return;
    const int column = line / depth, k = line % depth;
    const int i = wave_number(z, size), j = wave_number(column, columns), square = i * i + j * j + k * k;
    float2 mode = {0.0f, 0.0f};
    if (column < columns && 0 < square && square < n_shell) {  // the zero mode only shifts the field
        const Complex number = draw(i, j, k, size / 2, key0, key1);
        mode = float2{(float)(amplitude[square] * number.re), (float)(amplitude[square] * number.im)};
    }
    spectrum[place(line, z, size, shift)] = mode;
}

// Between the transforms along z (lines of column and k) and along y (lines of z and k) ...
extern "C" __global__ void columns_to_rows(
    const float2* along_z, int shift_z, float2* along_y, int shift_y, int n_line, int size, int columns, int depth) {
    const int line = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (line >= n_line) return;
    const int z = line / depth, k = line % depth, j = wave_number(y, size);
    const int column = j < 0 ? j + columns : j;
    const bool kept = z < size && 0 <= column && column < columns && wave_number(column, columns) == j;
    along_y[place(line, y, size, shift_y)] =
        kept ? along_z[place(column * depth + k, z, size, shift_z)] : float2{0.0f, 0.0f};
}

extern "C" __global__ void rows_to_columns(
    const float2* along_y, int shift_y, float2* along_z, int shift_z, int n_line, int size, int columns, int depth) {
    const int line = blockIdx.x * blockDim.x + threadIdx.x, z = blockIdx.y;
    if (line >= n_line) return;
    const int column = line / depth, k = line % depth, j = wave_number(column, columns);
    along_z[place(line, z, size, shift_z)] = column < columns
        ? along_y[place(z * depth + k, j < 0 ? j + size : j, size, shift_y)] : float2{0.0f, 0.0f};
}

// ... and between those along y and along x: whole rows (z, y) of some planes, from z = first on. They are filled up
// with zeros each time, since a transform to real numbers may use its input as scratch memory.
extern "C" __global__ void fill_rows(
    const float2* along_y, int shift_y, float2* rows, int n_row, int first, int size, int depth) {
    const int length = size / 2 + 1;
    FOUR_TIMES(e) {
        const int row = e / length, k = e % length, z = first + row / size, y = row % size;
        if (row < n_row) rows[e] = k < depth ? along_y[place(z * depth + k, y, size, shift_y)] : float2{0.0f, 0.0f};
    }
}

extern "C" __global__ void keep_rows(
    const float2* rows, int n_row, int first, float2* along_y, int shift_y, int size, int depth) {
    FOUR_TIMES(e) {
        const int row = e / depth, k = e % depth, z = first + row / size, y = row % size;
        if (row < n_row) along_y[place(z * depth + k, y, size, shift_y)] = rows[(u64)row * (size / 2 + 1) + k];
    }
}

// Order statistics and thresholds ----------------------------------------------------------------------

struct alignas(16) Pack { real v[16 / sizeof(real)]; };

// Keys are ordered as the numbers are, -0 before 0. They are compared instead of these, since CuPy compiles so that
// subnormal numbers count as zero.
__device__ unsigned key_of(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}
__device__ u64 key_of(double value) {
    const u64 bits = __double_as_longlong(value);
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}
typedef decltype(key_of(real())) Key;
const int UNUSED = 64 - 8 * sizeof(Key);  // low bits of the 64 that searches have

__device__ real not_a_number() { return (real)__longlong_as_double(0x7fffffffffffffffll); }

// Four elements from i on, in loads of 16 bytes; NaN, whose key is above all, beyond the end.
__device__ void load4(const real* values, u64 i, u64 n, real (&v)[4]) {
    const int packed = 16 / sizeof(real);
    if (i + 4 <= n) {
        for (int p = 0; p < 4 / packed; ++p) {
            const Pack pack = reinterpret_cast<const Pack*>(values + i)[p];
            for (int q = 0; q < packed; ++q) v[p * packed + q] = pack.v[q];
        }
    } else {
        for (int q = 0; q < 4; ++q) v[q] = i + q < n ? values[i + q] : not_a_number();
    }
}

// One search for the element of some rank among data[0], data[step], ..., n of them. `key` holds the digits found.
struct Search { const real* data; u64 n, step, rank, key, below, equal, finished; };

// True in the block that comes last to this point, after everything the others have written.
__device__ bool last_block(u64* finished) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(finished, 1ull) == gridDim.x - 1;
    __syncthreads();
    return last;
}

// One digit of each search: count the digits of all elements that share the digits above (bits `above` and up),
// then let the last block pick the one that holds the rank. Integers only, so the order of blocks is of no account.
extern "C" __global__ void __launch_bounds__(THREADS) select_digit(
    Search* searches, unsigned* histograms, int above, int shift) {
    __shared__ unsigned count[BINS];
    __shared__ u64 sum[THREADS];
    Search* search = searches + blockIdx.y;
    volatile unsigned* histogram = histograms + blockIdx.y * BINS;
    const u64 n = search->n, step = search->step, rank = search->rank, key = search->key;
    if (n == 0) return;  // nothing to look for
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) count[bin] = 0;
    __syncthreads();
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < n; i += (u64)gridDim.x * THREADS) {
        const u64 candidate = (u64)key_of(search->data[i * step]) << UNUSED;
        if (above == 64 || candidate >> above == key >> above) atomicAdd(&count[candidate >> shift & (BINS - 1)], 1u);
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS)
        if (count[bin]) atomicAdd(const_cast<unsigned*>(&histogram[bin]), count[bin]);
    if (!last_block(&search->finished)) return;

    u64 mine = 0;
    for (int b = 0; b < BINS / THREADS; ++b) mine += histogram[threadIdx.x * (BINS / THREADS) + b];
    sum[threadIdx.x] = mine;
    __syncthreads();
    for (int reach = 1; reach < THREADS; reach *= 2) {
        const u64 left = threadIdx.x >= reach ? sum[threadIdx.x - reach] : 0;
        __syncthreads();
        sum[threadIdx.x] += left;
        __syncthreads();
    }
    u64 before = sum[threadIdx.x] - mine;
    if (before < rank && rank <= before + mine) {
        int bin = threadIdx.x * (BINS / THREADS);
        while (before + histogram[bin] < rank) before += histogram[bin++];
        search->key = key | (u64)bin << shift;
        search->rank = rank - before;
        search->finished = 0;
    }
    __syncthreads();
    for (int bin = threadIdx.x; bin < BINS; bin += THREADS) histogram[bin] = 0;
}

// One pass over all values for two searches at a time: count what is below and what equals the lower end of each
// bracket, keep what is inside. Each block has a segment to itself and fills it up with NaN: which values are kept
// depends on no order. The last block then aims the search at what was kept, or, where
// the rank is not in the bracket or too much was inside, at all values.
extern "C" __global__ void __launch_bounds__(THREADS) search_brackets(
    const real* values, u64 n, const Search* brackets, Search* searches, int n_search, u64 unresolved, real* kept,
    int segment) {
    const int loads = 16 / sizeof(real);
    const u64 too_many = 1ull << 48;  // more than there can be; and no sum of it over blocks comes around
    __shared__ unsigned inside[2], total[4];
    const int first = 2 * blockIdx.y;
    const bool two = first + 1 < n_search;
    Key lower[2], upper[2];
    unsigned below[2] = {0, 0}, equal[2] = {0, 0};
    real* mine[2];
#pragma unroll
    for (int s = 0; s < 2; ++s) {
        const int search = min(first + s, n_search - 1);
        lower[s] = (Key)(brackets[2 * search].key >> UNUSED);
        upper[s] = (Key)((brackets[2 * search + 1].key | unresolved) >> UNUSED);
        mine[s] = kept + ((u64)search * gridDim.x + blockIdx.x) * segment;
    }
    if (threadIdx.x < 4) total[threadIdx.x] = 0;
    if (threadIdx.x < 2) inside[threadIdx.x] = 0;
    __syncthreads();
    for (u64 tile = blockIdx.x; tile * (4 * loads * THREADS) < n; tile += gridDim.x) {
        real v[loads][4];
        for (int a = 0; a < loads; ++a) load4(values, ((tile * loads + a) * THREADS + threadIdx.x) * 4, n, v[a]);
#pragma unroll
        for (int s = 0; s < 2; ++s) {
            if (s == 1 && !two) break;
            unsigned mask = 0;
            for (int a = 0; a < loads; ++a)
                for (int q = 0; q < 4; ++q) {
                    const Key key = key_of(v[a][q]);
                    below[s] += key < lower[s];
                    equal[s] += key == lower[s];
                    mask |= (unsigned)(lower[s] < key && key <= upper[s]) << (4 * a + q);
                }
            if (mask == 0) continue;
            unsigned slot = atomicAdd(&inside[s], (unsigned)__popc(mask));
            for (int a = 0; a < loads; ++a)
                for (int q = 0; q < 4; ++q)
                    if (mask >> (4 * a + q) & 1) {
                        if (slot < segment) mine[s][slot] = v[a][q];
                        ++slot;
                    }
        }
    }
    for (int s = 0; s < 2; ++s) {
        atomicAdd(&total[2 * s], below[s]);
        atomicAdd(&total[2 * s + 1], equal[s]);
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < 2; ++s)
        if (s == 0 || two)
            for (int slot = inside[s] + threadIdx.x; slot < segment; slot += THREADS) mine[s][slot] = not_a_number();
    if (threadIdx.x < 2 && first + threadIdx.x < n_search) {
        Search* search = searches + first + threadIdx.x;
        atomicAdd(&search->below, (u64)total[2 * threadIdx.x]);
        atomicAdd(&search->equal, (u64)total[2 * threadIdx.x + 1]);
        atomicAdd(&search->n, inside[threadIdx.x] > segment ? too_many : (u64)inside[threadIdx.x]);
    }
    if (!last_block(&searches[first].finished) || threadIdx.x >= 2 || first + threadIdx.x >= n_search) return;
    volatile Search* search = searches + first + threadIdx.x;
    const u64 n_inside = search->n, rank = search->rank, least = search->below, up_to_lower = least + search->equal;
    search->finished = 0;
    search->step = 1;
    if (least < rank && rank <= up_to_lower) {
        search->key = brackets[2 * (first + threadIdx.x)].key;
        search->n = 0;
    } else if (up_to_lower < rank && rank <= up_to_lower + n_inside && n_inside < too_many) {
        search->data = kept + (u64)(first + threadIdx.x) * gridDim.x * segment;
        search->n = (u64)gridDim.x * segment;
        search->rank = rank - up_to_lower;
    } else {
        search->data = values;
        search->n = n;
    }
}

// The key that those of larger numbers exceed.
__device__ Key threshold(real value) {
    const Key key = key_of(value);
    return key + (key_of((real)-0.0) == key);  // 0 is no larger than -0
}

extern "C" __global__ void classify(const real* values, u64 n, real lower, real upper, unsigned char* out) {
    const u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= n) return;
    real v[4];
    load4(values, i, n, v);
    unsigned char phase[4];
    const Key first = threshold(lower), second = threshold(upper);
    for (int q = 0; q < 4; ++q) phase[q] = (key_of(v[q]) > first) + (key_of(v[q]) > second);
    if (i + 4 <= n) {
        *reinterpret_cast<uchar4*>(out + i) = uchar4{phase[0], phase[1], phase[2], phase[3]};
    } else {
        for (int q = 0; q < 4 && i + q < n; ++q) out[i + q] = phase[q];
    }
}

// Smoothing --------------------------------------------------------------------------------------------

// The indicator in bits, 32 planes a word: bit b of word w of a column (y, x) is plane 32 w + b - radius, periodic,
// so that no window of bits wraps around. Four columns a thread. `radius` is that of the whole kernel, which for y and x is
// folded into the box.
extern "C" __global__ void pack_planes(const uchar4* binary, uint4* words, int radius, int size, int columns) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x, word = blockIdx.y;
    if (column >= columns) return;
    int plane = (32 * word - radius) % size;
    if (plane < 0) plane += size;
    uint4 bits = {0, 0, 0, 0};
#pragma unroll
    for (int b = 0; b < 32; ++b) {
        const uchar4 voxels = binary[(u64)plane * columns + column];
        bits.x |= (unsigned)voxels.x << b;
        bits.y |= (unsigned)voxels.y << b;
        bits.z |= (unsigned)voxels.z << b;
        bits.w |= (unsigned)voxels.w << b;
        if (++plane == size) plane = 0;
    }
    words[(u64)word * columns + column] = bits;
}

// Position on an axis of `size`, periodic, of a place between -size and 3 size. Without a branch, so that the loads of
// several places are under way together.
__device__ int wrapped(int place, int size) {
    place += place < 0 ? size : 0;
    place -= place >= size ? size : 0;
    return place - (place >= size ? size : 0);
}

// sum[u] = sum over t of taps[|t|] line[u + t], from the centre outwards, for neighbouring elements of a line. WIDTH
// lines lie side by side in shared memory, with `radius` elements more at either end. What four taps need of either
// side moves through registers, so that each element is loaded once a side.
__device__ void filter(const real* line, const real* taps, int radius, real (&sum)[UNROLL]) {
    real before[UNROLL + 3], after[UNROLL + 3];
    for (int u = 0; u < UNROLL; ++u) sum[u] = taps[0] * line[u * PITCH];
    for (int j = 0; j < UNROLL + 3; ++j) {
        before[j] = line[(j - 4) * PITCH];
        after[j] = line[(j + 1) * PITCH];
    }
    for (int t = 1;; t += 4) {
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            const real tap = taps[t + s];
            for (int u = 0; u < UNROLL; ++u) sum[u] = fma(tap, before[u + 3 - s] + after[u + s], sum[u]);
        }
        if (t + 4 > radius) return;
        for (int j = UNROLL + 2; j >= 4; --j) before[j] = before[j - 4];
        for (int j = 0; j < UNROLL - 1; ++j) after[j] = after[j + 4];
        for (int j = 0; j < 4; ++j) before[j] = line[(j - 7 - t) * PITCH];
        for (int j = 0; j < 4; ++j) after[UNROLL - 1 + j] = line[(UNROLL + 3 + t + j) * PITCH];
    }
}

// Filter planes along z and then along y: `part` rows of WIDTH columns a block. Along z a voxel takes from a table for
// each eight bits of its window what those contribute.
extern "C" __global__ void __launch_bounds__(THREADS) filter_zy(
    const unsigned* words, const real* table, int n_chunk, const int* planes, real* out, const real* taps, int radius,
    int size, int part) {
    extern __shared__ real lines[];
    const int lane = threadIdx.x % WIDTH, worker = threadIdx.x / WIDTH, workers = blockDim.x / WIDTH;
    const int strips = (size + WIDTH - 1) / WIDTH, columns = size * size, plane = planes[blockIdx.y];
    const int x = blockIdx.x % strips * WIDTH + lane, start = blockIdx.x / strips * part;
    const unsigned* first = words + (u64)(plane / 32) * columns + min(x, size - 1);
    const int together = 4, shift = plane % 32, length = part + 2 * radius;
    for (int e = worker; e < length; e += together * workers) {
        real sum[together];
        unsigned low[together], high[together];
        int at[together];
#pragma unroll
        for (int m = 0; m < together; ++m) {
            sum[m] = 0;
            at[m] = wrapped(start - radius + min(e + m * workers, length - 1), size) * size;
            low[m] = first[at[m]];
        }
        for (int chunk = 0; chunk < n_chunk; chunk += 4) {
#pragma unroll
            for (int m = 0; m < together; ++m) high[m] = first[at[m] += columns];
#pragma unroll
            for (int m = 0; m < together; ++m) {
                unsigned window = (unsigned)(((u64)high[m] << 32 | low[m]) >> shift);
                for (int c = 0; c < min(4, n_chunk - chunk); ++c, window >>= 8)
                    sum[m] += table[(chunk + c) * 256 + (window & 255)];
                low[m] = high[m];
            }
        }
#pragma unroll
        for (int m = 0; m < together; ++m)
            if (e + m * workers < length) lines[(e + m * workers) * PITCH + lane] = sum[m];
    }
    __syncthreads();
    for (int e = worker * UNROLL; e < part; e += workers * UNROLL) {
        real sum[UNROLL];
        filter(lines + (radius + e) * PITCH + lane, taps, radius, sum);
        const int y = start + e;
        real* column = out + ((u64)blockIdx.y * size + y) * size + x;
        for (int u = 0; u < UNROLL; ++u)
            if (y + u < size && x < size) column[u * size] = sum[u];
    }
}

// Filter whole rows, WIDTH a block, in place. `length` is the next multiple of UNROLL.
extern "C" __global__ void __launch_bounds__(THREADS) filter_x(
    real* rows, const real* taps, int radius, int size, int length, int n_row) {
    extern __shared__ real lines[];
    const int first = blockIdx.x * WIDTH;
    for (int row = threadIdx.x / 32; row < WIDTH; row += blockDim.x / 32) {
        const real* from = rows + (u64)min(first + row, n_row - 1) * size;
#pragma unroll 8
        for (int e = threadIdx.x % 32; e < length + 2 * radius; e += 32)
            lines[e * PITCH + row] = from[wrapped(e - radius, size)];
    }
    __syncthreads();
    const int row = threadIdx.x % WIDTH, packed = 16 / sizeof(real);
    if (first + row >= n_row) return;
    for (int x = threadIdx.x / WIDTH * UNROLL; x < size; x += blockDim.x / WIDTH * UNROLL) {
        real sum[UNROLL];
        filter(lines + (radius + x) * PITCH + row, taps, radius, sum);
        real* to = rows + (u64)(first + row) * size + x;
        if (size % packed == 0) {
            for (int p = 0; p < UNROLL / packed; ++p)
                if (x + p * packed < size) {
                    Pack pack;
                    for (int q = 0; q < packed; ++q) pack.v[q] = sum[p * packed + q];
                    reinterpret_cast<Pack*>(to)[p] = pack;
                }
        } else {
            for (int u = 0; u < UNROLL; ++u)
                if (x + u < size) to[u] = sum[u];
        }
    }
}

// Scattering -------------------------------------------------------------------------------------------

// Voxels of phase 1 and 2, eight at a time: a byte of `differs` keeps its top bit where it is not the phase.
extern "C" __global__ void __launch_bounds__(THREADS) count_phases(const u64* phases, int n_word, u64* counts) {
    __shared__ unsigned total[2];
    const u64 ones = 0x0101010101010101ull, low = 0x7f * ones;
    unsigned count[2] = {0, 0};
    if (threadIdx.x < 2) total[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < n_word; i += gridDim.x * THREADS)
        for (int p = 0; p < 2; ++p) {
            const u64 differs = phases[i] ^ (p + 1) * ones;
            count[p] += 8 - __popcll((((differs & low) + low) | differs) & ~low);
        }
    for (int p = 0; p < 2; ++p) atomicAdd(&total[p], count[p]);
    __syncthreads();
    if (threadIdx.x < 2) atomicAdd(&counts[threadIdx.x], (u64)total[threadIdx.x]);
}

// Densities less their mean, without which the zero mode would round the others off, and the unit of the sums: by
// Parseval all |F|^2 together are N^3 times the sum of squares, which makes less than 2^61 units. A unit is then at
// most 2^(1-61) N^3 of the mean |F|^2: far below what float32 transforms leave.
extern "C" __global__ void mean_free(
    const u64* counts, double n, double density0, double density1, double density2, float* table, double* unit) {
    const double density[3] = {density0, density1, density2};
    const double count[3] = {n - counts[0] - counts[1], (double)counts[0], (double)counts[1]};
    double mean = 0, squares = 0;
    for (int p = 0; p < 3; ++p) mean += count[p] / n * density[p];
    for (int p = 0; p < 3; ++p) {
        table[p] = (float)(density[p] - mean);
        squares += count[p] * table[p] * table[p];
    }
    int exponent;
    frexp(n * squares, &exponent);
    *unit = ldexp(1.0, exponent - 61);
}

// Two voxels a thread, into rows that leave room for the transform in place.
extern "C" __global__ void look_up(const uchar2* phases, int n_row, int size, const float* table, float2* rows) {
    FOUR_TIMES(e) {
        const int row = e / (size / 2), x = e % (size / 2);
        if (row >= n_row) break;
        const uchar2 phase = phases[e];
        rows[(u64)row * (size / 2 + 1) + x] = float2{table[phase.x], table[phase.y]};
    }
}

__device__ double power(const float2* spectrum, u64 at) {
    const double re = spectrum[at].x, im = spectrum[at].y;
    return re * re + im * im;
}

// |F|^2 of the up to four modes (+-i, +-j, k), in whole units, added to their shell: integers, whose sum does not
// depend on its order.
extern "C" __global__ void add_to_shells(
    const float2* spectrum, int shift, int size, int columns, int depth, const double* unit, u64* sums, int n_shell) {
    const int e = blockIdx.x * blockDim.x + threadIdx.x, j = e / depth, k = e % depth, i = blockIdx.y;
    const int square = i * i + j * j + k * k;
    if (j > columns / 2 || square >= n_shell) return;
    const int other_i = (size - i) % size, other_j = (columns - j) % columns;
    double sum = 0;
    for (int a = 0; a < (other_i == i ? 1 : 2); ++a)
        for (int b = 0; b < (other_j == j ? 1 : 2); ++b)
            sum += power(spectrum, place((b ? other_j : j) * depth + k, a ? other_i : i, size, shift));
    // The half spectrum stands for both k and -k but where the two are one plane.
    if (k != 0 && k != size / 2) sum *= 2;
    atomicAdd(&sums[square], (u64)llrint(sum / *unit));
}
