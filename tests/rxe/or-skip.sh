# To be sourced by a script whose tests run in the guests. Where what setup.sh prepares is missing it ends the script: with a
# word, and with CI=true as a failure.
# shellcheck shell=bash
# boot.sh is sourced in a shell of its own, because it has names and traps that are the guests'.
why=$(. "$(dirname "${BASH_SOURCE[0]}")/boot.sh" && missing)
if [ -n "$why" ] && [ "${CI:-}" = true ]; then
    echo "$why" >&2
    exit 1
elif [ -n "$why" ]; then
    echo "skipped: $why"
    exit
fi
