"""The demo's fault: the primary says "not a number" while a switch file tells it to; the rest is the real thing.

It stands between the runner and the session, runs the model, spoils its raw scores, and has them judged by the guard
that judges every model's output. So what follows (the failures, the breaker, the ladder) is what a broken model does.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from failsoft.models.runtime.session import Cancel, ModelOutput
from failsoft.models.runtime.signature import OutputReader
from failsoft.schemas.failure import Failure
from failsoft.schemas.features import Columns
from failsoft.workers.serving.loader import Model

DEAREST = 250_000.0
"""€. No car in the demo's data costs half as much, so a fault above this price meets only the cars made for it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What the primary gets wrong: every application, or those for cars dearer than ``above`` (€), or nothing."""

    everything: bool = False
    above: float | None = None

    def hits(self, columns: Columns) -> NDArray[np.bool_]:
        """The rows that it spoils, as a mask of shape (rows,)."""
        if self.everything:
            return np.ones(columns.size, np.bool_)
        if self.above is None:
            return np.zeros(columns.size, np.bool_)
        return np.asarray(columns.values["car_value"] > self.above)


class Switch:
    """A file that says which fault is on: the demo writes it, the worker's process reads it. No file is no fault."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, fault: Fault) -> None:
        """From the next batch on. In one rename: a reader sees the fault before or the one after, never half."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"everything": fault.everything, "above": fault.above}))
        os.replace(fresh, self.path)

    def get(self) -> Fault:
        """The fault that is on now."""
        try:
            said = json.loads(self.path.read_text())
        except FileNotFoundError:
            return Fault()
        return Fault(said["everything"], said["above"])


class Faulty:
    """A session whose scores ``switch`` spoils (failsoft.workers.execution.runner.Runs)."""

    def __init__(self, session: Model, switch: Switch) -> None:
        self._session = session
        self._switch = switch
        self._guard = OutputReader(session.card.output, scores="score", label=None)

    def run(self, columns: Columns, cancel: Cancel | None = None) -> ModelOutput | Failure:
        """What the session says, after the fault had its way with it."""
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
