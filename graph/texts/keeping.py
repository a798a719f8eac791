"""Keeps what was read from texts, in memory that is bounded however long the texts are."""

from collections import OrderedDict
from collections.abc import Callable
from functools import update_wrapper
from threading import Lock
from typing import Generic, TypeVar, TypeVarTuple

_Asked = TypeVarTuple("_Asked")
_Read = TypeVar("_Read")

# Characters. What is compiled from a text that is nothing but variables takes 33 bytes for each.
_MOST = 2_000_000
# As many as what is kept of a text takes however short that is.
_EACH = 500


class Kept(Generic[*_Asked, _Read]):
    """`read`, which remembers what it gave for the texts of lately, two million characters in all.

    From any thread. It must give the same for the same arguments.
    """

    def __init__(self, read: Callable[[*_Asked], _Read]) -> None:
        self._read = read
        self._found: OrderedDict[tuple[*_Asked], _Read] = OrderedDict()
        self._length = 0
        self._lock = Lock()
        update_wrapper(self, read)

    def __call__(self, *asked: *_Asked) -> _Read:
        with self._lock:
            if asked in self._found:
                self._found.move_to_end(asked)
                return self._found[asked]
        found = self._read(*asked)
        with self._lock:
            self._put(asked, found)
        return found

    def holds(self, *asked: *_Asked) -> bool:
        """Whether a call would have nothing to read."""
        return asked in self._found

    def _put(self, asked: tuple[*_Asked], found: _Read) -> None:
        if asked in self._found:
            return
        self._found[asked] = found
        self._length += _length(asked)
        while self._length > _MOST:
            oldest, _ = self._found.popitem(last=False)
            self._length -= _length(oldest)


def _length(asked: tuple[object, ...]) -> int:
    return _EACH + sum(len(one) for one in asked if isinstance(one, str))
