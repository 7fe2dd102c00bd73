/* NCCL's interface over host memory, by rccl. Written for rccl; names, numbers and layouts are NCCL 2.29's, so that source that
 * was written for NCCL compiles, and programs that were linked with libnccl.so.2 run. No CUDA is needed: a stream is a queue of
 * rccl's (rcclStreamCreate of roceccl.h), or NULL, with which a call, or the end of its group, returns when the result is
 * there. What makes no sense without a GPU answers ncclInvalidUsage, and ncclGetLastError says why. */
#ifndef NCCL_H_
#define NCCL_H_

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

/* Where CUDA's headers were included before, the type is theirs. */
#if !defined(__CUDA_RUNTIME_H__) && !defined(__CUDA_RUNTIME_API_H__) && !defined(__DRIVER_TYPES_H__)
typedef struct CUstream_st *cudaStream_t;
#endif

#define NCCL_MAJOR 2
#define NCCL_MINOR 29
#define NCCL_PATCH 7
#define NCCL_SUFFIX ""
#define NCCL_VERSION(X, Y, Z)                                                                                          \
    (((X) <= 2 && (Y) <= 8) ? (X) * 1000 + (Y) * 100 + (Z) : (X) * 10000 + (Y) * 100 + (Z))
#define NCCL_VERSION_CODE 22907
/* Tells this header from NVIDIA's. */
#define NCCL_IS_ROCECCL 1

#define NCCL_COMM_NULL NULL
#define NCCL_UNIQUE_ID_BYTES 128
#define NCCL_CONFIG_UNDEF_INT INT_MIN
#define NCCL_CONFIG_UNDEF_PTR NULL
#define NCCL_SPLIT_NOCOLOR -1
#define NCCL_UNDEF_FLOAT -1.0f
#define NCCL_API_MAGIC 0xcafebeef
#define NCCL_WIN_DEFAULT 0x00
#define NCCL_WIN_COLL_SYMMETRIC 0x01
#define NCCL_WIN_STRICT_ORDERING 0x02
#define NCCL_WIN_REQUIRED_ALIGNMENT 4096
#define NCCL_CTA_POLICY_DEFAULT 0x00
#define NCCL_CTA_POLICY_EFFICIENCY 0x01
#define NCCL_CTA_POLICY_ZERO 0x02
#define NCCL_SHRINK_DEFAULT 0x00
#define NCCL_SHRINK_ABORT 0x01
#define NCCL_REVOKE_DEFAULT 0x00
#define NCCL_SUSPEND_MEM 0x01

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ncclComm *ncclComm_t;
typedef struct ncclWindow_vidmem *ncclWindow_t;
typedef struct {
    char internal[NCCL_UNIQUE_ID_BYTES];
} ncclUniqueId;

typedef enum {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7,
    ncclTimeout = 8,
    ncclNumResults = 9
} ncclResult_t;

typedef enum {
    ncclInt8 = 0,
    ncclChar = 0,
    ncclUint8 = 1,
    ncclInt32 = 2,
    ncclInt = 2,
    ncclUint32 = 3,
    ncclInt64 = 4,
    ncclUint64 = 5,
    ncclFloat16 = 6,
    ncclHalf = 6,
    ncclFloat32 = 7,
    ncclFloat = 7,
    ncclFloat64 = 8,
    ncclDouble = 8,
    ncclBfloat16 = 9,
    ncclFloat8e4m3 = 10,
    ncclFloat8e5m2 = 11,
    ncclNumTypes = 12
} ncclDataType_t;

typedef enum {
    ncclSum = 0,
    ncclProd = 1,
    ncclMax = 2,
    ncclMin = 3,
    ncclAvg = 4,
    ncclNumOps = 5, /* those that a program creates follow */
    ncclMaxRedOp = 0x7fffffff
} ncclRedOp_t;

typedef enum {
    ncclScalarDevice = 0,
    ncclScalarHostImmediate = 1
} ncclScalarResidence_t;

