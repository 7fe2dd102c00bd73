#!/usr/bin/env bash
# tests/tsan/unseen.sh OBJECT: compiles unseen.c, which says what it is for, into OBJECT, and prints what a linker has to be told.
set -euo pipefail
cd "$(dirname "$0")"
library=$(echo "$(rustc --print sysroot)"/lib/rustlib/*-linux-gnu/lib/libstd-*.so)

# named END: the one function of the standard library whose mangled name ends so.
named() {
    local names
    names=$(nm -D --defined-only "$library" | awk '{ print $3 }' | grep -E "3std3sys4sync.*$1\$" || true)
    [ "$(wc -w <<<"$names")" = 1 ] || { echo "functions of the standard library that end in $1: ${names:-none}" >&2; exit 1; }
    echo "$names"
}

lock=$(named 5Mutex14lock_contended) once=$(named 4Once4call)
wait=$(named 7Condvar4wait) wait_timeout=$(named 7Condvar12wait_timeout)
cc -O1 -c -DLOCK="$lock" -DONCE="$once" -DWAIT="$wait" -DWAIT_TIMEOUT="$wait_timeout" unseen.c -o "$1"
printf -- '-Wl,--wrap=%s\n' "$lock" "$once" "$wait" "$wait_timeout" __tsan_atomic64_fetch_sub __tsan_atomic_thread_fence
