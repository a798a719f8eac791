"""What is measured of a candidate."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from bench.streaming.candidates import Candidate
from bench.streaming.client import Heard, ask_all

CLIENTS = 32
TOKENS = 500
PACE = 50
ALONE = 15

Samples = dict[str, list[float]]
Measure = Callable[[Candidate], Coroutine[Any, Any, Samples]]


class NotWhole(Exception):
    """An answer had tokens missing, or ended in another way."""


async def burst(candidate: Candidate) -> Samples:
    """Tokens a second from the first request to the last token, of answers all at once."""
    heard = whole(await ask_all(candidate.port, [candidate.ask(TOKENS, 0) for _ in range(CLIENTS)]))
    took = max(each.reads[-1][0] for each in heard) - min(each.sent for each in heard)
    return {"burst": [CLIENTS * TOKENS / took]}


async def first_alone(candidate: Candidate) -> Samples:
    """Milliseconds to the first token, of one after the other."""
    firsts = []
    for _ in range(ALONE):
        [heard] = whole(await ask_all(candidate.port, [candidate.ask(5, PACE)]))
        firsts.append(heard.first_s * 1000)
    return {"alone": firsts}


async def first_together(candidate: Candidate) -> Samples:
    """Milliseconds to the first tokens of answers that begin all at once."""
    questions = [candidate.ask(PACE, PACE) for _ in range(CLIENTS)]
    heard = whole(await ask_all(candidate.port, questions))
    return {"together": [each.first_s * 1000 for each in heard]}


def whole(heard: Sequence[Heard]) -> Sequence[Heard]:
    """The answers, if all are whole.

    Raises:
        NotWhole: one is not.
    """
    for each in heard:
        if not each.is_whole:
            raise NotWhole(each.wrong)
    return heard


MEASURES: dict[str, Measure] = {
    "alone": first_alone,
    "together": first_together,
    "burst": burst,
}
