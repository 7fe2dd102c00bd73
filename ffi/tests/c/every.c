/* Every function of the interface, each with its result checked, on the ranks of a launcher: at least 2. */
#include "check.h"
#include <time.h>

enum { COUNT = 1000 };

static rcclComm_t comm;
static int rank, size;

static float *floats(size_t count) {
    float *memory = (float *)malloc((count ? count : 1) * sizeof(float));
    CHECK(memory != NULL);
    return memory;
}

static void fill(float *memory, size_t count, float value) {
    for (size_t i = 0; i < count; i++) memory[i] = value;
}

static void all_are(const float *memory, size_t count, float value) {
    for (size_t i = 0; i < count; i++)
        if (memory[i] != value) FAIL("element %d is %g, not %g", (int)i, (double)memory[i], (double)value);
}

/* 1 + 2 + ... + size */
static float sum_of_ranks(void) {
    return (float)(size * (size + 1) / 2);
}

static void reductions(void) {
    float *x = floats(COUNT * (size_t)size), *y = floats(COUNT * (size_t)size);
    fill(x, COUNT, (float)rank + 1);
    GOOD(rcclAllReduce(x, y, COUNT, rcclFloat, rcclSum, comm, NULL));
    all_are(y, COUNT, sum_of_ranks());
    GOOD(rcclAllReduce(x, x, COUNT, rcclFloat32, rcclMax, comm, NULL));
    all_are(x, COUNT, (float)size);
    fill(x, COUNT, (float)rank + 1);
    fill(y, COUNT, -1);
    GOOD(rcclReduce(x, rank == 1 ? y : NULL, COUNT, rcclFloat, rcclProd, 1, comm, NULL));
    float product = 1;
    for (int i = 1; i <= size; i++) product *= (float)i;
    all_are(y, COUNT, rank == 1 ? product : -1);
    for (int block = 0; block < size; block++) fill(x + COUNT * block, COUNT, (float)(rank + block));
    GOOD(rcclReduceScatter(x, y, COUNT, rcclFloat, rcclSum, comm, NULL));
    all_are(y, COUNT, sum_of_ranks() - (float)size + (float)(size * rank));
    float half = 0.5f;
    rcclRedOp_t halves;
    GOOD(rcclRedOpCreatePreMulSum(&halves, &half, rcclFloat, rcclScalarHostImmediate, comm));
    fill(x, COUNT, (float)rank + 1);
    GOOD(rcclAllReduce(x, y, COUNT, rcclFloat, halves, comm, NULL));
    all_are(y, COUNT, sum_of_ranks() / 2);
    REFUSED(rcclAllReduce(x, y, 1, rcclDouble, halves, comm, NULL), rcclInvalidArgument, "created for elements of type f32");
    /* Calls of a group keep it, too. */
    fill(y, COUNT, 0);
    GOOD(rcclGroupStart());
    GOOD(rcclAllReduce(x, y, COUNT, rcclFloat, halves, comm, NULL));
    GOOD(rcclRedOpDestroy(halves, comm));
    GOOD(rcclGroupEnd());
    all_are(y, COUNT, sum_of_ranks() / 2);
    REFUSED(rcclAllReduce(x, y, 1, rcclFloat, halves, comm, NULL), rcclInvalidArgument, "operator 16");
    REFUSED(rcclRedOpDestroy(halves, comm), rcclInvalidArgument, "was destroyed");
    /* One of another communicator has a number that is nobody's here, whatever the own ones are. */
    rcclComm_t twin;
    rcclRedOp_t thirds;
    GOOD(rcclCommSplit(comm, 0, rank, &twin, NULL));
    GOOD(rcclRedOpCreatePreMulSum(&halves, &half, rcclFloat, rcclScalarHostImmediate, comm));
    GOOD(rcclRedOpCreatePreMulSum(&thirds, &half, rcclFloat, rcclScalarHostImmediate, twin));
    REFUSED(rcclAllReduce(x, y, 1, rcclFloat, halves, twin, NULL), rcclInvalidArgument, "created for another one");
    REFUSED(rcclAllReduce(x, y, 1, rcclFloat, thirds, comm, NULL), rcclInvalidArgument, "created for another one");
    REFUSED(rcclRedOpDestroy(thirds, comm), rcclInvalidArgument, "created for another one");
    REFUSED(rcclRedOpDestroy(rcclSum, comm), rcclInvalidArgument, "not created");
    fill(x, COUNT, (float)rank + 1);
    GOOD(rcclAllReduce(x, y, COUNT, rcclFloat, thirds, twin, NULL));
    all_are(y, COUNT, sum_of_ranks() / 2);
    GOOD(rcclRedOpDestroy(thirds, twin));
    GOOD(rcclRedOpDestroy(halves, comm));
    GOOD(rcclCommDestroy(twin));
    unsigned bits = 1u << rank, all;
    GOOD(rcclAllReduce(&bits, &all, 1, rcclUint32, rcclBitOr, comm, NULL));
    CHECK(all == (1u << size) - 1);
    free(x);
    free(y);
}

static void movements(void) {
    size_t n = (size_t)size;
    float *x = floats(COUNT * n), *y = floats(COUNT * n);
    fill(x, COUNT, (float)rank);
    GOOD(rcclBroadcast(x, y, COUNT, rcclFloat, size - 1, comm, NULL));
    all_are(y, COUNT, (float)(size - 1));
    GOOD(rcclBcast(x, COUNT, rcclFloat, 0, comm, NULL));
    all_are(x, COUNT, 0);
    fill(x, COUNT, (float)rank);
    GOOD(rcclAllGather(x, y, COUNT, rcclFloat, comm, NULL));
    for (int i = 0; i < size; i++) all_are(y + COUNT * i, COUNT, (float)i);
    fill(y, COUNT * n, -1);
    GOOD(rcclGather(x, y, COUNT, rcclFloat, 1, comm, NULL));
    for (int i = 0; i < size; i++) all_are(y + COUNT * i, COUNT, rank == 1 ? (float)i : -1);
    for (int i = 0; i < size; i++) fill(x + COUNT * i, COUNT, (float)(10 * rank + i));
    GOOD(rcclScatter(x, y, COUNT, rcclFloat, 1, comm, NULL));
    all_are(y, COUNT, (float)(10 + rank));
    GOOD(rcclAlltoAll(x, y, COUNT, rcclFloat, comm, NULL));
    for (int i = 0; i < size; i++) all_are(y + COUNT * i, COUNT, (float)(10 * i + rank));
    GOOD(rcclBarrier(comm, NULL));
    free(x);
    free(y);
}

