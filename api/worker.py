"""One of several processes that serve one address; see `api/workers.py`, which starts it."""

import logging
import os
import socket
import sys
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from api.logs import set_up_logging
from api.server import Server, StartFailed, imported_for_good, run
from api.welcome import Opened
from api.workers import Failed, Task

if TYPE_CHECKING:
    from api.dependencies import Parts


def main(handles: list[str]) -> None:
    """Serve until told to end, or the parent is gone.

    `handles` are the numbers of two files that are open: the line to the parent, and the socket.
    """
    with imported_for_good():
        from api.app import create_app  # noqa: PLC0415

    parent, listener = map(int, handles)
    for one in (parent, listener):
        os.set_inheritable(one, False)
    line = Connection(parent)
    try:
        task = line.recv()
    except EOFError:
        return
    assert isinstance(task, Task)
    set_up_logging(task.settings.log_level, task.settings.log_format)

    def say_ready(parts: "Parts") -> None:
        line.send(Opened.of(parts))

    app = create_app(task.settings, lent_model=task.lent_model, is_worker=True)
    server = Server(app, task.settings, say_ready)
    threading.Thread(target=_end_with_line, args=(line, server), daemon=True).start()
    try:
        run(server, socket.socket(fileno=listener))
    except StartFailed as error:
        line.send(Failed(str(error)))
        sys.exit(1)
    # All is closed, and the parent has not much time left to close what is its own.
    logging.shutdown()
    os._exit(0)


def _end_with_line(line: Connection, server: Server) -> None:
    """End at once when the parent closes the line, or is gone: the address must become free.

    The parent says nothing more, so that there is something to read only then.
    """
    line.poll(None)
    server.end_now()


if __name__ == "__main__":
    main(sys.argv[1:])
