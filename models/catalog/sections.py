"""A card's sections: what each may say, its defaults, and what contradicts itself."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from failsoft.models.catalog.chain import Link, LinkKind, parse
from failsoft.models.catalog.fields import (
    METHODS,
    Finite,
    Label,
    Method,
    OutputKind,
    Rate,
    Seconds,
    Section,
    Value,
    one_of,
)
from failsoft.schemas.config import size
from failsoft.schemas.config.refusal import near
from failsoft.schemas.features import FLOAT32_MAX, FeatureType, Spec

LEAST_MEMORY = 192_000_000
"""Bytes: a process that has loaded a small model has some 125 MB that RLIMIT_DATA counts, and a batch needs some."""

LONGEST_BLAME = 20.0
"""Seconds. A lane that scores for 30 is given up, and a drain waits for 25."""

CRASHES = 2.0
"""Seconds of ``blame`` that isolation = "process" has at the least: a crash costs a fork, whatever the deadline. To
tell one killer in 4,000 rows apart (four crashes) took 0.05 to 0.11 s, with one replica as with two, and 0.2 to 0.4 s
with a model of 400 MB, whose fork has more to copy; eight killers (20 crashes) 0.3 to 0.5 and 2.7 s. Nothing is loaded
meanwhile: forks of the loaded model stand in at once. Two busy cores."""


class ModelSection(Section):
    """``[model]``: who it is and how it is run.

    ``deadline`` is what one run of a batch may take. ``blame`` is what a batch that failed may take in all, its first
    run included, until the rows that fail it stand alone; past it the undecided rows fail together. Left out it is ten
    deadlines: a run that hangs costs one, so a hanging row among 4,000 costs four, and three of them ten; with
    isolation = "process" at least CRASHES.
    """

    name: str = ""  # load_card fills in the folder's name
    kind: Annotated[Literal["model", "ensemble"], one_of(["model", "ensemble"])] = "model"
    # A fifth of a second is where a person notices waiting; a batch of 4,000 rows takes some 10 ms.
    deadline: Seconds = 0.2
    blame: Seconds | None = None
    isolation: Annotated[Literal["thread", "process"], one_of(["thread", "process"])] = "thread"
    # A process runs one call at a time; one is enough for most: a batch of 4,000 rows keeps it for some 10 ms.
    replicas: Annotated[int, Field(strict=True, ge=1, le=16)] = 1
    # Of each process. None: a default would be wrong for most models, and kills what works.
    memory: Annotated[int, BeforeValidator(size.bytes_of)] | None = None

    @field_validator("blame")
    @classmethod
    def _blame_fits(cls, blame: float | None, info: ValidationInfo) -> float | None:
        deadline = info.data.get("deadline", 0.0)
        if blame is not None and not deadline <= blame <= LONGEST_BLAME:
            raise ValueError(
                f"{blame:g} s: the first run counts, so at least the deadline of {deadline:g} s; and a lane waits for "
                f"it, so at most {LONGEST_BLAME:g} s"
            )
        return blame

    @property
    def budget(self) -> float:
        """Seconds for a batch that failed: ``blame``, or its default."""
        least = CRASHES if self.isolation == "process" else self.deadline
        return self.blame or max(self.deadline, min(max(10 * self.deadline, least), LONGEST_BLAME))

    @model_validator(mode="after")
    def _process_only(self) -> Self:
        if self.isolation != "process":
            given = [key for key in ("replicas", "memory") if key in self.model_fields_set]
            if given:
                raise ValueError(f'{given[0]}: only with isolation = "process": add that, or leave this out')
        elif self.memory is not None and self.memory < LEAST_MEMORY:
            raise ValueError(
                f"memory: {size.text(self.memory)} does not hold an interpreter and ONNX Runtime, let alone a model: "
                f"{size.text(LEAST_MEMORY)} is the least"
            )
        return self


class OutputSection(Section):
    """``[output]``: what the ONNX outputs mean, and which of them are an answer.

    ``output`` names the ONNX output that holds scores or probabilities, when the first float one is not it.
    ``range`` is where a score must lie, else the row's output is bad. ``threshold`` makes a label (1) of a binary
    or anomaly score. ``classes`` are the labels of a multiclass model's columns, in order.
    """

    kind: Annotated[OutputKind, one_of(OutputKind)]
    min_confidence: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    range: tuple[Finite, Finite] | None = None
    threshold: Finite | None = None
    classes: tuple[Label, ...] | None = None
    output: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        """A probability lies in [0, 1], and is a 1 from one half on, unless the card says otherwise."""
        if isinstance(given, dict) and given.get("kind") == OutputKind.BINARY:
            return {"range": (0.0, 1.0), "threshold": 0.5, **given}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        classifies = self.kind in (OutputKind.BINARY, OutputKind.MULTICLASS)
        if self.min_confidence is not None and not classifies:
            raise ValueError(f"min_confidence: a {self.kind} output has no confidence; only binary and multiclass have")
        if self.threshold is not None and self.kind not in (OutputKind.BINARY, OutputKind.ANOMALY):
            raise ValueError(f"threshold: only binary and anomaly outputs have one, not {self.kind}")
        if self.classes is not None:
            if self.kind is not OutputKind.MULTICLASS:
                raise ValueError(f"classes: only a multiclass output names them, not {self.kind}")
            if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
                raise ValueError("classes: at least two, each once")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"range: the lower bound comes first, and {list(self.range)} holds nothing")
        if classifies and self.range is not None and not 0 <= self.range[0] < self.range[1] <= 1:
            raise ValueError(
                f'range: a {self.kind} score is a probability, within [0, 1]; for a margin, kind = "anomaly"'
            )
        return self


class Imputation(Section):
    """How a feature is made up for: a training statistic, the entity's last known value, or a fixed ``value``."""

    method: Method
    value: Value | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """``"median"`` is a method; ``3.5`` and ``{ value = "median" }`` are values."""
        if isinstance(given, str) and given in METHODS:
            return {"method": given}
        if isinstance(given, (bool, int, float, str)):
            return {"method": Method.VALUE, "value": given}
        if isinstance(given, dict) and set(given) == {"value"}:
            return {"method": Method.VALUE, "value": given["value"]}
        if isinstance(given, dict) and "method" in given:  # a dump of this very class
            return given
        raise ValueError('a value, "mean", "median", "mode", "last_known", or { value = … } for a value so spelled')


