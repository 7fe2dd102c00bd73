// A rank that spins must not outlive the process that started it: left alone it would take a core for ever.
#ifndef ORPHAN_H
#define ORPHAN_H

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

// Called first thing in a forked rank; `parent` is the process id that forked it.
static void end_with(pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); // it was gone before the line above
}

#endif