/* Rank r has r + 1 elements, or a block of so many for rank r. */
static void with_counts(void) {
    size_t *counts = (size_t *)malloc((size_t)size * sizeof *counts), *same = (size_t *)malloc((size_t)size * sizeof *same);
    size_t all = 0;
    CHECK(counts && same);
    for (int i = 0; i < size; i++) {
        counts[i] = (size_t)i + 1;
        same[i] = (size_t)rank + 1;
        all += counts[i];
    }
    size_t own = counts[rank];
    float *x = floats(all * (size_t)size), *y = floats(all * (size_t)size), *at;
    fill(x, all, (float)rank);
    GOOD(rcclAllGatherV(x, y, counts, rcclFloat, comm, NULL));
    at = y;
    for (int i = 0; i < size; at += counts[i++]) all_are(at, counts[i], (float)i);
    fill(x, all, (float)rank + 1);
    GOOD(rcclReduceScatterV(x, y, counts, rcclFloat, rcclSum, comm, NULL));
    all_are(y, own, sum_of_ranks());
    fill(x, all, (float)rank);
    GOOD(rcclGatherV(x, own, y, rank == 0 ? counts : NULL, rcclFloat, 0, comm, NULL));
    at = y;
    for (int i = 0; rank == 0 && i < size; at += counts[i++]) all_are(at, counts[i], (float)i);
    at = x;
    for (int i = 0; i < size; at += counts[i++]) fill(at, counts[i], (float)i);
    GOOD(rcclScatterV(x, rank == 0 ? counts : NULL, y, own, rcclFloat, 0, comm, NULL));
    all_are(y, own, (float)rank);
    /* To each rank as many as its number says, so from each as many as the own number says. */
    at = x;
    for (int i = 0; i < size; at += counts[i++]) fill(at, counts[i], (float)(100 * rank + i));
    GOOD(rcclAlltoAllV(x, counts, y, same, rcclFloat, comm, NULL));
    for (int i = 0; i < size; i++) all_are(y + same[0] * (size_t)i, same[0], (float)(100 * i + rank));
    REFUSED(rcclAlltoAllV(x, same, y, NULL, rcclFloat, comm, NULL), rcclInvalidArgument, "recvcounts");
    /* More than any memory has: in one block, in elements of all, in bytes of all. Nothing is sent. */
    const size_t beyond[] = {(size_t)-1, (size_t)-1 / 2, (size_t)-1 / 8};
    for (size_t i = 0; size > 1 && i < sizeof beyond / sizeof beyond[0]; i++) {
        for (int j = 0; j < size; j++) counts[j] = beyond[i];
        REFUSED(rcclAllGatherV(x, y, counts, rcclFloat, comm, NULL), rcclInvalidArgument, "memory");
        REFUSED(rcclReduceScatterV(x, y, counts, rcclFloat, rcclSum, comm, NULL), rcclInvalidArgument, "memory");
        REFUSED(rcclAlltoAllV(x, counts, y, counts, rcclFloat, comm, NULL), rcclInvalidArgument, "memory");
        REFUSED(rcclGatherV(x, beyond[i], y, counts, rcclFloat, rank, comm, NULL), rcclInvalidArgument, "memory");
        REFUSED(rcclScatterV(x, counts, y, beyond[i], rcclFloat, rank, comm, NULL), rcclInvalidArgument, "memory");
    }
    free(x);
    free(y);
    free(counts);
    free(same);
}

