#!/usr/bin/env bash
# Prepares what the guests boot: Debian's kernel and a small initramfs, in target/rxe (or $RXE_CACHE).
#
#   tests/rxe/setup.sh
#
# Installs the Debian packages that are missing, which wants root. The kernel's package is fetched and unpacked, not
# installed: nothing of this machine's own kernel changes. The second time it is done at once, and needs no network.
set -euo pipefail
# shellcheck source=tests/rxe/boot.sh
. "$(dirname "$(realpath "$0")")/boot.sh"

# What the host needs; as the guest's root is the host's, also what the guest needs: kmod, and everything from procps
# on.
packages=(qemu-system-x86 busybox-static kmod xz-utils zstd python3 procps iproute2 iputils-ping
    libibverbs1 ibverbs-providers ibverbs-utils perftest)

# What the initramfs holds, with what these need; guests can load no others.
modules=(
    # the machine's devices; the root
    virtio_pci virtio_console virtio_rng virtio_net 9p 9pnet_virtio overlay
    # RDMA in software, with the checksum of its packets; RDMA's interface to programs. crc32_pclmul would be taken
    # before crc32_generic, and its instruction is slow where it is emulated: 47 instead of 61 MB/s.
    rdma_rxe crc32_generic ib_uverbs rdma_ucm
    # networks inside of a guest; delay, loss, reordering, rates, and packets dropped by port
    dummy veth bridge 8021q sch_netem sch_tbf sch_prio sch_ingress cls_u32 act_gact
)

fetch_advice="is the network reachable, and does \`apt-get update\` work?"

install_packages() {
    local package missing=()
    for package in "${packages[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || fail "packages are missing; as root: apt-get install ${missing[*]}"
    echo "installing ${missing[*]}"
    install_missing "${missing[@]}" || { apt-get update -qq && install_missing "${missing[@]}"; } ||
        fail "apt-get could not install ${missing[*]}: $fetch_advice"
}

install_missing() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The package that holds today's kernel, which changes its name with every change of its interface to modules. The
# kernel for cloud machines has neither rdma_rxe nor 9p, so it is the general one.
kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }'
}

# fetch PACKAGE: puts its .deb into the cache, once it is whole.
fetch() {
    rm -rf "$cache/fetch"
    mkdir "$cache/fetch"
    (cd "$cache/fetch" && apt-get -o APT::Sandbox::User="$(id -un)" download -qq "$1") || return
    rm -f "$cache"/*.deb
    mv "$cache/fetch/$1"_*.deb "$cache/"
    rmdir "$cache/fetch"
}

# kernel_modules TREE VERSION INTO: copies the modules and those that they need, uncompressed, with an index for modprobe.
kernel_modules() {
    local tree=$1 version=$2 into=$3 file target
    depmod -b "$tree" "$version"
    mkdir -p "$into/lib/modules/$version"
    cp "$tree/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$into/lib/modules/$version/"
    modprobe -d "$tree" -S "$version" --show-depends -a "${modules[@]}" >"$into/list" ||
        fail "the kernel $version lacks a module (above)"
    # Lines like `insmod FILE`, some of them twice.
    sort -u "$into/list" | while read -r how file _; do
        [ "$how" = insmod ] || continue
        target=$into/lib/modules/$version/${file##*/lib/modules/"$version"/}
        mkdir -p "${target%/*}"
        case $file in
            *.xz) xz -dc "$file" >"${target%.xz}" ;;
            *.zst) zstd -qdc "$file" >"${target%.zst}" ;;
            *) cp "$file" "$target" ;;
        esac
    done
    rm "$into/list"
    depmod -b "$into" "$version"
}

# build PACKAGE: makes vmlinux and initramfs from the package's .deb in the cache.
build() {
    local work tree root version
    work=$(mktemp -d "$cache/build.XXXXXX")
    # shellcheck disable=SC2064 # this directory, also after `work` is gone
    trap "rm -rf '$work'" EXIT
    tree=$work/package root=$work/root
    dpkg-deb -x "$cache/$1"_*.deb "$tree"
    version=$(ls "$tree/lib/modules")

    mkdir -p "$root"/{bin,dev,proc,sys,lower,upper,root}
    cp "$(command -v busybox)" "$root/bin/"
    install -m 755 "$here/guest/init" "$root/init"
    kernel_modules "$tree" "$version" "$root"
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$work/initramfs"

    python3 "$here/extract-kernel.py" "$tree/boot/vmlinuz-$version" "$work/vmlinux"
    mv "$work/initramfs" "$work/vmlinux" "$cache/"
    rm -rf "$work"
    trap - EXIT
}

[ "$(uname -m)" = x86_64 ] || fail "the guests are x86_64, and this machine is $(uname -m)"
for program in apt-get apt-cache dpkg-deb dpkg-query; do
    command -v $program >/dev/null || fail "$program is missing: this fetches Debian's packages, on Debian"
done
install_packages
mkdir -p "$cache"
exec {lock}>"$cache/lock"
flock -w 600 "$lock" || fail "another setup.sh has held $cache/lock for 10 minutes"

package=$(kernel_package)
if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq || fail "apt-get update failed: $fetch_advice"
    package=$(kernel_package)
fi
[ -n "$package" ] || fail "apt knows no linux-image-amd64, Debian's kernel; as root: apt-get update"

if [ "$(cat "$cache/stamp" 2>/dev/null)" = "$package $(ingredients)" ]; then
    echo "$cache is ready: $package"
    exit
fi
if ! ls "$cache/${package}"_*.deb >/dev/null 2>&1; then
    echo "fetching $package"
    fetch "$package" || { apt-get update -qq && fetch "$package"; } ||
        fail "apt-get could not download $package: $fetch_advice"
fi
rm -f "$cache/stamp"
build "$package"
echo "$package $(ingredients)" >"$cache/stamp"
echo "$cache is ready: $package"
