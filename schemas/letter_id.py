"""The identity of a dead letter: the place of its record."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"(?:([A-Za-z0-9_-]{22})/)?([0-9]{1,10}):([0-9]{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class LetterId:
    """The place of a dead letter's record.

    An event that dies again has another letter, and an event of a recreated input topic, at the same offset, too.

    Attributes:
        topic_id: the id of the dead topic, which tells it from one of the same name before it; None if the brokers
            give topics no ids.
        partition: the record's partition.
        offset: the record's offset.
    """

    topic_id: str | None
    partition: int
    offset: int

    def __str__(self) -> str:
        """The text of the header ``failsoft-letter``: ``<topic id>/<partition>:<offset>``, or without the id."""
        return f"{self.topic_id}/{self.place}" if self.topic_id else self.place

    @property
    def place(self) -> str:
        """``partition:offset``, as ``failsoft dead show`` takes it."""
        return f"{self.partition}:{self.offset}"


def parse(text: str) -> LetterId | None:
    """The identity that ``str`` of it gave; None for any other text."""
    found = _FORM.fullmatch(text)
    return LetterId(found[1], int(found[2]), int(found[3])) if found else None
