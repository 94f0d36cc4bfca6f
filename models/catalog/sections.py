"""The sections of a card: their keys, defaults and consistency checks."""

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
    CardSection,
    Finite,
    Label,
    ModelName,
    Probability,
    Rate,
    Seconds,
    one_of,
)
from failsoft.schemas.config import size
from failsoft.schemas.config.key import means, written
from failsoft.schemas.config.refusal import near

LEAST_MEMORY = 192_000_000
"""Least `memory` in bytes. A process with a small model loaded uses some 125 MB by RLIMIT_DATA; a batch needs more."""

LONGEST_BLAME = 20.0
"""Largest `blame` in seconds. A lane is given up after scoring for 30 s, and a drain waits for 26 s."""

MOST_ROWS = 100_000
"""Largest `max_batch`. A batch has at most 4,000 records."""

CRASHES = 2.0
"""Least default of `blame` in seconds with isolation = "process": each crash costs a fork, whatever the deadline.

Measured on two busy cores. To isolate one crashing record among 4,000 rows (four crashes) took 0.05 to 0.11 s, with one
replica or two, and 0.2 to 0.4 s with a 400 MB model, whose fork copies more. Eight crashing records (20 crashes) took
0.3 to 0.5 s, and 2.7 s with the 400 MB model. No model is loaded meanwhile: forks of the loaded model replace a crashed
process at once."""


class ModelSection(CardSection):
    """The model's name, and how it is run."""

    # load_card fills in the folder's name.
    name: Annotated[
        ModelName, means("The model's name, equal to its folder's.", "repayment", left_out="the name of its folder")
    ] = ""
    kind: Annotated[
        Literal["model", "ensemble"],
        one_of(["model", "ensemble"]),
        means("A single model, or an ensemble of several models.", "ensemble"),
    ] = "model"
    # People notice a wait of 0.2 s; a batch of 4,000 rows takes some 10 ms.
    deadline: Annotated[
        Seconds, means("The longest that one run of a batch may take; a longer run is a `timeout`.", "500ms")
    ] = 0.2
    # A run that hangs costs one deadline. So one hanging row among 4,000 costs four deadlines, and three cost ten.
    blame: Annotated[
        Seconds | None,
        means(
            "The time to find the failing rows of a batch that failed, its first run included. Rows that are "
            "undecided then fail together. From `deadline` to 20 s.",
            "5s",
            left_out='ten deadlines, at most 20 s; with `isolation = "process"` at least 2 s',
        ),
    ] = None
    isolation: Annotated[
        Literal["thread", "process"],
        one_of(["thread", "process"]),
        means("Where it runs. With `process`, a crash or a hang of the model does not end the worker.", "process"),
    ] = "thread"
    # A process runs one call at a time. One is enough for most models: a batch of 4,000 rows takes some 10 ms.
    replicas: Annotated[
        int,
        Field(strict=True, ge=1, le=16),
        means('How many processes run it. Only with `isolation = "process"`.', 2),
    ] = 1
    # No default: it would be wrong for most models, and would kill processes that work.
    memory: Annotated[
        Bytes | None,
        means(
            'The memory that each process may allocate, at least 192MB. Only with `isolation = "process"`.',
            "1GB",
            left_out="no limit",
        ),
    ] = None

    max_batch: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=MOST_ROWS)] | None,
        means(
            "The most rows of one run: for a model that needs much memory a row.",
            256,
            left_out="up to 4,000, as many as `deadline` and `slow_call` leave time for",
        ),
    ] = None

    @field_validator("blame")
    @classmethod
    def _blame_fits(cls, blame: float | None, info: ValidationInfo) -> float | None:
        deadline = info.data.get("deadline", 0.0)
        if blame is not None and not deadline <= blame <= LONGEST_BLAME:
            raise ValueError(
                f"{blame:g} s: it must be at least the deadline of {deadline:g} s, because it includes the first run, "
                f"and at most {LONGEST_BLAME:g} s, because a lane waits for it"
            )
        return blame

    @property
    def budget(self) -> float:
        """Bisect budget for a failed batch in seconds: ``blame``, or its default."""
        least = CRASHES if self.isolation == "process" else self.deadline
        return self.blame or max(self.deadline, min(max(10 * self.deadline, least), LONGEST_BLAME))

    @model_validator(mode="after")
    def _process_only(self) -> Self:
        if self.isolation != "process":
            given = [key for key in ("replicas", "memory") if key in self.model_fields_set]
            if given:
                raise ValueError(f'{given[0]}: only with isolation = "process": add that, or remove this key')
        elif self.memory is not None and self.memory < LEAST_MEMORY:
            raise ValueError(
                f"memory: {size.text(self.memory)} does not hold an interpreter and ONNX Runtime, let alone a model: "
                f"{size.text(LEAST_MEMORY)} is the least"
            )
        return self


class Static(CardSection):
    """The fixed answer that is given when no other link of the chain has one. The output must be able to give it."""

    score: Annotated[Finite, means("The answer's score, within `range` of `[output]`.", 0.5)]
    label: Annotated[
        Label | None,
        means(
            "The answer's label: one of the two for binary (0 or 1 if `labels` names no others), 0 or 1 for anomaly, "
            "none for regression; otherwise one of `labels`, or a text that is none of them.",
            0,
            "other",
            left_out="the label is null",
        ),
    ] = None
    probabilities: Annotated[
        tuple[Probability, ...] | None,
        means(
            "The answer's probabilities: one for each label, which sum to 1 for multiclass. Only for multiclass and "
            "multilabel.",
            [0.5, 0.25, 0.25],
            left_out="they are null",
            minItems=2,
        ),
    ] = None


