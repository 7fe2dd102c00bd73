"""`python -m rccl`: the rccl command."""

import signal
import sys

from ._rccl import command


def main() -> int:
    # As a program of its own: no handler of Python's, which would wait until the command is over.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return command([sys.executable, "-m", "rccl"], sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
