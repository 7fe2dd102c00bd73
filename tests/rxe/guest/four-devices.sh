#!/usr/bin/env bash
# Makes rxe0 to rxe3, whose packets really go over a wire: each has one end of a veth pair, nic0 to nic3, and a bridge
# joins the other ends. The addresses are 10.8.0.1 to 10.8.0.4, GID 1 of their devices.
#
#   four-devices.sh MTU
#
# All are in one network namespace, since an rxe device of this kernel is in the initial one whatever is asked. There
# the kernel would take the short way from one of its own addresses to another, and no packet would reach a veth. rxe
# names the device that it sends from; so rules by device, before that for local addresses, send its packets over the
# veths. What does not name a device, ordinary TCP, takes the short way.
set -euo pipefail
# shellcheck source=tests/rxe/guest/devices.sh
. "$(dirname "$0")/devices.sh"
mtu=$1

modprobe -a rdma_rxe ib_uverbs rdma_ucm veth bridge
# Packets that come in from an address of this machine are welcome, and only the device that has an address says so.
sysctl -qw net.ipv4.conf.{all,default}.{accept_local=1,rp_filter=0,arp_ignore=1,arp_announce=2}

ip link add bridge0 mtu "$mtu" type bridge
ip link set bridge0 up
ip rule add pref 30 lookup local # moved from 0, to leave room before it
ip rule delete pref 0
for i in 0 1 2 3; do
    ip link add "nic$i" mtu "$mtu" type veth peer "port$i" mtu "$mtu"
    ip link set "port$i" master bridge0 up
    ip rule add pref 10 iif "nic$i" lookup local
    ip rule add pref 20 oif "nic$i" lookup "$((100 + i))"
    "$(dirname "$0")/connect.sh" "$i"
    add_device "rxe$i" "nic$i"
done
