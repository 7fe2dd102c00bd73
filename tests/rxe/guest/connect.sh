#!/usr/bin/env bash
# Sets one of the four network devices up, with its address and its way to the others.
#
#   connect.sh NUMBER
#
# Part of four-devices.sh. A test that has set nicNUMBER down calls it to set it up again: with the link, a device loses
# its routes and its neighbours.
set -euo pipefail
number=$1 nic=nic$1

address() { echo "10.8.0.$(($1 + 1))"; }
mac() { echo "52:54:00:08:00:0$1"; }

ip link set "$nic" address "$(mac "$number")" up
ip address replace "$(address "$number")/32" dev "$nic"
ip route replace 10.8.0.0/24 dev "$nic" src "$(address "$number")" table "$((100 + number))"
# rxe does not wait while an address is resolved for the first time, and making a queue pair would fail.
for other in 0 1 2 3; do
    [ "$other" = "$number" ] ||
        ip neighbour replace "$(address "$other")" lladdr "$(mac "$other")" dev "$nic" nud permanent
done
