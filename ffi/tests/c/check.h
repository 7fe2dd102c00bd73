/* For the test programs: what fails ends the process with a line on standard error. */
#ifndef CHECK_H
#define CHECK_H

#include <roceccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAIL(...)                                                                                                      \
    do {                                                                                                               \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                                \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fprintf(stderr, "\n");                                                                                         \
        exit(1);                                                                                                       \
    } while (0)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) FAIL("%s", #condition);                                                                      \
    } while (0)

#define GOOD(call)                                                                                                     \
    do {                                                                                                               \
        rcclResult_t good_ = (call);                                                                                   \
        if (good_ != rcclSuccess) FAIL("%s: %s: %s", #call, rcclGetErrorString(good_), rcclGetLastError(NULL));        \
    } while (0)

/* The call answers so, and what it says has this in it. */
#define REFUSED(call, result, words)                                                                                   \
    do {                                                                                                               \
        rcclResult_t refused_ = (call);                                                                                \
        if (refused_ != (result)) FAIL("%s answered %d, not %d", #call, (int)refused_, (int)(result));                 \
        if (!strstr(rcclGetLastError(NULL), (words)))                                                                  \
            FAIL("%s said \"%s\", without \"%s\"", #call, rcclGetLastError(NULL), (words));                            \
    } while (0)

#endif
