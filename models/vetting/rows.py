"""Runs rows one by one where a batch of them fails, and reads a model's own scores for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Session
from failsoft.models.vetting.probabilities import Table, table
from failsoft.schemas.failure import Failure
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.prediction import Prediction


def each(session: Session, rows: Columns) -> list[Prediction | Failure]:
    """One answer per row. If a batch fails as a whole, its rows are run one by one."""
    answer = session.run(rows)
    if isinstance(answer, ModelOutput):
        return [answer.bad.get(i) or answer.predictions.row(i) for i in range(rows.size)]
    if rows.size == 1:
        return [answer]
    return [result for i in range(rows.size) for result in each(session, rows.take(np.array([i])))]


def own_scores(session: Session, rows: Columns) -> tuple[Table, str] | None:
    """The model's own scores, before the card's activation, of the rows that do not raise, and their type.

    The scores have the shape (rows, columns). None if no row has any.
    """
    name = session.score_output
    found = [read for raw, n in _outputs(session, rows) if (read := table(raw[name], n)) is not None]
    if not found or len({scores.shape[1] for scores, _ in found}) > 1:
        return None
    return np.concatenate([scores for scores, _ in found]), found[0][1]


def _outputs(session: Session, rows: Columns) -> list[tuple[dict[str, Any], int]]:
    """All outputs and the number of rows: of the batch, or of each row that does not raise alone."""
    if not rows.size:
        return []
    raw = session.outputs(rows)
    if not isinstance(raw, Failure):
        return [(raw, rows.size)]
    if rows.size == 1:
        return []
    return [one for i in range(rows.size) for one in _outputs(session, rows.take(np.array([i])))]
