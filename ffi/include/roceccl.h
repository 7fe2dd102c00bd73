/* rccl: collective communication between processes and hosts. The C interface.
 *
 * Names, shapes and numbers are NCCL's where NCCL has them. Differences:
 *  - memory is host memory, and a stream is a queue of this library's (rcclStreamCreate). A call whose stream is NULL
 *    returns when its result is there; in a group, rcclGroupEnd does;
 *  - every call has a deadline (RCCL_TIMEOUT, rcclConfig_t), and fails on all ranks with the first cause;
 *  - all functions may be called from any thread. Ranks must order the calls on one communicator alike.
 *
 * Functions that fail leave a sentence for their thread: rcclGetLastError.
 */
#ifndef ROCECCL_H
#define ROCECCL_H

#include <limits.h>
#include <stddef.h>

#define RCCL_MAJOR 0
#define RCCL_MINOR 1
#define RCCL_PATCH 0
#define RCCL_VERSION(X, Y, Z) ((X) * 10000 + (Y) * 100 + (Z))
#define RCCL_VERSION_CODE RCCL_VERSION(RCCL_MAJOR, RCCL_MINOR, RCCL_PATCH)

#define RCCL_UNIQUE_ID_BYTES 128
#define RCCL_SPLIT_NOCOLOR (-1)
#define RCCL_SHRINK_DEFAULT 0
#define RCCL_SHRINK_ABORT 1
#define RCCL_WIN_DEFAULT 0
#define RCCL_CONFIG_UNDEF_INT INT_MIN
#define RCCL_CONFIG_MAGIC 0x7263636cu

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rcclComm *rcclComm_t;
typedef struct rcclStream *rcclStream_t;
typedef struct rcclWindow *rcclWindow_t;

/* Made by one process, passed to all ranks by other means, such as MPI_Bcast. */
typedef struct {
    char internal[RCCL_UNIQUE_ID_BYTES];
} rcclUniqueId;

typedef enum {
    rcclSuccess = 0,
    rcclSystemError = 2,     /* the operating system refused something */
    rcclInternalError = 3,   /* a fault of this library */
    rcclInvalidArgument = 4, /* an argument is wrong by itself; nothing was sent */
    rcclInvalidUsage = 5,    /* the call does not fit what was done before, or what other ranks do */
    rcclRemoteError = 6,     /* another process, or the way to it, failed */
    rcclInProgress = 7,
    rcclTimeout = 8          /* a call did not end within its deadline */
} rcclResult_t;

typedef enum {
    rcclInt8 = 0,
    rcclChar = 0,
    rcclUint8 = 1,
    rcclInt32 = 2,
    rcclInt = 2,
    rcclUint32 = 3,
    rcclInt64 = 4,
    rcclUint64 = 5,
    rcclFloat16 = 6,
    rcclHalf = 6,
    rcclFloat32 = 7,
    rcclFloat = 7,
    rcclFloat64 = 8,
    rcclDouble = 8,
    rcclBfloat16 = 9,
    rcclFloat8e4m3 = 10,
    rcclFloat8e5m2 = 11
} rcclDataType_t;

/* Integers wrap. Avg is the sum divided once, integers towards zero. Max and min propagate NaN. The bitwise ones are for
 * integers. Further operators: rcclRedOpCreatePreMulSum. */
typedef enum {
    rcclSum = 0,
    rcclProd = 1,
    rcclMax = 2,
    rcclMin = 3,
    rcclAvg = 4,
    rcclBitAnd = 5,
    rcclBitOr = 6,
    rcclBitXor = 7,
    rcclMaxRedOp = 0x7fffffff
} rcclRedOp_t;

typedef enum {
    rcclScalarDevice = 0,
    rcclScalarHostImmediate = 1
} rcclScalarResidence_t;

