/* libnccl.so.2: NCCL's functions by those of libroceccl. Both libraries see the same communicators and streams. */
#include "nccl.h"
#include <roceccl.h>

/* The second name of each function. */
#define BOTH(type, name) extern __attribute__((alias(#name))) __typeof__(name) p##name

/* The numbers are the same in both. */
static ncclResult_t answered(rcclResult_t result) {
    return (ncclResult_t)result;
}

/* libroceccl keeps the words, so that the last error is that of either library. */
static ncclResult_t refuse(ncclResult_t result, const char *words) {
    return answered(rcclRefuse((rcclResult_t)result, words, 0));
}

/* The same of a call that would be part of an open group: nothing of that is done then. */
static ncclResult_t refuse_part(ncclResult_t result, const char *words) {
    return answered(rcclRefuse((rcclResult_t)result, words, 1));
}

static rcclComm_t communicator(const struct ncclComm *comm) {
    return (rcclComm_t)(uintptr_t)comm;
}

static rcclStream_t queue(cudaStream_t stream) {
    return (rcclStream_t)stream;
}

/* Operators of roceccl.h that NCCL does not have are between NCCL's own and those that programs create. */
static int is_foreign(ncclRedOp_t op) {
    return (int)op >= ncclNumOps && (int)op < 16;
}

#define NEEDS_NCCL_OPERATOR(op)                                                                                        \
    if (is_foreign(op)) return refuse_part(ncclInvalidArgument, "the operator is none of NCCL's and was not created")

/* As much of a config as the program knows. */
static ncclResult_t configured(const ncclConfig_t *config, rcclConfig_t *to) {
    rcclConfig_t undefined = RCCL_CONFIG_INITIALIZER;
    *to = undefined;
    if (config == NULL) return ncclSuccess;
    if (config->magic != NCCL_API_MAGIC || config->size < offsetof(ncclConfig_t, blocking))
        return refuse_part(ncclInvalidArgument, "the config was not initialised: begin with NCCL_CONFIG_INITIALIZER");
    if (config->size >= offsetof(ncclConfig_t, cgaClusterSize)) to->blocking = config->blocking;
    if (config->size >= offsetof(ncclConfig_t, collnetEnable)) to->commName = config->commName;
    return ncclSuccess;
}

#define CONFIGURED(config, to)                                                                                         \
    rcclConfig_t to;                                                                                                   \
    do {                                                                                                               \
        ncclResult_t configured_ = configured(config, &to);                                                            \
        if (configured_ != ncclSuccess) return configured_;                                                            \
    } while (0)

ncclResult_t ncclGetVersion(int *version) {
    if (version == NULL) return refuse(ncclInvalidArgument, "version is NULL");
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}
BOTH(ncclResult_t, ncclGetVersion);

const char *ncclGetErrorString(ncclResult_t result) {
    static const char *const words[ncclNumResults] = {
        "no error",
        "unhandled cuda error",
        "the operating system refused something (ncclGetLastError has more)",
        "internal error (ncclGetLastError has more)",
        "invalid argument (ncclGetLastError has more)",
        "invalid usage (ncclGetLastError has more)",
        "another process, or the way to it, failed (ncclGetLastError has more)",
        "in progress",
        "a call did not end within its deadline (ncclGetLastError has more)",
    };
    return (unsigned)result < ncclNumResults ? words[result] : "no result has this number";
}
BOTH(const char *, ncclGetErrorString);

const char *ncclGetLastError(ncclComm_t comm) {
    return rcclGetLastError(communicator(comm));
}
BOTH(const char *, ncclGetLastError);

/* Logging is decided when the process starts. */
void ncclResetDebugInit(void) {}
BOTH(void, ncclResetDebugInit);

ncclResult_t ncclGetUniqueId(ncclUniqueId *uniqueId) {
    return answered(rcclGetUniqueId((rcclUniqueId *)uniqueId));
}
BOTH(ncclResult_t, ncclGetUniqueId);

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t *config) {
    CONFIGURED(config, settings);
    rcclUniqueId id;
    for (size_t i = 0; i < sizeof id; i++) id.internal[i] = commId.internal[i];
    return answered(rcclCommInitRankConfig((rcclComm_t *)comm, nranks, id, rank, &settings));
}
BOTH(ncclResult_t, ncclCommInitRankConfig);

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank) {
    return ncclCommInitRankConfig(comm, nranks, commId, rank, NULL);
}
BOTH(ncclResult_t, ncclCommInitRank);

