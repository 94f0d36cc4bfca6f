"""Decides whether the records at the head of a rung are due.

A rung is a queue in write order, and all its records have nearly the same delay. So a head that is not due holds back
all records behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

from failsoft.schemas.record import Header

SLACK_MS = 60_000
"""Milliseconds that a due time may lie beyond twice its delay. A later one counts as forged: clocks within a fleet
differ by less."""


def due_ms(headers: Sequence[Header]) -> int | None:
    """The due time in a record's headers (epoch milliseconds), or None when it is missing or unreadable.

    Reads this one header only. The other headers are checked when the record is attempted.
    """
    found = [value or b"" for key, value in headers if key == "failsoft-due-ms"]
    return int(found[0]) if len(found) == 1 and found[0].isdigit() and len(found[0]) <= 19 else None


def wait_seconds(due_ms: int, now_ms: int) -> float:
    """Seconds until the head is due; 0 when it is due already. Both arguments are epoch milliseconds."""
    return max(0.0, (due_ms - now_ms) / 1000)


def plausible(due_ms: int, written_ms: int, delay: float) -> bool:
    """True when a worker can have written this due time at ``written_ms`` to a rung of ``delay`` seconds.

    A forged due time far in the future would block the rung for ever. Times are epoch milliseconds.
    """
    return due_ms <= written_ms + 2000 * delay + SLACK_MS
