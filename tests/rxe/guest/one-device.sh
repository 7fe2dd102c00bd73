#!/usr/bin/env bash
# Makes rxe0 over the guest's network card.
#
#   one-device.sh HOST MTU [PEER]
#
# It has the addresses 10.7.0.HOST and fd07::HOST, so GID 1 is IPv4 and GID 2 IPv6. A card of MTU 4200 gives RDMA
# packets of 4096 bytes, one of 1500 packets of 1024. Given a PEER, the address of another guest, waits until that one
# answers too.
set -euo pipefail
# shellcheck source=tests/rxe/guest/devices.sh
. "$(dirname "$0")/devices.sh"
modprobe -a virtio_net rdma_rxe ib_uverbs rdma_ucm
await 5 "the guest has no network card after 5 s" test -e /sys/class/net/eth0
ip link set eth0 mtu "$2" up
ip address add "10.7.0.$1/24" dev eth0
ip address add "fd07::$1/64" dev eth0 nodad
add_device rxe0 eth0
if [ $# -eq 3 ]; then
    await 120 "the other guest, $3, did not answer in 120 s" ping -q -c 1 -W 1 "$3" >/dev/null
fi
