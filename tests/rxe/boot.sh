# Boots guests and brings back what their commands say. Sourced by run, four-devices, two-guests and setup.sh, which
# document what their users may set.
# shellcheck shell=bash

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
cache=${RXE_CACHE:-$(realpath "$here/../..")/target/rxe}
deadline=${RXE_TIMEOUT:-300}
cores=${RXE_CPUS:-2}
patience=60 # seconds in which a guest has to have booted, which usually takes 5

guests=() # processes: QEMU under timeout
relays=() # processes that pass on the guests' output
work=     # a directory for what the guests are told, and what they say at the end
# shellcheck disable=SC2034 # for those who source this
no_network=user,restrict=on,ipv6=off # for boot: nobody answers at the other end
variables=() # NAME=VALUE: what a command sees beside the caller's variables

fail() {
    echo "$(realpath --relative-to="$PWD" "$0"): $*" >&2
    exit 125
}

# What the initramfs depends on, beside the kernel's package.
ingredients() {
    cat "$here/setup.sh" "$here/extract-kernel.py" "$here/guest/init" | cksum
}

# Says what is missing before guests can boot; nothing if they can.
missing() {
    if ! command -v qemu-system-x86_64 >/dev/null; then
        echo "qemu-system-x86_64 is missing: run $here/setup.sh"
    elif [ ! -e "$cache/stamp" ]; then
        echo "there is no kernel for the guest in $cache: run $here/setup.sh"
    elif [[ "$(cat "$cache/stamp")" != *" $(ingredients)" ]]; then
        echo "what is in $cache is older than setup.sh: run $here/setup.sh"
    fi
}

# Makes $work, and sees to it that it and all guests are gone when this script ends, for whatever reason.
begin() {
    local what
    what=$(missing)
    [ -z "$what" ] || fail "$what"
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 141' PIPE
    trap 'exit 143' TERM
    work=$(mktemp -d)
}

finish() {
    trap '' HUP INT PIPE TERM
    if [ ${#guests[@]} -gt 0 ]; then
        kill "${guests[@]}" 2>/dev/null || true
        wait "${guests[@]}" || true
        kill "${relays[@]}" 2>/dev/null || true # a guest that did not come to open their pipes
    fi
    wait
    [ -z "$work" ] || rm -rf "$work"
}

# The variables of the caller that a guest's command sees. Tokens stay here: what a guest is told lies in a file.
passed_variables() {
    local name
    for name in $(compgen -e); do
        case $name in
            *TOKEN*) ;;
            RCCL_* | NCCL_* | RUST* | CARGO_* | TEST_* | RXE_* | LC_* | CI | HOME | LANG | LD_LIBRARY_PATH | PATH | USER)
                echo "$name" ;;
        esac
    done
    # shellcheck disable=SC2086 # a list of words
    printf '%s\n' ${RXE_ENV:-}
}

