"""Sets the log up: to stderr, one line a record, as text or as JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

_OURS = ("api", "graph", "uvicorn")
_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def set_up_logging(level: str, form: Literal["text", "json"]) -> None:
    """Log what this service says from `level` on, and the warnings of the libraries that it uses.

    Not more of the libraries: at DEBUG some of them log whole requests, and so what people wrote.
    """
    handler = _ToStderr()
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # That it started and stopped is told by the start-up text; uvicorn would tell it in six lines.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.root.level))
    logging.captureWarnings(True)


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the time, so that a spinner can make room for a line."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _stream: TextIO) -> None:
        pass


class _TextLines(logging.Formatter):
    """One line a record, and under it the traceback where there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)
