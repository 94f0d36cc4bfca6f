"""How far the log of a partition goes, as the answers of one broker's fetch session tell it. Pure.

A session repeats the high watermark of a partition only when it changes. So an answer that leaves a partition out
confirms what was told before, and a partition that is read again must wait for an answer: what was known when it was
last read may be old.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failsoft.workers.kafka.fetch_session import FULL, FetchContent, Partition


@dataclass(slots=True, eq=False)
class KnownMark:
    """The high watermark of a partition since it is read.

    Attributes:
        highwater: the last that was told or confirmed by an answer to a request that was sent since then; None before.
    """

    highwater: int | None = None


class SessionMarks:
    """The high watermarks that one session has told, and who waits for them.

    For each request: ``sent``, then ``told`` for each partition of the answer and ``answered``; or ``lost``.
    """

    def __init__(self) -> None:
        self._told: dict[Partition, int] = {}
        self._waiting: dict[Partition, KnownMark] = {}
        self._asked: dict[Partition, KnownMark] = {}

    def want(self, partition: Partition, known: KnownMark) -> None:
        """Let the answer to the next request fill ``known``, if the request still contains ``partition``."""
        if known.highwater is None:
            self._waiting[partition] = known

    def sent(self, content: FetchContent, contains: Callable[[Partition], bool]) -> None:
        """A request was sent. ``contains``: whether the session has a partition now."""
        if content.epoch == FULL:
            self._told.clear()
        for partition in content.forgotten:
            self._told.pop(partition, None)
        self._asked = {partition: known for partition, known in self._waiting.items() if contains(partition)}
        self._waiting.clear()

    def told(self, partition: Partition, highwater: int | None) -> None:
        """An answer has ``partition``; ``highwater`` is None with an error."""
        if highwater is None:
            self._told.pop(partition, None)
        else:
            self._told[partition] = highwater

    def answered(self) -> None:
        """All of an answer was told: what it left out is as it was."""
        for partition, known in self._asked.items():
            known.highwater = self._told.get(partition)
        self.lost()

    def lost(self) -> None:
        """Nothing is confirmed: the next answer has to tell what is not known yet."""
        for partition, known in self._asked.items():
            if known.highwater is None:
                self._waiting.setdefault(partition, known)
        self._asked = {}
