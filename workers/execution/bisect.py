"""Finds the failing rows of a batch by running parts of it. Pure: takes the outcomes of runs and gives the next runs.

A model may raise, hang or crash for a whole batch because of one row. Two ways lead to the failing rows. A failure that
is expensive each time splits its piece into many pieces, since few levels cost few deadlines. A failure that returns at
once is cheap, and there the number of rows that run again matters. So the batch runs in groups that are as large as is
likely to pass, and in each group that fails one failing row is found by halves. This is group testing: Hwang, "A Method
for Detecting All Defective Members in a Population by Group Testing", JASA 67 (1972), with the share of failing rows
estimated from the rows before instead of known. Pieces that do not depend on one another are given together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import gcd

import numpy as np
from numpy.typing import NDArray

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Predictions

RowIndexes = NDArray[np.intp]

EXPENSIVE = frozenset({Kind.TIMEOUT, Kind.CRASHED})
"""Failures that are expensive each time: they cost a deadline or the restart of a process."""

WAYS = 16
"""Pieces after an expensive failure. 4,000 rows become 250, 16 and 1 in three levels; halves take twelve levels."""

GROUP = 0.5
"""The size of a group, as a share of the rows that hold one failing row on average. By simulation with a run that costs
as much as 15 to 30 rows, 0.4 to 0.7 differ by a tenth. Most groups of this size pass."""

SKIP = 4
"""A batch in which more failing rows than this are expected does not run as a whole first: it would fail."""

TOGETHER = 64
"""The most groups that are given together."""

MAX_RUNS_WITHOUT_ANSWER = 1_000
"""Runs without any answer after which the model itself is taken to be broken, not its input.

