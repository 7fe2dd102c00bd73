// Times Gloo over TCP, on the loopback interface or that of the address PEERS_ADDRESS. The runner starts the ranks itself
// and hands each PEERS_RANK and PEERS_SIZE; they meet through files in the folder PEERS_STORE.
#include "measure.h"

#include <algorithm>
#include <memory>
#include <vector>

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/alltoall.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/gather.h>
#include <gloo/math.h>
#include <gloo/reduce.h>
#include <gloo/reduce_scatter.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/scatter.h>
#include <gloo/transport/tcp/device.h>

using Context = std::shared_ptr<gloo::rendezvous::Context>;
using Reduction = void (*)(void *, const void *, const void *, size_t);

static void barrier(void *context) {
    gloo::BarrierOptions options(*static_cast<Context *>(context));
    gloo::barrier(options);
}

// Gloo's reduce_scatter works in place only and is made for one array: the input is copied there, the result from there.
// To be made is no part of a call, as little as for its users, who keep it.
static void reduce_scatter(const Context &context, const float *in, float *out, size_t count) {
    using Algorithm = gloo::ReduceScatterHalvingDoubling<float>;
    static std::vector<float> array;
    static std::unique_ptr<Algorithm> algorithm;
    int ranks = context->size, block = (int)count / ranks;
    if (array.size() != count || !algorithm) {
        algorithm.reset();
        array.assign(count, 0);
        algorithm.reset(new Algorithm(context, {array.data()}, (int)count, std::vector<int>(ranks, block)));
    }
    memcpy(array.data(), in, count * sizeof(float));
    algorithm->run();
    memcpy(out, array.data(), block * sizeof(float));
}

template <typename Options>
static Options with(const Context &context, float *in, size_t input, float *out, size_t output) {
    Options options(context);
    options.setInput(in, input);
    options.setOutput(out, output);
    return options;
}

static void call(void *context, enum collective collective, float *in, float *out, size_t count) {
    const Context &gloo_context = *static_cast<Context *>(context);
    size_t block = count / gloo_context->size;
    bool root = gloo_context->rank == 0;
    auto plus = static_cast<Reduction>(&gloo::sum<float>);
    switch (collective) {
    case ALL_REDUCE: {
        auto options = with<gloo::AllreduceOptions>(gloo_context, in, count, out, count);
        options.setReduceFunction(plus);
        gloo::allreduce(options);
        break;
    }
    case REDUCE: {
        auto options = with<gloo::ReduceOptions>(gloo_context, in, count, out, count);
        options.setRoot(0);
        options.setReduceFunction(plus);
        gloo::reduce(options);
        break;
    }
    case REDUCE_SCATTER: reduce_scatter(gloo_context, in, out, count); break;
    case BROADCAST: {
        gloo::BroadcastOptions options(gloo_context);
        options.setRoot(0);
        options.setOutput(out, count);
        gloo::broadcast(options);
        break;
    }
    case SCATTER: {
        gloo::ScatterOptions options(gloo_context);
        std::vector<float *> blocks;
        for (int r = 0; root && r < gloo_context->size; r++) blocks.push_back(in + r * block);
        options.setRoot(0);
        options.setInputs(blocks, block);
        options.setOutput(out, block);
        gloo::scatter(options);
        break;
    }
    case GATHER: {
        gloo::GatherOptions options(gloo_context);
        options.setRoot(0);
        options.setInput(in, block);
        if (root) options.setOutput(out, count);
        gloo::gather(options);
        break;
    }
    case ALL_GATHER: {
        auto options = with<gloo::AllgatherOptions>(gloo_context, in, block, out, count);
        gloo::allgather(options);
        break;
    }
    case ALL_TO_ALL: {
        auto options = with<gloo::AlltoallOptions>(gloo_context, in, count, out, count);
        gloo::alltoall(options);
        break;
    }
    default:
        fprintf(stderr, "gloo driver: no %s\n", names[collective]);
        exit(2);
    }
}

static void maximum(void *context, double *values, size_t count) {
    gloo::AllreduceOptions options(*static_cast<Context *>(context));
    options.setOutput(values, count);
    options.setReduceFunction(static_cast<Reduction>(&gloo::max<double>));
    gloo::allreduce(options);
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    if (!value) {
        fprintf(stderr, "gloo driver: %s is not set; start it through the runner\n", name);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv) {
    struct options o = parse_options(argc, argv);
    int rank = atoi(variable("PEERS_RANK")), ranks = atoi(variable("PEERS_SIZE"));

    gloo::transport::tcp::attr address;
    const char *own = getenv("PEERS_ADDRESS");
    address.hostname = own ? own : "127.0.0.1";
    auto device = gloo::transport::tcp::CreateDevice(address);
    gloo::rendezvous::FileStore store(variable("PEERS_STORE"));
    Context context = std::make_shared<gloo::rendezvous::Context>(rank, ranks);
    context->setTimeout(std::chrono::seconds(100)); // ranks on emulated cores take their time to come
    context->connectFullMesh(store, device);

    struct library lib = {rank, ranks, &context, barrier, call, maximum};
    measure(&lib, &o, pages(o.end, MAP_PRIVATE), pages(o.end, MAP_PRIVATE));
    barrier(&context); // nobody closes its sockets while a peer still reads
    return 0;
}