/* Begin with RCCL_CONFIG_INITIALIZER; what is left undefined is as the environment says. */
typedef struct {
    size_t size;
    unsigned int magic;
    unsigned int version;
    int blocking;      /* 0: joining returns rcclInProgress at once, see rcclCommGetAsyncError */
    int timeoutMs;     /* how long a call may take */
    int initTimeoutMs; /* how long joining may take */
    int reproducible;  /* 1: the same bits for any size, algorithm, transport and placement */
    const char *commName;
} rcclConfig_t;

#define RCCL_CONFIG_INITIALIZER                                                                                        \
    {                                                                                                                  \
        sizeof(rcclConfig_t), RCCL_CONFIG_MAGIC, RCCL_VERSION_CODE, RCCL_CONFIG_UNDEF_INT, RCCL_CONFIG_UNDEF_INT,      \
            RCCL_CONFIG_UNDEF_INT, RCCL_CONFIG_UNDEF_INT, NULL                                                         \
    }

/* Begin with RCCL_SIM_INFO_INITIALIZER. */
typedef struct {
    size_t size;
    unsigned int magic;
    unsigned int version;
    float estimatedTime; /* microseconds */
} rcclSimInfo_t;

#define RCCL_SIM_INFO_INITIALIZER                                                                                      \
    { sizeof(rcclSimInfo_t), RCCL_CONFIG_MAGIC, RCCL_VERSION_CODE, -1.0f }

/* --- The library ------------------------------------------------------------------------------------------------ */

rcclResult_t rcclGetVersion(int *version);
/* A few words for a result. */
const char *rcclGetErrorString(rcclResult_t result);
/* What the last function that failed on this thread said: who, where, which operation, what was seen, what to do. Valid until
 * the next one fails. The communicator is not looked at and may be NULL. */
const char *rcclGetLastError(rcclComm_t comm);
/* For an interface that is built over this one, and refuses some calls by itself: answers result, a failure, and keeps words for
 * rcclGetLastError. With part = 1 the call would have been one of the open group, of which nothing is done then. */
rcclResult_t rcclRefuse(rcclResult_t result, const char *words, int part);

/* --- Communicators ---------------------------------------------------------------------------------------------- */

/* The process that makes the id takes part, or lives until all have joined. */
rcclResult_t rcclGetUniqueId(rcclUniqueId *uniqueId);
/* Joins; blocks until all ranks have, at most initTimeoutMs. In a group: rcclGroupEnd does, for all that one thread joins. What was
 * not joined is NULL. */
rcclResult_t rcclCommInitRank(rcclComm_t *comm, int nranks, rcclUniqueId commId, int rank);
/* With blocking = 0 it returns rcclInProgress; the communicator can be used when rcclCommGetAsyncError gives rcclSuccess. */
rcclResult_t rcclCommInitRankConfig(rcclComm_t *comm, int nranks, rcclUniqueId commId, int rank,
                                    const rcclConfig_t *config);
/* Joins the job that a launcher started this process in: mpirun, srun, torchrun, rccl run, or RANK and WORLD_SIZE. */
rcclResult_t rcclCommInitEnv(rcclComm_t *comm, const rcclConfig_t *config);
/* All ndev ranks in this process. devlist is not read. */
rcclResult_t rcclCommInitAll(rcclComm_t *comms, int ndev, const int *devlist);
/* Leaves after this rank's last call; waits for calls that are under way. rcclCommDestroy frees it then. */
rcclResult_t rcclCommFinalize(rcclComm_t comm);
/* Leaves if that was not done, and frees the communicator. */
rcclResult_t rcclCommDestroy(rcclComm_t comm);
/* Gives up: current and later calls fail on all ranks. Frees the communicator. */
rcclResult_t rcclCommAbort(rcclComm_t comm);
/* As rcclCommAbort, but the communicator stays, to be shrunk or destroyed. */
rcclResult_t rcclCommRevoke(rcclComm_t comm);
/* As rcclCommRevoke, with words that all ranks are told as the first cause; NULL: none. */
rcclResult_t rcclCommRevokeBecause(rcclComm_t comm, const char *why);
/* rcclInProgress while it is being joined, then rcclSuccess until something broke it. */
rcclResult_t rcclCommGetAsyncError(rcclComm_t comm, rcclResult_t *asyncError);
rcclResult_t rcclCommCount(rcclComm_t comm, int *count);
rcclResult_t rcclCommUserRank(rcclComm_t comm, int *rank);
/* A communicator for each colour (0 or more), with ranks in the order of key; with RCCL_SPLIT_NOCOLOR this rank gets NULL.
 * Every rank calls it. In a group, where a thread that has several ranks must call it, newcomm is there at the group's end; each
 * communicator is split once in a group. config may be NULL, and settings of the parent hold. */
