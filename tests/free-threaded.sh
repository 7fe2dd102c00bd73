#!/usr/bin/env bash
# The Python package on a CPython without its lock, built from source:
#
#   tests/free-threaded.sh DIRECTORY [pytest's arguments]
#
# DIRECTORY keeps the interpreter and what is compiled, so a second time is quick; the first takes some ten minutes. 3.14 is the
# first whose lock PyO3 can do without. Not in CI, for the time it takes.
set -euo pipefail
cd "$(dirname "$0")/.."
place=$(realpath "${1:?usage: tests/free-threaded.sh DIRECTORY [pytest\'s arguments]}")
shift
mkdir -p "$place"

if [ ! -x "$place/python/bin/python3.14t" ]; then
    # One archive in two places: CPython's own, and Ubuntu's, which is as long as its releases live.
    for from in https://www.python.org/ftp/python/3.14.4/Python-3.14.4.tar.xz \
        http://archive.ubuntu.com/ubuntu/pool/main/p/python3.14/python3.14_3.14.4.orig.tar.xz; do
        curl -fsSL --connect-timeout 20 --max-time 300 -o "$place/source.tar.xz" "$from" && break
    done
    echo "d923c51303e38e249136fc1bdf3568d56ecb03214efdef48516176d3d7faaef8  $place/source.tar.xz" | sha256sum --check --quiet
    tar xf "$place/source.tar.xz" -C "$place"
    (cd "$place/Python-3.14.4" && ./configure -q --disable-gil --prefix="$place/python" &&
        timeout 3600 make -s -j"$(nproc)" && make -s install) >"$place/log" 2>&1 || { tail -n 20 "$place/log" >&2; exit 1; }
fi

venv=$place/venv/bin/python
[ -x "$venv" ] || "$place/python/bin/python3.14t" -m venv "$place/venv"
timeout 300 "$venv" -m pip install --quiet --prefer-binary numpy ml_dtypes pytest
CARGO_TARGET_DIR=$place/target timeout 1800 "$venv" -m pip install --quiet --no-deps --force-reinstall ./ffi/python
export PYTHON_GIL=0 # nor by what is imported beside rccl
"$venv" -c 'import sys, rccl; assert not sys._is_gil_enabled(); print(sys.version)'
# mypy, which checks the hints, cannot be installed there.
timeout 600 "$venv" -m pytest --quiet -p no:cacheprovider ffi/python/tests --ignore ffi/python/tests/pytorch \
    --ignore ffi/python/tests/test_hints.py "$@"
