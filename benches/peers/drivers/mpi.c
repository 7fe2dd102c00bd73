// Times an MPI library; the same source is compiled against Open MPI and against MPICH.
#include "measure.h"
#include <mpi.h>

static void barrier(void *unused) {
    (void)unused;
    MPI_Barrier(MPI_COMM_WORLD);
}

static void call(void *unused, enum collective collective, float *in, float *out, size_t count) {
    (void)unused;
    if (collective == ALL_REDUCE)
        MPI_Allreduce(in, out, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    else
        MPI_Bcast(out, (int)count, MPI_FLOAT, 0, MPI_COMM_WORLD);
}

static void maximum(void *unused, double *values, size_t count) {
    (void)unused;
    MPI_Allreduce(MPI_IN_PLACE, values, (int)count, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
}

int main(int argc, char **argv) {
    struct options o = parse_options(argc, argv);
    MPI_Init(&argc, &argv);
    struct library lib = {0, 0, NULL, barrier, call, maximum};
    MPI_Comm_rank(MPI_COMM_WORLD, &lib.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &lib.ranks);
    measure(&lib, &o, pages(o.end, MAP_PRIVATE), pages(o.end, MAP_PRIVATE));
    MPI_Finalize();
    return 0;
}
