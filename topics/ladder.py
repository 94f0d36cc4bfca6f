"""Decides which rung of the retry ladder a failed record goes to, and when it is due there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from failsoft.schemas.backoff import Draw, jittered
from failsoft.schemas.failure import Failure

MOST_ON_THE_SAME = 1_000
"""Records of a batch that may go to their rung again while they wait without an attempt. Each return is a record to
write and to read, so that more of them go to a longer rung."""


@dataclass(frozen=True, slots=True)
class Rung:
    """The rung chosen for one record.

    Attributes:
        delay: the rung's delay as the pipeline file writes it ("5s"); it names the rung's topic.
        due_ms: the record is not attempted before this time (epoch milliseconds).
    """

    delay: str
    due_ms: int


def next_rung(
    attempt: int, failure: Failure, now_ms: int, u: float, delays: Sequence[tuple[str, float]], jitter: float
) -> Rung | None:
    """The next rung for a record with ``attempt`` retries so far; None when it must go to the dead letters.

    ``delays`` are the rungs as (name, seconds), rising. ``jitter`` is a share of the delay; ``u`` in [0, 1) draws it.
    """
    if not failure.retried or attempt >= len(delays):
        return None
    name, delay = delays[attempt]
    return Rung(name, now_ms + round(wait_ms(delay, jitter, u)))


def same_rung(
    index: int, together: int, now_ms: int, u: float, delays: Sequence[tuple[str, float]], jitter: float
) -> Rung:
    """The rung for a record that was read from rung ``index`` and that could not be attempted: the same one, or the
    next one if more than MOST_ON_THE_SAME wait ``together`` in its batch. No attempt is used.

    The record goes to the end of the rung, so that it does not hold the records after it.
    """
    name, delay = delays[min(index + (together > MOST_ON_THE_SAME), len(delays) - 1)]
    return Rung(name, now_ms + round(wait_ms(delay, jitter, u)))


def wait_ms(delay: float, jitter: float, u: Draw) -> Draw:
    """Milliseconds that a record waits on a rung of ``delay`` seconds: ± ``jitter`` of the delay, by ``u`` in [0, 1).

    Jitter spreads records that failed together. It is small, because full jitter would break the order in which the
    head of a rung is due first.
    """
    return jittered(1000 * delay, jitter, u)
