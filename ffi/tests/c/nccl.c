/* A program for NCCL, linked with libnccl.so.2: every function by both names, layouts, and what a GPU would be needed for. */
#include <nccl.h>
#include <roceccl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, ncclGetLastError(NULL));               \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define GOOD(call) CHECK((call) == ncclSuccess)
#define SAYS(words) CHECK(strstr(ncclGetLastError(NULL), words))

/* Offsets on machines of 64 bits, as NCCL 2.29 has them. */
static void layouts(void) {
    CHECK(sizeof(ncclUniqueId) == 128);
    CHECK(offsetof(ncclConfig_t, magic) == 8 && offsetof(ncclConfig_t, version) == 12);
    CHECK(offsetof(ncclConfig_t, blocking) == 16 && offsetof(ncclConfig_t, maxCTAs) == 28);
    CHECK(offsetof(ncclConfig_t, netName) == 32 && offsetof(ncclConfig_t, splitShare) == 40);
    CHECK(offsetof(ncclConfig_t, trafficClass) == 44 && offsetof(ncclConfig_t, commName) == 48);
    CHECK(offsetof(ncclConfig_t, collnetEnable) == 56 && offsetof(ncclConfig_t, nvlsCTAs) == 68);
    CHECK(offsetof(ncclConfig_t, numRmaCtx) == 84 && sizeof(ncclConfig_t) == 88);
    CHECK(offsetof(ncclSimInfo_t, estimatedTime) == 16 && sizeof(ncclWaitSignalDesc_t) == 16);
    CHECK(sizeof(ncclResult_t) == 4 && sizeof(ncclDataType_t) == 4 && sizeof(ncclRedOp_t) == 4);
    CHECK(NCCL_VERSION_CODE == NCCL_VERSION(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH));
}

/* As programs that were compiled with NCCL's own header pass them. */
static void numbers(void) {
    CHECK(ncclSuccess == 0 && ncclUnhandledCudaError == 1 && ncclSystemError == 2 && ncclInternalError == 3);
    CHECK(ncclInvalidArgument == 4 && ncclInvalidUsage == 5 && ncclRemoteError == 6 && ncclInProgress == 7);
    CHECK(ncclTimeout == 8 && ncclNumResults == 9);
    CHECK(ncclInt8 == 0 && ncclChar == 0 && ncclUint8 == 1 && ncclInt32 == 2 && ncclInt == 2 && ncclUint32 == 3);
    CHECK(ncclInt64 == 4 && ncclUint64 == 5 && ncclFloat16 == 6 && ncclHalf == 6 && ncclFloat32 == 7 && ncclFloat == 7);
    CHECK(ncclFloat64 == 8 && ncclDouble == 8 && ncclBfloat16 == 9 && ncclFloat8e4m3 == 10 && ncclFloat8e5m2 == 11);
    CHECK(ncclNumTypes == 12);
    CHECK(ncclSum == 0 && ncclProd == 1 && ncclMax == 2 && ncclMin == 3 && ncclAvg == 4 && ncclNumOps == 5);
    CHECK(ncclMaxRedOp == 0x7fffffff && ncclScalarDevice == 0 && ncclScalarHostImmediate == 1);
    CHECK(NCCL_API_MAGIC == 0xcafebeef && NCCL_CONFIG_UNDEF_INT == INT_MIN && NCCL_SPLIT_NOCOLOR == -1);
}

