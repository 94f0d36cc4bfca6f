"""Records that crashed a process: which are tried alone, and when one is poison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace

import numpy as np

from failsoft.models.catalog.chain import LinkKind
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features import Columns

ENOUGH = 2
"""Deaths after which a record is tried no more, or, when a worker died, only alone: the contract's number."""

FEW, LONGEST = 4, 10.0
"""Suspects that one batch tries, each alone, and the seconds that their deadlines may add up to: a lane that scores for
30 s is taken for stuck."""


def too_many(rows: Iterable[int], attempts: Mapping[int, Attempt], deadline: float) -> list[int]:
    """The suspects among ``rows`` that have to wait for a later batch; ``deadline`` is a call's, in seconds."""
    return _suspects(rows, attempts)[max(1, min(FEW, int(LONGEST / deadline))) :]


def isolate(rows: list[int], attempts: Mapping[int, Attempt]) -> list[list[int]]:
    """``rows`` as calls: the innocent together, and each suspect by itself, after them."""
    suspects = _suspects(rows, attempts)
    if not suspects:
        return [rows]
    parts = [[row for row in rows if row not in suspects], *([row] for row in suspects)]
    return [part for part in parts if part]


def among(columns: Columns, rows: list[int], part: list[int]) -> Columns:
    """The columns of ``part``, out of those of ``rows``; both ascend."""
    return columns if len(part) == len(rows) else columns.take(np.searchsorted(rows, part))


def _suspects(rows: Iterable[int], attempts: Mapping[int, Attempt]) -> list[int]:
    return [row for row in rows if row in attempts and attempts[row].crashes] if attempts else []


def record_crash(row: int, failure: Failure, attempts: MutableMapping[int, Attempt]) -> Failure:
    """What a death of the model's process makes of ``row``: it is noted in its attempt, and the last one is poison.

    An event that has no attempt yet gets one with its retry, and the count with it.
    """
    attempt = attempts.get(row)
    if attempt is None:
        return failure
    attempts[row] = attempt = attempt.crashed()
    if attempt.crashes < ENOUGH:
        return failure
    said = f"its model's process died {attempt.crashes} times with it in flight: {failure.message}"
    return Failure(Kind.POISON, said)


@dataclass(frozen=True, slots=True)
class PoisonRecord:
    """The only record of a batch, which is not to be tried: it was alone in flight when its worker died, twice."""

    deaths: int

    @property
    def failure(self) -> Failure:
        """Why it goes to the dead letters."""
        said = f"its worker died {self.deaths} times with it in flight, the last two with nothing else in flight"
        return Failure(Kind.POISON, said)

    def mark_poison(self, failures: MutableMapping[int, Failure], attempts: MutableMapping[int, Attempt]) -> None:
        """Of the only row, unless it failed already: what cannot be read was never tried, and stays what it is."""
        failures.setdefault(0, self.failure)
        if 0 in attempts:
            attempts[0] = replace(attempts[0], crashes=self.deaths)

    @property
    def links(self) -> frozenset[LinkKind]:
        """Who may answer it. A fallback model ran in the same process, and may be what killed it. A worker that died
        once more, while the record was being buried, was not killed by a model: then a rule is not asked either.
        """
        quiet = frozenset({LinkKind.LAST_KNOWN, LinkKind.STATIC})
        return quiet if self.deaths > 2 * ENOUGH else quiet | {LinkKind.RULE}
