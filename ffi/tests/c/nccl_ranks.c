/* A program for NCCL and nothing else: a process is a rank, and the id goes from rank 0 to the others by a file.
 *
 *     PROGRAM RANK SIZE FILE      with SIZE 2 or more, and a FILE that is not there yet */
#define _POSIX_C_SOURCE 200809L
#include <nccl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAIL(...)                                                                                                      \
    do {                                                                                                               \
        fprintf(stderr, "%s:%d: rank %d: ", __FILE__, __LINE__, rank);                                                 \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fprintf(stderr, "\n");                                                                                         \
        exit(1);                                                                                                       \
    } while (0)
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) FAIL("%s (%s)", #condition, ncclGetLastError(NULL));                                         \
    } while (0)
#define GOOD(call)                                                                                                     \
    do {                                                                                                               \
        ncclResult_t good_ = (call);                                                                                   \
        if (good_ != ncclSuccess) FAIL("%s: %s: %s", #call, ncclGetErrorString(good_), ncclGetLastError(NULL));        \
    } while (0)

static int rank, size;
static ncclComm_t comm;

static void pause_for_a_while(void) {
    const struct timespec while_ = {0, 2000000};
    nanosleep(&while_, NULL);
}

static time_t in_a_minute(void) {
    return time(NULL) + 60;
}

static void hand_out(ncclUniqueId *id, const char *file) {
    char unfinished[4096];
    FILE *stream;
    CHECK(snprintf(unfinished, sizeof unfinished, "%s.new", file) < (int)sizeof unfinished);
    if (rank == 0) {
        GOOD(ncclGetUniqueId(id));
        CHECK((stream = fopen(unfinished, "wb")) != NULL);
        CHECK(fwrite(id, sizeof *id, 1, stream) == 1 && fclose(stream) == 0);
        CHECK(rename(unfinished, file) == 0);
        return;
    }
    for (time_t end = in_a_minute(); (stream = fopen(file, "rb")) == NULL; pause_for_a_while()) CHECK(time(NULL) < end);
    CHECK(fread(id, sizeof *id, 1, stream) == 1 && fclose(stream) == 0);
}

/* Zeros: that another process wrote to memory is nothing that valgrind sees. */
static float *floats(size_t count) {
    float *memory = calloc(count, sizeof *memory);
    CHECK(memory != NULL);
    return memory;
}

/* Elements differ, so that one that came to the wrong place is seen. */
static float pattern(size_t i) {
    return (float)(i % 13 + 1);
}

static void fill(float *memory, size_t count, float factor) {
    for (size_t i = 0; i < count; i++) memory[i] = factor * pattern(i);
}

#define ARE(memory, count, factor)                                                                                     \
    for (size_t i_ = 0; i_ < (count); i_++)                                                                            \
        if ((memory)[i_] != (float)(factor) * pattern(i_))                                                             \
    FAIL("%s: element %d of %d is %g, not %g", #memory, (int)i_, (int)(count), (double)(memory)[i_],                   \
         (double)(factor) * (double)pattern(i_))

/* 1 + 2 + ... + size */
static float sum_of_ranks(void) {
    return (float)(size * (size + 1) / 2);
}

static void collectives(size_t count) {
    size_t n = (size_t)size, all = count * n;
    float *x = floats(all), *y = floats(all);
    fill(x, count, (float)rank + 1);
    GOOD(ncclAllReduce(x, y, count, ncclFloat, ncclSum, comm, NULL));
    ARE(y, count, sum_of_ranks());
    GOOD(ncclAllReduce(x, y, count, ncclFloat, ncclMax, comm, NULL));
    ARE(y, count, size);
    GOOD(ncclAllReduce(x, y, count, ncclFloat, ncclMin, comm, NULL));
    ARE(y, count, 1);
    GOOD(ncclAllReduce(x, x, count, ncclFloat, ncclSum, comm, NULL));
    ARE(x, count, sum_of_ranks());
    fill(x, count, (float)(2 * rank));
    GOOD(ncclAllReduce(x, y, count, ncclFloat, ncclAvg, comm, NULL));
    ARE(y, count, size - 1);
    fill(x, count, (float)rank + 1);
    fill(y, count, -1);
    GOOD(ncclReduce(x, y, count, ncclFloat, ncclSum, size - 1, comm, NULL));
    ARE(y, count, rank == size - 1 ? sum_of_ranks() : -1);
    GOOD(ncclBroadcast(x, y, count, ncclFloat, 1, comm, NULL));
    ARE(y, count, 2);
    GOOD(ncclBcast(x, count, ncclFloat, 0, comm, NULL));
    ARE(x, count, 1);
    fill(x, count, (float)rank + 1);
    GOOD(ncclAllGather(x, y, count, ncclFloat, comm, NULL));
    for (size_t block = 0; block < n; block++) ARE(y + block * count, count, block + 1);
    fill(y, all, -1);
    GOOD(ncclGather(x, y, count, ncclFloat, 1, comm, NULL));
    for (size_t block = 0; rank == 1 && block < n; block++) ARE(y + block * count, count, block + 1);
    if (rank != 1) ARE(y, all, -1);
    for (size_t block = 0; block < n; block++) fill(x + block * count, count, (float)(10 * rank + (int)block));
    GOOD(ncclScatter(x, y, count, ncclFloat, 1, comm, NULL));
    ARE(y, count, 10 + rank);
    GOOD(ncclAlltoAll(x, y, count, ncclFloat, comm, NULL));
    for (size_t block = 0; block < n; block++) ARE(y + block * count, count, 10 * (int)block + rank);
    GOOD(ncclReduceScatter(x, y, count, ncclFloat, ncclSum, comm, NULL));
    ARE(y, count, 5 * size * (size - 1) + size * rank);
    free(x);
    free(y);
}

#define SUM_OF(type, number)                                                                                           \
    do {                                                                                                               \
        type one_[3] = {1, 2, (type)rank}, all_[3];                                                                    \
        GOOD(ncclAllReduce(one_, all_, 3, number, ncclSum, comm, NULL));                                               \
        CHECK(all_[0] == (type)size && all_[1] == (type)(2 * size) && all_[2] == (type)(size * (size - 1) / 2));       \
        type factor_[2] = {2, (type)(rank + 1)}, product_[2];                                                          \
        GOOD(ncclAllReduce(factor_, product_, 2, number, ncclProd, comm, NULL));                                       \
        CHECK(product_[0] == (type)(1 << size) && product_[1] == (type)factorial);                                     \
    } while (0)

/* Types that C has no name for, by their bits: 1, and the sum of two and of all ranks' if those are 2, 3 or 4. */
static const struct {
    ncclDataType_t type;
    int bytes;
    unsigned one, sums[3];
} narrow[] = {
    {ncclFloat16, 2, 0x3c00, {0x4000, 0x4200, 0x4400}},
    {ncclBfloat16, 2, 0x3f80, {0x4000, 0x4040, 0x4080}},
    {ncclFloat8e4m3, 1, 0x38, {0x40, 0x44, 0x48}},
    {ncclFloat8e5m2, 1, 0x3c, {0x40, 0x42, 0x44}},
};

static void types(void) {
    int factorial = 1;
    for (int i = 2; i <= size; i++) factorial *= i;
    SUM_OF(signed char, ncclInt8);
    SUM_OF(uint8_t, ncclUint8);
    SUM_OF(int32_t, ncclInt32);
    SUM_OF(uint32_t, ncclUint32);
    SUM_OF(int64_t, ncclInt64);
    SUM_OF(uint64_t, ncclUint64);
    SUM_OF(float, ncclFloat32);
    SUM_OF(double, ncclFloat64);
    CHECK(size <= 4);
    for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) {
        uint16_t wide = (uint16_t)narrow[i].one;
        uint8_t few = (uint8_t)narrow[i].one;
        void *x = narrow[i].bytes == 2 ? (void *)&wide : &few;
        GOOD(ncclAllReduce(x, x, 1, narrow[i].type, ncclSum, comm, NULL));
        CHECK((narrow[i].bytes == 2 ? wide : few) == narrow[i].sums[size - 2]);
    }
    ncclRedOp_t halves;
    float half = 0.5f, x[2] = {2 * (float)rank, 4};
    GOOD(ncclRedOpCreatePreMulSum(&halves, &half, ncclFloat, ncclScalarHostImmediate, comm));
    GOOD(ncclAllReduce(x, x, 2, ncclFloat, halves, comm, NULL));
    CHECK(x[0] == sum_of_ranks() - (float)size && x[1] == (float)(2 * size));
    GOOD(ncclRedOpDestroy(halves, comm));
}

