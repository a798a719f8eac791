"""Keeps what this process had in its memory out of the files that Chroma writes."""

import ctypes
from contextlib import suppress

# From glibc's malloc.h. What malloc gives out is filled with the value's complement: zeros.
_M_PERTURB = -6
_VALUE = 0xFF


def hand_out_zeros() -> None:
    """Have malloc fill what it gives out with zeros, where the C library can (glibc).

    Chroma writes an index with room for a hundred vectors or more, and does not fill what it has
    no vectors for yet. Without this, that part of the file shows what was freed before: `.env`,
    what a caller sent, a document that was erased since.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_PERTURB, _VALUE)
