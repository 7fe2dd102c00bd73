// The loop that times every peer and every limit probe: one warm-up, one clock, one barrier before each call,
// one way of checking, one output format. A driver only says how its library does a barrier, the collective and a
// maximum over ranks; `measure` does the rest. Plain C that a C++ compiler accepts too (Gloo needs one).
//
// Times are per call: barrier, clock, call, clock, or with a barrier before the second clock; the slowest rank's counts; then the minimum, median, 99th
// percentile and maximum over the iterations. Rows are JSON lines with the same keys as `rccl perf --json` writes.
#ifndef MEASURE_H
#define MEASURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum collective { ALL_REDUCE, REDUCE, REDUCE_SCATTER, BROADCAST, SCATTER, GATHER, ALL_GATHER, ALL_TO_ALL, COLLECTIVES };
static const char *const names[COLLECTIVES] = {"all_reduce", "reduce",     "reduce_scatter", "broadcast",
                                               "scatter",    "gather",     "all_gather",     "all_to_all"};

// In an array that has a block for each rank, a size is that of all blocks together.
static int has_blocks(enum collective c) { return c != ALL_REDUCE && c != REDUCE && c != BROADCAST; }
static int reduces(enum collective c) { return c == ALL_REDUCE || c == REDUCE || c == REDUCE_SCATTER; }

struct options {
    enum collective collective;
    size_t begin, end, factor; // sizes in bytes: begin, begin * factor, ... up to end
    int ranks;                 // for the probes, which start their own ranks
    int closes;                // each call is timed together with a barrier behind it
    double budget_us;          // time that one size may take; a slow library gets fewer iterations, not more time
    const char *library, *transport, *json; // names for the rows, and the file that takes them
};

struct library {
    int rank, ranks;
    void *context; // handed back to each of these:
    void (*barrier)(void *context);
    // The collective on `count` floats: all that a rank has, or all blocks together, of which `count / ranks` are one
    // rank's. It reads `in` and writes `out`; broadcast reads and writes `out`. The root is rank 0.
    void (*call)(void *context, enum collective collective, float *in, float *out, size_t count);
    // Replaces each value by its maximum over all ranks.
    void (*maximum)(void *context, double *values, size_t count);
};

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}

// Page-aligned zeroed memory; `sharing` is MAP_PRIVATE, or MAP_SHARED to be inherited by forked ranks.
static float *pages(size_t bytes, int sharing) {
    void *memory = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap of a benchmark buffer");
        exit(1);
    }
    memset(memory, 0, bytes + 4096);
    return (float *)memory;
}

// Small integers that say which rank and place they are from, and whose sum over some hundred ranks is exact in f32 in
// any order. 13 divides no power of two, so blocks differ.
static float input(int rank, size_t i) { return (float)(16 * rank + 1 + (int)(i % 13)); }

static float sum(int ranks, size_t i) { return (float)(8 * ranks * (ranks - 1) + ranks * (1 + (int)(i % 13))); }

// How many elements `rank` gives, and how many it gets.
static size_t given(enum collective c, int rank, int ranks, size_t count) {
    if (c == BROADCAST || (c == SCATTER && rank != 0)) return 0;
    return c == GATHER || c == ALL_GATHER ? count / ranks : count;
}

static size_t gotten(enum collective c, int rank, int ranks, size_t count) {
    if ((c == REDUCE || c == GATHER) && rank != 0) return 0;
    return c == REDUCE_SCATTER || c == SCATTER ? count / ranks : count;
}

// Element `i` of what `rank` gets.
static float expected(enum collective c, int rank, int ranks, size_t count, size_t i) {
    size_t block = count / ranks;
    switch (c) {
    case ALL_REDUCE:
    case REDUCE: return sum(ranks, i);
    case REDUCE_SCATTER: return sum(ranks, rank * block + i);
    case SCATTER: return input(0, rank * block + i);
    case GATHER:
    case ALL_GATHER: return input((int)(i / block), i % block);
    case ALL_TO_ALL: return input((int)(i / block), rank * block + i % block);
    default: return input(0, i);
    }
}

