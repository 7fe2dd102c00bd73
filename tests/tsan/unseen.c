/* For the thread sanitizer, which does not see everything that orders the accesses of Rust's threads, and would call what it
 * guards a race. Linked with --wrap (unseen.sh), this tells it.
 *
 * The standard library is not instrumented as it is shipped. What programs inline of it is; but a lock that has to be waited
 * for is taken in a function of the library itself, a Once is done in one, and a condition variable gives a lock back and takes
 * it again. LOCK, ONCE, WAIT and WAIT_TIMEOUT are their mangled names. */
#include <stdint.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define LABEL_(prefix, name) #prefix #name
#define LABEL(prefix, name) LABEL_(prefix, name)
#define WRAPPED(result, function, name, ...)                                                                           \
    result real_##function(__VA_ARGS__) __asm__(LABEL(__real_, name));                                                 \
    result told_##function(__VA_ARGS__) __asm__(LABEL(__wrap_, name));                                                 \
    result told_##function(__VA_ARGS__)

WRAPPED(void, lock, LOCK, void *lock) {
    real_lock(lock);
    __tsan_acquire(lock);
}

WRAPPED(void, once, ONCE, void *once, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d) {
    real_once(once, a, b, c, d);
    __tsan_acquire(once);
    __tsan_release(once);
}

WRAPPED(void, wait, WAIT, void *condition, void *lock) {
    __tsan_release(lock);
    real_wait(condition, lock);
    __tsan_acquire(lock);
}

WRAPPED(_Bool, wait_timeout, WAIT_TIMEOUT, void *condition, void *lock, uint64_t seconds, uint32_t nanoseconds) {
    __tsan_release(lock);
    _Bool woken = real_wait_timeout(condition, lock, seconds, nanoseconds);
    __tsan_acquire(lock);
    return woken;
}

/* Fences mean nothing to it. Who drops the last handle of an Arc counts down with release, and then has a fence acquire what
 * all others released by that. */
static __thread volatile void *counted;

WRAPPED(uint64_t, fetch_sub, __tsan_atomic64_fetch_sub, volatile uint64_t *counter, uint64_t by, int order) {
    counted = counter;
    return real_fetch_sub(counter, by, order);
}

WRAPPED(void, fence, __tsan_atomic_thread_fence, int order) {
    real_fence(order);
    /* As LLVM numbers them: acquire, both, sequentially consistent. */
    if (counted && (order == 2 || order >= 4)) __tsan_acquire((void *)counted);
    counted = 0;
}
