#!/usr/bin/env bash
# Makes a virtual environment with a real torchrun, for the launcher tests:
#
#   tests/torchrun-venv.sh DIRECTORY && TEST_TORCHRUN=DIRECTORY/bin/torchrun cargo test -p rccl --test launch_real
#
# PyPI's torch for Linux is built for CUDA and wants gigabytes of libraries that a CPU never calls. It is installed
# without them, and stub-libraries.py puts empty ones where the loader looks.
set -euo pipefail
venv=${1:?usage: torchrun-venv.sh DIRECTORY [VERSION]}
version=${2:-2.15.0}
has='import sys, torch.distributed; sys.exit(torch.__version__.split("+")[0] != sys.argv[1])'
[ -x "$venv/bin/torchrun" ] && "$venv/bin/python" -c "$has" "$version" 2>/dev/null && exit 0
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "torch==$version"
"$venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy typing_extensions filelock fsspec jinja2 networkx sympy setuptools
"$venv/bin/python" "$(dirname "$0")/stub-libraries.py"
"$venv/bin/python" -c 'import torch.distributed; print("torch", torch.__version__, "without CUDA")'