static void messages(size_t count) {
    int next = (rank + 1) % size, last = (rank + size - 1) % size;
    float *mine = floats(count), *forth = floats(count), *back = floats(count), *sum = floats(count);
    fill(mine, count, (float)rank);
    fill(sum, count, (float)rank + 1);
    /* Round in both directions, and something for all between. */
    GOOD(ncclGroupStart());
    GOOD(ncclSend(mine, count, ncclFloat, next, comm, NULL));
    GOOD(ncclRecv(forth, count, ncclFloat, last, comm, NULL));
    GOOD(ncclAllReduce(sum, sum, count, ncclFloat, ncclSum, comm, NULL));
    GOOD(ncclSend(mine, count, ncclFloat, last, comm, NULL));
    GOOD(ncclRecv(back, count, ncclFloat, next, comm, NULL));
    GOOD(ncclGroupEnd());
    ARE(forth, count, last);
    ARE(back, count, next);
    ARE(sum, count, sum_of_ranks());
    /* A group that is refused does nothing, on any rank, and the next one is as ever. */
    GOOD(ncclGroupStart());
    GOOD(ncclSend(mine, count, ncclFloat, next, comm, NULL));
    CHECK(ncclReduce(mine, sum, count, ncclFloat, (ncclRedOp_t)7, 0, comm, NULL) == ncclInvalidArgument);
    GOOD(ncclRecv(forth, count, ncclFloat, last, comm, NULL));
    CHECK(ncclGroupEnd() == ncclInvalidArgument);
    CHECK(strstr(ncclGetLastError(comm), "nothing of the group was done: the operator is none of NCCL's"));
    ARE(sum, count, sum_of_ranks());
    /* Each to each, itself too. */
    float *from = floats(count * (size_t)size);
    GOOD(ncclGroupStart());
    for (int peer = 0; peer < size; peer++) {
        GOOD(ncclRecv(from + count * (size_t)peer, count, ncclFloat, peer, comm, NULL));
        GOOD(ncclSend(mine, count, ncclFloat, peer, comm, NULL));
    }
    GOOD(ncclGroupEnd());
    for (int peer = 0; peer < size; peer++) ARE(from + count * (size_t)peer, count, peer);
    free(mine);
    free(forth);
    free(back);
    free(sum);
    free(from);
}

