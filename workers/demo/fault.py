"""The demo's fault: the primary's scores are NaN while a switch file says so. Nothing else is simulated.

The fault wraps the session: it runs the model and replaces raw scores by NaN. The usual check of model output then
rejects them, so the failures, the breaker and the retries are the same as with a broken model.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from failsoft.models.runtime.outputs import OutputReader
from failsoft.models.runtime.session import Cancel, ModelOutput
from failsoft.schemas.failure import Failure
from failsoft.schemas.features.columns import Columns
from failsoft.workers.serving.loader import Model

EXPENSIVE_FROM = 250_000.0
"""Price in €. No car in the demo's data costs half as much, so a fault above it hits only the cars made for it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The applications on which the primary fails; by default none.

    Attributes:
        everything: it fails on every application.
        above: it fails on applications for cars that cost more than this (€).
    """

    everything: bool = False
    above: float | None = None

    def hits(self, columns: Columns) -> NDArray[np.bool_]:
        """The rows on which the primary fails, as a mask of shape (rows,)."""
        if self.everything:
            return np.ones(columns.size, np.bool_)
        if self.above is None:
            return np.zeros(columns.size, np.bool_)
        return np.asarray(columns.values["car_value"] > self.above)


class Switch:
    """A file with the current fault: the demo writes it, the workers read it. Without the file there is no fault."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, fault: Fault) -> None:
        """Sets the fault for the next batches. The file is replaced by a rename, so a reader never sees half of it."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"everything": fault.everything, "above": fault.above}))
        os.replace(fresh, self.path)

    def get(self) -> Fault:
        """The current fault."""
        try:
            fault = json.loads(self.path.read_text())
        except FileNotFoundError:
            return Fault()
        return Fault(fault["everything"], fault["above"])


class Faulty:
    """A session whose scores are NaN where ``switch`` says so (implements failsoft.workers.execution.runner.Runs)."""

    def __init__(self, session: Model, switch: Switch) -> None:
        self._session = session
        self._switch = switch
        self._guard = OutputReader(session.card.output, scores="score", label=None)

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """Runs the session and applies the current fault to its scores."""
        outcome = self._session.run(columns, cancel)
        if isinstance(outcome, Failure):
            return outcome
        hit = self._switch.get().hits(columns)
        if not hit.any():
            return outcome
        scores = np.where(hit, np.float32(np.nan), outcome.predictions.scores)
        spoiled = self._guard.read([scores], columns.size)
        if isinstance(spoiled, ModelOutput):
            spoiled.bad.update(outcome.bad)
        return spoiled
