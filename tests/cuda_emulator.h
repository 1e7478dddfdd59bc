// Just enough CUDA for g++ to compile kernels.cu as C++ and run a launch on one CPU core; see cuda_emulator.py.
// A thread is a fiber. The blocks of a launch, and the threads of a block from barrier to barrier, take turns in a
// random order; shared memory starts as NaN where it is dynamic.
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#include <ucontext.h>

#define __global__
#define __device__
#define __shared__ static  // blocks run one after the other
#define __launch_bounds__(...)

struct uchar2 { unsigned char x, y; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct uint3 { unsigned x, y, z; };
inline uint3 threadIdx, blockIdx, blockDim, gridDim;
using std::fma;
using std::min;

inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }
inline long long __double_as_longlong(double x) { long long bits; std::memcpy(&bits, &x, 8); return bits; }
inline double __longlong_as_double(long long bits) { double x; std::memcpy(&x, &bits, 8); return x; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline void __threadfence() {}

// Integers only: sums of floats would depend on the order.
template <class T, class = std::enable_if_t<std::is_integral<T>::value>>
T atomicAdd(T* address, T value) { T old = *address; *address += value; return old; }

namespace emulator {

enum State { READY, WAITING, FINISHED };
struct Fiber {
    ucontext_t entry;
    std::vector<char> stack = std::vector<char>(1 << 16);
    jmp_buf resume;
    bool entered = false;
    State state = READY;
    unsigned thread;
};
alignas(16) inline unsigned char shared[1 << 18];
inline std::vector<Fiber*> fibers;
inline Fiber* running;
inline jmp_buf scheduler;
inline void (*body)(void*);
inline void* arguments;

// setjmp and longjmp between stacks that makecontext made: unlike swapcontext, they ask nothing of the kernel.
inline void leave(State state) {
    running->state = state;
    if (!_setjmp(running->resume)) _longjmp(scheduler, 1);
}
inline void live() {
    for (;;) {
        body(arguments);
        leave(FINISHED);
    }
}
inline void enter(Fiber* fiber) {
    running = fiber;
    threadIdx = {fiber->thread, 0, 0};
    if (_setjmp(scheduler)) return;
    if (fiber->entered) _longjmp(fiber->resume, 1);
    fiber->entered = true;
    setcontext(&fiber->entry);
}

inline Fiber* fiber_of(unsigned thread) {
    while (fibers.size() <= thread) fibers.push_back(new Fiber);
    Fiber* fiber = fibers[thread];
    if (!fiber->entered) {
        getcontext(&fiber->entry);
        fiber->entry.uc_stack.ss_sp = fiber->stack.data();
        fiber->entry.uc_stack.ss_size = fiber->stack.size();
        makecontext(&fiber->entry, live, 0);
    }
    fiber->thread = thread;
    fiber->state = READY;
    return fiber;
}

// Returns what is wrong, or null.
inline const char* run_block(std::mt19937& random, size_t shared_size) {
    const size_t end = std::min(shared_size + 64, sizeof shared);  // with a margin that has to stay as it is
    std::memset(shared, 0xff, end);
    std::vector<Fiber*> left;
    for (unsigned thread = 0; thread < blockDim.x; ++thread) left.push_back(fiber_of(thread));
    while (!left.empty()) {
        std::shuffle(left.begin(), left.end(), random);
        for (Fiber* fiber : left) enter(fiber);
        const size_t waiting = std::count_if(left.begin(), left.end(), [](Fiber* f) { return f->state == WAITING; });
        if (waiting != 0 && waiting != left.size()) {
            for (Fiber* fiber : left) fiber->entered = false;
            return "some threads of a block have ended where others wait at a barrier";
        }
        if (waiting == 0) left.clear();
    }
    for (size_t at = shared_size; at < end; ++at)
        if (shared[at] != 0xff) return "a block wrote beyond its shared memory";
    return nullptr;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** given, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(given[I])...);
}

template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, unsigned block, size_t shared_size, unsigned seed, void** given) {
    static void (*current)(A...);
    current = kernel;
    body = [](void* all) { call(current, static_cast<void**>(all), std::index_sequence_for<A...>()); };
    arguments = given;
    gridDim = {grid[0], grid[1], 1};
    blockDim = {block, 1, 1};
    std::mt19937 random(seed);
    std::vector<unsigned> order(grid[0] * grid[1]);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    for (unsigned b : order) {
        blockIdx = {b % grid[0], b / grid[0], 0};
        if (const char* error = run_block(random, shared_size)) return error;
    }
    return nullptr;
}

// One letter an argument: P for a pointer, else NumPy's kind and size.
template <class... A>
const char* signature(void (*)(A...)) {
    static const std::string text = (std::string() + ... + (std::is_pointer<A>::value ? std::string("P")
        : std::string(std::is_floating_point<A>::value ? "f" : std::is_signed<A>::value ? "i" : "u") + std::to_string(sizeof(A))));
    return text.c_str();
}

}  // namespace emulator

inline void __syncthreads() { emulator::leave(emulator::WAITING); }

#define EMULATE(name) \
    extern "C" const char* launch_##name(const unsigned* grid, unsigned block, size_t shared, unsigned seed, void** given) { \
        return emulator::launch(name, grid, block, shared, seed, given); \
    } \
    extern "C" const char* signature_##name() { return emulator::signature(name); }
