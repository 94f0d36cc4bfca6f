"""The inputs and outputs of scoring: a pipeline's plan, calls to models and their results, a batch's verdicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from failsoft.models.breaker.breaker import Admission
from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.chain import Link, LinkKind
from failsoft.models.catalog.statistics import Statistic
from failsoft.models.runtime.run_times import RunTimes
from failsoft.schemas.attempt import Attempt
from failsoft.schemas.event import Envelope, Events
from failsoft.schemas.failure import Failure
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.fleet.counts import Counts
from failsoft.schemas.formats.reader import Want, WantedFields
from failsoft.schemas.model_version import ModelVersion
from failsoft.schemas.prediction import Predictions
from failsoft.topics.routing import Verdicts

Rule = Callable[[Mapping[str, object]], object]
"""A user's fallback rule: called with a row's feature values, it returns an answer or None."""


@dataclass(frozen=True, slots=True)
class Served:
    """The version of a model that answers now.

    Attributes:
        model: the model's name.
        version: the version's number.
        statistics: training statistics by feature, for imputation.
        dtypes: the numpy name of the type that the version computes a feature in, by feature.
        times: how long its runs take, as measured when it was loaded; None if its made-up rows failed.
        key: the version, as ``model@version``.
    """

    model: str
    version: int
    statistics: Mapping[str, Statistic]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    times: RunTimes | None = None
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", str(ModelVersion(self.model, self.version)))


class Registry(Protocol):
    """The part of the worker's ServingRegistry that scoring uses. Its methods are documented there."""

    def serving(self, model: str) -> Served | None: ...
    def admit(self, key: str, n: int, ladder: int = 0) -> Admission: ...
    def report(self, key: str, generation: int, counts: Counts) -> None: ...
    def release(self, key: str, generation: int, n: int) -> None: ...


