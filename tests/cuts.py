"""Texts cut into tokens, and tokens into batches, at random."""

import random
from collections.abc import Sequence
from itertools import pairwise


def cut(text: str, rng: random.Random, mean: int) -> list[str]:
    """The text in tokens of `mean` characters, cut at random, and before trailing spaces.

    Spaces at the end of a token with text are long with the reader when a marker goes.
    """
    places = sorted({0, len(text), *(i for i in range(len(text)) if rng.random() < 1 / mean)})
    tokens = [text[start:end] for start, end in pairwise(places)]
    parts = [(token.rstrip(" "), token[len(token.rstrip(" ")) :]) for token in tokens]
    return [part for pair in parts for part in pair if part]


def batched(tokens: Sequence[str], rng: random.Random) -> list[list[str]]:
    """The tokens in batches, as reads of a socket bring them."""
    batches: list[list[str]] = [[]]
    for token in tokens:
        if rng.random() < 0.4:
            batches.append([])
        batches[-1].append(token)
    return batches
