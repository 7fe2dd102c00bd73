#!/usr/bin/env bash
# Makes rxe0 over the guest's network card.
#
#   one-device.sh HOST MTU
#
# with the addresses 10.7.0.HOST and fd07::HOST. They are there before the device is, so that its table of GIDs always
# reads: 0 link-local, 1 IPv4, 2 the other IPv6. A device of MTU 4200 gives RDMA packets of 4096 bytes, one of 1500
# packets of 1024.
set -euo pipefail
modprobe -a virtio_net rdma_rxe ib_uverbs rdma_ucm
for _ in {1..50}; do
    [ ! -e /sys/class/net/eth0 ] || break
    sleep 0.1
done
ip link set eth0 mtu "$2" up
ip address add "10.7.0.$1/24" dev eth0
ip address add "fd07::$1/64" dev eth0 nodad
rdma link add rxe0 type rxe netdev eth0
for _ in {1..50}; do
    ! grep -q ACTIVE /sys/class/infiniband/rxe0/ports/1/state || exit 0
    sleep 0.1
done
echo "rxe0 did not become active in 5 s: $(cat /sys/class/infiniband/rxe0/ports/1/state)" >&2
exit 1
