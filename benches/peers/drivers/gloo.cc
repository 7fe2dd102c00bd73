// Times Gloo over TCP on the loopback interface. The runner starts the ranks itself and hands each PEERS_RANK and
// PEERS_SIZE; they meet through files in the folder PEERS_STORE.
#include "measure.h"

#include <algorithm>
#include <memory>

#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

using Context = std::shared_ptr<gloo::rendezvous::Context>;
using Reduction = void (*)(void *, const void *, const void *, size_t);

static void barrier(void *context) {
    gloo::BarrierOptions options(*static_cast<Context *>(context));
    gloo::barrier(options);
}

static void call(void *context, enum collective collective, float *in, float *out, size_t count) {
    const Context &gloo_context = *static_cast<Context *>(context);
    if (collective == ALL_REDUCE) {
        gloo::AllreduceOptions options(gloo_context);
        options.setInput(in, count);
        options.setOutput(out, count);
        options.setReduceFunction(static_cast<Reduction>(&gloo::sum<float>));
        gloo::allreduce(options);
    } else {
        gloo::BroadcastOptions options(gloo_context);
        options.setRoot(0);
        options.setOutput(out, count);
        gloo::broadcast(options);
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
    address.hostname = "127.0.0.1";
    auto device = gloo::transport::tcp::CreateDevice(address);
    gloo::rendezvous::FileStore store(variable("PEERS_STORE"));
    Context context = std::make_shared<gloo::rendezvous::Context>(rank, ranks);
    context->connectFullMesh(store, device);

    struct library lib = {rank, ranks, &context, barrier, call, maximum};
    measure(&lib, &o, pages(o.end, MAP_PRIVATE), pages(o.end, MAP_PRIVATE));
    barrier(&context); // nobody closes its sockets while a peer still reads
    return 0;
}
