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
nics=(0 1 2 3)

address() { echo "10.8.0.$(($1 + 1))"; }
mac() { echo "52:54:00:08:00:0$1"; }

modprobe -a rdma_rxe ib_uverbs rdma_ucm veth bridge
# Packets that come in from an address of this machine are welcome, and only the device that has an address says so.
sysctl -qw net.ipv4.conf.{all,default}.{accept_local=1,rp_filter=0,arp_ignore=1,arp_announce=2}

ip link add bridge0 mtu "$mtu" type bridge
ip link set bridge0 up
ip rule add pref 30 lookup local # moved from 0, to leave room before it
ip rule delete pref 0
for i in "${nics[@]}"; do
    ip link add "nic$i" mtu "$mtu" address "$(mac "$i")" type veth peer "port$i" mtu "$mtu"
    ip link set "port$i" master bridge0 up
    ip link set "nic$i" up
    ip address add "$(address "$i")/32" dev "nic$i"
    ip rule add pref 10 iif "nic$i" lookup local
    ip rule add pref 20 oif "nic$i" lookup "$((100 + i))"
    ip route add 10.8.0.0/24 dev "nic$i" src "$(address "$i")" table "$((100 + i))"
done
# rxe does not wait while an address is resolved for the first time, and making a queue pair would fail.
for i in "${nics[@]}"; do
    for j in "${nics[@]}"; do
        [ "$i" = "$j" ] || ip neighbour replace "$(address "$j")" lladdr "$(mac "$j")" dev "nic$i" nud permanent
    done
done
for i in "${nics[@]}"; do
    add_device "rxe$i" "nic$i"
done
