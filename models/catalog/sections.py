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
    StrictInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from failsoft.models.catalog.chain import PATTERN, Link, LinkKind, parse
from failsoft.models.catalog.fields import (
    Bytes,
    Finite,
    Label,
    OutputKind,
    Rate,
    Seconds,
    Section,
    one_of,
)
from failsoft.schemas.config import size
from failsoft.schemas.config.key import means, written
from failsoft.schemas.config.refusal import near

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
    """Which model it is, and how it is run."""

    # load_card fills in the folder's name.
    name: Annotated[
        str, means("The model's name, which is its folder's.", "repayment", left_out="the name of its folder")
    ] = ""
    kind: Annotated[
        Literal["model", "ensemble"],
        one_of(["model", "ensemble"]),
        means("A model of its own, or several that answer together.", "ensemble"),
    ] = "model"
    # A fifth of a second is where a person notices waiting; a batch of 4,000 rows takes some 10 ms.
    deadline: Annotated[Seconds, means("What one run of a batch may take; later is a `timeout`.", "500ms")] = 0.2
    # A run that hangs costs a deadline, so a hanging row among 4,000 costs four, and three of them ten.
    blame: Annotated[
        Seconds | None,
        means(
            "What a batch that failed may take, its first run included, until the failing rows stand alone. Then the "
            "undecided rows fail together. From `deadline` to 20 s.",
            "5s",
            left_out='ten deadlines, at most 20 s; with `isolation = "process"` at least 2 s',
        ),
    ] = None
    isolation: Annotated[
        Literal["thread", "process"],
        one_of(["thread", "process"]),
        means("Where it runs. In a process of its own, a crash or a hang does not end the worker.", "process"),
    ] = "thread"
    # A process runs one call at a time; one is enough for most: a batch of 4,000 rows keeps it for some 10 ms.
    replicas: Annotated[
        int,
        Field(strict=True, ge=1, le=16),
        means('How many processes run it. Only with `isolation = "process"`.', 2),
    ] = 1
    # None: a default would be wrong for most models, and kills what works.
    memory: Annotated[
        Bytes | None,
        means(
            'What each process may allocate, at least 192MB. Only with `isolation = "process"`.',
            "1GB",
            left_out="no limit",
        ),
    ] = None

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
    """What the model's outputs mean, and which of them is the answer."""

    kind: Annotated[OutputKind, one_of(OutputKind), means("What a score means.", "binary")]
    min_confidence: Annotated[
        Annotated[float, Field(strict=True, ge=0, le=1)] | None,
        means(
            "An answer that is less sure is replaced by the fallback's. Only binary and multiclass.",
            0.6,
            left_out="every answer is sure enough",
        ),
    ] = None
    range: Annotated[
        tuple[Finite, Finite] | None,
        means(
            "Where a score must lie; outside it is `bad_output`.",
            [0.0, 1.0],
            left_out="`[0.0, 1.0]` for binary; else any finite number",
        ),
    ] = None
    threshold: Annotated[
        Finite | None,
        means(
            "From this score on the label is 1, below it 0. Only binary and anomaly.",
            0.7,
            left_out="`0.5` for binary; an anomaly score has no label without it",
        ),
    ] = None
    classes: Annotated[
        tuple[Label, ...] | None,
        means(
            "The labels of the model's columns, in order. Only multiclass; an ensemble of multiclass models needs it.",
            ["cat", "dog", "other"],
            left_out="the model's own label output, else the column's number",
        ),
    ] = None
    output: Annotated[
        str | None,
        means(
            "The ONNX output that holds the scores or probabilities.",
            "probabilities",
            left_out="the only output of floats",
        ),
    ] = None

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


class Static(Section):
    """The answer when nobody else has one."""

    score: Annotated[Finite, means("The answer's score.", 0.5)]
    label: Annotated[Label | None, means("The answer's label.", 0, "unknown", left_out="the label is null")] = None
    probabilities: Annotated[
        tuple[Finite, ...] | None,
        means("The answer's probabilities, of a multiclass model.", [0.5, 0.25, 0.25], left_out="they are null"),
    ] = None


class FallbackSection(Section):
    """Who answers when this model cannot. A pipeline's primary must have it."""

    chain: Annotated[
        tuple[Annotated[Link, BeforeValidator(parse), written(PATTERN)], ...],
        means(
            "Who is asked, in order: `model:NAME`, `last_known`, `rule:PACKAGE.MODULE:FUNCTION`; the last is `static`.",
            ["model:repayment-lite", "last_known", "rule:my.rules:by_ratio", "static"],
            contains={"const": "static"},
            uniqueItems=True,
        ),
    ]
    # An hour: long enough to bridge an outage, short enough that a customer is still in the same situation.
    last_known_max_age: Annotated[Seconds, means("How old an answer may be that `last_known` gives again.", "15m")] = (
        3600.0
    )
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
    """When to stop asking this model, and when to try it again. An ensemble has none."""

    # Half: a model that fails every other row is no better than its fallback.
    failure_rate: Annotated[Rate, means("It opens when this part of the calls in the window failed.", 0.3)] = 0.5
    # Long enough to hold minimum_calls at an event a second, short enough to notice a fault within it.
    window: Annotated[Seconds, means("The time over which calls are counted.", "1m")] = 30.0
    # Below twenty calls a rate of one half is within chance of a model that fails one row in four.
    minimum_calls: Annotated[
        int, Field(ge=1, strict=True), means("It does not open on fewer calls in the window.", 50)
    ] = 20
    slow_call: Annotated[Seconds, means("A call that takes longer is slow.", "50ms")] = 0.1
    slow_rate: Annotated[Rate, means("It opens when this part of the calls in the window was slow.", 0.5)] = 0.8
    open_for: Annotated[
        Seconds, means("How long it stays open before it probes; doubles at each reopening, ±20 %.", "5s")
    ] = 15.0
    max_open: Annotated[Seconds, means("The longest that `open_for` grows to.", "10m")] = 300.0
    probes: Annotated[int, Field(ge=1, strict=True), means("Calls that must succeed before it closes.", 5)] = 3

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_open < self.open_for:
            raise ValueError("max_open: it bounds open_for's doubling, so it cannot be shorter than open_for")
        return self


class RollbackSection(Section):
    """When the fleet goes back to the last good version by itself. An ensemble has none."""

    after_failed_probes: Annotated[
        int, Field(ge=1, strict=True), means("Half-open cycles that failed in a row before it goes back.", 2)
    ] = 3
    # Half an hour is what it takes for a person to look.
    hold: Annotated[Seconds, means("No second rollback by itself within this time.", "1h")] = 1800.0


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
    """A model that answers for the ensemble."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1), means("A model of the repository.", "claim-text")]
    # A million to one is beyond any use, and far from where sums of products would overflow.
    weight: Annotated[
        float,
        Field(strict=True, gt=0, le=1e6),
        means("What its answer weighs. Only with `weighted_mean` and `vote`.", 2.0),
    ] = 1.0


class EnsembleSection(BaseModel):
    """Which models answer together, and how. Only with `kind = "ensemble"`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: Annotated[Combine, BeforeValidator(_combine), means("How one answer is made of several.", "weighted_mean")]
    # No default: it says what is good enough.
    quorum: Annotated[
        StrictInt, means("So many members are an answer; with fewer the fallback gives it.", 2, minimum=1)
    ]
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
