// CUDA kernels of gpu.py. `real` is float or double: the file is compiled once for each, with -DREAL=...
// No header is needed, so NVRTC alone compiles it. With -fmad=false an fma stands only where one is written,
// so that sums round as those of cpu.py do.

typedef REAL real;
typedef unsigned long long u64;

const int UNROLL = 7;                 // voxels a thread filters: odd, so that its neighbours use other memory banks
const int WIDTH = 64 / sizeof(real);  // columns of a panel: 64 bytes, two sectors of a cache line
const int BINS = 2048;                // of the radix select: digits of eleven bits
const int THREADS = 256;              // of the kernels that share counts

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
    const int length = size / 2 + 1, e = blockIdx.x * blockDim.x + threadIdx.x, row = e / length, k = e % length;
    if (row >= n_row) return;
    const int z = first + row / size, y = row % size;
    rows[e] = k < depth ? along_y[place(z * depth + k, y, size, shift_y)] : float2{0.0f, 0.0f};
}

extern "C" __global__ void keep_rows(
    const float2* rows, int n_row, int first, float2* along_y, int shift_y, int size, int depth) {
    const int e = blockIdx.x * blockDim.x + threadIdx.x, row = e / depth, k = e % depth;
    if (row >= n_row) return;
    const int z = first + row / size, y = row % size;
    along_y[place(z * depth + k, y, size, shift_y)] = rows[(u64)row * (size / 2 + 1) + k];
}

// Order statistics and thresholds ----------------------------------------------------------------------

struct alignas(16) Pack { real v[16 / sizeof(real)]; };

__device__ u64 key_of_bits(unsigned bits) { return (u64)(bits >> 31 ? ~bits : bits | 1u << 31) << 32; }
__device__ u64 key_of_bits(u64 bits) { return bits >> 63 ? ~bits : bits | 1ull << 63; }
// Keys are ordered as the numbers are, from the top bit down.
__device__ u64 key_of(float value) { return key_of_bits(__float_as_uint(value)); }
__device__ u64 key_of(double value) { return key_of_bits((u64)__double_as_longlong(value)); }

