#!/usr/bin/env bash
# Writes down what rccl reads of this host, for a test: the files of /sys and /proc, and addresses and routes, in the format
# that tests/tree/manifest.rs describes. Identities of adapters and addresses made from them are replaced.
#
#   topology/tests/hosts/capture.sh >topology/tests/hosts/NAME.txt
set -euo pipefail
shopt -s nullglob
cd /

# Names of containers and jobs become 1; addresses made from an Ethernet address (with ff:fe in the middle), those of
# 02:00:00:00:00:01.
exec > >(sed -E -e 's/[0-9a-f]{32,64}/1/g' -e 's/:?[0-9a-f]{1,4}:[0-9a-f]{0,2}ff:fe[0-9a-f]{2}:[0-9a-f]{1,4}/:ff:fe00:1/g')

escape() { sed -e 's/\\/\\\\/g' -e 's/\t/\\t/g' | sed -e ':a' -e 'N' -e '$!ba' -e 's/\n/\\n/g'; }

# files PATH...: those that can be read and are not empty.
files() {
    local path content
    for path; do
        content=$(cat "$path" 2>/dev/null | escape) || continue
        [ -z "$content" ] || echo "$path = $content"
    done
}

links() {
    local path
    for path; do
        [ ! -L "$path" ] || echo "$path -> $(readlink "$path")"
    done
}

cpuinfo=$(sed '/^$/Q' proc/cpuinfo | grep -E '^(processor|vendor_id|cpu family|model|CPU architecture|CPU implementer|cpu)[[:space:]]*:' || true)
flags=$(grep -m1 -ow lm proc/cpuinfo || true)
[ -z "$flags" ] || cpuinfo+=$'\nflags\t\t: '$flags
echo "proc/cpuinfo = $(escape <<<"$cpuinfo")"
echo "proc/self/status = $(grep ^Cpus_allowed_list: proc/self/status | escape)"
files proc/self/cgroup
echo "proc/self/mountinfo = $(grep -E ' - cgroup2? ' proc/self/mountinfo | escape)"
grep -E ' - cgroup2? ' proc/self/mountinfo | cut -d' ' -f5 | while read -r mount; do
    while IFS=: read -r _ controllers group; do
        case $mount/ in */${controllers:-unified}/ | /sys/fs/cgroup/) ;; *) continue ;; esac
        group=${mount#/}${group%/}
        while [[ $group == ${mount#/}* ]]; do
            files "$group"/{cpuset.cpus.effective,cpuset.effective_cpus,cpuset.cpus,cpu.max,cpu.cfs_quota_us} \
                "$group"/{cpu.cfs_period_us,memory.max,memory.limit_in_bytes}
            group=${group%/*}
        done
    done <proc/self/cgroup
done

files sys/devices/system/cpu/online
for cpu in sys/devices/system/cpu/cpu[0-9]*; do
    files "$cpu"/topology/{physical_package_id,die_id,core_id} "$cpu"/cache/index*/{level,type,size,shared_cpu_map}
done
for node in sys/devices/system/node/node[0-9]*; do
    files "$node"/{cpumap,distance}
    echo "$node/meminfo = $(grep MemTotal: "$node/meminfo" | escape)"
done

# pci PATH: a device and the bridges above it.
pci() {
    local path=$1
    while [[ ${path##*/} == *:*.* ]]; do
        files "$path"/{class,vendor,device,subsystem_vendor,subsystem_device,max_link_speed,max_link_width,numa_node}
        links "$path/driver"
        path=${path%/*}
    done
}
for device in sys/bus/pci/devices/*; do
    links "$device"
    case $(cat "$device/class") in 0x02* | 0x03* | 0x0604* | 0x12*) pci "$(readlink -f "$device" | cut -c2-)" ;; esac
done | awk '!seen[$0]++'

for interface in sys/class/net/*; do
    links "$interface"
    [ -d "$interface" ] || continue
    real=$(readlink -f "$interface" | cut -c2-)
    files "$real"/{operstate,carrier,mtu,speed,ifindex,iflink,dev_port,uevent,tun_flags} "$real"/bonding/{mode,active_slave}
    links "$real"/{device,master} "$real"/lower_*
    for queue in "$real"/queues/*; do echo "$queue/"; done
done
for device in sys/class/infiniband/*; do
    links "$device"
    real=$(readlink -f "$device" | cut -c2-)
    files "$real"/{node_type,fw_ver,board_id}
    links "$real/device"
    for port in "$real"/ports/*; do
        files "$port"/{state,phys_state,link_layer,rate,lid} "$port"/pkeys/0
        for entry in "$port"/gids/*; do
            number=${entry##*/}
            grep -q '[1-9a-f]' "$entry" 2>/dev/null || continue
            files "$entry" "$port/gid_attrs/types/$number" "$port/gid_attrs/ndevs/$number"
        done
    done
done

ip -oneline address show | awk '{ print "address", $2, $4 }'
for family in -4 -6; do
    ip -oneline "$family" route show table all type unicast | grep -vE ' dev lo ' | awk '
        { where = ($1 == "unicast") ? $2 : $1; dev = ""; gateway = ""
          for (i = 1; i < NF; i++) { if ($i == "dev") dev = $(i + 1); if ($i == "via") gateway = " gateway" }
          if (where == "default") where = (family == "-4") ? "0.0.0.0/0" : "::/0"
          if (where !~ "/") where = where ((family == "-4") ? "/32" : "/128")
          if (dev != "") print "route", dev, where gateway }' family="$family"
done
for kind in bond bridge dummy ifb ipvlan macvlan team tun veth vlan vrf vxlan; do
    ip -oneline link show type "$kind" 2>/dev/null | awk -F '[:@ ]+' -v kind="$kind" '{ print "kind", $2, kind }'
done
