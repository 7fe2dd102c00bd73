#!/usr/bin/env bash
# torch's all_reduce by rccl and by gloo, in turn: f32 on 2 and 4 ranks of this host, and, as tensor-parallel inference has it,
# bf16 of 8 to 48 KiB on two hosts (network namespaces) of two ranks, every call timed.
#
#   benches/torch.sh VENV        a virtual environment with torch and roceccl (tests/torchrun-venv.sh, tests/python.sh)
#
# Needs root and iproute2 for the hosts, and a machine that does nothing else.
set -euo pipefail
python=$(cd "${1:?usage: benches/torch.sh VENV}/bin" && pwd)/python
bench=$(realpath "$(dirname "$0")/../ffi/python/benches/torch_all_reduce.py")
# shellcheck source=tests/namespaces.sh
. "$(dirname "$0")/../tests/namespaces.sh"
export OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=

torch=$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')
model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "# benches/torch.sh VENV: torch $torch, $(git rev-parse --short HEAD), $(date +%F), $(getconf _NPROCESSORS_ONLN) processors ($model); medians of 9 rounds (min to max)"
for size in 2 4; do
    env -u GLOO_SOCKET_IFNAME "$python" -m torch.distributed.run --standalone --nproc-per-node "$size" "$bench" 2>"$work/err" ||
        { tail -n 20 "$work/err" >&2; exit 1; }
done

make_hosts 2
export GLOO_SOCKET_IFNAME=eth0 RCCL_SOCKET_IFNAME=eth0 MASTER_ADDR=10.77.0.1 MASTER_PORT=29577
# shellcheck disable=SC2016 # for the ranks' shells
ranks 2 2 10.77.0.1:29578 bash -c 'RANK=$RCCL_RANK WORLD_SIZE=$RCCL_SIZE exec "$@"' - \
    "$python" "$bench" --dtype bfloat16 --sizes 8192 16384 32768 49152 --each ||
    { tail -n 20 "$work"/*.err >&2; exit 1; }
echo "two hosts of two ranks, bf16:"
cat "$work/0"
