"""A Kafka record as failsoft reads and writes it: what the pure core knows of Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Header = tuple[str, bytes | None]
"""Kafka allows a header without a value."""

CONTROL_PREFIX = "failsoft-"
"""Reserved: on the pipeline's own topics these are ours, and on an input topic they are stripped as forged."""

KIP_1191_PREFIX = "__dlq.errors."
"""Kafka's own names for a dead letter's origin, written on dead letters beside ours."""

_TRACE = frozenset({"traceparent", "tracestate"})


class Record(Protocol):
    """What is read of a consumed record (aiokafka's ConsumerRecord has it); ``timestamp`` is in epoch milliseconds."""

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
    """Where an event was first read; ``timestamp`` is in epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int


def own_headers(headers: Sequence[Header], *, dead_letter: bool = False) -> list[Header]:
    """The event's own headers, in order, duplicates and all: what is left when the control headers are taken away.

    On a dead letter Kafka's own names are control headers too; elsewhere they are the event's own, brought from
    somebody else's dead-letter topic.
    """
    control = (CONTROL_PREFIX, KIP_1191_PREFIX) if dead_letter else (CONTROL_PREFIX,)
    return [h for h in headers if not h[0].startswith(control)]


def trace_headers(headers: Sequence[Header]) -> list[Header]:
    """The W3C trace context, which travels to every record derived from the event."""
    return [h for h in headers if h[0] in _TRACE]