class FallbackSection(CardSection):
    """The fallback chain, which answers when this model cannot. A pipeline's primary must have it."""

    chain: Annotated[
        tuple[Annotated[Link, BeforeValidator(parse), written(PATTERN)], ...],
        means(
            "The links, in order: `model:NAME`, `last_known`, `rule:PACKAGE.MODULE:FUNCTION`; the last is `static`.",
            ["model:repayment-lite", "last_known", "rule:my.rules:by_ratio", "static"],
            contains={"const": "static"},
            uniqueItems=True,
        ),
    ]
    # One hour: long enough to bridge an outage, short enough that a customer's situation is still the same.
    last_known_max_age: Annotated[Seconds, means("The greatest age of an answer that `last_known` repeats.", "15m")] = (
        3600.0
    )
    static: Static

    @model_validator(mode="after")
    def _ends_in_static(self) -> Self:
        if not self.chain or self.chain[-1].kind is not LinkKind.STATIC:
            raise ValueError('chain: must end in "static", the only link that always answers')
        twice = [str(link) for link, times in Counter(self.chain).items() if times > 1]
        if twice:
            raise ValueError(f"chain: {twice[0]!r} is listed twice: remove one of the two")
        return self


class BreakerSection(CardSection):
    """When to stop calling this model, and when to try it again. An ensemble has none."""

    # One half: a model that fails every other row is no better than its fallback.
    failure_rate: Annotated[
        Rate, means("The breaker opens when this share of the calls in the window failed. A row is a call.", 0.3)
    ] = 0.5
    # Long enough for minimum_calls at one event a second, short enough to notice a fault soon.
    window: Annotated[Seconds, means("The time over which calls are counted.", "1m")] = 30.0
    # With fewer than twenty calls, a model that fails one row in four may reach a rate of one half by chance.
    minimum_calls: Annotated[
        int,
        Field(ge=1, strict=True),
        means("The breaker does not open with fewer calls (for slowness: runs) in the window.", 50),
    ] = 20
    slow_call: Annotated[Seconds, means("A run of a batch that takes longer is slow.", "50ms")] = 0.1
    slow_rate: Annotated[Rate, means("The breaker opens when this share of the runs in the window was slow.", 0.5)] = (
        0.8
    )
    open_for: Annotated[
        Seconds, means("How long the breaker stays open before it probes; doubles at each reopening, ±20 %.", "5s")
    ] = 15.0
    max_open: Annotated[Seconds, means("The longest wait to which `open_for` doubles.", "10m")] = 300.0
    probes: Annotated[int, Field(ge=1, strict=True), means("Calls that must succeed before the breaker closes.", 5)] = 3

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_open < self.open_for:
            raise ValueError("max_open: it limits the doubling of open_for, so it cannot be shorter than open_for")
        return self


class RollbackSection(CardSection):
    """When the fleet rolls back to the last good version automatically. An ensemble has none."""

    after_failed_probes: Annotated[
        int, Field(ge=1, strict=True), means("Half-open periods that must fail in a row before a rollback.", 2)
    ] = 3
    # Half an hour: the time that an operator needs to look into it.
    hold: Annotated[Seconds, means("No second automatic rollback within this time.", "1h")] = 1800.0


class Combine(StrEnum):
    """How the members' answers are combined."""

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
    """A member of the ensemble."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[ModelName, means("A model of the repository.", "claim-text")]
    # A weight of a million is more than any use needs, and far below where sums of products would overflow.
    weight: Annotated[
        float,
        Field(strict=True, gt=0, le=1e6),
        means("The weight of its answer. Only with `weighted_mean` and `vote`.", 2.0),
    ] = 1.0


class EnsembleSection(BaseModel):
    """The ensemble's members, and how their answers are combined. Only with `kind = "ensemble"`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: Annotated[Combine, BeforeValidator(_combine), means("How the answers are combined.", "weighted_mean")]
    # No default: how many members suffice depends on the use.
    quorum: Annotated[StrictInt, means("Members that must answer; with fewer, the fallback answers.", 2, minimum=1)]
    members: Annotated[tuple[MemberSection, ...], means("The members, at least two.", minItems=2)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        n = len(self.members)
        if n < 2:
            raise ValueError(f"members: {n} given; an ensemble has at least two")
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise ValueError(f"members: {twice[0]!r} is listed twice; to give it more influence, give it a weight")
        if not 1 <= self.quorum <= n:
            raise ValueError(f"quorum: {self.quorum}, but there are {n} members: it may be 1 to {n}")
        weighed = [m.model for m in self.members if "weight" in m.model_fields_set]
        if weighed and not self.combine.weighs:
            raise ValueError(
                f'members: {weighed[0]!r} has a weight, but combine = "{self.combine}" uses none: remove it, or '
                'write combine = "weighted_mean" or "vote"'
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in the card's order."""
        return tuple(member.model for member in self.members)
