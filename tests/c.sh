#!/usr/bin/env bash
# The C library, and NCCL's interface over it, as C programs meet them, with no Rust in sight: found by pkg-config, under
# mpirun, under valgrind, and with the sanitizers, the libraries instrumented too. ffi/tests has what needs no more than a C
# compiler.
#
#   tests/c.sh [SUITE...]      mpirun valgrind address thread; without any, all
#
# A tool that is missing is skipped with a word; with CI=true that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$PWD/ffi/tests/c target=x86_64-unknown-linux-gnu
system=(-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
passed=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

have() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null && continue
        if [ "${CI:-}" = true ]; then
            echo "$tool is missing" >&2
            exit 1
        fi
        echo "skipped: $tool is missing"
        return 1
    done
}

ok() {
    echo "ok: $1"
    passed=$((passed + 1))
}

failed() {
    echo "FAILED: $1" >&2
    sed 's/^/    /' "$2" | tail -n 60 >&2
    exit 1
}

# The library under a prefix, with its debug information and optimised.
installed() {
    [ -d "$work/prefix" ] && return
    cargo xtask install --prefix "$work/prefix" >"$work/installed" 2>&1 || failed "cargo xtask install" "$work/installed"
    export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig LD_LIBRARY_PATH=$work/prefix/lib
}

# compiled NAME: as the manual says, without any word about Rust.
compiled() {
    # shellcheck disable=SC2046 # flags are several words
    cc -g -std=c99 "$programs/$1.c" -o "$work/$1" $(pkg-config --cflags --libs roceccl) -lpthread
}

# For NCCL alone, by the line of docs/coming-from.md and nothing besides: what libnccl itself needs is found without a word.
compiled_for_nccl() {
    # shellcheck disable=SC2046 # flags are several words
    (cd "$work" && cp "$programs/nccl_ranks.c" program.c &&
        env -u LD_LIBRARY_PATH cc program.c $(pkg-config --cflags --libs roceccl-nccl) -o nccl_ranks)
}

