"""Which rung of the retry ladder a failed record goes to, and when it is due there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from failsoft.schemas.backoff import Draw, jittered
from failsoft.schemas.failure import Failure


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of the ladder. ``delay`` is as the pipeline file writes it ("5s"): it names the rung's topic.
    ``due_ms`` is epoch milliseconds; the record is not attempted before.
    """

    delay: str
    due_ms: int


def next_rung(
    attempt: int, failure: Failure, now_ms: int, u: float, delays: Sequence[tuple[str, float]], jitter: float
) -> Rung | None:
    """The rung for a record that has had ``attempt`` retries, or None: it is dead.

    ``delays`` are (name, seconds), rising.
    """
    if not failure.retried or attempt >= len(delays):
        return None
    name, delay = delays[attempt]
    return Rung(name, now_ms + round(wait_ms(delay, jitter, u)))


def wait_ms(delay: float, jitter: float, u: Draw) -> Draw:
    """Milliseconds on a rung of ``delay`` seconds: ± ``jitter`` of it, ``u`` in [0, 1) deciding, so that what failed
    together does not come back together. Full jitter would break the order that lets a rung be held by its head alone.
    """
    return jittered(1000 * delay, jitter, u)
