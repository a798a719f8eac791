"""The child process of the shared embedded vector store: Chroma's Rust server for one folder."""

import argparse
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence

import chromadb_rust_bindings
import psutil  # type: ignore[import-untyped]

from graph.knowledge.memory import hand_out_zeros

_TRIES = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a folder on 127.0.0.1; print the port as a line of JSON; end when stdin closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    hand_out_zeros()
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Chroma greets at length.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for _ in range(_TRIES):
        port = options.port or _free_port()
        if _serves(options.folder, port):
            break
    else:
        os._exit(1)
    print(json.dumps({"port": port}), file=output, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


def _serves(folder: str, port: int) -> bool:
    """Serve in a thread; false if it ended before it listened, since the port was taken."""
    words = ["chroma", "run", "--host", "127.0.0.1", "--port", str(port), "--path", folder]
    server = threading.Thread(target=_serve, args=(words,), daemon=True)
    server.start()
    while server.is_alive():
        if _listens(port):
            return True
        time.sleep(0.02)
    return False


def _serve(words: list[str]) -> None:
    chromadb_rust_bindings.cli(words)
    if _listens(int(words[words.index("--port") + 1])):
        os._exit(1)


def _listens(port: int) -> bool:
    """Whether this very process does: another one may have taken the port first."""
    sockets = psutil.Process().net_connections("tcp")
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
