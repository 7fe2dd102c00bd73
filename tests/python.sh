#!/usr/bin/env bash
# The Python package: installs it as a user does, and runs its tests, which check its hints too.
#
#   tests/python.sh VENV [pytest's arguments]
#
# VENV is made if it is not there; PYTHON says by which interpreter. What is built is kept in target/python, unless
# CARGO_TARGET_DIR names another place, so a second time is quick. WHEEL names a wheel that is installed instead of what the
# source makes, which is installed first then and runs one example. Tests of tensors are skipped where VENV has no torch.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?"usage: tests/python.sh VENV [pytest's arguments]"}
shift
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/python}
timeout 300 "$venv/bin/python" -m pip install --quiet --prefer-binary numpy ml_dtypes pytest mypy==2.4.1
if [ -n "${WHEEL:-}" ]; then
    # As the workspace is built for release, so what they share may be compiled already.
    CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_TARGET_DIR=$PWD/target \
        timeout 900 "$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall ./ffi/python
    timeout 120 "$venv/bin/python" -m rccl run -n 2 -- "$venv/bin/python" examples/python/digits.py 3
fi
timeout 1800 "$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall "${WHEEL:-./ffi/python}"
timeout 600 "$venv/bin/python" -m pytest --quiet -p no:cacheprovider ffi/python/tests --ignore ffi/python/tests/pytorch "$@"
