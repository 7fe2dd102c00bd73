# shellcheck shell=bash
# A guest's first process once it has the host's files: makes the devices, runs the command, passes on its output and
# its status, and turns the machine off.
job=/run/job
: >$job/booted
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# port NAME: the device by which the host hears this output. There is no udev, which would have given it its name; it
# appears a moment after its driver.
port() {
    local file
    for _ in {1..50}; do
        for file in /sys/class/virtio-ports/*/name; do
            if [ "$(cat "$file" 2>/dev/null)" = "$1" ]; then
                file=${file%/name}
                echo "/dev/${file##*/}"
                return
            fi
        done
        sleep 0.1
    done
    echo "no port $1 after 5 s" >/dev/console
}

# The command writes into pipes, since a port can be opened but once and programs open /dev/stderr anew. This process
# holds them open from the first writer to the last.
mkfifo /run/stdout /run/stderr
cat </run/stdout >"$(port stdout)" &
relays=($!)
cat </run/stderr >"$(port stderr)" &
relays+=($!)
exec {out}>/run/stdout {err}>/run/stderr

# run SCRIPT: with standard input empty and the pipes as output.
run() {
    bash -eu "$1" </dev/null >&"$out" 2>&"$err" {out}>&- {err}>&-
}

hostname "guest$(cat $job/number)"
ulimit -l unlimited
ip link set lo up
if run $job/prepare; then
    run $job/command
    status=$?
else
    echo "the guest's devices could not be made (above)" >&"$err"
    status=125
fi

# What the command left running would keep the pipes open. Kernel threads do not mind.
for process in /proc/[0-9]*; do
    process=${process#/proc/}
    case " 1 ${relays[*]} " in
        *" $process "*) ;;
        *) kill -KILL "$process" 2>/dev/null ;;
    esac
done
exec {out}>&- {err}>&-
wait "${relays[@]}"

echo $status >$job/status.new && mv $job/status.new $job/status
# Of several guests none goes before all are ready, lest the others lose a peer that owes them an answer.
while [ -e $job/stay ]; do
    sleep 0.1
done
exec busybox poweroff -f
