// What this machine's memory allows, without a library: ranks that share all buffers do the least work that the
// collective needs. Everyone waits for everyone, does its part, and everyone waits again. The parts:
//   all_reduce      rank r sums slice r of all inputs straight into all outputs
//   reduce          rank r sums slice r of all inputs straight into the root's output
//   reduce_scatter  rank r sums block r of all inputs into its output
//   broadcast       rank r copies slice r of the root's buffer into all others
//   scatter         rank r copies block r of the root's input
//   gather          rank r copies its input to block r of the root's output
//   all_gather      rank r copies all inputs to its output
//   all_to_all      rank r copies block r of all inputs to its output
// From 1 MiB up the sum of two ranks goes past the cache (streaming stores), which measured faster there; memcpy does so
// by itself from a size of its own.
#define _GNU_SOURCE
#include "measure.h"
#include "orphan.h"
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

#define MAX_RANKS 64
#define STREAM (1 << 20) // bytes of an array from which full lines are written past the cache

struct flag { // one cache line, written by one rank only
    _Alignas(64) atomic_ulong epoch;
};

struct shared {
    struct flag flags[MAX_RANKS];
    double values[MAX_RANKS][2048]; // for `maximum`
};

struct probe {
    struct shared *shared;
    float *in[MAX_RANKS], *out[MAX_RANKS];
    int rank, ranks, crowded; // crowded: more ranks than cores, so a waiting rank gives its core away
    unsigned long epoch;
};

static void pause_or_yield(int crowded) {
    if (crowded)
        sched_yield();
    else
#ifdef __x86_64__
        __builtin_ia32_pause();
#else
        atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void barrier(void *context) {
    struct probe *p = context;
    unsigned long epoch = ++p->epoch;
    atomic_store_explicit(&p->shared->flags[p->rank].epoch, epoch, memory_order_release);
    for (int r = 0; r < p->ranks; r++)
        while (atomic_load_explicit(&p->shared->flags[r].epoch, memory_order_acquire) < epoch)
            pause_or_yield(p->crowded);
}

// Two ranks: one pass, both inputs read once, each output written once; `y` is `x` where there is one output. Compilers
// keep to 256-bit vectors unless told otherwise, which costs a third of the speed inside the second-level cache, hence
// the intrinsics.
static inline __attribute__((always_inline)) void sum_two(const float *a, const float *b, float *x, float *y, size_t n,
                                                          int stream) {
    size_t i = 0;
#ifdef __AVX512F__
    while (i < n && ((size_t)(x + i) & 63)) {
        float sum = a[i] + b[i];
        x[i] = y[i] = sum, i++;
    }
    if (stream && ((size_t)(y + i) & 63) == 0) {
        for (; i + 16 <= n; i += 16) {
            __m512 sum = _mm512_add_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i));
            _mm512_stream_ps(x + i, sum);
            if (x != y) _mm512_stream_ps(y + i, sum);
        }
        _mm_sfence();
    }
    for (; i + 16 <= n; i += 16) {
        __m512 sum = _mm512_add_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i));
        _mm512_storeu_ps(x + i, sum);
        if (x != y) _mm512_storeu_ps(y + i, sum);
    }
#endif
    (void)stream;
    for (; i < n; i++) x[i] = y[i] = a[i] + b[i];
}

static __attribute__((noinline)) void sum_pair(const float *a, const float *b, float *x, float *y, size_t n, int stream) {
    sum_two(a, b, x, y, n, stream);
}

static __attribute__((noinline)) void sum_once(const float *a, const float *b, float *x, size_t n, int stream) {
    sum_two(a, b, x, x, n, stream);
}

