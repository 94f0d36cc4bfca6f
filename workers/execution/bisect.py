"""Pure: which rows of a batch that failed are to blame. It is told outcomes, and says what to run next.

A model may raise, hang or crash for a whole batch because of one row. The batch is split, and what fails is split
again, until the failing rows stand alone; the large pieces come first, so that most good rows are answered early.
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

Rows = NDArray[np.intp]

DEAR = frozenset({Kind.TIMEOUT, Kind.CRASHED})
"""What costs a deadline, or the restart of a process, each time that it happens."""

WAYS = 16
"""Pieces that a dear failure is split into: 4,000 rows, 250, 16, 1 are three levels, where halves take twelve."""

FRUITLESS = 1_000
"""Runs without one answer after which the model is taken to be broken, and not its input. Halves of 4,000 are at eight
rows each by then; for none of those pieces to be good more than half of the rows must be bad (fewer only where they
stand at equal distances), and the breaker opens anyway. A model that fails everything would else cost 8,000 runs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows to run together, for at most ``deadline`` seconds. ``why`` is what the piece that they are of came to."""

    rows: Rows
    deadline: float
    why: Failure


class Bisection:
    """The rows of a batch that failed as a whole, on their way to being answered or failed, each exactly once.

    ``n`` rows failed together with ``why``; ``deadline`` is what a run may take, and ``until`` (monotonic seconds) the
    end of the budget, which is ``budget`` seconds long. Use: ``next``, run the piece, ``record_outcome``, until
    ``next`` gives None. Then ``predictions`` and ``bad`` have every row.
    """

    def __init__(self, n: int, why: Failure, deadline: float, until: float, budget: float) -> None:
        self.bad: dict[int, Failure] = {}
        self._n, self._deadline, self._until, self._budget = n, deadline, until, budget
        self._answers: list[tuple[Rows, Predictions]] = []
        self._left: deque[Piece] = deque()
        self._runs = 1
        self._over = False
        self._split(np.arange(n), why)

    def next(self, now: float) -> Piece | None:
        """What to run now; None when every row is answered or failed. Past the budget the undecided rows fail."""
        if self._over or now >= self._until:
            self.give_up(f"within {self._budget:g} s")
        elif self._runs >= FRUITLESS and not self._answers:
            self.give_up(f"after {self._runs} runs without an answer")
        if not self._left:
            return None
        first = self._left.popleft()
        return Piece(first.rows, min(self._deadline, self._until - now), first.why)

    def record_outcome(self, piece: Piece, outcome: ModelOutput | Failure) -> None:
        """What became of ``piece``."""
        self._runs += 1
        if isinstance(outcome, ModelOutput):
            self._answers.append((piece.rows, outcome.predictions))
            self.bad.update({int(piece.rows[i]): failure for i, failure in outcome.bad.items()})
        elif outcome.kind is Kind.UNAVAILABLE:
            # Nobody ran it: the model's process is on its way back, or no thread was free. It is still to be decided.
            self._left.appendleft(piece)
        elif outcome.kind is Kind.TIMEOUT and piece.deadline < self._deadline:
            # The budget cut it short, which proves nothing against it.
            self._left.appendleft(Piece(piece.rows, piece.deadline, outcome))
            self._over = True
        else:
            self._split(piece.rows, outcome)

    def give_up(self, said: str) -> None:
        """The undecided rows fail together, with what happened to them; ``said`` ends the sentence why."""
        undecided = sum(len(piece.rows) for piece in self._left)
        for piece in self._left:
            message = f"{piece.why.message} (one of {undecided} rows that were not told apart {said})"
            self.bad.update(dict.fromkeys(piece.rows.tolist(), Failure(piece.why.kind, message)))
        self._left.clear()

    @property
    def predictions(self) -> Predictions | None:
        """The answers as one batch of ``n`` rows, placeholders where a row is ``bad``; None without any."""
        return _joined(self._answers, self._n)

    def _split(self, rows: Rows, why: Failure) -> None:
        if len(rows) == 1:
            self.bad[int(rows[0])] = why
            return
        ways = WAYS if why.kind in DEAR else 2
        parts: Iterable[Rows] = np.array_split(rows, min(ways, len(rows)))
        self._left.extend(Piece(part, self._deadline, why) for part in parts)


def _joined(answers: list[tuple[Rows, Predictions]], n: int) -> Predictions | None:
    """The pieces as one batch of ``n`` rows; rows of no piece are placeholders."""
    if not answers:
        return None
    order = np.concatenate([rows for rows, _ in answers])
    place = np.zeros(n, np.intp)  # a row of no piece points at the first answer; it is in ``bad``
    place[order] = np.arange(len(order))
    parts = [p for _, p in answers]
    first = parts[0]
    labels = None if first.labels is None else [label for p in parts for label in p.labels or ()]
    whole = Predictions(
        scores=np.concatenate([p.scores for p in parts]),
        labels=labels,
        probabilities=None if first.probabilities is None else np.concatenate([p.probabilities for p in parts]),
        confidences=None if first.confidences is None else np.concatenate([p.confidences for p in parts]),
    )
    return whole.take(place)
