"""Finds the failing rows of a batch by splitting it. Pure: takes the outcome of each run and gives the next run.

A model may raise, hang or crash for a whole batch because of one row. The batch is split into pieces, and each failing
piece is split again, until every failing row stands alone. Large pieces run first, so that most good rows are answered
early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from failsoft.models.runtime.signature import ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions

RowIndexes = NDArray[np.intp]

EXPENSIVE = frozenset({Kind.TIMEOUT, Kind.CRASHED})
"""Failures that are expensive each time: they cost a deadline or the restart of a process."""

WAYS = 16
"""Pieces after an expensive failure. 4,000 rows become 250, 16 and 1 in three levels; halves take twelve levels."""

MAX_RUNS_WITHOUT_ANSWER = 1_000
"""Runs without any answer after which the model itself is taken to be broken, not its input.

By then, halves of 4,000 rows have reached eight rows each. If none of those pieces is good, at least one row in
eight is bad. Without this limit a model that fails every row would cost 8,000 runs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """RowIndexes to run together.

    Attributes:
        rows: their numbers in the batch.
        deadline: the longest time of the run (seconds).
        why: the failure of the larger piece that these rows come from.
    """

    rows: RowIndexes
    deadline: float
    why: Failure


class Bisection:
    """Bisects a batch that failed as a whole; each row is answered or failed exactly once.

    Call ``next``, run the piece and call ``record_outcome``, until ``next`` returns None. Then ``predictions`` and
    ``bad`` hold every row, and ``undecided`` those in ``bad`` that were not tried alone.

    Args:
        n: number of rows in the batch.
        why: the failure of the whole batch.
        deadline: the longest time of a run (seconds).
        until: the end of the budget (monotonic seconds).
        budget: the length of the budget (seconds), for messages.
    """

    def __init__(self, n: int, why: Failure, deadline: float, until: float, budget: float) -> None:
        self.bad: dict[int, Failure] = {}
        self.undecided: frozenset[int] = frozenset()
        self._n, self._deadline, self._until, self._budget = n, deadline, until, budget
        self._answers: list[tuple[RowIndexes, Predictions]] = []
        self._left: deque[Piece] = deque()
        self._runs = 1
        self._over = False
        self._split(np.arange(n), why)

    def next(self, now: float) -> Piece | None:
        """The next piece to run; None when every row is decided. After the budget the undecided rows fail."""
        if self._over or now >= self._until:
            self.give_up(f"within {self._budget:g} s")
        elif self._runs >= MAX_RUNS_WITHOUT_ANSWER and not self._answers:
            self.give_up(f"after {self._runs} runs without an answer")
        if not self._left:
            return None
        first = self._left.popleft()
        return Piece(first.rows, min(self._deadline, self._until - now), first.why)

    def record_outcome(self, piece: Piece, outcome: ModelOutput | Failure) -> None:
        """Records the outcome of running ``piece``."""
        self._runs += 1
        if isinstance(outcome, ModelOutput):
            self._answers.append((piece.rows, outcome.predictions))
            self.bad.update({int(piece.rows[i]): failure for i, failure in outcome.bad.items()})
        elif outcome.kind is Kind.UNAVAILABLE:
            # The piece was not run: the model's process is restarting, or no thread was free. It is still undecided.
            self._left.appendleft(piece)
        elif outcome.kind is Kind.TIMEOUT and piece.deadline < self._deadline:
            # The budget had shortened the deadline, so the timeout does not show that the piece holds a bad row.
            self._left.appendleft(Piece(piece.rows, piece.deadline, outcome))
            self._over = True
        else:
            self._split(piece.rows, outcome)

    def give_up(self, reason: str) -> None:
        """Fails the undecided rows together, with the last failure of their piece. ``reason`` ends the message."""
        undecided = sum(len(piece.rows) for piece in self._left)
        for piece in self._left:
            message = f"{piece.why.message} (one of {undecided} rows that were not tried alone {reason})"
            self.bad.update(dict.fromkeys(piece.rows.tolist(), Failure(piece.why.kind, message)))
            self.undecided |= frozenset(piece.rows.tolist())
        self._left.clear()

    @property
    def predictions(self) -> Predictions | None:
        """The answers as one batch of ``n`` rows, with placeholders for rows in ``bad``; None without any answer."""
        return _joined(self._answers, self._n)

    def _split(self, rows: RowIndexes, why: Failure) -> None:
        if len(rows) == 1:
            self.bad[int(rows[0])] = why
            return
        ways = WAYS if why.kind in EXPENSIVE else 2
        parts: Iterable[RowIndexes] = np.array_split(rows, min(ways, len(rows)))
        self._left.extend(Piece(part, self._deadline, why) for part in parts)


def _joined(answers: list[tuple[RowIndexes, Predictions]], n: int) -> Predictions | None:
    """The answers as one batch of ``n`` rows, with placeholders for rows without an answer."""
    if not answers:
        return None
    order = np.concatenate([rows for rows, _ in answers])
    index = np.zeros(n, np.intp)  # a row without an answer points at the first answer; such a row is in ``bad``
    index[order] = np.arange(len(order))
    parts = [p for _, p in answers]
    first = parts[0]
    labels = None if first.labels is None else [label for p in parts for label in p.labels or ()]
    whole = Predictions(
        scores=np.concatenate([p.scores for p in parts]),
        labels=labels,
        probabilities=None if first.probabilities is None else np.concatenate([p.probabilities for p in parts]),
        confidences=None if first.confidences is None else np.concatenate([p.confidences for p in parts]),
    )
    return whole.take(index)