// Four elements from i on, in loads of 16 bytes; NaN, whose key is above all, beyond the end.
__device__ void load4(const real* values, u64 i, u64 n, real (&v)[4]) {
    const int packed = 16 / sizeof(real);
    if (i + 4 <= n) {
        for (int p = 0; p < 4 / packed; ++p) {
            const Pack pack = reinterpret_cast<const Pack*>(values + i)[p];
            for (int q = 0; q < packed; ++q) v[p * packed + q] = pack.v[q];
        }
    } else {
        for (int q = 0; q < 4; ++q) v[q] = i + q < n ? values[i + q] : (real)__longlong_as_double(0x7fffffffffffffffll);
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
extern "C" __global__ void __launch_bounds__(256) select_digit(
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
        const u64 candidate = key_of(search->data[i * step]);
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
// bracket, keep what is inside. The last block then aims the search at what was kept, or, where the rank is not in
// the bracket or too much was inside, at all values.
extern "C" __global__ void __launch_bounds__(256) search_brackets(
    const real* values, u64 n, const Search* brackets, Search* searches, int n_search, u64 unresolved, real* kept,
    u64 capacity) {
    const int loads = 4;
    __shared__ unsigned inside[2], total[4];
    __shared__ u64 base[2];
    const int first = 2 * blockIdx.y;
    u64 lower[2], upper[2];
    unsigned below[2] = {0, 0}, equal[2] = {0, 0};
    for (int s = 0; s < 2; ++s) {
        const int b = 2 * min(first + s, n_search - 1);
        lower[s] = brackets[b].key;
        upper[s] = first + s < n_search ? brackets[b + 1].key | unresolved : 0;
    }
    if (threadIdx.x < 4) total[threadIdx.x] = 0;
    if (threadIdx.x < 2) inside[threadIdx.x] = 0;
    __syncthreads();
    for (u64 tile = blockIdx.x; tile * (4 * loads * THREADS) < n; tile += gridDim.x) {
        real v[loads][4];
        unsigned mask[2] = {0, 0}, offset[2] = {0, 0};
        for (int a = 0; a < loads; ++a) load4(values, ((tile * loads + a) * THREADS + threadIdx.x) * 4, n, v[a]);
        for (int s = 0; s < 2; ++s) {
            for (int a = 0; a < loads; ++a)
                for (int q = 0; q < 4; ++q) {
                    const u64 key = key_of(v[a][q]);
                    below[s] += key < lower[s];
                    equal[s] += key == lower[s];
                    mask[s] |= (unsigned)(lower[s] < key && key <= upper[s]) << (4 * a + q);
                }
            if (mask[s]) offset[s] = atomicAdd(&inside[s], (unsigned)__popc(mask[s]));
        }
        __syncthreads();
        if (threadIdx.x < 2 && inside[threadIdx.x]) {
            base[threadIdx.x] = atomicAdd(&searches[first + threadIdx.x].n, (u64)inside[threadIdx.x]);
            inside[threadIdx.x] = 0;
        }
        __syncthreads();
        for (int s = 0; s < 2; ++s)
            for (int a = 0; a < loads; ++a)
                for (int q = 0; q < 4; ++q)
                    if (mask[s] >> (4 * a + q) & 1) {
                        const u64 slot = base[s] + offset[s]++;
                        if (slot < capacity) kept[(first + s) * capacity + slot] = v[a][q];
                    }
    }
    for (int s = 0; s < 2; ++s) {
        atomicAdd(&total[2 * s], below[s]);
        atomicAdd(&total[2 * s + 1], equal[s]);
    }
    __syncthreads();
    const bool counts = threadIdx.x < 4 && first + threadIdx.x / 2 < n_search;
    if (counts) {
        Search* search = searches + first + threadIdx.x / 2;
        atomicAdd(threadIdx.x % 2 ? &search->equal : &search->below, (u64)total[threadIdx.x]);
    }
    if (!last_block(&searches[first].finished) || threadIdx.x >= 2 || first + threadIdx.x >= n_search) return;
    volatile Search* search = searches + first + threadIdx.x;
    const u64 n_inside = search->n, rank = search->rank, least = search->below, up_to_lower = least + search->equal;
    search->finished = 0;
    search->step = 1;
    if (least < rank && rank <= up_to_lower) {
        search->key = brackets[2 * (first + threadIdx.x)].key;
        search->n = 0;
    } else if (up_to_lower < rank && rank <= up_to_lower + n_inside && n_inside <= capacity) {
        search->data = kept + (first + threadIdx.x) * capacity;
        search->rank = rank - up_to_lower;
    } else {
        search->data = values;
        search->n = n;
    }
}

extern "C" __global__ void classify(const real* values, u64 n, real lower, real upper, unsigned char* out) {
    const u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= n) return;
    real v[4];
    load4(values, i, n, v);
    unsigned char phase[4];
    for (int q = 0; q < 4; ++q) phase[q] = (v[q] > lower) + (v[q] > upper);
    if (i + 4 <= n) {
        *reinterpret_cast<uchar4*>(out + i) = uchar4{phase[0], phase[1], phase[2], phase[3]};
    } else {
        for (int q = 0; q < 4 && i + q < n; ++q) out[i + q] = phase[q];
    }
}

// Smoothing --------------------------------------------------------------------------------------------

// sum[u] = sum over t of taps[|t|] line[centre + u + t], periodic, in the order of cpu.py: four taps at a time, from
// both sides. What four taps need of either side moves through registers, so that each element is loaded once a side.
// The line repeats its first three elements after its last, and `radius` is a multiple of four.
template <int PITCH>
__device__ void filter(const real* line, int period, int centre, const real* taps, int radius, real (&sum)[UNROLL]) {
    real before[UNROLL + 3], after[UNROLL + 3], v[UNROLL + 8];
    int low = centre < 4 ? centre - 4 + period : centre - 4, high = low;
    for (int j = 0; j < UNROLL + 8; ++j) {
        v[j] = line[high * PITCH];
        if (++high == period) high = 0;
    }
    for (int u = 0; u < UNROLL; ++u) sum[u] = taps[0] * v[u + 4];
    for (int j = 0; j < UNROLL + 3; ++j) before[j] = v[j];
    for (int j = 0; j < UNROLL + 3; ++j) after[j] = v[j + 5];
    for (int t = 1; t < radius; t += 4) {
        if (t > 1) {
            low -= 4;
            if (low < 0) low += period;
            for (int j = UNROLL + 2; j >= 4; --j) before[j] = before[j - 4];
            for (int j = 0; j < UNROLL - 1; ++j) after[j] = after[j + 4];
            for (int j = 0; j < 4; ++j) before[j] = line[(low + j) * PITCH];
            for (int j = 0; j < 4; ++j) after[UNROLL - 1 + j] = line[(high + j) * PITCH];
            high += 4;
            if (high >= period) high -= period;
        }
        const real tap0 = taps[t], tap1 = taps[t + 1], tap2 = taps[t + 2], tap3 = taps[t + 3];
        for (int u = 0; u < UNROLL; ++u)
            sum[u] += fma(tap0, before[u + 3] + after[u], tap1 * (before[u + 2] + after[u + 1]))
                + fma(tap2, before[u + 1] + after[u + 2], tap3 * (before[u] + after[u + 3]));
    }
}

// Filter `run` elements from `start` on across the first axis of (n, columns): a block loads a panel of WIDTH whole
// columns, or what of them is in reach, before it writes, so that `out` may be `source`.
template <class Source>
__device__ void filter_across(
    const Source* source, real* out, int start, int run, const real* taps, int radius, int n, int columns) {
    extern __shared__ real panel[];
    const int lane = threadIdx.x % WIDTH, worker = threadIdx.x / WIDTH, workers = blockDim.x / WIDTH;
    const int column = blockIdx.x * WIDTH + lane;
    const int rows = min(n, (run + UNROLL - 1) / UNROLL * UNROLL + 2 * radius);
    const int first = rows < n ? start - radius : start;  // of the panel
    for (int row = worker; row < rows + 3; row += workers) {
        int from = first + (row < rows ? row : row - rows);
        from += from < 0 ? n : from >= n ? -n : 0;
        panel[row * WIDTH + lane] = column < columns ? (real)source[(u64)from * columns + column] : (real)0;
    }
    __syncthreads();
    for (int done = worker * UNROLL; done < run; done += workers * UNROLL) {
        real sum[UNROLL];
        filter<WIDTH>(panel + lane, rows, start - first + done, taps, radius, sum);
        for (int u = 0; u < UNROLL; ++u)
            if (done + u < run && column < columns) out[(u64)(done + u) * columns + column] = sum[u];
    }
}

// Runs of planes that begin at starts[0], starts[1], ...; `n_plane` planes in all.
extern "C" __global__ void __launch_bounds__(256) filter_z(
    const unsigned char* binary, real* out, const real* taps, int radius, int size, const int* starts, int run,
    int n_plane) {
    const int done = blockIdx.y * run, columns = size * size;
    filter_across(
        binary, out + (u64)done * columns, starts[blockIdx.y], min(run, n_plane - done), taps, radius, size, columns);
}

extern "C" __global__ void __launch_bounds__(256) filter_y(real* planes, const real* taps, int radius, int size) {
    real* plane = planes + (u64)blockIdx.y * size * size;
    filter_across(plane, plane, 0, size, taps, radius, size, size);
}

// Whole rows, in place. The sums go back through shared memory, to be written side by side.
extern "C" __global__ void __launch_bounds__(512) filter_x(
    real* rows, const real* taps, int radius, int size, int rows_per_block, int n_row) {
    extern __shared__ real lines[];
    const int first = blockIdx.x * rows_per_block, n = min(rows_per_block, n_row - first), pitch = size + 3;
    for (int row = 0; row < n; ++row)
        for (int x = threadIdx.x; x < pitch; x += blockDim.x)
            lines[row * pitch + x] = rows[(u64)(first + row) * size + (x < size ? x : x - size)];
    __syncthreads();
    const int chunks = (size + UNROLL - 1) / UNROLL, row = threadIdx.x / chunks;
    const int done = threadIdx.x % chunks * UNROLL;
    real sum[UNROLL];
    if (row < n) filter<1>(lines + row * pitch, size, done, taps, radius, sum);
    __syncthreads();
    if (row < n)
        for (int u = 0; u < UNROLL; ++u)
            if (done + u < size) lines[row * pitch + done + u] = sum[u];
    __syncthreads();
    for (int r = 0; r < n; ++r)
        for (int x = threadIdx.x; x < size; x += blockDim.x) rows[(u64)(first + r) * size + x] = lines[r * pitch + x];
}

// Scattering -------------------------------------------------------------------------------------------

// Voxels of phase 1 and 2, eight at a time: a byte of `differs` keeps its top bit where it is not the phase.
extern "C" __global__ void __launch_bounds__(256) count_phases(const u64* phases, int n_word, u64* counts) {
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
    const int e = blockIdx.x * blockDim.x + threadIdx.x, row = e / (size / 2), x = e % (size / 2);
    if (row >= n_row) return;
    const uchar2 phase = phases[e];
    rows[(u64)row * (size / 2 + 1) + x] = float2{table[phase.x], table[phase.y]};
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
