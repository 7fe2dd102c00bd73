/* The smallest program: join, add up, leave. Builds by one line, and runs under any launcher or alone:
 *
 *     cc sum.c -o sum $(pkg-config --cflags --libs roceccl)
 *     mpirun -n 4 ./sum
 */
#include <roceccl.h>
#include <stdio.h>
#include <stdlib.h>

#define RCCL(call)                                                                                                     \
    do {                                                                                                               \
        rcclResult_t result_ = (call);                                                                                 \
        if (result_ != rcclSuccess) {                                                                                  \
            fprintf(stderr, "%s: %s\n", rcclGetErrorString(result_), rcclGetLastError(NULL));                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

int main(void) {
    rcclComm_t comm;
    int rank, size;
    RCCL(rcclCommInitEnv(&comm, NULL));
    RCCL(rcclCommUserRank(comm, &rank));
    RCCL(rcclCommCount(comm, &size));

    long long x[1000];
    for (int i = 0; i < 1000; i++) x[i] = rank + i;
    RCCL(rcclAllReduce(x, x, 1000, rcclInt64, rcclSum, comm, NULL));
    for (int i = 0; i < 1000; i++) {
        long long right = (long long)size * (size - 1) / 2 + (long long)size * i;
        if (x[i] != right) {
            fprintf(stderr, "element %d is %lld, not %lld\n", i, x[i], right);
            return 1;
        }
    }
    printf("rank %d of %d: all sums are right\n", rank, size);
    RCCL(rcclCommFinalize(comm));
    RCCL(rcclCommDestroy(comm));
    return 0;
}