ncclResult_t ncclCommInitRankScalable(ncclComm_t *newcomm, int nranks, int myrank, int nId, ncclUniqueId *commIds,
                                      ncclConfig_t *config) {
    if (commIds == NULL || nId < 1) return refuse_part(ncclInvalidArgument, "no unique id");
    return ncclCommInitRankConfig(newcomm, nranks, commIds[0], myrank, config);
}
BOTH(ncclResult_t, ncclCommInitRankScalable);

ncclResult_t ncclCommInitAll(ncclComm_t *comm, int ndev, const int *devlist) {
    return answered(rcclCommInitAll((rcclComm_t *)comm, ndev, devlist));
}
BOTH(ncclResult_t, ncclCommInitAll);

/* Of what is no communicator nothing has to be left, as in NCCL: programs clean up what they never made. */
#define NOTHING_TO_LEAVE(comm)                                                                                         \
    if (comm == NULL) return ncclSuccess

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    NOTHING_TO_LEAVE(comm);
    return answered(rcclCommFinalize(communicator(comm)));
}
BOTH(ncclResult_t, ncclCommFinalize);

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    NOTHING_TO_LEAVE(comm);
    return answered(rcclCommDestroy(communicator(comm)));
}
BOTH(ncclResult_t, ncclCommDestroy);

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    NOTHING_TO_LEAVE(comm);
    return answered(rcclCommAbort(communicator(comm)));
}
BOTH(ncclResult_t, ncclCommAbort);

ncclResult_t ncclCommRevoke(ncclComm_t comm, int revokeFlags) {
    NOTHING_TO_LEAVE(comm);
    if (revokeFlags != NCCL_REVOKE_DEFAULT) return refuse(ncclInvalidArgument, "the only flag is NCCL_REVOKE_DEFAULT");
    return answered(rcclCommRevoke(communicator(comm)));
}
BOTH(ncclResult_t, ncclCommRevoke);

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *newcomm, ncclConfig_t *config) {
    CONFIGURED(config, settings);
    return answered(rcclCommSplit(communicator(comm), color, key, (rcclComm_t *)newcomm, &settings));
}
BOTH(ncclResult_t, ncclCommSplit);

ncclResult_t ncclCommShrink(ncclComm_t comm, int *excludeRanksList, int excludeRanksCount, ncclComm_t *newcomm,
                            ncclConfig_t *config, int shrinkFlags) {
    CONFIGURED(config, settings);
    return answered(rcclCommShrink(communicator(comm), excludeRanksList, excludeRanksCount, (rcclComm_t *)newcomm,
                                   &settings, shrinkFlags));
}
BOTH(ncclResult_t, ncclCommShrink);

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *asyncError) {
    return answered(rcclCommGetAsyncError(communicator(comm), (rcclResult_t *)asyncError));
}
BOTH(ncclResult_t, ncclCommGetAsyncError);

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
    return answered(rcclCommCount(communicator(comm), count));
}
BOTH(ncclResult_t, ncclCommCount);

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    return answered(rcclCommUserRank(communicator(comm), rank));
}
BOTH(ncclResult_t, ncclCommUserRank);

#define NO_GPU(call, words)                                                                                            \
    return refuse(ncclInvalidUsage, call ": " words ": this is rccl, whose communicators are of host memory")

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device) {
    (void)comm, (void)device;
    NO_GPU("ncclCommCuDevice", "a communicator has no CUDA device");
}
BOTH(ncclResult_t, ncclCommCuDevice);

ncclResult_t ncclCommGetUniqueId(ncclComm_t comm, ncclUniqueId *uniqueId) {
    return answered(rcclCommGetUniqueId(communicator(comm), (rcclUniqueId *)uniqueId));
}
BOTH(ncclResult_t, ncclCommGetUniqueId);

