#!/usr/bin/env bash
# The Python package on a CPython without its lock, built from Debian's source:
#
#   tests/free-threaded.sh DIRECTORY [pytest's arguments]
#
# DIRECTORY keeps the interpreter and what is compiled, so a second time is quick; the first takes some ten minutes. No release
# of Debian has packed such an interpreter yet, and of 3.13, the newest whose source its stable release has, the PyO3 that the
# package is built with supports none; so the package is built with 0.28, of the same sources. Not in CI, for the time it takes.
set -euo pipefail
cd "$(dirname "$0")/.."
place=$(realpath "${1:?usage: tests/free-threaded.sh DIRECTORY [pytest\'s arguments]}")
shift
mkdir -p "$place/apt/lists/partial" "$place/apt/cache/archives/partial" "$place/source"

if [ ! -x "$place/python/bin/python3.13t" ]; then
    mirror=$(sed -n 's/^URIs: *\([^ ]*debian\) *$/\1/p; s/^deb *\(\[[^]]*\] *\)*\([^ ]*debian\)\/* .*/\2/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:?this is no Debian} trixie main" >"$place/apt/sources.list"
    options=(-o Dir::Etc::sourcelist="$place/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$place/apt/lists"
        -o Dir::Cache="$place/apt/cache" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update -qq
    (cd "$place/source" && timeout 300 apt-get "${options[@]}" source -qq --download-only python3.13 && tar xf python3.13_*.orig.tar.xz)
    (cd "$place"/source/Python-3.13.*/ && ./configure -q --disable-gil --prefix="$place/python" &&
        timeout 1800 make -s -j"$(nproc)" && make -s install) >"$place/log" 2>&1 || { tail -n 20 "$place/log" >&2; exit 1; }
fi

# The package depends on crates beside it, so the whole tree is copied; what git does not know is not.
rm -rf "$place/tree"
mkdir "$place/tree"
git ls-files -z | tar c --null -T - | tar x -C "$place/tree"
cd "$place/tree/ffi/python"
sed -i 's/^pyo3 = { version = "[^"]*"/pyo3 = { version = "0.28.3"/' Cargo.toml
cargo update --quiet -p pyo3 --precise 0.28.3
cd ../..
venv=$place/venv/bin/python
[ -x "$venv" ] || "$place/python/bin/python3.13t" -m venv "$place/venv"
timeout 300 "$venv" -m pip install --quiet --prefer-binary numpy ml_dtypes pytest
CARGO_TARGET_DIR=$place/target timeout 1800 "$venv" -m pip install --quiet --no-deps --force-reinstall ./ffi/python
export PYTHON_GIL=0 # nor by what is imported beside rccl
"$venv" -c 'import sys, rccl; assert not sys._is_gil_enabled(); print(sys.version)'
# mypy, which checks the hints, cannot be installed there.
timeout 600 "$venv" -m pytest --quiet -p no:cacheprovider ffi/python/tests --ignore ffi/python/tests/pytorch \
    --ignore ffi/python/tests/test_hints.py "$@"
