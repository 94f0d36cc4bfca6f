"""A Kafka record as failsoft reads and writes it. The pure core knows nothing else of Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Header = tuple[str, bytes | None]
"""Name and value. Kafka allows a header without a value."""

CONTROL_PREFIX = "failsoft-"
"""Prefix of control headers. On the pipeline's own topics failsoft writes them; on an input topic they are stripped,
because anyone can write them there (topics/redriven.py has the one use that they have)."""

KIP_1191_PREFIX = "__dlq.errors."
"""Prefix of Kafka's own names for a dead letter's origin. Dead letters carry them besides the control headers."""

_TRACE = frozenset({"traceparent", "tracestate"})


class Record(Protocol):
    """The fields of a consumed record that failsoft reads. aiokafka's ConsumerRecord satisfies it.

    ``timestamp`` is in epoch milliseconds.
    """

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[Header]: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """The record that first carried an event. ``timestamp`` is in epoch milliseconds; -1 means it has none."""

    topic: str
    partition: int
    offset: int
    timestamp: int


def own_headers(headers: Sequence[Header], *, dead_letter: bool = False) -> list[Header]:
    """The event's own headers: all but the control headers, in order, duplicates included.

    On a dead letter (``dead_letter``) the KIP-1191 headers are control headers too. Elsewhere they belong to the
    event, which may come from another system's dead-letter topic.
    """
    control = (CONTROL_PREFIX, KIP_1191_PREFIX) if dead_letter else (CONTROL_PREFIX,)
    return [h for h in headers if not h[0].startswith(control)]


def trace_headers(headers: Sequence[Header]) -> list[Header]:
    """The W3C trace context headers. Every record derived from the event carries them."""
    return [h for h in headers if h[0] in _TRACE]
