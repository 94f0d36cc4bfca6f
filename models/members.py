"""An ensemble's part of a card: its members, how they are combined, how many must speak, and what may not be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, model_validator

from failsoft.schemas.config.refusal import near

if TYPE_CHECKING:
    from failsoft.models.card import ModelCard


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


def problem(card: ModelCard) -> str | None:
    """What a card says that its kind cannot have, the key first; or None."""
    if card.model.kind == "model":
        if card.ensemble is not None:
            return 'ensemble: only a card with kind = "ensemble" in [model] has members'
        return None if card.features else "features: missing, and a model has at least one"
    section, output = card.ensemble, card.output
    if section is None:
        return "ensemble: missing, and an ensemble needs it: combine, quorum, and [[ensemble.members]]"
    if card.features:
        return "features: an ensemble has none of its own; each member's card lists what that member takes"
    for key in ("breaker", "rollback"):
        if key in card.model_fields_set:
            return f"{key}: an ensemble has none of its own; each member's card has one"
    own = sorted(card.model.model_fields_set - {"name", "kind"})
    if own:
        return f"model.{own[0]}: an ensemble is not run itself; it is each member's card that says this"
    if output.output is not None:
        return "output.output: an ensemble has no ONNX outputs; it is each member's card that names one"
    if output.range not in (None, (0.0, 1.0)):
        return "output.range: an ensemble's answer lies within its members'; it is their cards that bound it"
    if card.name in section.names:
        return f"ensemble.members: {card.name!r} cannot be a member of itself"
    if output.kind == "multiclass" and output.classes is None:
        return "output.classes: missing, and an ensemble must know which column is which class"
    if section.combine is Combine.VOTE:
        if output.kind == "regression":
            return 'ensemble.combine: numbers have no vote; it may be "mean", "weighted_mean" or "maximum"'
        if output.threshold is None and output.kind == "anomaly":
            return "output.threshold: missing, and a vote that is tied is decided by it"
    return None


def mismatches(card: ModelCard, cards: Mapping[str, ModelCard]) -> list[str]:
    """What of the members' own ``cards`` does not fit the ensemble's, the key first."""
    section, output = card.ensemble, card.output
    found: list[str] = []
    by_label = section is not None and section.combine is Combine.VOTE and output.threshold is not None
    for name in section.names if section else ():
        member = cards[name]
        if member.ensemble is not None:
            found.append(f"{name!r} is an ensemble itself, and members are models: list its members here")
        elif member.output.kind is not output.kind:
            found.append(f"{name!r}: its output is {member.output.kind}, and this ensemble's is {output.kind}")
        elif member.output.classes != output.classes:
            said = "names no classes" if member.output.classes is None else f"has {list(member.output.classes)}"
            found.append(
                f"{name!r} {said}, and this ensemble has the classes {list(output.classes or ())}, in that order"
            )
        elif by_label and member.output.threshold is None:
            found.append(f"{name!r} has no threshold in its [output], so it has no label to vote with")
    return [f"ensemble.members: {each}" for each in found]
