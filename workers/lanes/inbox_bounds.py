"""How many bytes each inbox may hold, so that all inboxes of a worker are bounded."""

from __future__ import annotations

FETCHED_BYTES = 64 * 1_048_576
"""The most bytes of all inboxes, by their bounds."""

BOUND_BYTES = (32 * 1024, 4 * 1_048_576)
"""The least and the most bytes of one live partition at which it is paused. 4,000 events of half a kilobyte take 2 MiB.
A single record batch may be larger: the broker sends it whole."""

LADDER_PART = 8
"""The bound of a partition of the ladder is that of a live one divided by this."""


def inbox_bound(lanes: int, live: int, ladder: int) -> int:
    """Bytes at which a live partition is paused, for so many lanes with so many live topics and topics of the ladder.

    A chunk has half of its partition's bound, and may arrive just below it. So an inbox has at most one and a half
    times its bounds, and all inboxes together have at most FETCHED_BYTES, unless the bound is at its least.
    """
    share = FETCHED_BYTES / max(1, lanes) / (1.5 * (live + ladder / LADDER_PART))
    return max(BOUND_BYTES[0], min(BOUND_BYTES[1], int(share)))


def ladder_bound(bound: int) -> int:
    """The same for a partition of a rung or of replay, which is paused most of the time."""
    return max(BOUND_BYTES[0], bound // LADDER_PART)
