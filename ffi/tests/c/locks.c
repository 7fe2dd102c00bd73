/* For the thread sanitizer. Rust's standard library is not instrumented as it is shipped. What programs inline of it is, but
 * a lock that has to be waited for is taken in a function of the library itself (LOCK, by its mangled name), so the sanitizer
 * does not see that it was taken, and calls what it guards a race. Linked with --wrap, this tells it. */
void __tsan_acquire(void *address);

#define LABEL_(prefix, name) #prefix #name
#define LABEL(prefix, name) LABEL_(prefix, name)

void waited(void *lock) __asm__(LABEL(__real_, LOCK));
void told(void *lock) __asm__(LABEL(__wrap_, LOCK));

void told(void *lock) {
    waited(lock);
    __tsan_acquire(lock);
}