class FeatureSection(Section):
    """A ``[[features]]`` entry. Without ``impute`` an event that lacks it is invalid, whatever ``required`` says."""

    name: str = Field(min_length=1)
    type: Annotated[FeatureType, one_of(FeatureType)]
    required: StrictBool = True
    impute: Imputation | None = None
    categories: tuple[str, ...] | None = Field(default=None, min_length=1)
    unseen: Annotated[Literal["unusable", "pass"], one_of(["unusable", "pass"])] = "unusable"
    mean: Finite | None = None
    median: Finite | None = None
    mode: Value | None = None

    @model_validator(mode="before")
    @classmethod
    def _required_unless_imputed(cls, given: Any) -> Any:
        if isinstance(given, dict) and "required" not in given:
            return {**given, "required": "impute" not in given}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numeric = self.type in (FeatureType.FLOAT, FeatureType.INT)
        if self.required and self.impute is not None:
            raise ValueError(f"{self.name!r} is both required and imputed: leave out one of the two")
        if self.categories is not None and self.type is not FeatureType.STRING:
            raise ValueError(f"{self.name!r}: only a string has categories, not a {self.type}")
        if not numeric and (self.mean is not None or self.median is not None):
            raise ValueError(f"{self.name!r}: a {self.type} has no mean or median")
        if self.mode is not None:
            self.check("mode", self.mode)
        if self.impute is not None:
            if self.impute.method in (Method.MEAN, Method.MEDIAN) and not numeric:
                raise ValueError(
                    f'{self.name!r}: a {self.type} has no {self.impute.method}; it may be "mode", "last_known" or a '
                    'value (write { value = "' + self.impute.method + '" } if that is the value)'
                )
            if self.impute.method is Method.VALUE:
                self.check("impute", self.impute.value)
        return self

    def check(self, key: str, value: object) -> None:
        """``value``, given under ``key``, must be one that an event could bring. Raises ValueError."""
        match self.type:
            case FeatureType.FLOAT:
                fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= FLOAT32_MAX
            case FeatureType.INT:
                fits = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
            case FeatureType.BOOL:
                fits = isinstance(value, bool)
            case FeatureType.STRING:
                fits = isinstance(value, str)
        if not fits:
            hint = near(value, METHODS) if isinstance(value, str) else ""
            raise ValueError(f"{self.name!r}: {key} is {value!r}, which is not a {self.type}{hint}")
        if self.unseen == "unusable" and self.categories is not None and value not in self.categories:
            raise ValueError(f"{self.name!r}: {key} is {value!r}, which is none of its categories")

    @property
    def spec(self) -> Spec:
        known = None if self.categories is None or self.unseen == "pass" else frozenset(self.categories)
        return Spec(self.name, self.type, known)