static void messages_and_groups(void) {
    float *mine = floats(COUNT), *theirs = floats(COUNT), *sum = floats(COUNT);
    int next = (rank + 1) % size, last = (rank + size - 1) % size;
    fill(mine, COUNT, (float)rank);
    fill(sum, COUNT, 1);
    GOOD(rcclGroupStart());
    GOOD(rcclSend(mine, COUNT, rcclFloat, next, comm, NULL));
    GOOD(rcclRecv(theirs, COUNT, rcclFloat, last, comm, NULL));
    GOOD(rcclGroupStart());
    GOOD(rcclAllReduce(sum, sum, COUNT, rcclFloat, rcclSum, comm, NULL));
    GOOD(rcclGroupEnd());
    GOOD(rcclGroupEnd());
    all_are(theirs, COUNT, (float)last);
    all_are(sum, COUNT, (float)size);
    /* To itself, in a group only. */
    GOOD(rcclGroupStart());
    GOOD(rcclSend(mine, COUNT, rcclFloat, rank, comm, NULL));
    GOOD(rcclRecv(theirs, COUNT, rcclFloat, rank, comm, NULL));
    GOOD(rcclGroupEnd());
    all_are(theirs, COUNT, (float)rank);
    REFUSED(rcclSend(mine, COUNT, rcclFloat, rank, comm, NULL), rcclInvalidArgument, "itself");
    REFUSED(rcclGroupEnd(), rcclInvalidUsage, "without rcclGroupStart");
    /* What is wrong with one call is told at once, and keeps all of the group from being made. */
    GOOD(rcclGroupStart());
    GOOD(rcclSend(mine, COUNT, rcclFloat, next, comm, NULL));
    REFUSED(rcclRecv(theirs, COUNT, rcclFloat, size, comm, NULL), rcclInvalidArgument, "ranks");
    REFUSED(rcclGroupEnd(), rcclInvalidArgument, "nothing of the group was done");
    /* Nor if a communicator was refused: nobody waits for those that were not. */
    rcclUniqueId id;
    rcclComm_t pair[2];
    GOOD(rcclGetUniqueId(&id));
    GOOD(rcclGroupStart());
    GOOD(rcclCommInitRank(&pair[0], 2, id, 0));
    REFUSED(rcclCommInitRank(&pair[1], 2, id, 2), rcclInvalidArgument, "rank 2 of 2");
    REFUSED(rcclGroupEnd(), rcclInvalidArgument, "nothing of the group was done");
    CHECK(pair[0] == NULL && pair[1] == NULL);
    GOOD(rcclGroupStart());
    GOOD(rcclRecv(theirs, COUNT, rcclFloat, (rank + 1) % size, comm, NULL));
    GOOD(rcclCommSplit(comm, 0, 0, &pair[0], NULL));
    REFUSED(rcclCommSplit(comm, 0, 0, &pair[1], NULL), rcclInvalidUsage, "a second time");
    REFUSED(rcclGroupEnd(), rcclInvalidUsage, "nothing of the group was done");
    CHECK(pair[0] == NULL && pair[1] == NULL);
    int none = -1;
    GOOD(rcclGroupStart());
    GOOD(rcclSend(mine, COUNT, rcclFloat, next, comm, NULL));
    REFUSED(rcclCommShrink(comm, &none, 1, &pair[0], NULL, RCCL_SHRINK_DEFAULT), rcclInvalidArgument, "below 0");
    REFUSED(rcclGroupEnd(), rcclInvalidArgument, "nothing of the group was done");
    /* Interfaces over this one refuse in the same way: what is part of the group, and what is not. */
    REFUSED(rcclRefuse(rcclTimeout, "late", 1), rcclTimeout, "late");
    fill(sum, COUNT, 1);
    GOOD(rcclGroupStart());
    GOOD(rcclAllReduce(sum, sum, COUNT, rcclFloat, rcclSum, comm, NULL));
    REFUSED(rcclRefuse(rcclInvalidUsage, "no such question", 0), rcclInvalidUsage, "no such question");
    GOOD(rcclGroupEnd());
    all_are(sum, COUNT, (float)size);
    GOOD(rcclGroupStart());
    GOOD(rcclAllReduce(sum, sum, COUNT, rcclFloat, rcclSum, comm, NULL));
    REFUSED(rcclRefuse(rcclInvalidUsage, "no such call", 1), rcclInvalidUsage, "no such call");
    REFUSED(rcclRefuse(rcclTimeout, "a later one", 1), rcclTimeout, "a later one");
    REFUSED(rcclGroupEnd(), rcclInvalidUsage, "nothing of the group was done: no such call");
    all_are(sum, COUNT, (float)size);
    REFUSED(rcclRefuse(rcclSuccess, "why", 0), rcclInvalidArgument, "result 0 is no failure, with which is refused: why");
    REFUSED(rcclRefuse(rcclInvalidUsage, NULL, 0), rcclInvalidArgument, "NULL");
    /* A split of a group is there at its end. */
    int members;
    GOOD(rcclGroupStart());
    GOOD(rcclCommSplit(comm, rank == 0 ? RCCL_SPLIT_NOCOLOR : 7, -rank, &pair[0], NULL));
    CHECK(pair[0] == NULL);
    GOOD(rcclGroupEnd());
    if (rank == 0) {
        CHECK(pair[0] == NULL);
    } else {
        GOOD(rcclCommCount(pair[0], &members));
        CHECK(members == size - 1);
        GOOD(rcclCommUserRank(pair[0], &members));
        CHECK(members == size - 1 - rank);
        GOOD(rcclCommDestroy(pair[0]));
    }
    free(mine);
    free(theirs);
    free(sum);
}

/* What a callback was told. */
static struct {
    volatile int times;
    rcclResult_t result;
    char words[512];
} told;

static void tell(rcclStream_t stream, rcclResult_t result, const char *words, void *argument) {
    (void)stream;
    told.result = result;
    strncpy(told.words, words, sizeof told.words - 1);
    *(volatile int *)argument += 1;
}

static void end_group(rcclStream_t stream, rcclResult_t result, const char *words, void *argument) {
    (void)stream, (void)result, (void)words;
    *(rcclResult_t *)argument = rcclGroupEnd();
}

/* A call whose deadline is over before the other ranks make it breaks its communicator on all of them. */
static void deadlines_and_callbacks(void) {
    rcclComm_t part;
    rcclStream_t stream;
    rcclResult_t seen;
    GOOD(rcclCommSplit(comm, 0, rank, &part, NULL));
    GOOD(rcclStreamCreate(&stream));
    GOOD(rcclBarrier(part, stream));
    GOOD(rcclStreamAddCallback(stream, tell, (void *)&told.times));
    while ((seen = rcclStreamSynchronizeTimeout(stream, 10)) == rcclInProgress) {
    }
    GOOD(seen);
    while (told.times != 1) {
    }
    GOOD(told.result);
    /* With nothing under way it is called before the function returns. */
    GOOD(rcclStreamAddCallback(stream, tell, (void *)&told.times));
    CHECK(told.times == 2);
    /* What it does is no part of a group that is open where it is called. */
    rcclResult_t outside = rcclSuccess;
    GOOD(rcclGroupStart());
    GOOD(rcclStreamAddCallback(stream, end_group, &outside));
    CHECK(outside == rcclInvalidUsage);
    GOOD(rcclGroupEnd());
    if (size > 1 && rank == 0) {
        GOOD(rcclStreamSetTimeout(stream, 500)); /* a busy machine may keep this thread from the next line */
        GOOD(rcclBarrier(part, stream));
        CHECK(rcclStreamSynchronizeTimeout(stream, 0) == rcclInProgress);
        GOOD(rcclStreamAddCallback(stream, tell, (void *)&told.times));
        CHECK(rcclStreamSynchronize(stream) == rcclTimeout);
        while (told.times != 3) {
        }
        CHECK(told.result == rcclTimeout && strstr(told.words, "timed out after") != NULL);
    }
    GOOD(rcclStreamSetTimeout(stream, RCCL_CONFIG_UNDEF_INT));
    float x = 1;
    GOOD(rcclStreamSetBackground(stream, 0));
    GOOD(rcclAllReduce(&x, &x, 1, rcclFloat, rcclSum, comm, stream));
    GOOD(rcclStreamSynchronize(stream));
    CHECK(x == (float)size);
    GOOD(rcclAllReduce(&x, &x, 1, rcclFloat, rcclSum, comm, stream));
    GOOD(rcclStreamSetBackground(stream, 1));
    while ((seen = rcclStreamQuery(stream)) == rcclInProgress) {
    }
    GOOD(seen);
    CHECK(x == (float)(size * size));
    REFUSED(rcclStreamSetTimeout(stream, -1), rcclInvalidArgument, "milliseconds");
    REFUSED(rcclStreamSynchronizeTimeout(stream, -1), rcclInvalidArgument, "milliseconds");
    REFUSED(rcclStreamAddCallback(stream, NULL, NULL), rcclInvalidArgument, "NULL");
    GOOD(rcclBarrier(comm, NULL));
    GOOD(rcclStreamDestroy(stream));
    GOOD(rcclCommDestroy(part));
}

