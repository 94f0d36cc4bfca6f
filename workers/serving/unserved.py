"""Owns which models have no version here that can serve: for /readyz, and for the log as long as it lasts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

log = structlog.get_logger("failsoft.versions")

REMIND_EVERY = 60.0
"""Seconds between two log lines about one model. Whoever looks at a log looks at its last minutes."""


@dataclass(frozen=True, slots=True)
class NoVersion:
    """No version of a model can serve here.

    Attributes:
        model: the model's name.
        reasons: why not, a text that names the version for each version that was tried.
    """

    model: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"no version of {self.model} can serve: {'; '.join(self.reasons)}"


class Unserved:
    """The models without a version that can serve. Changed by one event loop; any thread may call
    ``not_ready``.

    Args:
        vital: the models that answer for the pipeline: the primary, or the members of a primary ensemble.
        quorum: how many of them must serve; with fewer, fallbacks answer every event.
        clock: monotonic seconds.
    """

    def __init__(self, vital: Collection[str], quorum: int, clock: Callable[[], float]) -> None:
        self._vital, self._quorum, self._clock = frozenset(vital), quorum, clock
        self._models: dict[str, NoVersion] = {}
        self._due: dict[str, float] = {}

    def lacks(self, none: NoVersion) -> None:
        """A model has no version that can serve, for the reasons given: they replace earlier ones."""
        self._models = {**self._models, none.model: none}  # a new dict, because other threads read it
        self._due.setdefault(none.model, self._clock())

    def serves(self, model: str) -> None:
        """A version of ``model`` serves."""
        self._models = {name: none for name, none in self._models.items() if name != model}
        self._due.pop(model, None)

    def remind(self, model: str) -> None:
        """Logs a warning if ``model`` has no version: at once, and then every REMIND_EVERY seconds."""
        none, now = self._models.get(model), self._clock()
        if none is None or now < self._due[model]:
            return
        self._due[model] = now + REMIND_EVERY
        down = self.not_ready() is not None and model in self._vital
        effect = "fallbacks answer every event" if down else "other models answer without it"
        log.warning("no version of a model can serve", model=model, effect=effect, why=list(none.reasons))

    def not_ready(self) -> str | None:
        """Why the pipeline's events cannot be answered by its primary here, or None."""
        models = self._models
        lacking = sorted(self._vital & models.keys())
        if len(self._vital) - len(lacking) >= self._quorum:
            return None
        return "; ".join(str(models[name]) for name in lacking)
