// Trains a network on the handwritten digits, data-parallel, and takes every batch twice: once it waits for each layer's
// all_reduce before it goes on to the layer below, once it puts them on a stream, where they are under way while the
// gradients of the layers below are still computed. Prints what a step of each kind takes.
//
//     make && mpirun -n 2 ./overlap ../data/digits.bin
#include "../c/network.h"
#include <roceccl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// What the library says of a failure is what the exception says.
static void check(rcclResult_t result) {
    if (result != rcclSuccess)
        throw std::runtime_error(std::string(rcclGetErrorString(result)) + ": " + rcclGetLastError(nullptr));
}

class Communicator {
  public:
    explicit Communicator(const rcclConfig_t &config) { check(rcclCommInitEnv(&handle, &config)); }
    ~Communicator() { rcclCommDestroy(handle); }
    Communicator(const Communicator &) = delete;
    Communicator &operator=(const Communicator &) = delete;

    operator rcclComm_t() const { return handle; }
    int rank() const {
        int rank;
        check(rcclCommUserRank(handle, &rank));
        return rank;
    }
    int size() const {
        int size;
        check(rcclCommCount(handle, &size));
        return size;
    }

  private:
    rcclComm_t handle;
};

class Stream {
  public:
    Stream() { check(rcclStreamCreate(&handle)); }
    // Waits, so that memory that was there before the stream outlives the calls on it; after a failure too.
    ~Stream() {
        rcclStreamSynchronize(handle);
        rcclStreamDestroy(handle);
    }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;

    operator rcclStream_t() const { return handle; }
    void synchronize() const { check(rcclStreamSynchronize(handle)); }

  private:
    rcclStream_t handle;
};

// Floats that the other ranks on this host read in place.
class Registered {
  public:
    explicit Registered(std::size_t count) { check(rcclMemAlloc(&memory, count * sizeof(float))); }
    ~Registered() { rcclMemFree(memory); }
    Registered(const Registered &) = delete;
    Registered &operator=(const Registered &) = delete;

    float *data() const { return static_cast<float *>(memory); }

  private:
    void *memory;
};

// One rank's copy of the network.
class Replica {
  public:
    Replica(const Communicator &comm, int hidden, std::size_t width)
        : comm(comm), rank(comm.rank()), size(comm.size()), network(make_network(hidden, width)),
          parameters(network.parameters), velocity(network.parameters) {
        initialise(&network, 1, parameters.data());
        check(rcclBcast(parameters.data(), parameters.size(), rcclFloat, 0, comm, nullptr));
    }
    ~Replica() { free_network(&network); }
    Replica(const Replica &) = delete;
    Replica &operator=(const Replica &) = delete;

    std::size_t count() const { return parameters.size(); }

    // The gradient of a batch, all ranks' shares added up; the loss of this rank's. With a stream, an all_reduce is under way
    // while the layers below are computed; without one, each is waited for.
    float gradient(const Example *batch, std::size_t count, float *sum, const Stream *stream) {
        const std::size_t begin = count * rank / size, end = count * (rank + 1) / size;
        forward(&network, parameters.data(), batch + begin, end - begin);
        const float loss = loss_of(&network, batch + begin, end - begin);
        for (int l = network.depth; l-- > 0;) {
            backward(&network, l, parameters.data(), end - begin, sum);
            float *of_layer = sum + network.layers[l].place;
            check(rcclAllReduce(of_layer, of_layer, parameters_of(&network.layers[l]), rcclFloat, rcclSum, comm,
                                stream ? static_cast<rcclStream_t>(*stream) : nullptr));
        }
        if (stream) stream->synchronize();
        return loss;
    }

    // The same by this rank alone, to check the sums.
    std::vector<float> whole_gradient(const Example *batch, std::size_t count) {
        std::vector<float> sum(parameters.size());
        forward(&network, parameters.data(), batch, count);
        loss_of(&network, batch, count);
        for (int l = network.depth; l-- > 0;) backward(&network, l, parameters.data(), count, sum.data());
        return sum;
    }

    void update(const float *sum, std::size_t count) {
        descend(&network, parameters.data(), velocity.data(), sum, count);
    }

  private:
    const Communicator &comm;
    const std::size_t rank, size;
    Network network;
    std::vector<float> parameters, velocity;
};

static void are_near(const float *sum, const std::vector<float> &alone) {
    for (std::size_t i = 0; i < alone.size(); i++)
        if (!(std::fabs(sum[i] - alone[i]) <= 1e-3f + 1e-3f * std::fabs(alone[i])))
            throw std::runtime_error("element " + std::to_string(i) + " of the gradient is " + std::to_string(sum[i]) +
                                     ", not " + std::to_string(alone[i]));
}

static double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

static void train(const char *file, int epochs, std::size_t width) {
    rcclConfig_t config = RCCL_CONFIG_INITIALIZER;
    config.commName = "overlap";
    config.reproducible = 1; // the same bits, whichever way a call is made
    const Communicator comm(config);
    Replica replica(comm, 4, width);
    const Registered waited(replica.count()), overlapped(replica.count());
    const Stream stream;

    std::size_t count;
    Example *loaded = load_examples(file, &count);
    std::vector<Example> examples(loaded, loaded + count);
    std::free(loaded);

    std::vector<double> times[2];
    const auto timed = [&](std::vector<double> &into, const Example *batch, std::size_t size, const Registered &sum,
                           const Stream *on) {
        check(rcclBarrier(comm, nullptr));
        const auto begin = std::chrono::steady_clock::now();
        const float loss = replica.gradient(batch, size, sum.data(), on);
        into.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
        return loss;
    };
    for (int epoch = 1; epoch <= epochs; epoch++) {
        float loss = 0;
        for (std::size_t from = 0; from < count; from += BATCH) {
            const Example *batch = &examples[from];
            const std::size_t size = std::min<std::size_t>(BATCH, count - from);
            timed(times[0], batch, size, waited, nullptr);
            loss += timed(times[1], batch, size, overlapped, &stream);
            // The same bits both ways, and what one rank computes alone.
            if (std::memcmp(waited.data(), overlapped.data(), replica.count() * sizeof(float)) != 0)
                throw std::runtime_error("the two ways give different gradients");
            if (from == 0) are_near(overlapped.data(), replica.whole_gradient(batch, size));
            replica.update(overlapped.data(), size);
        }
        check(rcclAllReduce(&loss, &loss, 1, rcclFloat, rcclSum, comm, nullptr));
        if (comm.rank() == 0) std::printf("epoch %d  loss %.6f\n", epoch, loss / count);
    }

    double medians[2] = {median(times[0]), median(times[1])};
    check(rcclAllReduce(medians, medians, 2, rcclDouble, rcclMax, comm, nullptr));
    if (comm.rank() == 0) {
        std::printf("%d rank(s), %zu parameters, median step: %.3f ms one after the other, %.3f ms overlapped\n",
                    comm.size(), replica.count(), medians[0], medians[1]);
        std::printf("gradients are equal, and right\n");
    }
    check(rcclCommFinalize(comm));
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 4) {
        std::fprintf(stderr, "usage: %s digits.bin [epochs] [width of the hidden layers]\n", argv[0]);
        return 2;
    }
    try {
        train(argv[1], argc > 2 ? std::atoi(argv[2]) : 2, argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 256);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