Groups shrink to one row when nothing passes, and their rows come from all over the batch. So about a thousand rows have
then failed alone. Without this limit a model that fails every row would cost a run for each row."""


class PieceOrigin(Enum):
    """Where a piece comes from: half of rows that failed cheaply, part of an expensive failure, or rows not tried."""

    HALF = 0
    PART = 1
    GROUP = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """RowIndexes to run together.

    Attributes:
        rows: their numbers in the batch.
        deadline: the longest time of the run (seconds).
        why: the failure of the larger piece that these rows come from.
        origin: where the rows come from.
        others: the rows that failed together with these, if that was a cheap failure.
    """

    rows: RowIndexes
    deadline: float
    why: Failure
    origin: PieceOrigin
    others: RowIndexes


class Bisection:
    """Bisects a batch; each row is answered or failed exactly once, and a row that fails has failed alone.

    Call ``next``, run the pieces in order and call ``record_outcomes``, until ``next`` returns none. Then
    ``predictions`` and ``bad`` hold every row, and ``undecided`` those in ``bad`` that were not tried alone.
    ``spacing`` tells how many rows hold one failing row on average; None if none failed cheaply.

    Args:
        n: number of rows in the batch.
        why: the failure of the whole batch; UNAVAILABLE where it has not run.
        deadline: the longest time of a run (seconds).
        until: the end of the budget (monotonic seconds).
        budget: the length of the budget (seconds), for messages.
        spacing: what the last batch found, or None.
    """

    def __init__(
        self, n: int, why: Failure, deadline: float, until: float, budget: float, spacing: float | None = None
    ) -> None:
        self.bad: dict[int, Failure] = {}
        self.undecided: frozenset[int] = frozenset()
        self._n, self._deadline, self._until, self._budget = n, deadline, until, budget
        self._answers: list[tuple[RowIndexes, Predictions]] = []
        self._suspects: list[tuple[RowIndexes, Failure]] = []  # rows that failed together, and cheaply
        self._parts: deque[tuple[RowIndexes, Failure]] = deque()  # of an expensive failure: they run as they are
        self._rest, self._why = _spread(n), why  # the other rows, and the last cheap failure
        self._largest, self._cap = 1, n  # rows of the largest piece that passed; of the largest that may pass
        self._group = max(1, n // 2) if spacing is None else min(max(1, n // 2), _group(spacing))
        self._ahead = 0 if spacing is None else n // 4  # rows to give at once before anything is known
        self._passed = self._found = 0  # rows that were answered, and rows that failed cheaply, alone
        self._runs = 1
        self._over = False
        if why.kind in EXPENSIVE:
            self._rest = self._rest[:0]
            self._split(np.arange(n), why)

    @property
    def untouched(self) -> bool:
        """No row was decided yet, and none has failed."""
        return len(self._rest) == self._n

    @property
    def spacing(self) -> float | None:
        """Rows decided for each row that failed cheaply; None without such a row. Where rows fail together only, a
        spacing with which groups pass.
        """
        decided = (self._passed + self._found) / self._found if self._found else None
        if self._cap == self._n:
            return decided
        return min(decided or self._n, self._cap / GROUP)

    def next(self, now: float) -> list[Piece]:
        """The next pieces to run; none when every row is decided. After the budget the undecided rows fail."""
        if self._over or now >= self._until:
            self.give_up(f"within {self._budget:g} s")
        elif self._runs >= MAX_RUNS_WITHOUT_ANSWER and not self._answers:
            self.give_up(f"after {self._runs} runs without an answer")
        deadline = min(self._deadline, self._until - now)
        if self._suspects:
            suspects, self._suspects = self._suspects, []
            halves = [(rows, why, (len(rows) + 1) // 2) for rows, why in suspects]
            return [Piece(rows[:half], deadline, why, PieceOrigin.HALF, rows[half:]) for rows, why, half in halves]
        if self._parts:
            rows, why = self._parts.popleft()
            return [Piece(rows, deadline, why, PieceOrigin.PART, rows[:0])]
        # As many rows as are known about already: a wrong idea of how many fail must not cost the whole batch.
        groups = min(TOGETHER, max(1, max(self._passed + self._found, self._ahead) // self._group))
        given = self._rest[: groups * self._group]
        self._rest = self._rest[len(given) :]
        starts = range(0, len(given), self._group)
        return [Piece(given[i : i + self._group], deadline, self._why, PieceOrigin.GROUP, given[:0]) for i in starts]

    def record_outcomes(self, pieces: Sequence[Piece], outcomes: Sequence[ModelOutput | Failure]) -> None:
        """Records the outcomes of the pieces of the last ``next``, in order. Pieces after the last outcome were not
        run, and ``next`` gives their rows again.
        """
        self._runs += len(outcomes)
        for piece, outcome in zip(pieces, outcomes, strict=False):
            self._record(piece, outcome)
        for piece in reversed(pieces[len(outcomes) :]):
            self._take_back(piece, piece.why)

    def give_up(self, reason: str) -> None:
        """Fails the undecided rows together, with the last failure of their piece. ``reason`` ends the message."""
        pieces = [*self._suspects, *self._parts, (self._rest, self._why)]
        undecided = sum(len(rows) for rows, _ in pieces)
        for rows, why in pieces:
            message = f"{why.message} (one of {undecided} rows that were not tried alone {reason})"
            self.bad.update(dict.fromkeys(rows.tolist(), Failure(why.kind, message)))
            self.undecided |= frozenset(rows.tolist())
        self._suspects, self._rest = [], self._rest[:0]
        self._parts.clear()

    @property
    def predictions(self) -> Predictions | None:
        """The answers as one batch of ``n`` rows, with placeholders for rows in ``bad``; None without any answer."""
        return joined(self._answers, self._n)

    def _record(self, piece: Piece, outcome: ModelOutput | Failure) -> None:
        if isinstance(outcome, ModelOutput):
            self._answers.append((piece.rows, outcome.predictions))
            self.bad.update({int(piece.rows[i]): failure for i, failure in outcome.bad.items()})
            self._passed += len(piece.rows)
            if len(piece.others):
                self._suspects.append((piece.others, piece.why))  # one of them fails
            elif piece.origin is PieceOrigin.HALF:
                # It failed together with others, and none of them failed alone: too many rows, or some that clash.
                self._cap = self._largest
                self._group = min(self._group, self._cap)
            elif piece.origin is PieceOrigin.GROUP:
                known = self._passed if self.spacing is None else self.spacing
                self._group = max(1, min(2 * self._group, int(known), self._cap))
            self._largest = max(self._largest, len(piece.rows))
        elif outcome.kind is Kind.UNAVAILABLE:
            # The piece was not run: the model's process is restarting, or no thread was free. It is still undecided.
            self._take_back(piece, piece.why)
        elif outcome.kind is Kind.TIMEOUT and piece.deadline < self._deadline:
            # The budget had shortened the deadline, so the timeout does not show that the piece holds a bad row.
            self._take_back(piece, outcome if piece.origin is PieceOrigin.PART else piece.why)
            self._over = True
        else:
            self._rest = np.concatenate([piece.others, self._rest])
            if self._why.kind is Kind.UNAVAILABLE and outcome.kind is Kind.TIMEOUT:
                self._why = outcome  # the rows that are not tried any more fail as those of a whole batch would
            if outcome.kind in EXPENSIVE:
                self._split(piece.rows, outcome)
            elif len(piece.rows) > 1:
                self._why = outcome
                self._suspects.append((piece.rows, outcome))
            else:
                self.bad[int(piece.rows[0])] = outcome
                self._found += 1
                assert self.spacing is not None
                self._group = min(_group(self.spacing), self._cap)

    def _take_back(self, piece: Piece, why: Failure) -> None:
        """The piece is as undecided as it was before ``next`` gave it."""
        if piece.origin is PieceOrigin.HALF:
            self._suspects.append((np.concatenate([piece.rows, piece.others]), why))
        elif piece.origin is PieceOrigin.PART:
            self._parts.appendleft((piece.rows, why))
        else:
            self._rest = np.concatenate([piece.rows, self._rest])

    def _split(self, rows: RowIndexes, why: Failure) -> None:
        if len(rows) == 1:
            self.bad[int(rows[0])] = why
        else:
            self._parts.extend((part, why) for part in np.array_split(rows, min(WAYS, len(rows))))


def expects_to_fail(n: int, spacing: float | None) -> bool:
    """Whether a batch of ``n`` rows need not run as a whole; ``spacing`` is what the last batch found."""
    return spacing is not None and n > SKIP * spacing


def _group(spacing: float) -> int:
    return max(1, int(GROUP * spacing))


def _spread(n: int) -> RowIndexes:
    """All rows, each far from the one before. Failing rows often come in series, and a series would give a wrong idea
    of the rest of the batch. The step is near n times the golden ratio (0.618), and coprime to n.
    """
    step = max(1, int(0.618 * n))
    while gcd(step, n) != 1:
        step += 1
    return np.arange(n) * step % n


def joined(answers: list[tuple[RowIndexes, Predictions]], n: int) -> Predictions | None:
    """The answers as one batch of ``n`` rows, with placeholders for rows without an answer."""
    if not answers:
        return None
    order = np.concatenate([rows for rows, _ in answers])
    index = np.zeros(n, np.intp)  # a row without an answer points at the first answer; such a row is in ``bad``
    index[order] = np.arange(len(order))
    return Predictions.concat([p for _, p in answers]).take(index)
