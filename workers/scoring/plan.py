"""What scoring is told and what it tells: a pipeline's plan, calls to models and their results, a batch's outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from failsoft.models.breaker.breaker import Admission
from failsoft.models.breaker.window import Counts
from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.chain import Link, LinkKind
from failsoft.models.catalog.statistics import Statistic
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.event import Envelope, Events
from failsoft.schemas.failure import Failure
from failsoft.schemas.features import Columns, Spec
from failsoft.schemas.model_version import ModelVersion
from failsoft.schemas.prediction import Predictions
from failsoft.topics.routing import Verdicts

Rule = Callable[[Mapping[str, object]], object]


@dataclass(frozen=True, slots=True)
class Served:
    """The version of a model that answers now, and the statistics of its training."""

    model: str
    version: int
    statistics: Mapping[str, Statistic]

    @property
    def key(self) -> str:
        return str(ModelVersion(self.model, self.version))


class Registry(Protocol):
    """What scoring asks of the worker's view of breakers and versions."""

    def serving(self, model: str) -> Served | None: ...
    def admit(self, key: str, n: int, ladder: int = 0) -> Admission: ...
    def report(self, key: str, generation: int, counts: Counts) -> None: ...
    def release(self, key: str, generation: int, n: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pipeline does with an event. ``delays`` are (name, seconds); ``rungs`` maps a rung's topic to seconds."""

    primary: str
    cards: Mapping[str, ModelCard]
    chain: Sequence[Link]
    rules: Mapping[str, Rule]
    envelope: Envelope
    delays: Sequence[tuple[str, float]]
    jitter: float
    rungs: Mapping[str, float]
    replay: str

    @property
    def asked(self) -> tuple[str, ...]:
        """The models whose calls make the primary's answer: itself, or its members if it is an ensemble."""
        ensemble = self.cards[self.primary].ensemble
        return (self.primary,) if ensemble is None else ensemble.names

    @property
    def quorum(self) -> int:
        """How many of ``asked`` an answer takes."""
        ensemble = self.cards[self.primary].ensemble
        return 1 if ensemble is None else ensemble.quorum

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The features that ``asked`` take, each once: where members differ, as the first of them has it."""
        by_name: dict[str, Spec] = {}
        for model in self.asked:
            for spec in self.cards[model].specs:
                by_name.setdefault(spec.name, spec)
        return tuple(by_name.values())

    @property
    def remembers(self) -> bool:
        """Is each key's last answer wanted?"""
        return any(link.kind is LinkKind.LAST_KNOWN for link in self.chain)


@dataclass(frozen=True, slots=True)
class Call:
    """Rows for one model version, ready to run. ``deadline`` is a run's, in seconds; ``bisect_budget`` is for finding
    the failing rows of a batch, in seconds, the first run included.
    """

    key: str
    columns: Columns
    deadline: float
    bisect_budget: float

    def __len__(self) -> int:
        return self.columns.size


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call gave: a prediction a row (a placeholder where the row is in ``bad``; None when every row is), and
    how many seconds its longest run took.
    """

    predictions: Predictions | None
    bad: Mapping[int, Failure]
    seconds: float


@dataclass(slots=True)
class Scored:
    """A batch's verdicts, and what else it has to tell.

    ``held`` rows have no verdict: they wait, and are to be read again. ``failures`` are by row, and so are
    ``attempts``, which has the rows that came from a rung or from replay; the counters are for
    metrics, labelled as these are; ``known`` is what the fallback ``last_known`` may say later: keys, answers, version
    (None of an ensemble). ``missing`` is what kept a member from an answer that an ensemble gave without it, by row.
    """

    events: Events
    held: set[int]
    failures: dict[int, Failure]
    rule_errors: Counter[tuple[str, str]]
    version: int | None
    attempts: Mapping[int, Attempt] = field(default_factory=dict)
    missing: Mapping[int, Failure] = field(default_factory=dict)
    verdicts: Verdicts = field(default_factory=Verdicts)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    replayed: Counter[str] = field(default_factory=Counter)
    imputed: Counter[str] = field(default_factory=Counter)
    known: list[tuple[list[bytes | None], Predictions, int | None]] = field(default_factory=list)