typedef enum {
    ncclStatGpuMemSuspend = 0,
    ncclStatGpuMemSuspended = 1,
    ncclStatGpuMemPersist = 2,
    ncclStatGpuMemTotal = 3
} ncclCommMemStat_t;

/* Fields came one after the other, and size says which of them a program knows. rccl goes by blocking and commName; what is
 * about a GPU is read by nobody. */
typedef struct ncclConfig_v22900 {
    size_t size;
    unsigned int magic;
    unsigned int version;
    int blocking; /* 2.14 */
    int cgaClusterSize;
    int minCTAs;
    int maxCTAs;
    const char *netName;
    int splitShare;
    int trafficClass;
    const char *commName;
    int collnetEnable;
    int CTAPolicy;
    int shrinkShare;
    int nvlsCTAs;
    int nChannelsPerNetPeer;
    int nvlinkCentricSched;
    int graphUsageMode;
    int numRmaCtx;
} ncclConfig_t;

#define NCCL_CONFIG_INITIALIZER                                                                                        \
    {                                                                                                                  \
        sizeof(ncclConfig_t), NCCL_API_MAGIC, NCCL_VERSION_CODE, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT,         \
            NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NULL, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NULL,    \
            NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT,                \
            NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT, NCCL_CONFIG_UNDEF_INT                 \
    }

typedef struct ncclSimInfo_v22200 {
    size_t size;
    unsigned int magic;
    unsigned int version;
    float estimatedTime;
} ncclSimInfo_t;

#define NCCL_SIM_INFO_MAGIC 0x74685283
#define NCCL_SIM_INFO_INITIALIZER                                                                                      \
    { sizeof(ncclSimInfo_t), NCCL_SIM_INFO_MAGIC, NCCL_VERSION_CODE, NCCL_UNDEF_FLOAT }

typedef struct {
    int opCnt;
    int peer;
    int sigIdx;
    int ctx;
} ncclWaitSignalDesc_t;

/* Every function has a second name, by which a profiler that takes the first for itself reaches it. */
#define NCCL_BOTH_(type, name, arguments)                                                                              \
    type name arguments;                                                                                               \
    type p##name arguments

NCCL_BOTH_(ncclResult_t, ncclGetVersion, (int *version));
NCCL_BOTH_(const char *, ncclGetErrorString, (ncclResult_t result));
NCCL_BOTH_(const char *, ncclGetLastError, (ncclComm_t comm));
NCCL_BOTH_(void, ncclResetDebugInit, (void));

NCCL_BOTH_(ncclResult_t, ncclGetUniqueId, (ncclUniqueId * uniqueId));
NCCL_BOTH_(ncclResult_t, ncclCommInitRank, (ncclComm_t * comm, int nranks, ncclUniqueId commId, int rank));
NCCL_BOTH_(ncclResult_t, ncclCommInitRankConfig,
           (ncclComm_t * comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t *config));
/* The first of the ids is used. */
NCCL_BOTH_(ncclResult_t, ncclCommInitRankScalable,
           (ncclComm_t * newcomm, int nranks, int myrank, int nId, ncclUniqueId *commIds, ncclConfig_t *config));
NCCL_BOTH_(ncclResult_t, ncclCommInitAll, (ncclComm_t * comm, int ndev, const int *devlist));
NCCL_BOTH_(ncclResult_t, ncclCommFinalize, (ncclComm_t comm));
NCCL_BOTH_(ncclResult_t, ncclCommDestroy, (ncclComm_t comm));
NCCL_BOTH_(ncclResult_t, ncclCommAbort, (ncclComm_t comm));
NCCL_BOTH_(ncclResult_t, ncclCommSplit,
           (ncclComm_t comm, int color, int key, ncclComm_t *newcomm, ncclConfig_t *config));
NCCL_BOTH_(ncclResult_t, ncclCommShrink,
           (ncclComm_t comm, int *excludeRanksList, int excludeRanksCount, ncclComm_t *newcomm, ncclConfig_t *config,
            int shrinkFlags));
