"""One of several processes that serve one address; see `api/workers.py`, which starts it."""

import os
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from api.app import create_app
from api.logs import set_up_logging
from api.server import Server, StartFailed, run
from api.welcome import Opened
from api.workers import Failed, Task

if TYPE_CHECKING:
    from api.dependencies import Parts

_INSIST_AFTER_S = 0.5


def main(handles: list[str]) -> None:
    """Serve until told to end, or the parent is gone.

    `handles` are the numbers of two files that are open: the line to the parent, and the socket.
    """
    parent, listener = map(int, handles)
    for one in (parent, listener):
        os.set_inheritable(one, False)
    line = Connection(parent)
    try:
        task = line.recv()
    except EOFError:
        return
    assert isinstance(task, Task)
    threading.Thread(target=_end_without_parent, args=(line,), daemon=True).start()
    set_up_logging(task.settings.log_level, task.settings.log_format)

    def say_ready(parts: "Parts") -> None:
        line.send(Opened.of(parts))

    app = create_app(task.settings, lent_model=task.lent_model)
    try:
        run(Server(app, task.settings, say_ready), socket.socket(fileno=listener))
    except StartFailed as error:
        line.send(Failed(str(error)))
        sys.exit(1)


def _end_without_parent(line: Connection) -> None:
    """End as after a second Ctrl-C once the parent is gone: the address must become free.

    The parent says nothing more, so that there is something to read only when its end is closed.
    """
    line.poll(None)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_INSIST_AFTER_S)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main(sys.argv[1:])