ncclResult_t ncclCommGrow(ncclComm_t comm, int nRanks, const ncclUniqueId *uniqueId, int rank, ncclComm_t *newcomm,
                          ncclConfig_t *config) {
    CONFIGURED(config, settings);
    return answered(rcclCommGrow(communicator(comm), nRanks, (const rcclUniqueId *)uniqueId, rank,
                                 (rcclComm_t *)newcomm, &settings));
}
BOTH(ncclResult_t, ncclCommGrow);

ncclResult_t ncclCommSuspend(ncclComm_t comm, int flags) {
    (void)comm, (void)flags;
    NO_GPU("ncclCommSuspend", "there is no GPU memory to give back");
}
BOTH(ncclResult_t, ncclCommSuspend);

ncclResult_t ncclCommResume(ncclComm_t comm) {
    (void)comm;
    NO_GPU("ncclCommResume", "nothing was suspended");
}
BOTH(ncclResult_t, ncclCommResume);

ncclResult_t ncclCommMemStats(ncclComm_t comm, ncclCommMemStat_t stat, uint64_t *value) {
    int size;
    ncclResult_t result = answered(rcclCommCount(communicator(comm), &size));
    if (result != ncclSuccess) return result;
    if (value == NULL || (unsigned)stat > ncclStatGpuMemTotal)
        return refuse(ncclInvalidArgument, "value is NULL, or no statistic has this number");
    *value = 0; /* bytes of GPU memory */
    return ncclSuccess;
}
BOTH(ncclResult_t, ncclCommMemStats);

ncclResult_t ncclMemAlloc(void **ptr, size_t size) {
    return answered(rcclMemAlloc(ptr, size));
}
BOTH(ncclResult_t, ncclMemAlloc);

ncclResult_t ncclMemFree(void *ptr) {
    return answered(rcclMemFree(ptr));
}
BOTH(ncclResult_t, ncclMemFree);

ncclResult_t ncclCommRegister(const ncclComm_t comm, void *buff, size_t size, void **handle) {
    return answered(rcclCommRegister(communicator(comm), buff, size, handle));
}
BOTH(ncclResult_t, ncclCommRegister);

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *handle) {
    return answered(rcclCommDeregister(communicator(comm), handle));
}
BOTH(ncclResult_t, ncclCommDeregister);

static rcclWindow_t window(ncclWindow_t win) {
    return (rcclWindow_t)(uintptr_t)win;
}

ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void *buff, size_t size, ncclWindow_t *win, int winFlags) {
    return answered(rcclCommWindowRegister(communicator(comm), buff, size, (rcclWindow_t *)win, winFlags));
}
BOTH(ncclResult_t, ncclCommWindowRegister);

ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win) {
    return answered(rcclCommWindowDeregister(communicator(comm), window(win)));
}
BOTH(ncclResult_t, ncclCommWindowDeregister);

ncclResult_t ncclWinGetUserPtr(ncclComm_t comm, ncclWindow_t win, void **outUserPtr) {
    return answered(rcclWinGetUserPtr(communicator(comm), window(win), outUserPtr));
}
BOTH(ncclResult_t, ncclWinGetUserPtr);

ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t *op, void *scalar, ncclDataType_t datatype,
                                      ncclScalarResidence_t residence, ncclComm_t comm) {
    return answered(rcclRedOpCreatePreMulSum((rcclRedOp_t *)op, scalar, (rcclDataType_t)datatype,
                                             (rcclScalarResidence_t)residence, communicator(comm)));
}
BOTH(ncclResult_t, ncclRedOpCreatePreMulSum);

ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm) {
    return answered(rcclRedOpDestroy((rcclRedOp_t)op, communicator(comm)));
}
BOTH(ncclResult_t, ncclRedOpDestroy);

