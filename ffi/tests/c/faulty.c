/* A program with a fault, so that one sees that what looks for faults would find them: "address" has the library read past
 * the end of a buffer, "thread" has two threads work on one, "library" writes to one while a call on a stream has it. */
#define _POSIX_C_SOURCE 199309L
#include "check.h"
#include <pthread.h>
#include <time.h>

enum { COUNT = 20000, FEW = 64 }; /* few: so short that this process itself reads them, and no other nor the kernel */

static float shared[COUNT];

static void *use(void *comm) {
    for (int i = 0; i < 100; i++) GOOD(rcclBcast(shared, COUNT, rcclFloat, i % 2, (rcclComm_t)comm, NULL));
    return NULL;
}

int main(int argc, char **argv) {
    rcclComm_t comm, twin;
    CHECK(argc == 2);
    GOOD(rcclCommInitEnv(&comm, NULL));
    if (strcmp(argv[1], "address") == 0) {
        float *small = (float *)malloc(FEW / 2 * sizeof *small);
        CHECK(small != NULL);
        memset(small, 0, FEW / 2 * sizeof *small);
        GOOD(rcclAllReduce(small, shared, FEW, rcclFloat, rcclSum, comm, NULL));
        free(small);
    } else if (strcmp(argv[1], "library") == 0) {
        const struct timespec moment = {0, 20 * 1000 * 1000};
        rcclStream_t stream;
        GOOD(rcclStreamCreate(&stream));
        for (int i = 0; i < 10; i++) {
            GOOD(rcclAllReduce(shared, shared, COUNT, rcclFloat, rcclSum, comm, stream));
            nanosleep(&moment, NULL); /* the library's own thread makes it meanwhile */
            shared[i] = 1;
            GOOD(rcclStreamSynchronize(stream));
        }
        GOOD(rcclStreamDestroy(stream));
    } else {
        pthread_t threads[2];
        GOOD(rcclCommSplit(comm, 0, 0, &twin, NULL));
        CHECK(pthread_create(&threads[0], NULL, use, comm) == 0);
        CHECK(pthread_create(&threads[1], NULL, use, twin) == 0);
        for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        GOOD(rcclCommDestroy(twin));
    }
    GOOD(rcclCommDestroy(comm));
    return 0;
}
