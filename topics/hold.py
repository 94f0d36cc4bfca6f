"""Is the head of a rung due? A rung is a queue in the order of writing, so its head speaks for what is behind it."""

from __future__ import annotations

from collections.abc import Sequence

from failsoft.schemas.record import Header

SLACK_MS = 60_000
"""How far past twice its delay a due time may lie before it is taken for forged; clocks of one fleet differ less."""


def due_ms(headers: Sequence[Header]) -> int | None:
    """The due time that a record carries (epoch milliseconds), or None when it has none that can be read.

    Only whoever attempts the record judges its headers whole; a rung is read by this one alone.
    """
    found = [value or b"" for key, value in headers if key == "failsoft-due-ms"]
    return int(found[0]) if len(found) == 1 and found[0].isdigit() and len(found[0]) <= 19 else None


def due_count(due_ms: Sequence[int | None], now_ms: int) -> int:
    """How many records from the head on may be taken: those before the first that is not due yet.

    A record without a due time that can be read (None) may be taken: it is not attempted, it goes to the dead letters.
    """
    for i, due in enumerate(due_ms):
        if due is not None and due > now_ms:
            return i
    return len(due_ms)


def wait_seconds(due_ms: int, now_ms: int) -> float:
    """How long the head has to wait, in seconds; 0 when it is ready."""
    return max(0.0, (due_ms - now_ms) / 1000)


def plausible(due_ms: int, written_ms: int, delay: float) -> bool:
    """Could a worker have written this due time on a rung of ``delay`` seconds at ``written_ms``? One far ahead would
    hold the rung for ever.
    """
    return due_ms <= written_ms + 2000 * delay + SLACK_MS
