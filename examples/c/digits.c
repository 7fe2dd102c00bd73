/* Trains a small network to read handwritten digits, data-parallel: every rank holds the whole network, computes the gradient
 * of its share of each batch, and one all_reduce adds the shares up.
 *
 *     make && mpirun -n 4 ./digits ../data/digits.bin
 */
#include "network.h"
#include <roceccl.h>

/* What a call answers, and what the library says of it: who, where, the first cause, what to do. */
#define RCCL(call)                                                                                                     \
    do {                                                                                                               \
        rcclResult_t result_ = (call);                                                                                 \
        if (result_ != rcclSuccess) {                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, rcclGetErrorString(result_),                        \
                    rcclGetLastError(NULL));                                                                           \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { HIDDEN = 1, WIDTH = 32 };

static rcclComm_t comm;
static int rank, size;

/* Where this rank's share of `count` items begins, or, for rank + 1, ends: as even as can be. */
static size_t edge(size_t count, int of) {
    return count * (size_t)of / (size_t)size;
}

/* A step with a batch, of which every rank takes its share; the loss of the share. */
static float step(Network *network, float *parameters, float *velocity, float *gradient, const Example *batch,
                  size_t count) {
    const Example *mine = batch + edge(count, rank);
    size_t share = edge(count, rank + 1) - edge(count, rank);
    forward(network, parameters, mine, share);
    float loss = loss_of(network, mine, share);
    for (int layer = network->depth; layer-- > 0;) backward(network, layer, parameters, share, gradient);
    RCCL(rcclAllReduce(gradient, gradient, network->parameters, rcclFloat, rcclSum, comm, NULL));
    descend(network, parameters, velocity, gradient, count);
    return loss;
}

/* How many of this rank's share of the test images are recognised. */
static size_t test(Network *network, const float *parameters, const Example *images, size_t count) {
    size_t right = 0;
    for (size_t from = edge(count, rank), end = edge(count, rank + 1), next; from < end; from = next) {
        next = end - from > BATCH ? from + BATCH : end;
        forward(network, parameters, images + from, next - from);
        right += count_right(network, images + from, next - from);
    }
    return right;
}

/* The parameters as one number (FNV-1a); ranks that differ in one bit differ in it. */
static uint64_t fingerprint(const float *parameters, size_t count) {
    uint64_t hash = 0xcbf29ce484222325u;
    const unsigned char *bytes = (const unsigned char *)parameters;
    for (size_t b = 0; b < count * sizeof *parameters; b++) hash = (hash ^ bytes[b]) * 0x100000001b3u;
    return hash;
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s digits.bin [epochs]\n", argv[0]);
        return 2;
    }
    int epochs = argc == 3 ? atoi(argv[2]) : 30;
    rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
    config.commName = "digits";
    RCCL(rcclCommInitEnv(&comm, &config));
    RCCL(rcclCommUserRank(comm, &rank));
    RCCL(rcclCommCount(comm, &size));

    size_t count;
    Example *examples = load_examples(argv[1], &count);
    size_t train = count * 4 / 5, tested = count - train;
    Network network = make_network(HIDDEN, WIDTH);
    float *parameters = floats(network.parameters), *velocity = floats(network.parameters);
    /* Memory that the other ranks on this host read in place. */
    void *registered;
    RCCL(rcclMemAlloc(&registered, network.parameters * sizeof(float)));
    float *gradient = registered;
    /* Only rank 0's first parameters count; the others would start from different ones without the broadcast. */
    initialise(&network, 1 + (uint64_t)rank, parameters);
    RCCL(rcclBcast(parameters, network.parameters, rcclFloat, 0, comm, NULL));

    uint64_t order = 42;
    for (int epoch = 1; epoch <= epochs; epoch++) {
        float sums[2] = {0, 0};
        shuffle(examples, train, &order);
        for (size_t from = 0, next; from < train; from = next) {
            next = train - from > BATCH ? from + BATCH : train;
            sums[0] += step(&network, parameters, velocity, gradient, examples + from, next - from);
        }
        sums[1] = (float)test(&network, parameters, examples + train, tested);
        RCCL(rcclAllReduce(sums, sums, 2, rcclFloat, rcclSum, comm, NULL));
        if (rank == 0)
            printf("epoch %2d  loss %.6f  test accuracy %.2f %%\n", epoch, (double)(sums[0] / (float)train),
                   (double)(100 * sums[1] / (float)tested));
    }

    /* Equal on all ranks if the least fingerprint is the greatest. */
    uint64_t own = fingerprint(parameters, network.parameters), least, greatest;
    RCCL(rcclAllReduce(&own, &least, 1, rcclUint64, rcclMin, comm, NULL));
    RCCL(rcclAllReduce(&own, &greatest, 1, rcclUint64, rcclMax, comm, NULL));
    printf("rank %d of %d: weights %016llx\n", rank, size, (unsigned long long)own);
    if (least != greatest) {
        fprintf(stderr, "the ranks' weights differ\n");
        return 1;
    }
    RCCL(rcclCommFinalize(comm));
    RCCL(rcclCommDestroy(comm));
    RCCL(rcclMemFree(registered));
    free(velocity);
    free(parameters);
    free_network(&network);
    free(examples);
    return 0;
}
