"""Runs commands on another guest: a stand-in for ssh, for a network that belongs to the test alone.

    remote.py serve PORT               runs what is asked for, until it is asked to `stop`
    remote.py run HOST PORT WORD...    runs a command there by its shell; output and status are this one's

Output comes when the command has ended. What it leaves running is not waited for.
"""

import socket
import subprocess
import sys
import tempfile
import threading

DEADLINE = 240  # seconds, of one command


def serve(port: int) -> None:
    stop = threading.Event()
    listener = socket.create_server(("", port))
    listener.settimeout(0.2)
    while not stop.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.settimeout(DEADLINE)
        threading.Thread(target=answer, args=(connection, stop), daemon=True).start()


def answer(connection: socket.socket, stop: threading.Event) -> None:
    """Runs one command. The answer is its output, a zero byte, and its status in decimal."""
    with connection:
        command = b""
        while not command.endswith(b"\0"):
            part = connection.recv(65536)
            if not part:
                return
            command += part
        words = command[:-1].decode()
        if words == "stop":
            stop.set()
            connection.sendall(b"\x000")
            return
        # A file, since a pipe would stay open until the last process that the command started is gone.
        with tempfile.TemporaryFile() as output:
            try:
                status = subprocess.run(
                    ["sh", "-c", words], stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=DEADLINE
                ).returncode
            except subprocess.TimeoutExpired:
                status = 124
            output.seek(0)
            connection.sendall(output.read() + b"\0" + str(status).encode())


def run(host: str, port: int, words: list[str]) -> int:
    with socket.create_connection((host, port), timeout=DEADLINE) as connection:
        connection.sendall(" ".join(words).encode() + b"\0")
        said = b""
        while part := connection.recv(65536):
            said += part
    output, end, status = said.rpartition(b"\0")
    sys.stdout.buffer.write(output)
    if not end:
        print(f"remote.py: {host} closed the connection before the command had ended", file=sys.stderr)
        return 255
    return int(status) & 255


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    sys.exit(run(sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
