// The loop that times every peer and every limit probe: one warm-up, one clock, one barrier before each call,
// one way of checking, one output format. A driver only says how its library does a barrier, the collective and a
// maximum over ranks; `measure` does the rest. Plain C that a C++ compiler accepts too (Gloo needs one).
//
// Times are per call: barrier, clock, call, clock; the slowest rank's time counts; then the minimum, median, 99th
// percentile and maximum over the iterations. Rows are JSON lines with the same keys as `rccl perf --json` writes.
#ifndef MEASURE_H
#define MEASURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum collective { ALL_REDUCE, BROADCAST };

struct options {
    enum collective collective;
    size_t begin, end, factor; // sizes in bytes: begin, begin * factor, ... up to end
    int ranks;                 // for the probes, which start their own ranks
    double budget_us;          // time that one size may take; a slow library gets fewer iterations, not more time
    const char *library, *transport, *json; // names for the rows, and the file that takes them
};

struct library {
    int rank, ranks;
    void *context; // handed back to each of these:
    void (*barrier)(void *context);
    // Sums `count` floats of every rank's `in` into everyone's `out`, or copies rank 0's `out` to everyone's `out`.
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

// Small integers, so that a sum over up to a few thousand ranks is exact in f32 in any order.
static float input(int rank, size_t i) { return (float)(rank + 1 + (int)(i % 13)); }

static float expected(enum collective collective, int ranks, size_t i) {
    if (collective == BROADCAST) return input(0, i);
    return (float)(ranks * (ranks + 1) / 2 + ranks * (int)(i % 13));
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
    double median = sorted[iterations / 2], algbw = bytes / median / 1e3;
    int reduces = o->collective == ALL_REDUCE;
    double busbw = reduces ? algbw * 2 * (lib->ranks - 1) / lib->ranks : algbw;
    fprintf(f, "{\"library\":\"%s\",\"collective\":\"%s\",\"ranks\":%d,\"bytes\":%zu,\"type\":\"float\",\"op\":\"%s\",",
            o->library, reduces ? "all_reduce" : "broadcast", lib->ranks, bytes, reduces ? "sum" : "none");
    fprintf(f, "\"algo\":\"own\",\"transport\":\"%s\",\"in_place\":%s,\"iterations\":%d,", o->transport,
            reduces ? "false" : "true", iterations);
    fprintf(f, "\"time_us\":{\"min\":%.3f,\"median\":%.3f,\"p99\":%.3f,\"max\":%.3f},", sorted[0], median,
            sorted[(int)(iterations * 0.99)], sorted[iterations - 1]);
    fprintf(f, "\"algbw\":%.4f,\"busbw\":%.4f,\"wrong\":%.0f}\n", algbw, busbw, wrong);
    fflush(f);
}

static void measure(const struct library *lib, const struct options *o, float *in, float *out) {
    FILE *json = NULL;
    if (lib->rank == 0 && !(json = fopen(o->json, "w"))) {
        perror(o->json);
        exit(1);
    }
    for (size_t bytes = o->begin; bytes <= o->end; bytes *= o->factor) {
        size_t count = bytes / sizeof(float);
        int root = o->collective == BROADCAST && lib->rank == 0;
        for (size_t i = 0; i < count; i++) {
            in[i] = input(lib->rank, i);
            out[i] = root ? input(0, i) : -1.0f; // -1 is never a right answer
        }
        int iterations = choose_iterations(lib, o, in, out, count), warm_up = iterations / 10 + 2;
        double *took = (double *)malloc(iterations * sizeof(double));
        for (int i = -warm_up; i < iterations; i++) {
            lib->barrier(lib->context);
            double start = now_us();
            lib->call(lib->context, o->collective, in, out, count);
            double end = now_us();
            if (i >= 0) took[i] = end - start;
        }
        lib->maximum(lib->context, took, iterations);
        qsort(took, iterations, sizeof(double), by_value);

        // Each rank counts into its own slot, so that the maximum over ranks hands everyone all counts.
        double *wrong = (double *)calloc(lib->ranks, sizeof(double)), total = 0;
        for (size_t i = 0; i < count; i++) wrong[lib->rank] += out[i] != expected(o->collective, lib->ranks, i);
        lib->maximum(lib->context, wrong, lib->ranks);
        for (int r = 0; r < lib->ranks; r++) total += wrong[r];

        if (json) write_row(json, lib, o, bytes, took, iterations, total);
        free(wrong);
        free(took);
    }
    if (json) fclose(json);
}

// COLLECTIVE RANKS BEGIN END FACTOR BUDGET_MS LIBRARY TRANSPORT FILE: only the runner writes this line.
static struct options parse_options(int argc, char **argv) {
    if (argc != 10) {
        fprintf(stderr, "usage: %s COLLECTIVE RANKS BEGIN END FACTOR BUDGET_MS LIBRARY TRANSPORT FILE\n", argv[0]);
        exit(2);
    }
    struct options o;
    o.collective = strcmp(argv[1], "broadcast") == 0 ? BROADCAST : ALL_REDUCE;
    o.ranks = atoi(argv[2]);
    o.begin = strtoull(argv[3], NULL, 10);
    o.end = strtoull(argv[4], NULL, 10);
    o.factor = strtoull(argv[5], NULL, 10);
    o.budget_us = atof(argv[6]) * 1e3;
    o.library = argv[7];
    o.transport = argv[8];
    o.json = argv[9];
    return o;
}

#endif