static void streams(void) {
    rcclStream_t one, two;
    GOOD(rcclStreamCreate(&one));
    GOOD(rcclStreamCreate(&two));
    float *x = floats(COUNT), *y = floats(COUNT), *z = floats(COUNT);
    fill(x, COUNT, 1);
    GOOD(rcclAllReduce(x, y, COUNT, rcclFloat, rcclSum, comm, one));
    GOOD(rcclStreamWait(two, one));
    GOOD(rcclAllReduce(y, z, COUNT, rcclFloat, rcclSum, comm, two));
    GOOD(rcclStreamSynchronize(two));
    GOOD(rcclStreamQuery(two));
    GOOD(rcclStreamQuery(one));
    all_are(y, COUNT, (float)size);
    all_are(z, COUNT, (float)(size * size));
    GOOD(rcclGroupStart());
    GOOD(rcclBroadcast(x, y, COUNT, rcclFloat, 0, comm, one));
    GOOD(rcclBroadcast(z, x, COUNT, rcclFloat, 0, comm, one));
    REFUSED(rcclStreamSynchronize(one), rcclInvalidUsage, "in a group");
    GOOD(rcclGroupEnd());
    GOOD(rcclStreamSynchronize(one));
    all_are(x, COUNT, (float)(size * size));
    GOOD(rcclStreamDestroy(one));
    GOOD(rcclStreamDestroy(two));
    REFUSED(rcclStreamSynchronize(one), rcclInvalidArgument, "rcclStreamCreate");
    REFUSED(rcclBarrier(comm, two), rcclInvalidArgument, "rcclStreamCreate");
    free(x);
    free(y);
    free(z);
}

static void memory(void) {
    float *x;
    GOOD(rcclMemAlloc((void **)&x, COUNT * sizeof *x));
    all_are(x, COUNT, 0);
    fill(x, COUNT, 2);
    GOOD(rcclAllReduce(x, x, COUNT, rcclFloat, rcclSum, comm, NULL));
    all_are(x, COUNT, (float)(2 * size));
    GOOD(rcclMemFree(x));
    REFUSED(rcclMemFree(x), rcclInvalidArgument, "rcclMemAlloc");
    GOOD(rcclMemFree(NULL));
    x = floats(COUNT);
    void *registration;
    GOOD(rcclCommRegister(comm, x, COUNT * sizeof *x, &registration));
    fill(x, COUNT, 3);
    GOOD(rcclAllReduce(x, x, COUNT, rcclFloat, rcclSum, comm, NULL));
    all_are(x, COUNT, (float)(3 * size));
    rcclComm_t twin;
    GOOD(rcclCommSplit(comm, 0, rank, &twin, NULL));
    REFUSED(rcclCommDeregister(twin, registration), rcclInvalidArgument, "made with another communicator");
    void *left;
    GOOD(rcclCommRegister(twin, x, COUNT * sizeof *x, &left));
    GOOD(rcclCommDestroy(twin));
    REFUSED(rcclCommDeregister(comm, left), rcclInvalidArgument, "no registration has this handle");
    GOOD(rcclCommDeregister(comm, registration));
    REFUSED(rcclCommDeregister(comm, registration), rcclInvalidArgument, "no registration has this handle");
    free(x);
}

