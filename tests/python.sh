#!/usr/bin/env bash
# The Python package: installs it as a user does, and runs its tests, which check its hints too.
#
#   tests/python.sh VENV [pytest's arguments]
#
# VENV is made if it is not there; PYTHON says by which interpreter. What is built is kept in target/python, unless
# CARGO_TARGET_DIR names another place, so a second time is quick. WHEEL names a wheel that is installed instead of what the
# source makes, of which it is only seen then that pip can read it. Tests of tensors are skipped where VENV has no torch.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?"usage: tests/python.sh VENV [pytest's arguments]"}
shift
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/python}
timeout 300 "$venv/bin/python" -m pip install --quiet --prefer-binary numpy ml_dtypes pytest mypy==2.4.1
[ -z "${WHEEL:-}" ] || timeout 300 "$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall --dry-run ./ffi/python
timeout 1800 "$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall "${WHEEL:-./ffi/python}"
timeout 600 "$venv/bin/python" -m pytest --quiet -p no:cacheprovider ffi/python/tests --ignore ffi/python/tests/pytorch "$@"