static void memory(void) {
    enum { COUNT = 5000 };
    float *allocated, *own = floats(COUNT);
    void *registration;
    GOOD(ncclMemAlloc((void **)&allocated, COUNT * sizeof *allocated));
    GOOD(ncclCommRegister(comm, own, COUNT * sizeof *own, &registration));
    fill(own, COUNT, (float)rank + 1);
    GOOD(ncclAllReduce(own, allocated, COUNT, ncclFloat, ncclSum, comm, NULL));
    ARE(allocated, COUNT, sum_of_ranks());
    GOOD(ncclCommDeregister(comm, registration));
    GOOD(ncclMemFree(allocated));
    free(own);
}

/* The ranks of a part of comm, in order, are first, first + step and so on. */
static void is_part(ncclComm_t part, int first, int step) {
    int members, own, seen[64];
    GOOD(ncclCommCount(part, &members));
    GOOD(ncclCommUserRank(part, &own));
    CHECK(rank == first + step * own && members <= 64);
    GOOD(ncclAllGather(&rank, seen, 1, ncclInt, part, NULL));
    for (int i = 0; i < members; i++) CHECK(seen[i] == first + step * i);
}

static void parts(void) {
    ncclComm_t part;
    int last = size - 1, members;
    /* Even and odd ranks, the last one first. */
    GOOD(ncclCommSplit(comm, rank % 2, -rank, &part, NULL));
    is_part(part, last % 2 == rank % 2 ? last : last - 1, -2);
    GOOD(ncclCommFinalize(part));
    GOOD(ncclCommDestroy(part));
    GOOD(ncclCommSplit(comm, rank == 0 ? NCCL_SPLIT_NOCOLOR : 5, rank, &part, NULL));
    CHECK((part == NCCL_COMM_NULL) == (rank == 0));
    if (rank != 0) is_part(part, 1, 1);
    GOOD(ncclCommDestroy(part));
    if (rank != last) {
        GOOD(ncclCommShrink(comm, &last, 1, &part, NULL, NCCL_SHRINK_DEFAULT));
        is_part(part, 0, 1);
        GOOD(ncclCommCount(part, &members));
        CHECK(members == size - 1);
        GOOD(ncclCommDestroy(part));
    }
}

/* The state of a communicator, once it is another one than this. */
static ncclResult_t after(ncclResult_t state, ncclComm_t of) {
    ncclResult_t now;
    time_t end = in_a_minute();
    for (;; pause_for_a_while()) {
        GOOD(ncclCommGetAsyncError(of, &now));
        if (now != state) return now;
        CHECK(time(NULL) < end);
    }
}