static void one_sided(void) {
    int next = (rank + 1) % size, last = (rank + size - 1) % size;
    /* A place for each rank, and one more on rank 0. */
    size_t places = (size_t)size + (rank == 0 ? 1 : 0);
    float *x = floats(COUNT), *mine = floats(places * COUNT);
    void *seen;
    rcclWindow_t window;
    rcclWaitSignalDesc_t one = {1, last, 0, 0}, both[2] = {{1, 0, 0, 0}, {2, 0, 0, 0}};
    GOOD(rcclCommWindowRegister(comm, mine, places * COUNT * sizeof(float), &window, RCCL_WIN_DEFAULT));
    GOOD(rcclWinGetUserPtr(comm, window, &seen));
    CHECK(seen == mine);
    fill(x, COUNT, (float)rank);
    GOOD(rcclPutSignal(x, COUNT, rcclFloat, next, window, COUNT * sizeof(float) * (size_t)rank, 0, 0, 0, comm, NULL));
    GOOD(rcclWaitSignal(1, &one, comm, NULL));
    all_are(mine + COUNT * last, COUNT, (float)last);
    GOOD(rcclBarrier(comm, NULL));
    /* Everybody to everybody, itself among them, in a group and on a stream. */
    rcclStream_t streams[2] = {NULL, NULL};
    GOOD(rcclStreamCreate(&streams[1]));
    for (int turn = 0; turn < 2; turn++) {
        fill(x, COUNT, (float)(100 * turn + rank));
        GOOD(rcclGroupStart());
        for (int peer = 0; peer < size; peer++) {
            rcclWaitSignalDesc_t from = {2, peer, 0, 0};
            size_t place = COUNT * sizeof(float) * (size_t)rank;
            GOOD(rcclWaitSignal(1, &from, comm, streams[turn]));
            GOOD(rcclPutSignal(x, COUNT, rcclFloat, peer, window, place, 0, 0, 0, comm, streams[turn]));
            GOOD(rcclSignal(peer, 0, 0, 0, comm, streams[turn]));
        }
        GOOD(rcclGroupEnd());
        if (streams[turn]) GOOD(rcclStreamSynchronize(streams[turn]));
        for (int peer = 0; peer < size; peer++) all_are(mine + COUNT * peer, COUNT, (float)(100 * turn + peer));
        GOOD(rcclBarrier(comm, NULL));
    }
    GOOD(rcclStreamDestroy(streams[1]));
    GOOD(rcclSignal(rank, 0, 0, 0, comm, NULL));
    both[0].peer = both[1].peer = rank;
    both[1].opCnt = 0;
    GOOD(rcclWaitSignal(2, both, comm, NULL));
    REFUSED(rcclPutSignal(x, 1, rcclFloat, size, window, 0, 0, 0, 0, comm, NULL), rcclInvalidArgument, "ranks");
    REFUSED(rcclPutSignal(x, 1, rcclFloat, -1, window, 0, 0, 0, 0, comm, NULL), rcclInvalidArgument, "below 0");
    REFUSED(rcclPutSignal(x, 1, rcclFloat, 0, NULL, 0, 0, 0, 0, comm, NULL), rcclInvalidArgument, "no such window");
    REFUSED(rcclPutSignal(NULL, 1, rcclFloat, 0, window, 0, 0, 0, 0, comm, NULL), rcclInvalidArgument, "null");
    REFUSED(rcclPutSignal(x, 1, (rcclDataType_t)77, 0, window, 0, 0, 0, 0, comm, NULL), rcclInvalidArgument, "data type 77");
    REFUSED(rcclPutSignal(x, (size_t)-1, rcclFloat, 0, window, 0, 0, 0, 0, comm, NULL), rcclInvalidArgument, "elements");
    REFUSED(rcclPutSignal(x, 1, rcclFloat, rank, window, places * COUNT * 4, 0, 0, 0, comm, NULL), rcclInvalidArgument,
            "bytes");
    REFUSED(rcclSignal(0, 1, 0, 0, comm, NULL), rcclInvalidArgument, "signal 1, context 0");
    REFUSED(rcclSignal(0, 0, 0, 4, comm, NULL), rcclInvalidArgument, "flags 4");
    both[0].opCnt = -1;
    REFUSED(rcclWaitSignal(1, both, comm, NULL), rcclInvalidArgument, "-1 signals");
    REFUSED(rcclWaitSignal(1, NULL, comm, NULL), rcclInvalidArgument, "signalDescs");
    REFUSED(rcclWaitSignal(-1, both, comm, NULL), rcclInvalidArgument, "-1 entries");
    REFUSED(rcclCommWindowRegister(comm, NULL, 1, &window, 0), rcclInvalidArgument, "no memory");
    REFUSED(rcclCommWindowRegister(comm, mine, 1, &window, 64), rcclInvalidArgument, "flags 64");
    /* A refused call keeps all of its group from being made: nobody gets this signal. */
    GOOD(rcclGroupStart());
    GOOD(rcclSignal(next, 0, 0, 0, comm, NULL));
    REFUSED(rcclSignal(next, 0, 3, 0, comm, NULL), rcclInvalidArgument, "context 3");
    REFUSED(rcclGroupEnd(), rcclInvalidArgument, "nothing of the group was done");
    GOOD(rcclBarrier(comm, NULL));
    GOOD(rcclCommWindowDeregister(comm, window));
    GOOD(rcclCommWindowDeregister(comm, NULL));
    REFUSED(rcclCommWindowDeregister(comm, window), rcclInvalidArgument, "no such window");
    REFUSED(rcclWinGetUserPtr(comm, window, &seen), rcclInvalidArgument, "no such window");
    /* What does not fit is found out where it comes, and breaks the communicator everywhere. */
    rcclComm_t part;
    GOOD(rcclCommSplit(comm, 0, rank, &part, NULL));
    GOOD(rcclCommWindowRegister(part, mine, rank == 1 ? 4 : 8, &window, 0));
    REFUSED(rcclSignal(0, 0, 0, 0, NULL, NULL), rcclInvalidArgument, "NULL");
    if (rank == 0) GOOD(rcclPutSignal(x, 2, rcclFloat, 1, window, 0, 0, 0, 0, part, NULL));
    one.peer = 0;
    REFUSED(rank == 1 ? rcclWaitSignal(1, &one, part, NULL) : rcclBarrier(part, NULL), rcclRemoteError,
            "rank 0 put 8 bytes at offset 0 of window 0, which has 4 bytes on rank 1");
    GOOD(rcclCommWindowDeregister(part, window));
    GOOD(rcclCommDestroy(part));
    free(x);
    free(mine);
}

