#!/usr/bin/env bash
# Prints the paths of test programs, a line each, for who runs them otherwise than cargo does:
#
#   tests/program.sh NAME...
#
# A NAME is a file of a crate's folder `tests`, or a crate (rccl_transport), which stands for its unit tests. All of the
# workspace is built, with which cargo chooses the same features of dependencies every time: what `cargo test --workspace` has
# built is not built again, as it would be for one crate.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
built=$(mktemp)
trap 'rm -f "$built"' EXIT
cargo test --workspace --no-run >"$built" 2>&1 || { cat "$built" >&2; exit 1; }
for name; do
    path=$(sed -nE "s,^ *Executable (tests/$name\.rs|unittests src/lib\.rs) \((.*/$name-[0-9a-f]+)\)\$,\2,p" "$built")
    [ "$(wc -w <<<"$path")" = 1 ] || { echo "tests/program.sh: cargo built not one test program $name: ${path:-none}" >&2; exit 1; }
    realpath "$path"
done
