"""How far the log of a partition goes, as the answers of one broker's fetch session tell it. Pure.

A session repeats the marks of a partition only when they change. So an answer that leaves a partition out confirms what
was told before, and a partition that is read again must wait for an answer: the marks of its last read may be old.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failsoft.workers.kafka.fetch_session import FULL, FetchContent, Partition

Marks = tuple[int, int]
"""The high watermark and the last stable offset."""


@dataclass(slots=True, eq=False)
class KnownMarks:
    """The marks of a partition since it is read.

    Attributes:
        marks: the last that were told or confirmed by an answer to a request that was sent since then; None before.
    """

    marks: Marks | None = None


class SessionMarks:
    """The marks that one session has told, and who waits for them.

    For each request: ``sent``, then ``told`` for each partition of the answer and ``answered``; or ``lost``.
    """

    def __init__(self) -> None:
        self._told: dict[Partition, Marks] = {}
        self._waiting: dict[Partition, KnownMarks] = {}
        self._asked: dict[Partition, KnownMarks] = {}

    def want(self, partition: Partition, known: KnownMarks) -> None:
        """Let the answer to the next request fill ``known``, if the request still contains ``partition``."""
        if known.marks is None:
            self._waiting[partition] = known

    def sent(self, content: FetchContent, contains: Callable[[Partition], bool]) -> None:
        """A request was sent. ``contains``: whether the session has a partition now."""
        if content.epoch == FULL:
            self._told.clear()
        for partition in content.forgotten:
            self._told.pop(partition, None)
        self._asked = {partition: known for partition, known in self._waiting.items() if contains(partition)}
        self._waiting.clear()

    def told(self, partition: Partition, marks: Marks | None) -> None:
        """An answer has ``partition``; ``marks`` is None with an error."""
        if marks is None:
            self._told.pop(partition, None)
        else:
            self._told[partition] = marks

    def answered(self) -> None:
        """All of an answer was told: what it left out is as it was."""
        for partition, known in self._asked.items():
            known.marks = self._told.get(partition)
        self.lost()

    def lost(self) -> None:
        """Nothing is confirmed: the next answer has to tell what is not known yet."""
        for partition, known in self._asked.items():
            if known.marks is None:
                self._waiting.setdefault(partition, known)
        self._asked = {}