int main(void) {
    layouts();
    numbers();
    /* Two ranks of this process, from one thread, as programs with several devices have them. */
    enum { RANKS = 2, COUNT = 64 };
    ncclComm_t comms[RANKS], parts[RANKS];
    ncclUniqueId id;
    int version, count, rank;
    GOOD(ncclGetVersion(&version));
    CHECK(version == 22907);
    GOOD(ncclGetUniqueId(&id));
    GOOD(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) {
        /* A config of NCCL 2.14, which ends with blocking. */
        struct {
            size_t size;
            unsigned magic, version;
            int blocking;
        } old = {20, NCCL_API_MAGIC, NCCL_VERSION(2, 14, 3), 1};
        GOOD(ncclCommInitRankConfig(&comms[i], RANKS, id, i, (ncclConfig_t *)(void *)&old));
    }
    GOOD(ncclGroupEnd());
    for (int i = 0; i < RANKS; i++) {
        GOOD(ncclCommCount(comms[i], &count));
        GOOD(ncclCommUserRank(comms[i], &rank));
        CHECK(count == RANKS && rank == i);
    }
    float x[RANKS][COUNT * RANKS], y[RANKS][COUNT * RANKS];
#define EACH(call)                                                                                                     \
    do {                                                                                                               \
        GOOD(ncclGroupStart());                                                                                        \
        for (int i = 0; i < RANKS; i++) GOOD(call);                                                                    \
        GOOD(ncclGroupEnd());                                                                                          \
    } while (0)
#define FILL(value)                                                                                                    \
    for (int i = 0; i < RANKS; i++)                                                                                    \
        for (int k = 0; k < COUNT * RANKS; k++) x[i][k] = (value)
    FILL((float)i + 1);
    EACH(ncclAllReduce(x[i], y[i], COUNT, ncclFloat, ncclSum, comms[i], NULL));
    CHECK(y[0][0] == 3 && y[1][COUNT - 1] == 3);
    EACH(pncclAllReduce(x[i], y[i], COUNT, ncclFloat, ncclAvg, comms[i], NULL));
    CHECK(y[0][0] == 1.5f);
    EACH(ncclReduce(x[i], y[i], COUNT, ncclFloat, ncclMax, 1, comms[i], NULL));
    CHECK(y[1][5] == 2);
    EACH(ncclReduceScatter(x[i], y[i], COUNT, ncclFloat, ncclMin, comms[i], NULL));
    CHECK(y[0][1] == 1 && y[1][1] == 1);
    EACH(ncclBroadcast(x[i], y[i], COUNT, ncclFloat, 1, comms[i], NULL));
    CHECK(y[0][7] == 2);
    EACH(ncclAllGather(x[i], y[i], COUNT, ncclFloat, comms[i], NULL));
    CHECK(y[0][COUNT] == 2 && y[1][0] == 1);
    EACH(ncclGather(x[i], y[i], COUNT, ncclFloat, 0, comms[i], NULL));
    CHECK(y[0][COUNT] == 2);
    FILL((float)(10 * i + k / COUNT));
    EACH(ncclScatter(x[i], y[i], COUNT, ncclFloat, 1, comms[i], NULL));
    CHECK(y[0][0] == 10 && y[1][0] == 11);
    EACH(ncclAlltoAll(x[i], y[i], COUNT, ncclFloat, comms[i], NULL));
    CHECK(y[0][COUNT] == 10 && y[1][0] == 1);
    EACH(ncclBcast(x[i], COUNT, ncclFloat, 0, comms[i], NULL));
    CHECK(x[1][0] == 0);
    GOOD(ncclGroupStart());
    GOOD(ncclSend(x[0], COUNT, ncclFloat, 1, comms[0], NULL));
    GOOD(ncclRecv(y[1], COUNT, ncclFloat, 0, comms[1], NULL));
    GOOD(ncclGroupEnd());

    /* Streams are libroceccl's. */
    rcclStream_t stream;
    CHECK(rcclStreamCreate(&stream) == rcclSuccess);
    FILL(1);
    EACH(ncclAllReduce(x[i], y[i], COUNT, ncclFloat, ncclSum, comms[i], (cudaStream_t)stream));
    CHECK(rcclStreamSynchronize(stream) == rcclSuccess);
    CHECK(y[0][0] == 2);
    CHECK(ncclAllReduce(x, y, 1, ncclFloat, ncclSum, comms[0], (cudaStream_t)x) == ncclInvalidArgument);
    SAYS("rcclStreamCreate");
    CHECK(rcclStreamDestroy(stream) == rcclSuccess);

    ncclRedOp_t ops[RANKS];
    float two = 2;
    for (int i = 0; i < RANKS; i++)
        GOOD(ncclRedOpCreatePreMulSum(&ops[i], &two, ncclFloat, ncclScalarHostImmediate, comms[i]));
    CHECK(ops[0] >= ncclNumOps);
    EACH(ncclAllReduce(x[i], y[i], COUNT, ncclFloat, ops[i], comms[i], NULL));
    CHECK(y[1][3] == 4);
    /* As programs with several devices do: all three in one group. */
    for (int i = 0; i < RANKS; i++) GOOD(ncclRedOpDestroy(ops[i], comms[i]));
    GOOD(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) {
        GOOD(ncclRedOpCreatePreMulSum(&ops[i], &two, ncclFloat, ncclScalarHostImmediate, comms[i]));
        GOOD(ncclAllReduce(x[i], y[i], COUNT, ncclFloat, ops[i], comms[i], NULL));
        GOOD(ncclRedOpDestroy(ops[i], comms[i]));
    }
    GOOD(ncclGroupEnd());
    CHECK(y[0][3] == 4);
    CHECK(ncclAllReduce(x, y, 1, ncclInt, (ncclRedOp_t)6, comms[0], NULL) == ncclInvalidArgument);
    SAYS("none of NCCL's");
    /* The last error is the last of both libraries'. */
    CHECK(rcclStreamDestroy((rcclStream_t)(void *)x) == rcclInvalidArgument);
    SAYS("rcclStreamCreate");
    CHECK(ncclCommCuDevice(comms[0], &count) == ncclInvalidUsage);
    CHECK(strstr(rcclGetLastError(NULL), "no CUDA device"));
    /* What is refused here of a group's calls keeps all of it from being done; a question that is refused does not. */
    FILL(1);
    GOOD(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) GOOD(ncclAllReduce(x[i], x[i], COUNT, ncclFloat, ncclSum, comms[i], NULL));
    CHECK(ncclAllReduce(x[0], x[0], COUNT, ncclFloat, (ncclRedOp_t)5, comms[0], NULL) == ncclInvalidArgument);
    CHECK(ncclGroupEnd() == ncclInvalidArgument);
    SAYS("nothing of the group was done: the operator is none of NCCL's");
    CHECK(x[0][0] == 1 && x[1][0] == 1);
    ncclConfig_t unset;
    memset(&unset, 0, sizeof unset);
    GOOD(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) GOOD(ncclAllReduce(x[i], x[i], COUNT, ncclFloat, ncclSum, comms[i], NULL));
    CHECK(ncclCommSplit(comms[0], 0, 0, &parts[0], &unset) == ncclInvalidArgument);
    CHECK(ncclCommInitRankScalable(&parts[0], 1, 0, 0, &id, NULL) == ncclInvalidArgument);
    SAYS("no unique id");
    CHECK(ncclGroupEnd() == ncclInvalidArgument);
    SAYS("nothing of the group was done: the config was not initialised");
    CHECK(x[0][0] == 1 && x[1][0] == 1);
    GOOD(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) GOOD(ncclAllReduce(x[i], x[i], COUNT, ncclFloat, ncclSum, comms[i], NULL));
    CHECK(ncclCommCuDevice(comms[0], &count) == ncclInvalidUsage);
    GOOD(ncclGroupEnd());
    CHECK(x[0][0] == 2 && x[1][0] == 2);

    /* One thread splits for all of its ranks: each split waits for the others. */
    ncclComm_t halves[RANKS];
    int members;
    GOOD(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) GOOD(ncclCommSplit(comms[i], i % 2, -i, &halves[i], NULL));
    GOOD(ncclGroupEnd());
    for (int i = 0; i < RANKS; i++) {
        GOOD(ncclCommCount(halves[i], &members));
        CHECK(members == (RANKS + 1 - i % 2) / 2);
        GOOD(ncclCommDestroy(halves[i]));
    }

    /* And so it makes them grow, by a rank of its own. */
    ncclComm_t grown[RANKS + 1];
    GOOD(ncclCommGetUniqueId(comms[0], &id));
    GOOD(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) GOOD(ncclCommGrow(comms[i], RANKS + 1, i ? NULL : &id, -1, &grown[i], NULL));
    GOOD(ncclCommGrow(NULL, RANKS + 1, &id, RANKS, &grown[RANKS], NULL));
    GOOD(ncclGroupEnd());
    for (int i = 0; i <= RANKS; i++) {
        GOOD(ncclCommUserRank(grown[i], &members));
        CHECK(members == i);
        GOOD(ncclCommDestroy(grown[i]));
    }

    void *memory, *handle, *seen;
    GOOD(ncclMemAlloc(&memory, 4096));
    GOOD(ncclCommRegister(comms[0], memory, 4096, &handle));
    CHECK(ncclCommDeregister(comms[1], handle) == ncclInvalidArgument);
    SAYS("made with another communicator");
    GOOD(ncclCommDeregister(comms[0], handle));
    /* The all_to_all of nccl-tests by puts: into a window of every rank, its own among them. */
    ncclWindow_t windows[RANKS];
    ncclWaitSignalDesc_t awaited[RANKS];
    for (int i = 0; i < RANKS; i++) {
        GOOD(ncclCommWindowRegister(comms[i], y[i], sizeof y[i], &windows[i], NCCL_WIN_COLL_SYMMETRIC));
        GOOD(ncclWinGetUserPtr(comms[i], windows[i], &seen));
        CHECK(seen == y[i]);
        ncclWaitSignalDesc_t one = {1, i, 0, 0};
        awaited[i] = one;
    }
    FILL((float)(10 * i + k / COUNT));
    size_t block = COUNT * sizeof(float);
    EACH(ncclPutSignal(&x[i][COUNT], COUNT, ncclFloat, 1, windows[i], block * (size_t)i, 0, 0, 0, comms[i], NULL));
    EACH(ncclPutSignal(x[i], COUNT, ncclFloat, 0, windows[i], block * (size_t)i, 0, 0, 0, comms[i], NULL));
    EACH(ncclWaitSignal(RANKS, awaited, comms[i], NULL));
    CHECK(y[0][0] == 0 && y[0][COUNT] == 10 && y[1][0] == 1 && y[1][COUNT] == 11);
    EACH(ncclSignal(1 - i, 0, 0, 0, comms[i], NULL));
    for (int i = 0; i < RANKS; i++) GOOD(ncclWaitSignal(1, &awaited[1 - i], comms[i], NULL));
    CHECK(ncclSignal(1, 0, 1, 0, comms[0], NULL) == ncclInvalidArgument);
    SAYS("context 1");
    CHECK(ncclPutSignal(x, 1, ncclFloat, 1, windows[1], 0, 0, 0, 0, comms[0], NULL) == ncclInvalidArgument);
    SAYS("no such window");
    CHECK(ncclWinGetUserPtr(comms[1], windows[0], &seen) == ncclInvalidArgument);
    SAYS("no such window");
    CHECK(ncclCommWindowDeregister(comms[1], windows[0]) == ncclInvalidArgument);
    CHECK(ncclCommWindowDeregister(comms[0], (ncclWindow_t)memory) == ncclInvalidArgument);
    for (int i = 0; i < RANKS; i++) GOOD(ncclCommWindowDeregister(comms[i], windows[i]));
    CHECK(ncclWinGetUserPtr(comms[0], windows[0], &seen) == ncclInvalidArgument);
    CHECK(ncclCommWindowDeregister(comms[0], windows[0]) == ncclInvalidArgument);
    GOOD(ncclMemFree(memory));

    uint64_t bytes = 1;
    ncclResult_t state;
    GOOD(ncclCommMemStats(comms[0], ncclStatGpuMemTotal, &bytes));
    CHECK(bytes == 0);
    GOOD(ncclCommGetAsyncError(comms[0], &state));
    CHECK(state == ncclSuccess);
    CHECK(ncclCommCuDevice(comms[0], &count) == ncclInvalidUsage);
    SAYS("host memory");
    CHECK(ncclCommSuspend(comms[0], NCCL_SUSPEND_MEM) == ncclInvalidUsage);
    SAYS("ncclCommSuspend: ");
    CHECK(ncclCommResume(comms[0]) == ncclInvalidUsage);
    SAYS("ncclCommResume: ");
    ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
    GOOD(ncclGroupStart());
    for (int i = 0; i < RANKS; i++) GOOD(ncclAllReduce(x[i], y[i], COUNT, ncclFloat, ncclSum, comms[i], NULL));
    y[0][0] = -7;
    GOOD(ncclGroupSimulateEnd(&info));
    CHECK(info.estimatedTime > 0 && info.estimatedTime < 1e6f && y[0][0] == -7);
    GOOD(ncclGroupStart());
    CHECK(ncclGroupSimulateEnd(NULL) == ncclInvalidArgument);
    SAYS("NCCL_SIM_INFO_INITIALIZER");
    CHECK(ncclGroupSimulateEnd(&info) == ncclInvalidUsage); /* which has ended nevertheless */
    ncclResetDebugInit();
    CHECK(strcmp(ncclGetErrorString(ncclSuccess), pncclGetErrorString(ncclSuccess)) == 0);
    CHECK(strstr(ncclGetErrorString(ncclInvalidUsage), "invalid usage (ncclGetLastError"));
    CHECK(strstr(ncclGetErrorString(ncclTimeout), "deadline"));
    CHECK(strcmp(ncclGetErrorString(ncclNumResults), "no result has this number") == 0);
    CHECK(strcmp(ncclGetErrorString((ncclResult_t)-1), "no result has this number") == 0);
    /* A communicator that is gone, and one that never was. */
    ncclComm_t gone;
    GOOD(ncclCommShrink(comms[0], NULL, 0, &gone, NULL, NCCL_SHRINK_DEFAULT));
    GOOD(ncclCommDestroy(gone));
    CHECK(ncclAllReduce(x[0], y[0], 1, ncclFloat, ncclSum, gone, NULL) == ncclInvalidArgument);
    CHECK(ncclAllReduce(x[0], y[0], 1, ncclFloat, ncclSum, (ncclComm_t)x, NULL) == ncclInvalidArgument);
    SAYS("no communicator has this handle");
    CHECK(ncclAllReduce(x[0], y[0], (size_t)-1, ncclFloat, ncclSum, comms[0], NULL) == ncclInvalidArgument);
    CHECK(ncclAllReduce(x[0], y[0], 1, (ncclDataType_t)99, ncclSum, comms[0], NULL) == ncclInvalidArgument);
    SAYS("data type 99");
    CHECK(ncclCommCount(NULL, &count) == ncclInvalidArgument);
    SAYS("NULL");
    GOOD(ncclCommFinalize(NULL));
    GOOD(ncclCommDestroy(NULL));
    GOOD(ncclCommAbort(NULL));
    GOOD(ncclCommRevoke(NULL, NCCL_REVOKE_DEFAULT));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.magic = 0;
    CHECK(ncclCommSplit(comms[0], 0, 0, &parts[0], &config) == ncclInvalidArgument);
    SAYS("NCCL_CONFIG_INITIALIZER");

    /* What one excludes is alone: it shrinks without a word to the other. */
    int last = 1;
    GOOD(ncclCommShrink(comms[0], &last, 1, &parts[0], NULL, NCCL_SHRINK_DEFAULT));
    GOOD(ncclCommDestroy(parts[0]));
    GOOD(ncclCommInitAll(parts, RANKS, NULL));
    GOOD(ncclCommRevoke(parts[0], NCCL_REVOKE_DEFAULT));
    GOOD(ncclCommAbort(parts[0]));
    GOOD(ncclCommAbort(parts[1]));
    GOOD(ncclGetUniqueId(&id));
    GOOD(ncclCommInitRankScalable(&parts[0], 1, 0, 1, &id, NULL));
    GOOD(ncclCommSplit(parts[0], 0, 0, &parts[1], NULL));
    GOOD(ncclCommFinalize(parts[1]));
    GOOD(ncclCommDestroy(parts[1]));
    GOOD(ncclCommDestroy(parts[0]));
    GOOD(ncclGetUniqueId(&id));
    GOOD(ncclCommInitRank(&parts[0], 1, id, 0));
    GOOD(ncclCommDestroy(parts[0]));
    for (int i = 0; i < RANKS; i++) GOOD(ncclCommDestroy(comms[i]));
    printf("NCCL's interface: right\n");
    return 0;
}
