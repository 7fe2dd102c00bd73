#!/usr/bin/env bash
# The wheel for other machines: builds it, and sees that it asks them for no more than glibc 2.28 and Python 3.11.
#
#   tests/wheel.sh VENV
#
# VENV is made if it is not there, and gets maturin and zig, which links for an older glibc than this machine's. PYTHON says
# by which interpreter, and which one the wheel is tried with. What is built is kept in target/python, unless
# CARGO_TARGET_DIR names another place; the wheel is in its folder wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?"usage: tests/wheel.sh VENV"}
python=${PYTHON:-python3}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/python} PIP_DISABLE_PIP_VERSION_CHECK=1
examples=$PWD/examples/python
passed=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

ok() {
    echo "ok: $1"
    passed=$((passed + 1))
}

failed() {
    echo "FAILED: $1" >&2
    exit 1
}

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
timeout 300 "$venv/bin/python" -m pip install --quiet 'maturin>=1.9,<2' ziglang
rm -f "$CARGO_TARGET_DIR"/wheels/roceccl-*.whl
# maturin reads the platform of pyproject.toml, and refuses a library that asks for more.
timeout 1800 env PATH="$(cd "$venv/bin" && pwd):$PATH" maturin build --quiet --release --zig \
    --manifest-path ffi/python/Cargo.toml --out "$CARGO_TARGET_DIR/wheels"
wheel=$(echo "$CARGO_TARGET_DIR"/wheels/roceccl-*.whl)
[[ $wheel == *-cp311-abi3-manylinux_2_28_*.whl ]] || failed "the wheel is called $wheel"
ok "${wheel##*/}, $(($(stat -c %s "$wheel") / 1024)) KiB"

"$python" -m zipfile -e "$wheel" "$work/unpacked"
for file in py.typed _rccl.pyi; do
    [ -f "$work/unpacked/rccl/$file" ] || failed "$file is missing: programs are not checked against the hints"
done
ok "the hints are in it"
foreign=$(find "$work/unpacked" -name '*nccl*so*' -o -name '*torch*so*' -o -name 'nccl.h')
[ -z "$foreign" ] || failed "$foreign is in it"
ok "neither libnccl nor anything compiled for torch is in it"
library=$work/unpacked/rccl/_rccl.abi3.so
newest=$(objdump -T "$library" | grep -oE '\(GLIBC_[0-9.]+' | sort -uV | tail -n 1 || true)
[ -n "$newest" ] || failed "objdump names no symbol of glibc in $library"
[ "$(printf '%s\n' "$newest" "(GLIBC_2.28" | sort -V | tail -n 1)" = "(GLIBC_2.28" ] || failed "it asks for ${newest#(}"
ok "no symbol is newer than ${newest#(}"
needed=$(objdump -p "$library" | awk '$1 == "NEEDED" { print $2 }')
others=$(grep -vE '^(lib(c|m|dl|rt|pthread|gcc_s)|ld-linux.*)\.so\.[0-9]+$' <<<"$needed" || true)
[ -n "$needed" ] && [ -z "$others" ] || failed "it needs ${others:-nothing}"
ok "it needs $(tr "\n" " " <<<"$needed")"

# As users install it: with nothing that compiles, and nothing but wheels.
"$python" -m venv "$work/fresh"
fresh=$work/fresh/bin/python
timeout 600 env PATH="$work/no-programs" "$fresh" -m pip install --quiet --only-binary :all: "$wheel[types]"
ok "installed without a compiler"
cd "$examples"
said=$(timeout 300 "$fresh" -m rccl --version)
[[ $said == "rccl $("$fresh" -c 'import rccl; print(rccl.__version__)')"* ]] || failed "the command says $said"
ok "$said"
timeout 300 "$fresh" -c 'import ctypes, rccl; ctypes.CDLL(rccl.library()).rcclCommInitRankConfig'
ok "the C interface is in its library"
timeout 600 "$fresh" -m rccl run -n 2 -- "$fresh" digits.py 3 >"$work/said" 2>&1 || { cat "$work/said" >&2; failed "digits.py by two ranks"; }
ok "digits.py by two ranks: $(tail -n 1 "$work/said")"
echo "$passed passed, 0 failed"