static void communicators(void) {
    rcclComm_t half, rest;
    int of, parts = size / 2;
    GOOD(rcclCommSplit(comm, rank % 2, -rank, &half, NULL));
    GOOD(rcclCommUserRank(half, &of));
    CHECK(of == (rank % 2 ? parts : size - parts) - 1 - rank / 2);
    GOOD(rcclBarrier(half, NULL));
    GOOD(rcclCommDestroy(half));
    REFUSED(rcclBarrier(half, NULL), rcclInvalidArgument, "destroyed");
    REFUSED(rcclCommDestroy(half), rcclInvalidArgument, "destroyed");
    GOOD(rcclCommSplit(comm, rank ? RCCL_SPLIT_NOCOLOR : 0, 0, &half, NULL));
    CHECK(rank ? half == NULL : half != NULL);
    if (half) GOOD(rcclCommDestroy(half));
    GOOD(rcclCommShrink(comm, NULL, 0, &rest, NULL, RCCL_SHRINK_DEFAULT));
    GOOD(rcclBarrier(rest, NULL));
    GOOD(rcclCommDestroy(rest));
    int last = size - 1;
    if (rank != last) {
        GOOD(rcclCommShrink(comm, &last, 1, &rest, NULL, RCCL_SHRINK_DEFAULT));
        GOOD(rcclCommCount(rest, &of));
        CHECK(of == size - 1);
        GOOD(rcclBarrier(rest, NULL));
        GOOD(rcclCommFinalize(rest));
        REFUSED(rcclCommFinalize(rest), rcclInvalidUsage, "finalized before");
        GOOD(rcclCommDestroy(rest));
    } else {
        REFUSED(rcclCommShrink(comm, &last, 1, &rest, NULL, RCCL_SHRINK_DEFAULT), rcclInvalidArgument, "member");
    }
    /* An id of rank 0's, which the others get by a broadcast. */
    rcclUniqueId id;
    if (rank == 0) GOOD(rcclGetUniqueId(&id));
    GOOD(rcclBcast(&id, sizeof id, rcclChar, 0, comm, NULL));
    rcclComm_t again;
    GOOD(rcclCommInitRank(&again, size, id, rank));
    rcclResult_t state;
    GOOD(rcclCommGetAsyncError(again, &state));
    CHECK(state == rcclSuccess);
    GOOD(rcclBarrier(again, NULL));
    GOOD(rcclCommDestroy(again));
    /* One that does not block. */
    rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = "patient";
    if (rank == 0) GOOD(rcclGetUniqueId(&id));
    GOOD(rcclBcast(&id, sizeof id, rcclChar, 0, comm, NULL));
    CHECK(rcclCommInitRankConfig(&again, size, id, rank, &config) == rcclInProgress);
    do GOOD(rcclCommGetAsyncError(again, &state));
    while (state == rcclInProgress);
    CHECK(state == rcclSuccess);
    GOOD(rcclBarrier(again, NULL));
    /* One rank gives up, when all have left that barrier; all hear of it. */
    GOOD(rcclBarrier(comm, NULL));
    if (rank == 0) {
        GOOD(rcclCommAbort(again));
    } else {
        rcclResult_t result = rcclBarrier(again, NULL);
        CHECK(result == rcclRemoteError && strstr(rcclGetLastError(again), "rcclCommAbort was called"));
        GOOD(rcclCommGetAsyncError(again, &state));
        CHECK(state == rcclRemoteError);
        GOOD(rcclCommDestroy(again));
    }
    /* What one rank revokes fails everywhere, and can be shrunk. */
    rcclComm_t copy;
    GOOD(rcclCommSplit(comm, 0, rank, &copy, NULL));
    if (rank == last) {
        GOOD(rcclCommRevokeBecause(copy, "the loss is no number"));
        GOOD(rcclCommRevoke(copy));
    } else {
        while (rcclBarrier(copy, NULL) == rcclSuccess) continue;
        CHECK(strstr(rcclGetLastError(copy), "the loss is no number"));
        GOOD(rcclCommShrink(copy, &last, 1, &rest, NULL, RCCL_SHRINK_ABORT));
        GOOD(rcclBarrier(rest, NULL));
        GOOD(rcclCommDestroy(rest));
    }
    GOOD(rcclCommDestroy(copy));
    REFUSED(rcclCommInitRank(&again, size, id, size), rcclInvalidArgument, "ranks");
    memset(&id, 0x5a, sizeof id);
    CHECK(rcclCommInitRank(&again, size, id, rank) != rcclSuccess && again == NULL);
}

/* What groups would take, without their being made: nobody else need ask. */
static void estimates(void) {
    static float x[1 << 16];
    rcclSimInfo_t brief = RCCL_SIM_INFO_INITIALIZER, lengthy = brief, wrong = brief;
    if (rank) return;
    GOOD(rcclGroupStart());
    GOOD(rcclAllReduce(x, x, 1, rcclFloat, rcclSum, comm, NULL));
    GOOD(rcclGroupStart());
    GOOD(rcclGroupSimulateEnd(&brief));
    CHECK(brief.estimatedTime < 0); /* an inner group says nothing */
    GOOD(rcclGroupSimulateEnd(&brief));
    GOOD(rcclGroupStart());
    GOOD(rcclAllReduce(x, x, 1 << 16, rcclFloat, rcclSum, comm, NULL));
    GOOD(rcclSend(x, 1 << 16, rcclFloat, 1, comm, NULL));
    GOOD(rcclGroupSimulateEnd(&lengthy));
    CHECK(brief.estimatedTime > 0 && lengthy.estimatedTime > brief.estimatedTime);
    GOOD(rcclGroupStart());
    GOOD(rcclGatherV(x, 1, NULL, NULL, rcclFloat, 1, comm, NULL));
    REFUSED(rcclGroupSimulateEnd(&brief), rcclInvalidUsage, "not known");
    GOOD(rcclGroupStart());
    GOOD(rcclSignal(1, 0, 0, 0, comm, NULL));
    REFUSED(rcclGroupSimulateEnd(&brief), rcclInvalidUsage, "one-sided");
    GOOD(rcclGroupStart());
    wrong.magic = 0;
    REFUSED(rcclGroupSimulateEnd(&wrong), rcclInvalidArgument, "RCCL_SIM_INFO_INITIALIZER");
    REFUSED(rcclGroupSimulateEnd(&brief), rcclInvalidUsage, "without rcclGroupStart");
}

/* One rank more, which is the first process's second. */
static void growth(void) {
    rcclUniqueId id;
    rcclComm_t grown, newcomer = NULL;
    int of, number;
    if (rank == 0) GOOD(rcclCommGetUniqueId(comm, &id));
    GOOD(rcclGroupStart());
    GOOD(rcclCommGrow(comm, size + 1, rank == 0 ? &id : NULL, -1, &grown, NULL));
    if (rank == 0) GOOD(rcclCommGrow(NULL, size + 1, &id, size, &newcomer, NULL));
    GOOD(rcclGroupEnd());
    GOOD(rcclCommCount(grown, &of));
    GOOD(rcclCommUserRank(grown, &number));
    CHECK(of == size + 1 && number == rank);
    float x[2] = {1, 1};
    GOOD(rcclGroupStart());
    GOOD(rcclAllReduce(&x[0], &x[0], 1, rcclFloat, rcclSum, grown, NULL));
    if (newcomer) GOOD(rcclAllReduce(&x[1], &x[1], 1, rcclFloat, rcclSum, newcomer, NULL));
    GOOD(rcclGroupEnd());
    CHECK(x[0] == (float)(size + 1) && (rank || x[1] == (float)(size + 1)));
    GOOD(rcclCommDestroy(grown));
    if (newcomer) GOOD(rcclCommDestroy(newcomer));

    /* What does not block has agreed when it returns: other calls come after it. */
    rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (rank == 0) GOOD(rcclCommGetUniqueId(comm, &id));
    CHECK(rcclCommGrow(comm, size + 1, rank == 0 ? &id : NULL, -1, &grown, &config) == rcclInProgress);
    GOOD(rcclBarrier(comm, NULL));
    if (rank == 0) GOOD(rcclCommGrow(NULL, size + 1, &id, size, &newcomer, NULL));
    rcclResult_t state = rcclInProgress;
    for (time_t end = time(NULL) + 60; state == rcclInProgress && time(NULL) < end;)
        GOOD(rcclCommGetAsyncError(grown, &state));
    CHECK(state == rcclSuccess);
    GOOD(rcclCommDestroy(grown));
    if (rank == 0) GOOD(rcclCommDestroy(newcomer));

    REFUSED(rcclCommGetUniqueId(comm, NULL), rcclInvalidArgument, "id");
    REFUSED(rcclCommGrow(comm, size + 1, NULL, -1, NULL, NULL), rcclInvalidArgument, "newcomm");
    REFUSED(rcclCommGrow(comm, size + 1, NULL, rank, &grown, NULL), rcclInvalidArgument, "keep theirs");
    REFUSED(rcclCommGrow(comm, -1, NULL, -1, &grown, NULL), rcclInvalidArgument, "-1 ranks");
    REFUSED(rcclCommGrow(NULL, size + 1, NULL, size, &grown, NULL), rcclInvalidArgument, "id is NULL");
    REFUSED(rcclCommGrow(comm, size + 1, NULL, -1, &grown, NULL), rcclInvalidArgument, "no rank passes an id");
    CHECK(grown == NULL);
    GOOD(rcclBarrier(comm, NULL));
}