_WANTS = {
    FeatureType.FLOAT: Want.NUMBER,
    FeatureType.INT: Want.INTEGER,
    FeatureType.BOOL: Want.BOOL,
    FeatureType.STRING: Want.STRING,
    FeatureType.TENSOR: Want.TENSOR,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pipeline does with an event.

    Attributes:
        primary: the name of the model that the events are meant for.
        cards: the card of each model in use, by name.
        chain: the links of the fallback chain, in order.
        rules: the users' rules, by link target.
        envelope: how an event's id, time and features are found. Its ``nans`` and ``tensors`` are set here: the
            features that the models ``asked`` take as NaN, and those that are tensors.
        delays: the ladder in order: each rung's delay as (name, seconds).
        jitter: the share of a delay by which it is varied at random.
        rungs: the delay of each retry topic (seconds), by topic.
        replay: the replay topic.
        ignores_tombstones: a record of an input topic without a value gets no verdict.
    """

    primary: str
    cards: Mapping[str, ModelCard]
    chain: Sequence[Link]
    rules: Mapping[str, Rule]
    envelope: Envelope
    delays: Sequence[tuple[str, float]]
    jitter: float
    rungs: Mapping[str, float]
    replay: str
    ignores_tombstones: bool = False

    def __post_init__(self) -> None:
        specs = [spec for model in self.asked for spec in self.cards[model].specs]
        nans = dict.fromkeys(spec.path for spec in specs if spec.nan)
        tensors = dict.fromkeys(spec.path for spec in specs if spec.tensor is not None)
        object.__setattr__(self, "envelope", replace(self.envelope, nans=tuple(nans), tensors=tuple(tensors)))

    @property
    def asked(self) -> tuple[str, ...]:
        """The models that are called for the primary's answer: itself, or its members if it is an ensemble."""
        ensemble = self.cards[self.primary].ensemble
        return (self.primary,) if ensemble is None else ensemble.names

    @property
    def quorum(self) -> int:
        """How many of the models ``asked`` must answer a row, so that it counts as answered by the primary."""
        ensemble = self.cards[self.primary].ensemble
        return 1 if ensemble is None else ensemble.quorum

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The features of the models ``asked``, each once. If members differ, the first member's card decides."""
        by_name: dict[str, Spec] = {}
        for model in self.asked:
            for spec in self.cards[model].specs:
                by_name.setdefault(spec.name, spec)
        return tuple(by_name.values())

    @property
    def wanted(self) -> WantedFields:
        """What is read of an event: its id, its time, and the features of every model in use, fallbacks included. Of
        two features at one path, the first model's decides what it is wanted as.
        """
        models = dict.fromkeys((*self.asked, *self.fallbacks))
        fields: dict[str, Want] = {}
        for spec in (spec for model in models for spec in self.cards[model].specs):
            fields.setdefault(spec.path, _WANTS[spec.type])
        e = self.envelope
        return WantedFields(e.id, e.time, e.features, tuple(fields.items()))

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The models of the fallback chain."""
        return tuple(link.target for link in self.chain if link.kind is LinkKind.MODEL and link.target is not None)

    @property
    def remembers(self) -> bool:
        """Whether the chain has the link ``last_known``, so that answers are remembered by key."""
        return any(link.kind is LinkKind.LAST_KNOWN for link in self.chain)


@dataclass(frozen=True, slots=True)
class Call:
    """Rows for one model version, ready to run.

    Attributes:
        key: the version, as ``model@version``.
        columns: the feature columns of the rows.
        deadline: of one run (seconds).
        bisect_budget: for all runs that find the failing rows of a batch, the first run included (seconds).
        slow: a run that takes longer counts as slow (seconds).
        alone: the call must not share a run with rows of other lanes: its row is suspected of a crash, or its rows are
            a breaker's probes.
        max_batch: the most rows of a run, by the card; None: no such bound.
        times: how long its runs take, as measured when the version was loaded; None if that is not known.
    """

    key: str
    columns: Columns
    deadline: float
    bisect_budget: float
    slow: float = math.inf
    alone: bool = False
    max_batch: int | None = None
    times: RunTimes | None = None

    def __len__(self) -> int:
        return self.columns.size


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a call.

    Attributes:
        predictions: one for each row, a placeholder where the row failed; None if every row failed.
        bad: the failures, by row of the call.
        seconds: how long its longest run took (seconds).
        runs: 1; 0 if calls of other lanes had the same run, and another of these counts it.
        undecided: rows in ``bad`` that were not tried alone: they failed together with other rows.
    """

    predictions: Predictions | None
    bad: Mapping[int, Failure]
    seconds: float
    runs: int = 1
    undecided: frozenset[int] = frozenset()


@dataclass(slots=True)
class Scored:
    """A batch's verdicts, and what the lane needs besides them. A row is a record's index in the batch.

    Attributes:
        events: the decoded events.
        held: rows without a verdict: the lane reads their records again later.
        failures: why the primary gave no answer, by row.
        rule_errors: errors that rules raised, by rule and name of the error.
        version: the primary's version that served; None if none was loaded, or for an ensemble.
        attempts: the attempts of rows that came from a rung or from the replay topic.
        missing: the failure of a member that is missing from an ensemble's answer, by row.
        waiting: rows that wait unanswered on the ladder, since their schema is not known.
        verdicts: the outgoing answers, retries and dead letters.
        outcomes: counts of ``failsoft_events_total``, by its labels.
        answers: counts of ``failsoft_answers_total``, by its labels.
        retried: counts of ``failsoft_retries_total``, by rung.
        dead: counts of ``failsoft_dead_total``, by kind.
        replayed: counts of ``failsoft_replayed_total``, by result.
        imputed: counts of ``failsoft_imputed_total``, by feature.
        nans: counts of ``failsoft_missing_total``, by feature.
        known: the primary's answers, for ``last_known``: keys, predictions, version (None for an ensemble).
    """

    events: Events
    held: set[int]
    failures: dict[int, Failure]
    rule_errors: Counter[tuple[str, str]]
    version: int | None
    attempts: Mapping[int, Attempt] = field(default_factory=dict)
    missing: Mapping[int, Failure] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    verdicts: Verdicts = field(default_factory=Verdicts)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    replayed: Counter[str] = field(default_factory=Counter)
    imputed: Counter[str] = field(default_factory=Counter)
    nans: Counter[str] = field(default_factory=Counter)
    known: list[tuple[list[bytes | None], Predictions, int | None]] = field(default_factory=list)
