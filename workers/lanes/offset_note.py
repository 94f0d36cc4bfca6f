"""Pure: what a lane writes beside a committed offset: a crash marker, and the id of the topic that the offset is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

P = TypeVar("P", bound=tuple[str, int])
"""A partition, as its topic and number."""

_TOPIC = re.compile(r"(?:(?P<mark>.*) )?topic=(?P<id>[A-Za-z0-9_-]{22})", re.DOTALL)


def join(mark: str, topic_id: str | None) -> str:
    """The metadata of an offset: ``mark``, and the id as Kafka's own tools write it, 22 characters."""
    if topic_id is None:
        return mark
    return f"{mark} topic={topic_id}" if mark else f"topic={topic_id}"


def split(metadata: str) -> tuple[str, str | None]:
    """The inverse of ``join``. Offsets of earlier releases and of other programs have no id."""
    found = _TOPIC.fullmatch(metadata)
    if found is None:
        return metadata, None
    return found["mark"] or "", found["id"]


def of_present_topics(
    committed: Mapping[P, tuple[int, str]], ids: Mapping[P, str | None]
) -> tuple[dict[P, tuple[int, str]], dict[P, int]]:
    """The offsets that are of the present topics, with their marks; and those of topics that were since made anew.

    Each commit has the id of the topic that was read. So where that is not the present one, no record of the present
    topic was answered. ``ids`` are the present ones, where they are known; an offset without an id is taken for
    present.
    """
    present: dict[P, tuple[int, str]] = {}
    former: dict[P, int] = {}
    for partition, (offset, metadata) in committed.items():
        mark, was = split(metadata)
        if was is not None and was != (ids.get(partition) or was):
            former[partition] = offset
        else:
            present[partition] = offset, mark
    return present, former