/* Several ranks in this process, from one thread. */
static void in_one_process(void) {
    rcclComm_t all[3];
    GOOD(rcclCommInitAll(all, 3, NULL));
    float x[3] = {1, 2, 4};
    GOOD(rcclGroupStart());
    for (int i = 0; i < 3; i++) GOOD(rcclAllReduce(&x[i], &x[i], 1, rcclFloat, rcclSum, all[i], NULL));
    GOOD(rcclGroupEnd());
    all_are(x, 3, 7);
    for (int i = 0; i < 3; i++) GOOD(rcclCommDestroy(all[i]));
    rcclUniqueId id;
    GOOD(rcclGetUniqueId(&id));
    GOOD(rcclGroupStart());
    for (int i = 0; i < 2; i++) GOOD(rcclCommInitRank(&all[i], 2, id, i));
    GOOD(rcclGroupEnd());
    for (int i = 0; i < 2; i++) GOOD(rcclCommDestroy(all[i]));
    /* What could be joined in a group is there, where another rank of what could not never comes. */
    rcclUniqueId lonely;
    rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
    config.initTimeoutMs = 300;
    GOOD(rcclGetUniqueId(&id));
    GOOD(rcclGetUniqueId(&lonely));
    GOOD(rcclGroupStart());
    GOOD(rcclCommInitRank(&all[0], 2, id, 0));
    GOOD(rcclCommInitRankConfig(&all[1], 2, lonely, 0, &config));
    GOOD(rcclCommInitRank(&all[2], 2, id, 1));
    REFUSED(rcclGroupEnd(), rcclRemoteError, "1 of 2 ranks arrived");
    CHECK(all[0] != NULL && all[1] == NULL && all[2] != NULL);
    GOOD(rcclCommDestroy(all[0]));
    GOOD(rcclCommDestroy(all[2]));
}

/* What a program that is compiled already has, on machines of 64 bits. */
static void layouts(void) {
    CHECK(sizeof(rcclUniqueId) == 128 && sizeof(rcclResult_t) == 4 && sizeof(rcclDataType_t) == 4);
    CHECK(offsetof(rcclConfig_t, magic) == 8 && offsetof(rcclConfig_t, version) == 12);
    CHECK(offsetof(rcclConfig_t, blocking) == 16 && offsetof(rcclConfig_t, timeoutMs) == 20);
    CHECK(offsetof(rcclConfig_t, initTimeoutMs) == 24 && offsetof(rcclConfig_t, reproducible) == 28);
    CHECK(offsetof(rcclConfig_t, commName) == 32 && sizeof(rcclConfig_t) == 40);
    CHECK(offsetof(rcclWaitSignalDesc_t, peer) == 4 && offsetof(rcclWaitSignalDesc_t, sigIdx) == 8);
    CHECK(offsetof(rcclWaitSignalDesc_t, ctx) == 12 && sizeof(rcclWaitSignalDesc_t) == 16);
    CHECK(offsetof(rcclSimInfo_t, estimatedTime) == 16 && sizeof(rcclSimInfo_t) == 24);
}