class Static(Section):
    """The answer when nobody else has one."""

    score: Finite
    label: Label | None = None
    probabilities: tuple[Finite, ...] | None = None


class FallbackSection(Section):
    """``[fallback]``: who answers, in order, when this model cannot."""

    chain: tuple[Annotated[Link, BeforeValidator(parse)], ...]
    # An hour: long enough to bridge an outage, short enough that a customer is still in the same situation.
    last_known_max_age: Seconds = 3600.0
    static: Static

    @model_validator(mode="after")
    def _always_answers(self) -> Self:
        if not self.chain or self.chain[-1].kind is not LinkKind.STATIC:
            raise ValueError('chain: must end in "static", the one link that always answers')
        twice = [str(link) for link, times in Counter(self.chain).items() if times > 1]
        if twice:
            raise ValueError(f"chain: {twice[0]!r} stands there twice, and would answer no better the second time")
        return self


class BreakerSection(Section):
    """``[breaker]``: when to stop asking this model, and when to try it again. The defaults are the contract's."""

    # Half: a model that fails every other row is no better than its fallback.
    failure_rate: Rate = 0.5
    # Long enough to hold minimum_calls at an event a second, short enough to notice a fault within it.
    window: Seconds = 30.0
    # Below twenty calls a rate of one half is within chance of a model that fails one row in four.
    minimum_calls: int = Field(default=20, ge=1, strict=True)
    slow_call: Seconds = 0.1
    slow_rate: Rate = 0.8
    open_for: Seconds = 15.0
    max_open: Seconds = 300.0
    probes: int = Field(default=3, ge=1, strict=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_open < self.open_for:
            raise ValueError("max_open: it bounds open_for's doubling, so it cannot be shorter than open_for")
        return self


class RollbackSection(Section):
    """``[rollback]``: when to go back to the version before."""

    after_failed_probes: int = Field(default=3, ge=1, strict=True)
    # No second rollback within: half an hour is what it takes for a person to look.
    hold: Seconds = 1800.0


class Combine(StrEnum):
    """How one answer is made of several."""

    MEAN = "mean"
    WEIGHTED_MEAN = "weighted_mean"
    VOTE = "vote"
    MAXIMUM = "maximum"

    @property
    def weighs(self) -> bool:
        return self in (Combine.WEIGHTED_MEAN, Combine.VOTE)


def _combine(given: Any) -> Any:
    words = [each.value for each in Combine]
    if given in words:
        return given
    raise ValueError(f"{given!r} is none of {', '.join(map(repr, words))}{near(str(given), words)}")


class MemberSection(BaseModel):
    """An ``[[ensemble.members]]`` entry: a model of the repository, and what its word weighs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1)]
    # A million to one is beyond any use, and far from where sums of products would overflow.
    weight: Annotated[float, Field(strict=True, gt=0, le=1e6)] = 1.0


class EnsembleSection(BaseModel):
    """``[ensemble]``. ``quorum`` members are an answer; it has no default, since it says what is good enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: Annotated[Combine, BeforeValidator(_combine)]
    quorum: StrictInt
    members: tuple[MemberSection, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        n = len(self.members)
        if n < 2:
            raise ValueError(f"members: {n} given; at least two make an ensemble")
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise ValueError(f"members: {twice[0]!r} is listed twice; to count it more, give it a weight")
        if not 1 <= self.quorum <= n:
            raise ValueError(f"quorum: {self.quorum}, and there are {n} members: it may be 1 to {n}")
        weighed = [m.model for m in self.members if "weight" in m.model_fields_set]
        if weighed and not self.combine.weighs:
            raise ValueError(
                f'members: {weighed[0]!r} has a weight, and combine = "{self.combine}" uses none: leave it out, or '
                'write combine = "weighted_mean" or "vote"'
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in the card's order."""
        return tuple(member.model for member in self.members)
