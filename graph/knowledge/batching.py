"""Questions that come at the same time are embedded together; a question that is alone at once."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

Vector = list[float]
_Asked = tuple[str, asyncio.Future[Vector]]

_AT_ONCE = 8
_REMEMBERED = 256


class Questions:
    """Embeds texts in a thread, one batch after the other, for any number of event loops.

    What comes while a batch is at work is the next one.
    """

    def __init__(self, embed: Callable[[list[str]], list[Vector]]) -> None:
        self._embed = embed
        self._waiting: list[_Asked] = []
        self._is_working = False
        self._lock = Lock()
        self._known: OrderedDict[str, Vector] = OrderedDict()

    async def vector(self, text: str) -> Vector:
        """Give the vector of a text; raises what `embed` raises."""
        known = self._known.get(text)
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Vector] = loop.create_future()
        with self._lock:
            self._waiting.append((text, answer))
            begin, self._is_working = not self._is_working, True
        if begin:
            self._begin(loop)
        return await answer

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_in_executor(None, self._work)
        except RuntimeError:
            with self._lock:
                self._is_working = False
            raise

    def _work(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[_Asked]:
        with self._lock:
            batch, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            self._is_working = bool(batch)
            return batch

    def _answer(self, batch: list[_Asked]) -> None:
        texts = list(dict.fromkeys(text for text, _ in batch))
        try:
            vectors = dict(zip(texts, self._embed(texts), strict=True))
        except Exception as error:  # noqa: BLE001 - whoever waits for it is told
            if len(texts) == 1:
                _tell(batch, error)
            else:
                for one in batch:
                    self._answer([one])
            return
        self._remember(vectors)
        _tell(batch, vectors)

    def _remember(self, vectors: dict[str, Vector]) -> None:
        with self._lock:
            self._known.update(vectors)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def _tell(batch: list[_Asked], told: dict[str, Vector] | Exception) -> None:
    for loop in {answer.get_loop() for _, answer in batch}:
        mine = [one for one in batch if one[1].get_loop() is loop]
        # A loop that has ended waits for nothing.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, mine, told)


def _settle(batch: list[_Asked], told: dict[str, Vector] | Exception) -> None:
    for text, answer in batch:
        if answer.done():
            continue
        if isinstance(told, Exception):
            answer.set_exception(told)
        else:
            answer.set_result(told[text])
