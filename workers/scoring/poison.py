"""Poison records of crashed model processes: which records then run alone, and when one is poison.

After a crash of the worker itself, ``workers/lanes/crash_marks.py`` decides this, from markers beside the offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from failsoft.models.catalog.chain import LinkKind
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns

CRASHES_TO_POISON = 2
"""The number of crashes that makes a record poison ("crashed its worker or model process twice").

- Crashes of the model's process: after this many the record is poison.
- Crashes of the worker: after this many the suspected records run alone, one at a time. Only a record that crashed the
  worker this often while it ran alone is poison."""

MAX_ALONE, MAX_ALONE_SECONDS = 4, 10.0
"""The most suspected records that one batch runs, each in its own call, and the most seconds that their deadlines may
add up to. The watchdog takes a lane that scores for 30 s as stuck."""


def too_many(rows: Iterable[int], attempts: Mapping[int, Attempt], deadline: float) -> list[int]:
    """The suspected rows among ``rows`` that wait for a later batch. ``deadline`` is that of one call, in seconds."""
    return _suspects(rows, attempts)[max(1, min(MAX_ALONE, int(MAX_ALONE_SECONDS / deadline))) :]


def isolate(rows: list[int], attempts: Mapping[int, Attempt]) -> list[list[int]]:
    """Split ``rows`` into calls: first all other rows in one call, then each suspected row in a call of its own."""
    suspects = _suspects(rows, attempts)
    if not suspects:
        return [rows]
    parts = [[row for row in rows if row not in suspects], *([row] for row in suspects)]
    return [part for part in parts if part]


def suspected(part: Sequence[int], attempts: Mapping[int, Attempt]) -> bool:
    """Whether ``part``, one of the calls that ``isolate`` gives, is a suspected row by itself."""
    return bool(attempts) and len(_suspects(part, attempts)) > 0


def among(columns: Columns, rows: list[int], part: list[int]) -> Columns:
    """The feature columns of the rows ``part``, taken from the ``columns`` of ``rows``. Both lists ascend."""
    return columns if len(part) == len(rows) else columns.take(np.searchsorted(rows, part))


def _suspects(rows: Iterable[int], attempts: Mapping[int, Attempt]) -> list[int]:
    """The rows that were in flight when their model's process crashed before."""
    return [row for row in rows if row in attempts and attempts[row].crashes] if attempts else []


def record_crash(row: int, failure: Failure, attempts: MutableMapping[int, Attempt]) -> Failure:
    """Count a crash of the model's process in the attempt of ``row``. Returns ``failure``, or
    POISON at CRASHES_TO_POISON crashes.

    A row that was read for the first time has no attempt yet: its retry gets the attempt, with one crash counted.
    """
    attempt = attempts.get(row)
    if attempt is None:
        return failure
    attempts[row] = attempt = attempt.crashed()
    if attempt.crashes < CRASHES_TO_POISON:
        return failure
    message = f"its model's process died {attempt.crashes} times with it in flight: {failure.message}"
    return Failure(Kind.POISON, message)


@dataclass(frozen=True, slots=True)
class PoisonRecord:
    """The only record of a batch, which no model may run: its worker crashed twice with only this record in flight.

    Attributes:
        deaths: all crashes of workers with the record in flight.
    """

    deaths: int

    @property
    def failure(self) -> Failure:
        """The failure with which the record goes to the dead letters."""
        message = f"its worker died {self.deaths} times with it in flight, the last two with nothing else in flight"
        return Failure(Kind.POISON, message)

    def mark_poison(self, failures: MutableMapping[int, Failure], attempts: MutableMapping[int, Attempt]) -> None:
        """Set the POISON failure of row 0, the only row. A failure that it already has stays: a record that cannot be
        read never ran on a model.
        """
        failures.setdefault(0, self.failure)
        if 0 in attempts:
            attempts[0] = replace(attempts[0], crashes=self.deaths)

    @property
    def links(self) -> frozenset[LinkKind]:
        """The links of the fallback chain that may answer the record.

        Fallback models are left out: they run in the same process, and one of them may be the cause of the crashes.
        If the worker crashed once more while the record was being dead-lettered, no model was the cause, so rules are
        left out too.
        """
        safe = frozenset({LinkKind.LAST_KNOWN, LinkKind.STATIC})
        return safe if self.deaths > 2 * CRASHES_TO_POISON else safe | {LinkKind.RULE}