# What starts a program for NCCL before its command: rank, size and the file for the id are the last arguments, and nothing
# that rccl reads is set.
for_nccl() {
    rm -f "$work/id"
    start=(env -u LD_LIBRARY_PATH FILE="$work/id" bash -c 'rank=${OMPI_COMM_WORLD_RANK:-$RCCL_RANK}
        size=${OMPI_COMM_WORLD_SIZE:-$RCCL_SIZE}
        unset "${!RCCL_@}"
        exec "$@" "$rank" "$size" "$FILE"' bash)
}

# ranks SECONDS COMMAND...: the command on two ranks, started by nothing but variables. What both wrote is in $work/0
# and $work/1; fails if one does.
ranks() {
    local seconds=$1 rank pids=() pid status=0
    shift
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    for rank in 0 1; do
        RCCL_RANK=$rank RCCL_SIZE=2 RCCL_COMM_ID=127.0.0.1:$port RCCL_KEY=00112233445566778899aabbccddeeff \
            timeout --kill-after=5 "$seconds" "$@" >"$work/$rank" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || status=$?
    done
    return $status
}

# right WORDS NAME COMMAND...: both ranks end well and say so.
right() {
    local words=$1 name=$2
    shift 2
    ranks 120 "$@" && grep -q "$words" "$work/0" && grep -q "$words" "$work/1" ||
        failed "$name" <(cat "$work/0" "$work/1")
    ok "$name"
}

# seen WORDS NAME COMMAND...: a program with a fault is found out; a checker that finds nothing in it checks nothing.
seen() {
    local words=$1 name=$2
    shift 2
    if ranks 120 "$@" || ! grep -q "$words" "$work/0"; then
        failed "$name" "$work/0"
    fi
    ok "$name"
}

mpirun() {
    have mpirun.openmpi pkg-config cc || return 0
    installed
    local program
    for program in every threads; do
        compiled "$program"
        timeout 120 mpirun.openmpi -n 4 --oversubscribe "$work/$program" >"$work/said" 2>&1 &&
            [ "$(grep -c ': right$' "$work/said")" = 4 ] || failed "$program on 4 ranks of mpirun" "$work/said"
        ok "$program on 4 ranks of mpirun"
    done
    compiled_for_nccl
    for_nccl
    timeout 120 mpirun.openmpi -n 4 --oversubscribe "${start[@]}" "$work/nccl_ranks" >"$work/said" 2>&1 &&
        [ "$(grep -c ': right$' "$work/said")" = 4 ] || failed "NCCL alone on 4 ranks of mpirun" "$work/said"
    ok "NCCL alone on 4 ranks of mpirun"
}

valgrind() {
    have valgrind pkg-config cc || return 0
    installed
    local program check=(valgrind --quiet --error-exitcode=9 --leak-check=full --show-leak-kinds=definite,indirect
        --errors-for-leak-kinds=definite,indirect)
    for program in every threads; do
        compiled "$program"
        right ': right$' "$program under valgrind" "${check[@]}" "$work/$program"
    done
    compiled_for_nccl
    for_nccl
    right ': right$' "NCCL alone under valgrind" "${start[@]}" "${check[@]}" "$work/nccl_ranks"
    compiled faulty
    seen 'Invalid read' "valgrind sees a read past the end" "${check[@]}" "$work/faulty" address
}

# sanitized KIND FLAGS: the static library, instrumented, built where `make KIND` builds.
sanitized() {
    local crate unoptimised=()
    for crate in rccl rccl-kernels rccl-schedule rccl-topology rccl-transport; do
        unoptimised+=(--config "profile.dev.package.$crate.opt-level=0")
    done
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=$1 $3" CARGO_TARGET_DIR=target/$2 \
        cargo build "${unoptimised[@]}" --package rccl-ffi --target $target >"$work/built" 2>&1 || failed "the library for $2" "$work/built"
    archive=target/$2/$target/debug/libroceccl.a
}

address() {
    have gcc || return 0
    sanitized address asan ""
    local program check=(-g -std=c99 -Iffi/include -fsanitize=address,undefined -fno-sanitize-recover=all)
    for program in every threads faulty; do
        gcc "${check[@]}" "$programs/$program.c" -o "$work/$program-address" "$archive" "${system[@]}"
    done
    for program in every threads; do
        right ': right$' "$program, address and undefined" "$work/$program-address"
    done
    gcc "${check[@]}" -Iffi/nccl "$programs/nccl_ranks.c" ffi/nccl/nccl.c -o "$work/nccl-address" "$archive" "${system[@]}"
    for_nccl
    right ': right$' "NCCL alone, address and undefined" "${start[@]}" "$work/nccl-address"
    seen 'AddressSanitizer: heap-buffer-overflow' "the sanitizer sees what the library reads past the end" \
        "$work/faulty-address" address
}

# The runtime is Rust's: gcc's lacks functions that LLVM's code calls. tests/tsan/unseen.c says what that is for.
thread() {
    have gcc || return 0
    sanitized thread tsan -Cunsafe-allow-abi-mismatch=sanitizer
    local program runtime wraps
    runtime=$(echo "$(rustc --print sysroot)/lib/rustlib/$target/lib/"librustc-*_rt.tsan.a)
    export TSAN_OPTIONS="suppressions=$PWD/tests/tsan/suppressions"
    wraps=$(tests/tsan/unseen.sh "$work/unseen.o" 2>"$work/unseen") || failed "what the sanitizer does not see" "$work/unseen"
    gcc -g -Iffi/include -fsanitize=thread -c ffi/nccl/nccl.c -o "$work/nccl.o"
    for program in every threads nccl_ranks faulty; do
        gcc -g -std=c99 -Iffi/include -Iffi/nccl -fsanitize=thread -c "$programs/$program.c" -o "$work/$program.o"
        gcc "$work/$program.o" "$work/nccl.o" "$work/unseen.o" $wraps -o "$work/$program-thread" \
            -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive "$archive" "${system[@]}"
    done
    right ': right$' "two communicators in two threads, thread sanitizer" "$work/threads-thread"
    right ': right$' "every function, thread sanitizer" "$work/every-thread"
    for_nccl
    right ': right$' "NCCL alone, thread sanitizer" "${start[@]}" "$work/nccl_ranks-thread"
    seen 'ThreadSanitizer: data race' "the sanitizer sees a buffer that two threads use" "$work/faulty-thread" thread
    seen 'ThreadSanitizer: data race' "the sanitizer sees a buffer that the library's thread uses" "$work/faulty-thread" library
}

[ $# -gt 0 ] || set -- mpirun valgrind address thread
for suite in "$@"; do
    "$suite"
done
echo "$passed passed, 0 failed"
