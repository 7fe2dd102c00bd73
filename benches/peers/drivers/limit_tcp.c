// What loopback TCP allows, without a library: two ranks, one connection, non-blocking sends and receives that spin.
//   all_reduce      up to 4 KiB both send everything and both sum; above, they exchange halves, sum their half, and
//                   exchange the sums
//   reduce          the root sums piece by piece what comes
//   reduce_scatter, all_gather, all_to_all    both send at once what the other one needs, and sum or copy their own
//   broadcast, scatter, gather                one sends
// Where one sends only, it does not wait for the other to have it: a call's time is its slowest rank's, the receiver's.
#define _GNU_SOURCE
#include "measure.h"
#include "orphan.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WHOLE_UP_TO 4096      // bytes
#define CHUNK (256 << 10)     // bytes handed to the kernel at once
#define PIECE (64 << 10)      // bytes that are received before they are summed

struct probe {
    int rank, socket;
    float *scratch;
};

static void fail(const char *what) {
    perror(what);
    exit(1);
}

// Sends and receives at the same time, so that neither side waits with a full socket buffer.
static void exchange(struct probe *p, const void *send_from, size_t to_send, void *receive_into, size_t to_receive) {
    const char *source = send_from;
    char *target = receive_into;
    while (to_send > 0 || to_receive > 0) {
        if (to_send > 0) {
            ssize_t n = send(p->socket, source, to_send < CHUNK ? to_send : CHUNK, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0) source += n, to_send -= n;
            if (n < 0 && errno != EAGAIN) fail("send");
        }
        if (to_receive > 0) {
            ssize_t n = recv(p->socket, target, to_receive < CHUNK ? to_receive : CHUNK, MSG_DONTWAIT);
            if (n > 0) target += n, to_receive -= n;
            if (n == 0 || (n < 0 && errno != EAGAIN)) fail("recv");
        }
    }
}

static void barrier(void *context) {
    char here = 'b', there;
    exchange(context, &here, 1, &there, 1);
}

static void all_reduce(struct probe *p, const float *in, float *out, size_t count) {
    if (count * sizeof(float) <= WHOLE_UP_TO) {
        exchange(p, in, count * sizeof(float), p->scratch, count * sizeof(float));
        for (size_t i = 0; i < count; i++) out[i] = in[i] + p->scratch[i];
        return;
    }
    size_t half = count / 2, mine = p->rank ? half : 0, my_count = p->rank ? count - half : half;
    size_t other = p->rank ? 0 : half, other_count = count - my_count;
    exchange(p, in + other, other_count * sizeof(float), p->scratch, my_count * sizeof(float));
    for (size_t i = 0; i < my_count; i++) out[mine + i] = in[mine + i] + p->scratch[i];
    exchange(p, out + mine, my_count * sizeof(float), out + other, other_count * sizeof(float));
}

static void add(float *out, const float *a, const float *b, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = a[i] + b[i];
}

static void copy(float *to, const float *from, size_t count) { memcpy(to, from, count * sizeof(float)); }

// One way.
static void hand_over(struct probe *p, int giver, const float *from, float *to, size_t count) {
    if (p->rank == giver)
        exchange(p, from, count * sizeof(float), NULL, 0);
    else
        exchange(p, NULL, 0, to, count * sizeof(float));
}

static void reduce(struct probe *p, const float *in, float *out, size_t count) {
    if (p->rank == 1) {
        exchange(p, in, count * sizeof(float), NULL, 0);
        return;
    }
    for (size_t at = 0, n; at < count; at += n) {
        n = count - at < PIECE / sizeof(float) ? count - at : PIECE / sizeof(float);
        exchange(p, NULL, 0, p->scratch, n * sizeof(float));
        add(out + at, in + at, p->scratch, n);
    }
}

static void call(void *context, enum collective collective, float *in, float *out, size_t count) {
    struct probe *p = context;
    size_t block = count / 2, bytes = block * sizeof(float), mine = p->rank * block, other = block - mine;
    switch (collective) {
    case ALL_REDUCE: all_reduce(p, in, out, count); break;
    case REDUCE: reduce(p, in, out, count); break;
    case BROADCAST: hand_over(p, 0, out, out, count); break;
    case REDUCE_SCATTER:
        exchange(p, in + other, bytes, p->scratch, bytes);
        add(out, in + mine, p->scratch, block);
        break;
    case ALL_GATHER:
        exchange(p, in, bytes, out + other, bytes);
        copy(out + mine, in, block);
        break;
    case ALL_TO_ALL:
        exchange(p, in + other, bytes, out + other, bytes);
        copy(out + mine, in + mine, block);
        break;
    case SCATTER:
        hand_over(p, 0, in + block, out, block);
        if (p->rank == 0) copy(out, in, block);
        break;
    default: // GATHER
        hand_over(p, 1, in, out + block, block);
        if (p->rank == 0) copy(out, in, block);
    }
}

static void maximum(void *context, double *values, size_t count) {
    double *theirs = malloc(count * sizeof(double));
    exchange(context, values, count * sizeof(double), theirs, count * sizeof(double));
    for (size_t i = 0; i < count; i++)
        if (theirs[i] > values[i]) values[i] = theirs[i];
    free(theirs);
}

int main(int argc, char **argv) {
    struct options o = parse_options(argc, argv);
    if (o.ranks != 2) {
        fprintf(stderr, "limit_tcp: 2 ranks, not %d\n", o.ranks);
        return 2;
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    if (bind(listener, (void *)&address, length) || listen(listener, 1)) fail("listen on the loopback interface");
    getsockname(listener, (void *)&address, &length);

    pid_t parent = getpid();
    struct probe p = {.rank = fork() == 0};
    if (p.rank == 1) {
        end_with(parent);
        p.socket = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(p.socket, (void *)&address, sizeof address)) fail("connect over the loopback interface");
    } else
        p.socket = accept(listener, NULL, NULL);
    int on = 1;
    setsockopt(p.socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);

    p.scratch = pages(o.end, MAP_PRIVATE);
    struct library lib = {p.rank, 2, &p, barrier, call, maximum};
    measure(&lib, &o, pages(o.end, MAP_PRIVATE), pages(o.end, MAP_PRIVATE));
    if (p.rank == 0) wait(NULL);
    return 0;
}