static void asynchronous(void) {
    ncclUniqueId id;
    ncclComm_t patient, rest;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = "patient";
    if (rank == 0) GOOD(ncclGetUniqueId(&id));
    GOOD(ncclBroadcast(&id, &id, sizeof id, ncclChar, 0, comm, NULL));
    CHECK(ncclCommInitRankConfig(&patient, size, id, rank, &config) == ncclInProgress);
    CHECK(after(ncclInProgress, patient) == ncclSuccess);
    is_part(patient, 0, 1);
    /* When all have looked, one gives up. The others see it without a call of theirs, and go on without that one. */
    is_part(comm, 0, 1);
    if (rank == 0) {
        GOOD(ncclCommAbort(patient));
        return;
    }
    CHECK(after(ncclSuccess, patient) == ncclRemoteError);
    int number = 0, first = 0;
    CHECK(ncclAllReduce(&number, &number, 1, ncclInt, ncclSum, patient, NULL) == ncclRemoteError);
    CHECK(strstr(ncclGetLastError(patient), "rank 0"));
    CHECK(strstr(ncclGetLastError(patient), "patient: ")); /* its name */
    GOOD(ncclCommShrink(patient, &first, 1, &rest, NULL, NCCL_SHRINK_ABORT));
    is_part(rest, 1, 1);
    GOOD(ncclCommDestroy(rest));
    GOOD(ncclCommAbort(patient));
}

/* Configs of NCCL 2.14, 2.17 and 2.18 end earlier, and nothing behind that is read. */
static void older(void) {
    static const size_t sizes[] = {24, 40, 48};
    for (int i = 0; i < 3; i++) {
        ncclUniqueId id;
        ncclComm_t joined;
        ncclConfig_t all = NCCL_CONFIG_INITIALIZER;
        all.size = sizes[i];
        all.blocking = 0;
        void *config = malloc(sizes[i]);
        CHECK(config != NULL);
        memcpy(config, &all, sizes[i]);
        if (rank == 0) GOOD(ncclGetUniqueId(&id));
        GOOD(ncclBroadcast(&id, &id, sizeof id, ncclChar, 0, comm, NULL));
        CHECK(ncclCommInitRankConfig(&joined, size, id, rank, config) == ncclInProgress);
        free(config);
        CHECK(after(ncclInProgress, joined) == ncclSuccess);
        is_part(joined, 0, 1);
        GOOD(ncclCommDestroy(joined));
    }
}

static void *use(void *argument) {
    enum { COUNT = 3000, ROUNDS = 60 };
    static const size_t counts[] = {1, 100, COUNT};
    ncclComm_t own = argument;
    float *x = floats(COUNT), *y = floats(COUNT);
    for (int round = 0; round < ROUNDS; round++) {
        size_t count = counts[round % 3];
        fill(x, count, (float)rank + 1);
        GOOD(ncclGroupStart());
        GOOD(ncclAllReduce(x, y, count, ncclFloat, ncclSum, own, NULL));
        GOOD(ncclGroupEnd());
        ARE(y, count, sum_of_ranks());
        CHECK(ncclAllReduce(x, y, count, ncclFloat, (ncclRedOp_t)9, own, NULL) == ncclInvalidArgument);
        GOOD(ncclBcast(x, count, ncclFloat, round % size, own, NULL));
        ARE(x, count, round % size + 1);
        CHECK(strstr(ncclGetLastError(own), "none of NCCL's")); /* of this thread */
    }
    free(x);
    free(y);
    return NULL;
}

static void threads(void) {
    ncclComm_t comms[2];
    pthread_t started[2];
    for (int i = 0; i < 2; i++) GOOD(ncclCommSplit(comm, 0, rank, &comms[i], NULL));
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&started[i], NULL, use, comms[i]) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(started[i], NULL) == 0);
    for (int i = 0; i < 2; i++) GOOD(ncclCommDestroy(comms[i]));
}

int main(int argc, char **argv) {
    ncclUniqueId id;
    CHECK(argc == 4);
    rank = atoi(argv[1]);
    size = atoi(argv[2]);
    CHECK(size >= 2 && rank >= 0 && rank < size);
    hand_out(&id, argv[3]);
    GOOD(ncclCommInitRank(&comm, size, id, rank));
    collectives(1);
    collectives(1000);
    collectives(300000);
    types();
    messages(1000);
    messages(100000);
    memory();
    parts();
    asynchronous();
    older();
    threads();
    GOOD(ncclCommFinalize(comm));
    GOOD(ncclCommDestroy(comm));
    printf("NCCL alone: right\n");
    return 0;
}