rcclResult_t rcclCommSplit(rcclComm_t comm, int color, int key, rcclComm_t *newcomm, const rcclConfig_t *config);
/* A communicator of the ranks that are not excluded. Those alone call it; nothing is sent, so it works on a broken
 * one. With none excluded: a communicator of the same ranks, of which the others learn nothing. */
rcclResult_t rcclCommShrink(rcclComm_t comm, const int *excludeRanksList, int excludeRanksCount, rcclComm_t *newcomm,
                            const rcclConfig_t *config, int shrinkFlags);
/* A communicator of the ranks of comm, which keep their numbers, and of new ones, which have the numbers from comm's size on.
 * Every rank of comm calls it with rank -1; one of them (or all) passes the id, which it got by rcclCommGetUniqueId and
 * handed to the new ranks, the others NULL. New ranks call it with NULL as comm, the id, and their own number. Blocks until all nranks
 * have joined, as rcclCommInitRankConfig does; may be in a group, as that. Of config the ranks of comm heed `blocking`: with 0
 * what blocks, outside of groups, is a short collective on comm, and the other settings are comm's. comm is as before; where a rank of it was lost, shrink it first. */
rcclResult_t rcclCommGetUniqueId(rcclComm_t comm, rcclUniqueId *uniqueId);
rcclResult_t rcclCommGrow(rcclComm_t comm, int nranks, const rcclUniqueId *uniqueId, int rank, rcclComm_t *newcomm,
                          const rcclConfig_t *config);

/* --- Streams: an order of calls, across communicators ------------------------------------------------------------ */

rcclResult_t rcclStreamCreate(rcclStream_t *stream);
/* What was made on it goes on. */
rcclResult_t rcclStreamDestroy(rcclStream_t stream);
/* Blocks until all calls on it have ended; the first failure since it was asked last. */
rcclResult_t rcclStreamSynchronize(rcclStream_t stream);
/* The same for at most timeoutMs milliseconds: rcclInProgress if that is not enough. */
rcclResult_t rcclStreamSynchronizeTimeout(rcclStream_t stream, int timeoutMs);
/* How long each call may take that is made on it from now on, counted from when it begins; RCCL_CONFIG_UNDEF_INT: as long as
 * its communicator's calls. */
rcclResult_t rcclStreamSetTimeout(rcclStream_t stream, int timeoutMs);
/* With background = 0 calls that are made on it from now on go on only while somebody waits for them, or calls something else on
 * their communicator: who waits at once saves waking a thread. 1, as at first: by themselves, and so does what is under way. */
rcclResult_t rcclStreamSetBackground(rcclStream_t stream, int background);
/* Calls callback once, when everything that was made on stream so far has ended, with the first failure that
 * rcclStreamSynchronize has not told, which tells it nevertheless, and with its words, which are good until callback returns. It
 * is called by the thread that sees the end: this one before the function returns, one that waits, or one of the library's. It
 * may make calls on streams, which are in no group; it must not wait for any, destroy a communicator, or throw. */