// Any number of ranks: sums a stretch of all inputs into some outputs, a block at a time, so that the sums stay in the
// first-level cache. Output o gets them from `out[o] + to_at` on.
static void sum_all(struct probe *p, size_t from, size_t n, float *const *out, int outputs, size_t to_at) {
    float sums[1024];
    for (size_t done = 0; done < n; done += 1024) {
        size_t now = n - done < 1024 ? n - done : 1024;
        memcpy(sums, p->in[0] + from + done, now * sizeof(float));
        for (int r = 1; r < p->ranks; r++)
            for (size_t i = 0; i < now; i++) sums[i] += p->in[r][from + done + i];
        for (int o = 0; o < outputs; o++) memcpy(out[o] + to_at + done, sums, now * sizeof(float));
    }
}

static void copy(float *to, const float *from, size_t count) { memcpy(to, from, count * sizeof(float)); }

static void call(void *context, enum collective collective, float *in, float *out, size_t count) {
    struct probe *p = context;
    int rank = p->rank, ranks = p->ranks, stream = count * sizeof(float) >= STREAM;
    size_t block = count / ranks, mine = block * rank;                            // of arrays that have blocks
    size_t from = count * rank / ranks, n = count * (rank + 1) / ranks - from;    // the slice of those that have not
    barrier(p);
    switch (collective) {
    case ALL_REDUCE:
        if (ranks == 2)
            sum_pair(p->in[0] + from, p->in[1] + from, p->out[0] + from, p->out[1] + from, n, stream);
        else
            sum_all(p, from, n, p->out, ranks, from);
        break;
    case REDUCE:
        if (ranks == 2)
            sum_once(p->in[0] + from, p->in[1] + from, p->out[0] + from, n, stream);
        else
            sum_all(p, from, n, p->out, 1, from);
        break;
    case REDUCE_SCATTER:
        if (ranks == 2)
            sum_once(p->in[0] + mine, p->in[1] + mine, out, block, stream);
        else
            sum_all(p, mine, block, &out, 1, 0);
        break;
    case BROADCAST:
        for (int r = 1; r < ranks; r++) copy(p->out[r] + from, p->out[0] + from, n);
        break;
    case SCATTER: copy(out, p->in[0] + mine, block); break;
    case GATHER: copy(p->out[0] + mine, in, block); break;
    case ALL_GATHER:
        for (int r = 0; r < ranks; r++) copy(out + r * block, p->in[r], block);
        break;
    default: // ALL_TO_ALL
        for (int r = 0; r < ranks; r++) copy(out + r * block, p->in[r] + mine, block);
    }
    barrier(p);
}

static void maximum(void *context, double *values, size_t count) {
    struct probe *p = context;
    memcpy(p->shared->values[p->rank], values, count * sizeof(double));
    barrier(p);
    for (int r = 0; r < p->ranks; r++)
        for (size_t i = 0; i < count; i++)
            if (p->shared->values[r][i] > values[i]) values[i] = p->shared->values[r][i];
    barrier(p);
}

int main(int argc, char **argv) {
    struct options o = parse_options(argc, argv);
    if (o.ranks < 1 || o.ranks > MAX_RANKS) {
        fprintf(stderr, "limit_shm: 1 to %d ranks, not %d\n", MAX_RANKS, o.ranks);
        return 2;
    }
    struct probe p = {.ranks = o.ranks, .crowded = o.ranks > sysconf(_SC_NPROCESSORS_ONLN)};
    p.shared = (struct shared *)pages(sizeof(struct shared), MAP_SHARED);
    for (int r = 0; r < o.ranks; r++) {
        p.in[r] = pages(o.end, MAP_SHARED);
        p.out[r] = pages(o.end, MAP_SHARED);
    }
    pid_t parent = getpid();
    for (int r = 1; r < o.ranks; r++)
        if (fork() == 0) {
            end_with(parent);
            p.rank = r;
            break;
        }
    struct library lib = {p.rank, p.ranks, &p, barrier, call, maximum};
    measure(&lib, &o, p.in[p.rank], p.out[p.rank]);
    while (p.rank == 0 && wait(NULL) > 0) {}
    return 0;
}
