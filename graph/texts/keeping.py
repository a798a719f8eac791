"""Keeps what was read from texts, in memory that is bounded however long the texts are."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar, TypeVarTuple

_Asked = TypeVarTuple("_Asked")
_Read = TypeVar("_Read")

# Characters. What is compiled from a text that is nothing but variables takes 33 bytes for each.
_SHORT = 8_000
_MOST_SHORT = 256
_MOST_LONG = 8


def kept(read: Callable[[*_Asked], _Read]) -> Callable[[*_Asked], _Read]:
    """`read`, which remembers what it gave for many short texts and for a few long ones lately."""
    long = lru_cache(maxsize=_MOST_LONG)(read)
    short = lru_cache(maxsize=_MOST_SHORT)(read)

    @wraps(read)
    def remembering(*args: *_Asked) -> _Read:
        characters = sum(len(arg) for arg in args if isinstance(arg, str))
        return (short if characters <= _SHORT else long)(*args)

    return remembering
