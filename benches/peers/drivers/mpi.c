// Times an MPI library; the same source is compiled against Open MPI and against MPICH.
#include "measure.h"
#include <mpi.h>
#include <signal.h>
#include <unistd.h>

static void barrier(void *unused) {
    (void)unused;
    MPI_Barrier(MPI_COMM_WORLD);
}

static int ranks; // of MPI_COMM_WORLD

static void call(void *unused, enum collective collective, float *in, float *out, size_t elements) {
    (void)unused;
    int count = (int)elements, block = count / ranks;
    MPI_Comm world = MPI_COMM_WORLD;
    switch (collective) {
    case ALL_REDUCE: MPI_Allreduce(in, out, count, MPI_FLOAT, MPI_SUM, world); break;
    case REDUCE: MPI_Reduce(in, out, count, MPI_FLOAT, MPI_SUM, 0, world); break;
    case REDUCE_SCATTER: MPI_Reduce_scatter_block(in, out, block, MPI_FLOAT, MPI_SUM, world); break;
    case BROADCAST: MPI_Bcast(out, count, MPI_FLOAT, 0, world); break;
    case SCATTER: MPI_Scatter(in, block, MPI_FLOAT, out, block, MPI_FLOAT, 0, world); break;
    case GATHER: MPI_Gather(in, block, MPI_FLOAT, out, block, MPI_FLOAT, 0, world); break;
    case ALL_GATHER: MPI_Allgather(in, block, MPI_FLOAT, out, block, MPI_FLOAT, world); break;
    case ALL_TO_ALL: MPI_Alltoall(in, block, MPI_FLOAT, out, block, MPI_FLOAT, world); break;
    default: MPI_Abort(world, 2);
    }
}

static void maximum(void *unused, double *values, size_t count) {
    (void)unused;
    MPI_Allreduce(MPI_IN_PLACE, values, (int)count, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
}

static void leave(int signal) {
    (void)signal;
    _exit(0);
}

int main(int argc, char **argv) {
    struct options o = parse_options(argc, argv);
    MPI_Init(&argc, &argv);
    struct library lib = {0, 0, NULL, barrier, call, maximum};
    MPI_Comm_rank(MPI_COMM_WORLD, &lib.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &lib.ranks);
    ranks = lib.ranks;
    measure(&lib, &o, pages(o.end, MAP_PRIVATE), pages(o.end, MAP_PRIVATE));
    // All is measured and written. MPICH 4 over TCP, with more ranks than cores, hangs in MPI_Finalize every few runs;
    // the launcher may call it an error that a rank leaves, but then the runner has what it wants.
    signal(SIGALRM, leave);
    alarm(2);
    MPI_Finalize();
    return 0;
}