// The number of timed calls that a library of ordinary speed gets.
static int iteration_ceiling(size_t bytes) {
    if (bytes <= 64 << 10) return 2000;
    if (bytes <= 1 << 20) return 300;
    if (bytes <= 16 << 20) return 40;
    return 15;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// All ranks agree on it: the slowest rank's shortest of a few calls decides.
static int choose_iterations(const struct library *lib, const struct options *o, float *in, float *out, size_t count) {
    double shortest = 1e30;
    for (int i = 0; i < 4; i++) {
        double start = now_us();
        lib->barrier(lib->context);
        lib->call(lib->context, o->collective, in, out, count);
        double took = now_us() - start;
        if (took < shortest) shortest = took;
    }
    lib->maximum(lib->context, &shortest, 1);
    int affordable = (int)(o->budget_us / (shortest + 0.1));
    int ceiling = iteration_ceiling(count * sizeof(float));
    return affordable > ceiling ? ceiling : affordable < 8 ? 8 : affordable;
}

static void write_row(FILE *f, const struct library *lib, const struct options *o, size_t bytes, const double *sorted,
                      int iterations, double wrong) {
    double median = sorted[iterations / 2], algbw = bytes / median / 1e3, busbw = algbw;
    if (has_blocks(o->collective)) busbw = algbw * (lib->ranks - 1) / lib->ranks;
    if (o->collective == ALL_REDUCE) busbw = algbw * 2 * (lib->ranks - 1) / lib->ranks;
    fprintf(f, "{\"library\":\"%s\",\"collective\":\"%s\",\"ranks\":%d,\"bytes\":%zu,\"type\":\"float\",\"op\":\"%s\",",
            o->library, names[o->collective], lib->ranks, bytes, reduces(o->collective) ? "sum" : "none");
    fprintf(f, "\"algo\":\"own\",\"transport\":\"%s\",\"in_place\":%s,\"iterations\":%d,", o->transport,
            o->collective == BROADCAST ? "true" : "false", iterations);
    fprintf(f, "\"time_us\":{\"min\":%.3f,\"median\":%.3f,\"p99\":%.3f,\"max\":%.3f},", sorted[0], median,
            sorted[(int)(iterations * 0.99)], sorted[iterations - 1]);
    fprintf(f, "\"algbw\":%.4f,\"busbw\":%.4f,\"wrong\":%.0f}\n", algbw, busbw, wrong);
    fflush(f);
}

// Writes this rank's data, and what is never a right answer where answers are to come.
static void prepare(const struct library *lib, const struct options *o, float *in, float *out, size_t count) {
    size_t gives = given(o->collective, lib->rank, lib->ranks, count);
    size_t gets = gotten(o->collective, lib->rank, lib->ranks, count);
    for (size_t i = 0; i < gives; i++) in[i] = input(lib->rank, i);
    int root = o->collective == BROADCAST && lib->rank == 0;
    for (size_t i = 0; i < gets; i++) out[i] = root ? input(0, i) : -1.0f;
}

// Wrong elements over all ranks.
static double count_wrong(const struct library *lib, const struct options *o, const float *out, size_t count) {
    // Each rank counts into its own slot, so that the maximum over ranks hands everyone all counts.
    double *wrong = (double *)calloc(lib->ranks, sizeof(double)), total = 0;
    size_t gets = gotten(o->collective, lib->rank, lib->ranks, count);
    for (size_t i = 0; i < gets; i++)
        wrong[lib->rank] += out[i] != expected(o->collective, lib->rank, lib->ranks, count, i);
    lib->maximum(lib->context, wrong, lib->ranks);
    for (int r = 0; r < lib->ranks; r++) total += wrong[r];
    free(wrong);
    return total;
}

static void measure(const struct library *lib, const struct options *o, float *in, float *out) {
    FILE *json = NULL;
    if (lib->rank == 0 && !(json = fopen(o->json, "w"))) {
        perror(o->json);
        exit(1);
    }
    for (size_t bytes = o->begin; bytes <= o->end; bytes *= o->factor) {
        size_t count = bytes / sizeof(float);
        if (has_blocks(o->collective)) count -= count % lib->ranks;
        // One call has to be right before any is timed, and the last one too.
        prepare(lib, o, in, out, count);
        lib->barrier(lib->context);
        lib->call(lib->context, o->collective, in, out, count);
        double wrong = count_wrong(lib, o, out, count);
        prepare(lib, o, in, out, count);
        int iterations = choose_iterations(lib, o, in, out, count), warm_up = iterations / 10 + 2;
        double *took = (double *)malloc(iterations * sizeof(double));
        for (int i = -warm_up; i < iterations; i++) {
            lib->barrier(lib->context);
            double start = now_us();
            lib->call(lib->context, o->collective, in, out, count);
            if (o->closes) lib->barrier(lib->context);
            double end = now_us();
            if (i >= 0) took[i] = end - start;
        }
        lib->maximum(lib->context, took, iterations);
        qsort(took, iterations, sizeof(double), by_value);

        wrong += count_wrong(lib, o, out, count);
        if (json) write_row(json, lib, o, count * sizeof(float), took, iterations, wrong);
        free(took);
    }
    if (json) fclose(json);
}

// COLLECTIVE RANKS BEGIN END FACTOR CLOSES BUDGET_MS LIBRARY TRANSPORT FILE: only the runner writes this line.
static struct options parse_options(int argc, char **argv) {
    if (argc != 11) {
        fprintf(stderr, "usage: %s COLLECTIVE RANKS BEGIN END FACTOR CLOSES BUDGET_MS LIBRARY TRANSPORT FILE\n", argv[0]);
        exit(2);
    }
    struct options o;
    int known = 0;
    while (known < COLLECTIVES && strcmp(argv[1], names[known])) known++;
    if (known == COLLECTIVES) {
        fprintf(stderr, "%s: no collective is called %s\n", argv[0], argv[1]);
        exit(2);
    }
    o.collective = (enum collective)known;
    o.ranks = atoi(argv[2]);
    o.begin = strtoull(argv[3], NULL, 10);
    o.end = strtoull(argv[4], NULL, 10);
    o.factor = strtoull(argv[5], NULL, 10);
    o.closes = atoi(argv[6]);
    o.budget_us = atof(argv[7]) * 1e3;
    o.library = argv[8];
    o.transport = argv[9];
    o.json = argv[10];
    return o;
}

#endif