ncclResult_t ncclReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                        int root, ncclComm_t comm, cudaStream_t stream) {
    NEEDS_NCCL_OPERATOR(op);
    return answered(rcclReduce(sendbuff, recvbuff, count, (rcclDataType_t)datatype, (rcclRedOp_t)op, root,
                               communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclReduce);

ncclResult_t ncclBcast(void *buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                       cudaStream_t stream) {
    return answered(rcclBcast(buff, count, (rcclDataType_t)datatype, root, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclBcast);

ncclResult_t ncclBroadcast(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    return answered(
        rcclBroadcast(sendbuff, recvbuff, count, (rcclDataType_t)datatype, root, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclBroadcast);

ncclResult_t ncclAllReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    NEEDS_NCCL_OPERATOR(op);
    return answered(rcclAllReduce(sendbuff, recvbuff, count, (rcclDataType_t)datatype, (rcclRedOp_t)op,
                                  communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclAllReduce);

ncclResult_t ncclReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount, ncclDataType_t datatype,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    NEEDS_NCCL_OPERATOR(op);
    return answered(rcclReduceScatter(sendbuff, recvbuff, recvcount, (rcclDataType_t)datatype, (rcclRedOp_t)op,
                                      communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclReduceScatter);

ncclResult_t ncclAllGather(const void *sendbuff, void *recvbuff, size_t sendcount, ncclDataType_t datatype,
                           ncclComm_t comm, cudaStream_t stream) {
    return answered(
        rcclAllGather(sendbuff, recvbuff, sendcount, (rcclDataType_t)datatype, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclAllGather);

ncclResult_t ncclAlltoAll(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclComm_t comm,
                          cudaStream_t stream) {
    return answered(
        rcclAlltoAll(sendbuff, recvbuff, count, (rcclDataType_t)datatype, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclAlltoAll);

ncclResult_t ncclGather(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                        ncclComm_t comm, cudaStream_t stream) {
    return answered(
        rcclGather(sendbuff, recvbuff, count, (rcclDataType_t)datatype, root, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclGather);

ncclResult_t ncclScatter(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root,
                         ncclComm_t comm, cudaStream_t stream) {
    return answered(
        rcclScatter(sendbuff, recvbuff, count, (rcclDataType_t)datatype, root, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclScatter);

ncclResult_t ncclSend(const void *sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return answered(rcclSend(sendbuff, count, (rcclDataType_t)datatype, peer, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclSend);

ncclResult_t ncclRecv(void *recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return answered(rcclRecv(recvbuff, count, (rcclDataType_t)datatype, peer, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclRecv);

ncclResult_t ncclPutSignal(const void *localbuff, size_t count, ncclDataType_t datatype, int peer, ncclWindow_t peerWin,
                           size_t peerWinOffset, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm,
                           cudaStream_t stream) {
    return answered(rcclPutSignal(localbuff, count, (rcclDataType_t)datatype, peer, window(peerWin), peerWinOffset, sigIdx,
                                  ctx, flags, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclPutSignal);

ncclResult_t ncclSignal(int peer, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm, cudaStream_t stream) {
    return answered(rcclSignal(peer, sigIdx, ctx, flags, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclSignal);

ncclResult_t ncclWaitSignal(int nDesc, ncclWaitSignalDesc_t *signalDescs, ncclComm_t comm, cudaStream_t stream) {
    const rcclWaitSignalDesc_t *awaited = (const rcclWaitSignalDesc_t *)(const void *)signalDescs; /* the same layout */
    return answered(rcclWaitSignal(nDesc, awaited, communicator(comm), queue(stream)));
}
BOTH(ncclResult_t, ncclWaitSignal);

ncclResult_t ncclGroupStart(void) {
    return answered(rcclGroupStart());
}
BOTH(ncclResult_t, ncclGroupStart);

ncclResult_t ncclGroupEnd(void) {
    return answered(rcclGroupEnd());
}
BOTH(ncclResult_t, ncclGroupEnd);

ncclResult_t ncclGroupSimulateEnd(ncclSimInfo_t *simInfo) {
    rcclSimInfo_t info = RCCL_SIM_INFO_INITIALIZER;
    const int initialised = simInfo != NULL && simInfo->magic == NCCL_SIM_INFO_MAGIC && simInfo->size >= sizeof *simInfo;
    const rcclResult_t result = rcclGroupSimulateEnd(&info); /* whatever simInfo is, the group has ended */
    if (!initialised) return refuse(ncclInvalidArgument, "simInfo was not initialised: begin with NCCL_SIM_INFO_INITIALIZER");
    if (result == rcclSuccess) simInfo->estimatedTime = info.estimatedTime;
    return answered(result);
}
BOTH(ncclResult_t, ncclGroupSimulateEnd);