# describe NUMBER "DEVICES [ARGUMENT...]" COMMAND...: writes into $work/NUMBER what that guest is to do: run the script
# guest/DEVICES, which makes its devices, then the command, in the current directory. Further variables of the command
# are in `variables`.
describe() {
    local job=$work/$1 name
    case $PWD/ in
        /dev/* | /proc/* | /run/* | /sys/*) fail "a guest does not see $PWD: /dev, /proc, /run and /sys are its own" ;;
    esac
    mkdir "$job"
    echo "$1" >"$job/number"
    printf '%q/guest/%s\n' "$here" "$2" >"$job/prepare"
    cp "$here/guest/start.sh" "$job/start"
    shift 2
    {
        printf 'cd %q\n' "$PWD"
        for name in $(passed_variables); do
            [ -z "${!name+set}" ] || printf 'export %q\n' "$name=${!name}"
        done
        printf 'export %q\n' RCCL_TEST_RDMA=1 "${variables[@]}"
        printf 'exec'
        printf ' %q' "$@"
        echo
    } >"$job/command"
}

# boot NUMBER NETDEV PREFIX: starts a guest, which does what $work/NUMBER says, and waits until it has booted. Its network
# card is at one end of what QEMU's option NETDEV describes. Each line of its output gets the prefix. Seldom the kernel
# spins for ever before it says a word; then the guest is started again.
boot() {
    local tries
    for tries in 1 2 3; do
        start "$@"
        ! is_stuck "$1" || [ "$tries" -eq 3 ] || {
            echo "the guest has not booted within $patience s, and is started again" >&2
            stop "$1"
            continue
        }
        return
    done
}

# Whether a guest is still booting after all that time.
is_stuck() {
    local i
    for ((i = 0; i < 10 * patience; i++)); do
        [ ! -e "$work/$1/booted" ] && kill -0 "${guests[$1]}" 2>/dev/null || return 1
        sleep 0.1
    done
}

stop() {
    kill "${guests[$1]}" 2>/dev/null || true
    wait "${guests[$1]}" "${relays[@]:2 * $1:2}" || true
    rm -f "$work/$1"/std{out,err} "$work/link$1"
}

start() {
    local job=$work/$1 relay=(cat)
    [ -z "$3" ] || relay=(sed -u "s/^/$3/")
    mkfifo "$job/stdout" "$job/stderr"
    # Should nobody read any more, all ends; the guest would wait for it.
    { "${relay[@]}" || kill -PIPE $$; } <"$job/stdout" &
    relays[2 * $1]=$!
    { "${relay[@]}" || kill -PIPE $$; } <"$job/stderr" >&2 &
    relays[2 * $1 + 1]=$!

    # shellcheck disable=SC2054 # QEMU's commas are its own
    local machine=(
        qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none
        -machine q35 -accel tcg,thread=multi -cpu max -smp "$cores" -m "${RXE_MEMORY:-2048}"
        -kernel "$cache/vmlinux" -initrd "$cache/initramfs"
        # A panic ends the guest. Emulated cores may stand still for seconds, which is no reason for the kernel to
        # worry, nor to think that its timer is not connected. Changes of the network wait for grace periods, which are
        # made short.
        -append "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check nosoftlockup rcupdate.rcu_expedited=1 mitigations=off random.trust_cpu=on"
        -serial "file:$job/console"
        -device virtio-rng-pci
        # The host's files, which the guest cannot change, and this job's directory, which it can.
        -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap
        -device virtio-9p-pci,fsdev=root,mount_tag=root
        -fsdev "local,id=job,path=$job,security_model=none"
        -device virtio-9p-pci,fsdev=job,mount_tag=job
        # The command's output, by ports that guest/start.sh finds by these names.
        -device virtio-serial-pci
        -chardev file,id=stdout,path=/dev/fd/3 -device virtserialport,chardev=stdout,name=stdout
        -chardev file,id=stderr,path=/dev/fd/4 -device virtserialport,chardev=stderr,name=stderr
        # A card of unknown speed would have rxe complain again and again.
        -netdev "$2,id=net"
        -device "virtio-net-pci,netdev=net,speed=10000,duplex=full,mac=52:54:00:00:00:0$1"
    )
    # Should this script be killed, the kernel ends the guest.
    setpriv --pdeathsig TERM timeout --kill-after=5 "$deadline" "${machine[@]}" \
        </dev/null >"$job/qemu" 2>&1 3>"$job/stdout" 4>"$job/stderr" &
    guests[$1]=$!
}

# status NUMBER: waits for the end of a guest, and passes on what its kernel complained of. Returns its command's status,
# 124 at the deadline, 125 if something was wrong with the guest.
status() {
    local job=$work/$1 end=0
    wait "${guests[$1]}" || end=$?
    wait "${relays[@]:2 * $1:2}" || true
    # It says nothing but where something is wrong, and that it turns the machine off.
    if grep -vq "reboot: Power down" "$job/console"; then
        echo "the guest's kernel said:" >&2
        head -n 100 "$job/console" >&2 # the first trouble is what counts
    fi
    if [ $end -eq 124 ] || [ $end -eq 137 ]; then
        echo "the guest was killed: it did not end in $deadline s; RXE_TIMEOUT sets another number" >&2
        return 124
    elif [ -s "$job/status" ]; then
        return "$(cat "$job/status")"
    fi
    echo "the guest ended without a word from its command; QEMU's status is $end, and it said:" >&2
    cat "$job/qemu" >&2
    return 125
}
