"""Runs commands on another guest: a stand-in for ssh, for a network that belongs to the test alone.

    remote.py serve PORT               runs what is asked for, until it is asked to `stop`
    remote.py run HOST PORT WORD...    runs a command there; its output and status are this one's
"""

import socket
import subprocess
import sys
import threading


def answer(connection, stop):
    with connection:
        command = b""
        while not command.endswith(b"\0"):
            part = connection.recv(65536)
            if not part:
                return
            command += part
        command = command[:-1].decode()
        if command == "stop":
            stop.set()
            return
        done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, timeout=110)
        connection.sendall(done.stdout + done.stderr + b"\0" + str(done.returncode).encode())


def serve(port):
    stop = threading.Event()
    listener = socket.create_server(("", port))
    listener.settimeout(0.2)
    while not stop.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.settimeout(120)
        threading.Thread(target=answer, args=(connection, stop), daemon=True).start()


def run(host, port, words):
    with socket.create_connection((host, port), timeout=120) as connection:
        connection.sendall(" ".join(words).encode() + b"\0")
        said = b""
        while part := connection.recv(65536):
            said += part
    output, _, status = said.rpartition(b"\0")
    sys.stdout.buffer.write(output)
    return int(status or 0)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    # The agent's own first word is the host again.
    sys.exit(run(sys.argv[2], int(sys.argv[3]), sys.argv[5:]))
