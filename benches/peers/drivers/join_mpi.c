// Joins, passes one barrier, and rank 0 writes the time since PEERS_START (seconds since 1970, taken by the runner
// just before it started the launcher) to the file given.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Barrier(MPI_COMM_WORLD);
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const char *start = getenv("PEERS_START");
    if (rank == 0 && start && argc == 2) {
        FILE *f = fopen(argv[1], "w");
        if (f) {
            fprintf(f, "%.6f\n", t.tv_sec + t.tv_nsec * 1e-9 - atof(start));
            fclose(f);
        }
    }
    MPI_Finalize();
    return 0;
}