typedef void (*rcclStreamCallback_t)(rcclStream_t stream, rcclResult_t result, const char *words, void *argument);
rcclResult_t rcclStreamAddCallback(rcclStream_t stream, rcclStreamCallback_t callback, void *argument);
/* rcclInProgress, or as rcclStreamSynchronize. */
rcclResult_t rcclStreamQuery(rcclStream_t stream);
/* What is made on stream from now on begins after what was made on other so far. */
rcclResult_t rcclStreamWait(rcclStream_t stream, rcclStream_t other);

/* --- Collectives -------------------------------------------------------------------------------------------------
 * Counts are elements. In place: sendbuff equal to recvbuff, or for calls with blocks this rank's block of the other; not
 * rcclAlltoAll and the forms with counts. Buffers that a rank does not use may be NULL. */

rcclResult_t rcclAllReduce(const void *sendbuff, void *recvbuff, size_t count, rcclDataType_t datatype, rcclRedOp_t op,
                           rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclReduce(const void *sendbuff, void *recvbuff, size_t count, rcclDataType_t datatype, rcclRedOp_t op,
                        int root, rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount, rcclDataType_t datatype,
                               rcclRedOp_t op, rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclBroadcast(const void *sendbuff, void *recvbuff, size_t count, rcclDataType_t datatype, int root,
                           rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclBcast(void *buff, size_t count, rcclDataType_t datatype, int root, rcclComm_t comm,
                       rcclStream_t stream);
rcclResult_t rcclAllGather(const void *sendbuff, void *recvbuff, size_t sendcount, rcclDataType_t datatype,
                           rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclGather(const void *sendbuff, void *recvbuff, size_t sendcount, rcclDataType_t datatype, int root,
                        rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclScatter(const void *sendbuff, void *recvbuff, size_t recvcount, rcclDataType_t datatype, int root,
                         rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclAlltoAll(const void *sendbuff, void *recvbuff, size_t count, rcclDataType_t datatype, rcclComm_t comm,
                          rcclStream_t stream);
rcclResult_t rcclBarrier(rcclComm_t comm, rcclStream_t stream);
/* Blocks of different lengths, one after the other; counts by rank. */
rcclResult_t rcclAllGatherV(const void *sendbuff, void *recvbuff, const size_t *recvcounts, rcclDataType_t datatype,
                            rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclReduceScatterV(const void *sendbuff, void *recvbuff, const size_t *recvcounts, rcclDataType_t datatype,
                                rcclRedOp_t op, rcclComm_t comm, rcclStream_t stream);
/* recvcounts, and sendcounts of rcclScatterV, are read at the root only. */
rcclResult_t rcclGatherV(const void *sendbuff, size_t sendcount, void *recvbuff, const size_t *recvcounts,
                         rcclDataType_t datatype, int root, rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclScatterV(const void *sendbuff, const size_t *sendcounts, void *recvbuff, size_t recvcount,
                          rcclDataType_t datatype, int root, rcclComm_t comm, rcclStream_t stream);
rcclResult_t rcclAlltoAllV(const void *sendbuff, const size_t *sendcounts, void *recvbuff, const size_t *recvcounts,
                           rcclDataType_t datatype, rcclComm_t comm, rcclStream_t stream);

/* --- Messages: to and from this rank itself in a group only ------------------------------------------------------- */

rcclResult_t rcclSend(const void *sendbuff, size_t count, rcclDataType_t datatype, int peer, rcclComm_t comm,
                      rcclStream_t stream);
rcclResult_t rcclRecv(void *recvbuff, size_t count, rcclDataType_t datatype, int peer, rcclComm_t comm,
                      rcclStream_t stream);

/* --- One-sided calls: a rank puts data into a window of another's memory --------------------------------------------- */

/* Memory that all ranks of the communicator may put into, until it is deregistered. Every rank registers one, in the same order;
 * what one puts by its k-th window comes to the other's k-th. They may have different sizes, also 0. Nothing is sent. The memory
 * is written to while this rank waits for signals, and no window may go meanwhile. winFlags: RCCL_WIN_DEFAULT. */
rcclResult_t rcclCommWindowRegister(rcclComm_t comm, void *buff, size_t size, rcclWindow_t *win, int winFlags);
/* What still comes for it breaks the communicator when it is waited for. NULL is none. The end of the communicator does it, too. */
rcclResult_t rcclCommWindowDeregister(rcclComm_t comm, rcclWindow_t win);
rcclResult_t rcclWinGetUserPtr(rcclComm_t comm, rcclWindow_t win, void **ptr);
/* Writes to peer's window of the same registration as peerWin, peerWinOffset bytes behind its start, and signals that; peer may be
 * this rank. It ends when localbuff may be used again, whatever peer does: the data are copied, and go out in the background until
 * peer waits for the signal. If they do not fit into peer's window, peer finds that out, and the communicator fails. sigIdx, ctx
 * and flags are 0. In a group these calls come first. Puts to one rank come in their order on one stream, or without one. */
rcclResult_t rcclPutSignal(const void *localbuff, size_t count, rcclDataType_t datatype, int peer, rcclWindow_t peerWin,
                           size_t peerWinOffset, int sigIdx, int ctx, unsigned int flags, rcclComm_t comm,
                           rcclStream_t stream);
/* Signals, and nothing else. */
rcclResult_t rcclSignal(int peer, int sigIdx, int ctx, unsigned int flags, rcclComm_t comm, rcclStream_t stream);
typedef struct {
    int opCnt; /* how many signals */
    int peer;  /* whose */
    int sigIdx;
    int ctx;
} rcclWaitSignalDesc_t;
/* Ends when opCnt further signals of each peer have come; what was put before them is there then. In a group these calls come
 * last. A rank that leaves waits some seconds for its signals to be waited for. */
rcclResult_t rcclWaitSignal(int nDesc, const rcclWaitSignalDesc_t *signalDescs, rcclComm_t comm, rcclStream_t stream);

/* --- Groups: the calls and joins of this thread between start and end are one submission -------------------------- */

rcclResult_t rcclGroupStart(void);
/* Returns when the calls without a stream have ended. If a call was refused, also a join, a split or a shrink, nothing of the
 * group is done. */
rcclResult_t rcclGroupEnd(void);
/* Ends the outermost group without doing anything of it, and says how many microseconds its calls would take: what the simulator says
 * of the algorithms that they take, on hosts of this job's kind with nothing else under way. Nothing is measured; of hundreds of ranks
 * and gigabytes the simulator itself takes seconds. Of an inner group it says nothing.
 * rcclInvalidUsage if that is not known: for calls whose lengths only other ranks know, one-sided calls, and more than 512
 * ranks. */
rcclResult_t rcclGroupSimulateEnd(rcclSimInfo_t *simInfo);

/* --- Operators and memory ---------------------------------------------------------------------------------------- */

/* The sum of all ranks' elements, each first multiplied by its rank's scalar, one element of datatype, which is read now. Only
 * calls on comm take the operator; its number may differ from rank to rank. */
rcclResult_t rcclRedOpCreatePreMulSum(rcclRedOp_t *op, const void *scalar, rcclDataType_t datatype,
                                      rcclScalarResidence_t residence, rcclComm_t comm);
/* Calls that were made with it keep its scalar, also those of an open group. */
rcclResult_t rcclRedOpDestroy(rcclRedOp_t op, rcclComm_t comm);

/* Memory that the other ranks of this host map, and RDMA devices know: calls on it copy nothing between. Zeroed. */
rcclResult_t rcclMemAlloc(void **ptr, size_t size);
/* After the last call on it has ended. */
rcclResult_t rcclMemFree(void *ptr);
/* Makes memory of the program's known to RDMA devices, until rcclCommDeregister with the same communicator, or its end. Does
 * nothing where there are none. */
rcclResult_t rcclCommRegister(rcclComm_t comm, void *buff, size_t size, void **handle);
rcclResult_t rcclCommDeregister(rcclComm_t comm, void *handle);

#ifdef __cplusplus
}
#endif

#endif
