// What this machine's memory allows, without a library: ranks that share all buffers do the least work that the
// collective needs. all_reduce: everyone waits for everyone, rank r sums slice r of all inputs straight into all
// outputs, everyone waits again. broadcast: rank r copies slice r of the root's buffer into all others.
// From 1 MiB up the two-rank sum goes past the cache (streaming stores), which measured faster there.
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
#define STREAM (1 << 20) // bytes from which full lines are written past the cache

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

// Two ranks: one pass, both inputs read once, both outputs written once. Compilers keep to 256-bit vectors unless told
// otherwise, which costs a third of the speed inside the second-level cache, hence the intrinsics.
static void sum_pair(const float *restrict a, const float *restrict b, float *restrict x, float *restrict y, size_t n,
                     int stream) {
    size_t i = 0;
#ifdef __AVX512F__
    while (i < n && ((size_t)(x + i) & 63)) x[i] = y[i] = a[i] + b[i], i++;
    if (stream && ((size_t)(y + i) & 63) == 0) {
        for (; i + 16 <= n; i += 16) {
            __m512 sum = _mm512_add_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i));
            _mm512_stream_ps(x + i, sum);
            _mm512_stream_ps(y + i, sum);
        }
        _mm_sfence();
    }
    for (; i + 16 <= n; i += 16) {
        __m512 sum = _mm512_add_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i));
        _mm512_storeu_ps(x + i, sum);
        _mm512_storeu_ps(y + i, sum);
    }
#endif
    (void)stream;
    for (; i < n; i++) x[i] = y[i] = a[i] + b[i];
}

// Any number of ranks: a block at a time, so that the sums stay in the first-level cache.
static void sum_all(struct probe *p, size_t from, size_t to) {
    float sums[1024];
    for (size_t at = from; at < to; at += 1024) {
        size_t n = to - at < 1024 ? to - at : 1024;
        memcpy(sums, p->in[0] + at, n * sizeof(float));
        for (int r = 1; r < p->ranks; r++)
            for (size_t i = 0; i < n; i++) sums[i] += p->in[r][at + i];
        for (int r = 0; r < p->ranks; r++) memcpy(p->out[r] + at, sums, n * sizeof(float));
    }
}

static void call(void *context, enum collective collective, float *in, float *out, size_t count) {
    (void)in;
    (void)out;
    struct probe *p = context;
    size_t from = count * p->rank / p->ranks, to = count * (p->rank + 1) / p->ranks;
    barrier(p);
    if (collective == BROADCAST)
        for (int r = 1; r < p->ranks; r++) memcpy(p->out[r] + from, p->out[0] + from, (to - from) * sizeof(float));
    else if (p->ranks == 2)
        sum_pair(p->in[0] + from, p->in[1] + from, p->out[0] + from, p->out[1] + from, to - from,
                 count * sizeof(float) >= STREAM);
    else
        sum_all(p, from, to);
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