static void nonsense(void) {
    float x[4] = {0};
    int number;
    rcclComm_t none;
    rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
    REFUSED(rcclBarrier(NULL, NULL), rcclInvalidArgument, "NULL");
    REFUSED(rcclBarrier((rcclComm_t)x, NULL), rcclInvalidArgument, "no communicator has this handle");
    REFUSED(rcclBarrier(comm, (rcclStream_t)comm), rcclInvalidArgument, "rcclStreamCreate");
    REFUSED(rcclCommCount(comm, NULL), rcclInvalidArgument, "count");
    REFUSED(rcclAllReduce(NULL, x, 4, rcclFloat, rcclSum, comm, NULL), rcclInvalidArgument, "null");
    REFUSED(rcclAllReduce(x, x + 1, 2, rcclFloat, rcclSum, comm, NULL), rcclInvalidArgument, "overlap");
    REFUSED(rcclAllReduce(x, x, 4, (rcclDataType_t)77, rcclSum, comm, NULL), rcclInvalidArgument, "data type 77");
    REFUSED(rcclAllReduce(x, x, 4, rcclFloat, (rcclRedOp_t)-1, comm, NULL), rcclInvalidArgument, "operator -1");
    REFUSED(rcclAllReduce(x, x, 4, rcclFloat, rcclBitXor, comm, NULL), rcclInvalidArgument, "integers");
    REFUSED(rcclAllReduce(x, x, (size_t)-1, rcclFloat, rcclSum, comm, NULL), rcclInvalidArgument, "elements");
    REFUSED(rcclAllGather(x, x, (size_t)-1 / 8, rcclFloat, comm, NULL), rcclInvalidArgument, "");
    rcclRedOp_t op;
    REFUSED(rcclRedOpCreatePreMulSum(&op, x, rcclFloat, (rcclScalarResidence_t)9, comm), rcclInvalidArgument, "9");
    REFUSED(rcclCommShrink(comm, NULL, 0, &none, NULL, 7), rcclInvalidArgument, "flags 7");
    REFUSED(rcclCommSplit(comm, -2, 0, &none, NULL), rcclInvalidArgument, "colour -2");
    REFUSED(rcclBcast(x, 4, rcclFloat, -1, comm, NULL), rcclInvalidArgument, "below 0");
    REFUSED(rcclBcast(x, 4, rcclFloat, size, comm, NULL), rcclInvalidArgument, "root");
    REFUSED(rcclMemAlloc(NULL, 1), rcclInvalidArgument, "ptr");
    REFUSED(rcclMemFree(x), rcclInvalidArgument, "rcclMemAlloc");
    REFUSED(rcclStreamCreate(NULL), rcclInvalidArgument, "stream");
    /* Nowhere to write to, or nothing to read. */
    rcclUniqueId id;
    rcclResult_t state;
    rcclStream_t stream;
    void *place;
    GOOD(rcclGetUniqueId(&id));
    GOOD(rcclStreamCreate(&stream));
    REFUSED(rcclGetVersion(NULL), rcclInvalidArgument, "version");
    REFUSED(rcclGetUniqueId(NULL), rcclInvalidArgument, "id");
    REFUSED(rcclCommGetUniqueId(comm, NULL), rcclInvalidArgument, "id");
    REFUSED(rcclCommInitRank(NULL, 2, id, 0), rcclInvalidArgument, "comm");
    REFUSED(rcclCommInitRankConfig(NULL, 2, id, 0, NULL), rcclInvalidArgument, "comm");
    REFUSED(rcclCommInitEnv(NULL, NULL), rcclInvalidArgument, "comm");
    REFUSED(rcclCommInitAll(NULL, 2, NULL), rcclInvalidArgument, "comms");
    REFUSED(rcclCommInitAll(&none, 0, NULL), rcclInvalidArgument, "0 devices");
    REFUSED(rcclCommSplit(comm, 0, 0, NULL, NULL), rcclInvalidArgument, "newcomm");
    REFUSED(rcclCommShrink(comm, NULL, 0, NULL, NULL, RCCL_SHRINK_DEFAULT), rcclInvalidArgument, "newcomm");
    REFUSED(rcclCommUserRank(comm, NULL), rcclInvalidArgument, "rank");
    REFUSED(rcclCommUserRank(NULL, &number), rcclInvalidArgument, "NULL");
    REFUSED(rcclCommCount(NULL, &number), rcclInvalidArgument, "NULL");
    REFUSED(rcclCommGetAsyncError(comm, NULL), rcclInvalidArgument, "error");
    REFUSED(rcclCommGetAsyncError(NULL, &state), rcclInvalidArgument, "NULL");
    REFUSED(rcclCommFinalize(NULL), rcclInvalidArgument, "NULL");
    REFUSED(rcclCommRevoke((rcclComm_t)x), rcclInvalidArgument, "no communicator has this handle");
    REFUSED(rcclCommRevokeBecause(NULL, "why"), rcclInvalidArgument, "NULL");
    REFUSED(rcclCommRegister(comm, x, sizeof x, NULL), rcclInvalidArgument, "handle");
    REFUSED(rcclCommRegister(NULL, x, sizeof x, &place), rcclInvalidArgument, "NULL");
    REFUSED(rcclCommWindowRegister(comm, x, sizeof x, NULL, 0), rcclInvalidArgument, "win");
    REFUSED(rcclRedOpCreatePreMulSum(NULL, x, rcclFloat, rcclScalarHostImmediate, comm), rcclInvalidArgument, "op");
    REFUSED(rcclRedOpCreatePreMulSum(&op, NULL, rcclFloat, rcclScalarHostImmediate, comm), rcclInvalidArgument, "scalar");
    REFUSED(rcclStreamDestroy(NULL), rcclInvalidArgument, "rcclStreamCreate");
    REFUSED(rcclStreamSynchronize(NULL), rcclInvalidArgument, "rcclStreamCreate");
    REFUSED(rcclStreamQuery(NULL), rcclInvalidArgument, "rcclStreamCreate");
    REFUSED(rcclStreamWait(stream, NULL), rcclInvalidArgument, "rcclStreamCreate");
    REFUSED(rcclStreamWait(NULL, stream), rcclInvalidArgument, "rcclStreamCreate");
    /* And nowhere where it could lie. */
    REFUSED(rcclCommCount(comm, (int *)((char *)&number + 1)), rcclInvalidArgument, "count");
    GOOD(rcclStreamDestroy(stream));
    REFUSED(rcclStreamDestroy(stream), rcclInvalidArgument, "rcclStreamCreate");
    config.magic = 1;
    REFUSED(rcclCommInitEnv(&none, &config), rcclInvalidArgument, "RCCL_CONFIG_INITIALIZER");
    CHECK(none == NULL);
    GOOD(rcclGetVersion(&number));
    CHECK(number == RCCL_VERSION_CODE);
    CHECK(strcmp(rcclGetErrorString(rcclSuccess), "no error") == 0);
    CHECK(strstr(rcclGetErrorString((rcclResult_t)99), "no result"));
}

int main(void) {
    rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
    config.timeoutMs = 60000;
    GOOD(rcclCommInitEnv(&comm, &config));
    GOOD(rcclCommUserRank(comm, &rank));
    GOOD(rcclCommCount(comm, &size));
    CHECK(size >= 2);
    layouts();
    reductions();
    movements();
    with_counts();
    messages_and_groups();
    streams();
    deadlines_and_callbacks();
    memory();
    one_sided();
    communicators();
    estimates();
    growth();
    in_one_process();
    nonsense();
    GOOD(rcclBarrier(comm, NULL));
    GOOD(rcclCommFinalize(comm));
    GOOD(rcclCommDestroy(comm));
    printf("every function: right\n");
    return 0;
}
