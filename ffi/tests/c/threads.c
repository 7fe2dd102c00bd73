/* Two communicators, each used by a thread of its own at the same time, on the ranks of a launcher. */
#include "check.h"
#include <pthread.h>

enum { COUNT = 3000, ROUNDS = 100 };

struct user {
    rcclComm_t comm;
    float first;
};

static void *use(void *argument) {
    struct user *user = (struct user *)argument;
    static const size_t counts[] = {1, 100, COUNT};
    int rank, size;
    GOOD(rcclCommUserRank(user->comm, &rank));
    GOOD(rcclCommCount(user->comm, &size));
    rcclStream_t stream;
    GOOD(rcclStreamCreate(&stream));
    float *x = (float *)malloc(COUNT * sizeof *x), *y = (float *)malloc(COUNT * sizeof *y);
    CHECK(x && y);
    float sum = (float)(size * (size - 1) / 2) + (float)size * user->first;
    for (int round = 0; round < ROUNDS; round++) {
        size_t count = counts[round % 3];
        for (size_t i = 0; i < count; i++) x[i] = user->first + (float)rank;
        GOOD(rcclAllReduce(x, y, count, rcclFloat, rcclSum, user->comm, round % 2 ? stream : NULL));
        GOOD(rcclBroadcast(y, x, count, rcclFloat, round % size, user->comm, round % 2 ? stream : NULL));
        if (round % 2) GOOD(rcclStreamSynchronize(stream));
        for (size_t i = 0; i < count; i++) CHECK(y[i] == sum && x[i] == sum);
        REFUSED(rcclBcast(x, count, rcclFloat, size, user->comm, NULL), rcclInvalidArgument, "root");
    }
    GOOD(rcclStreamDestroy(stream));
    free(x);
    free(y);
    return NULL;
}

int main(void) {
    rcclComm_t world;
    struct user users[2];
    pthread_t threads[2];
    rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
    config.timeoutMs = 60000;
    GOOD(rcclCommInitEnv(&world, &config));
    for (int i = 0; i < 2; i++) {
        users[i].first = 100 * (float)i;
        GOOD(rcclCommSplit(world, 0, 0, &users[i].comm, NULL));
    }
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, use, &users[i]) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 2; i++) GOOD(rcclCommDestroy(users[i].comm));
    GOOD(rcclCommDestroy(world));
    printf("two threads: right\n");
    return 0;
}