NCCL_BOTH_(ncclResult_t, ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t *asyncError));
NCCL_BOTH_(ncclResult_t, ncclCommCount, (const ncclComm_t comm, int *count));
NCCL_BOTH_(ncclResult_t, ncclCommCuDevice, (const ncclComm_t comm, int *device));
NCCL_BOTH_(ncclResult_t, ncclCommUserRank, (const ncclComm_t comm, int *rank));
NCCL_BOTH_(ncclResult_t, ncclCommRevoke, (ncclComm_t comm, int revokeFlags));
NCCL_BOTH_(ncclResult_t, ncclCommGetUniqueId, (ncclComm_t comm, ncclUniqueId *uniqueId));
NCCL_BOTH_(ncclResult_t, ncclCommGrow,
           (ncclComm_t comm, int nRanks, const ncclUniqueId *uniqueId, int rank, ncclComm_t *newcomm,
            ncclConfig_t *config));
NCCL_BOTH_(ncclResult_t, ncclCommSuspend, (ncclComm_t comm, int flags));
NCCL_BOTH_(ncclResult_t, ncclCommResume, (ncclComm_t comm));
NCCL_BOTH_(ncclResult_t, ncclCommMemStats, (ncclComm_t comm, ncclCommMemStat_t stat, uint64_t *value));

NCCL_BOTH_(ncclResult_t, ncclMemAlloc, (void **ptr, size_t size));
NCCL_BOTH_(ncclResult_t, ncclMemFree, (void *ptr));
NCCL_BOTH_(ncclResult_t, ncclCommRegister, (const ncclComm_t comm, void *buff, size_t size, void **handle));
NCCL_BOTH_(ncclResult_t, ncclCommDeregister, (const ncclComm_t comm, void *handle));
NCCL_BOTH_(ncclResult_t, ncclCommWindowRegister,
           (ncclComm_t comm, void *buff, size_t size, ncclWindow_t *win, int winFlags));
NCCL_BOTH_(ncclResult_t, ncclCommWindowDeregister, (ncclComm_t comm, ncclWindow_t win));
NCCL_BOTH_(ncclResult_t, ncclWinGetUserPtr, (ncclComm_t comm, ncclWindow_t win, void **outUserPtr));

NCCL_BOTH_(ncclResult_t, ncclRedOpCreatePreMulSum,
           (ncclRedOp_t * op, void *scalar, ncclDataType_t datatype, ncclScalarResidence_t residence, ncclComm_t comm));
NCCL_BOTH_(ncclResult_t, ncclRedOpDestroy, (ncclRedOp_t op, ncclComm_t comm));

NCCL_BOTH_(ncclResult_t, ncclReduce,
           (const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, int root,
            ncclComm_t comm, cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclBcast,
           (void *buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclBroadcast,
           (const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
            cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclAllReduce,
           (const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op,
            ncclComm_t comm, cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclReduceScatter,
           (const void *sendbuff, void *recvbuff, size_t recvcount, ncclDataType_t datatype, ncclRedOp_t op,
            ncclComm_t comm, cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclAllGather,
           (const void *sendbuff, void *recvbuff, size_t sendcount, ncclDataType_t datatype, ncclComm_t comm,
            cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclAlltoAll,
           (const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclComm_t comm,
            cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclGather,
           (const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
            cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclScatter,
           (const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
            cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclSend,
           (const void *sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm,
            cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclRecv,
           (void *recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclPutSignal,
           (const void *localbuff, size_t count, ncclDataType_t datatype, int peer, ncclWindow_t peerWin,
            size_t peerWinOffset, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm, cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclSignal,
           (int peer, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm, cudaStream_t stream));
NCCL_BOTH_(ncclResult_t, ncclWaitSignal,
           (int nDesc, ncclWaitSignalDesc_t *signalDescs, ncclComm_t comm, cudaStream_t stream));

NCCL_BOTH_(ncclResult_t, ncclGroupStart, (void));
NCCL_BOTH_(ncclResult_t, ncclGroupEnd, (void));
NCCL_BOTH_(ncclResult_t, ncclGroupSimulateEnd, (ncclSimInfo_t * simInfo));

#ifdef __cplusplus
}
#endif

#endif
