"""The model card: reads card.toml and checks its sections against each other and against the members' cards."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from failsoft.models.catalog import static_answer
from failsoft.models.catalog.chain import Link, LinkKind
from failsoft.models.catalog.feature_section import FeatureSection
from failsoft.models.catalog.fields import CardSection, OutputKind
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.catalog.sections import (
    BreakerSection,
    Combine,
    EnsembleSection,
    FallbackSection,
    ModelSection,
    RollbackSection,
)
from failsoft.schemas.config.key import means
from failsoft.schemas.config.refusal import Refused, refuse, toml
from failsoft.schemas.features.spec import Spec


class ModelCard(CardSection):
    """A whole card.toml. Times are in seconds. A model has ``features``; an ensemble has ``ensemble`` instead."""

    model: ModelSection = ModelSection()
    output: OutputSection
    features: Annotated[
        tuple[FeatureSection, ...],
        means("The features, in the order of the model's columns.", left_out="an ensemble has none", minItems=1),
    ] = ()
    ensemble: EnsembleSection | None = None
    fallback: FallbackSection | None = None
    breaker: BreakerSection = BreakerSection()
    rollback: RollbackSection = RollbackSection()

    @field_validator("features")
    @classmethod
    def _no_duplicates(cls, features: tuple[FeatureSection, ...]) -> tuple[FeatureSection, ...]:
        twice = [name for name, times in Counter(f.name for f in features).items() if times > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice")
        by_path: dict[str, str] = {}
        for feature in features:
            other = by_path.setdefault(feature.spec.path, feature.name)
            if other != feature.name:
                raise ValueError(f"{other!r} and {feature.name!r} both read the field {feature.spec.path!r}")
        return features

    @field_validator("fallback")
    @classmethod
    def _not_itself(cls, section: FallbackSection | None, info: ValidationInfo) -> FallbackSection | None:
        name = info.data["model"].name if "model" in info.data else None
        if section is not None and any(link == Link(LinkKind.MODEL, name) for link in section.chain):
            raise ValueError(f"chain: {name!r} cannot be its own fallback")
        return section

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        reason = problem(self)
        if reason is not None:
            raise ValueError(reason)
        return self

    @property
    def name(self) -> str:
        return self.model.name

    @cached_property
    def specs(self) -> tuple[Spec, ...]:
        """The features in the card's order, which is a matrix's column order. The same object each time, so that
        comparing the specs of two batches costs nothing.
        """
        return tuple(feature.spec for feature in self.features)


def load_card(path: Path) -> ModelCard:
    """The card at ``path``. A card without a name takes the name of its folder.

    Raises Refused, which names the file, the key and the allowed values.
    """
    try:
        given = toml(str(path), path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(str(path), [f"is not TOML: {error}"]) from error
    section = given.setdefault("model", {})
    if isinstance(section, dict):
        section.setdefault("name", path.parent.name)
    try:
        return ModelCard.model_validate(given)
    except ValidationError as error:
        raise refuse(str(path), error, ModelCard) from error


def problem(card: ModelCard) -> str | None:
    """The first key of a card that does not fit its kind or its output, and why; None if all fit.

    The text begins with the key.
    """
    reason = _misfit(card)
    if reason is None and card.fallback is not None:
        reason = static_answer.mistake(card.fallback.static, card.output)
    return reason


def _misfit(card: ModelCard) -> str | None:
    if card.model.kind == "model":
        if card.ensemble is not None:
            return 'ensemble: only a card with kind = "ensemble" in [model] has members'
        return None if card.features else "features: missing, and a model has at least one"
    section, output = card.ensemble, card.output
    if section is None:
        return "ensemble: missing, and an ensemble needs it: combine, quorum, and [[ensemble.members]]"
    if "features" in card.model_fields_set:
        return "features: an ensemble has none of its own; each member's card lists what that member takes"
    for key in ("breaker", "rollback"):
        if key in card.model_fields_set:
            return f"{key}: an ensemble has none of its own; each member's card has one"
    own = sorted(card.model.model_fields_set - {"name", "kind"})
    if own:
        return f"model.{own[0]}: an ensemble is not run itself; set this in each member's card"
    for key, given in (("output", output.output), ("carry", output.carry), ("activation", output.activation)):
        if given:
            return f"output.{key}: an ensemble has no ONNX outputs; set this in each member's card"
    if output.range not in (None, (0.0, 1.0)):
        return "output.range: an ensemble's answer lies within those of its members; set ranges in the members' cards"
    if card.name in section.names:
        return f"ensemble.members: {card.name!r} cannot be a member of itself"
    if output.kind in ("multiclass", "multilabel") and output.labels is None:
        return "output.labels: missing, and an ensemble needs the label of each column"
    if output.kind == "binary" and output.labels is None and output.positive not in (None, 0, 1):
        return "output.labels: missing, and an ensemble needs the name of the other label, too"
    if output.anomalous == "low" and section.combine is Combine.MAXIMUM:
        return (
            'ensemble.combine: "maximum" takes the highest score, which with anomalous = "low" is the least anomalous; '
            'it may be "mean", "weighted_mean" or "vote"'
        )
    if section.combine is Combine.VOTE:
        if output.kind == "regression":
            return 'ensemble.combine: regression outputs cannot vote; it may be "mean", "weighted_mean" or "maximum"'
        if output.threshold is None and output.kind == "anomaly":
            return "output.threshold: missing, and a tied vote is decided by it"
    return None


def mismatches(card: ModelCard, cards: Mapping[str, ModelCard]) -> list[str]:
    """How the members' ``cards`` do not fit the ensemble's ``card``. Each text begins with the key."""
    section, output = card.ensemble, card.output
    problems: list[str] = []
    by_label = section is not None and section.combine is Combine.VOTE and output.threshold is not None
    for name in section.names if section else ():
        member = cards[name]
        if member.ensemble is not None:
            problems.append(f"{name!r} is an ensemble itself, but members must be models: list its members here")
        elif member.output.kind is not output.kind:
            problems.append(f"{name!r}: its output is {member.output.kind}, but this ensemble's is {output.kind}")
        elif (reason := _other_meaning(member.output, output)) is not None:
            problems.append(f"{name!r} {reason}")
        elif by_label and member.output.threshold is None:
            problems.append(f"{name!r} has no threshold in its [output], so it has no label to vote with")
    return [f"ensemble.members: {each}" for each in problems]


def other_side(other: OutputSection, output: OutputSection) -> str | None:
    """How another card's score means the opposite of ``output``'s, of the same kind, or another label; None if it does
    not. Such scores must not stand in for each other.
    """
    ours, theirs = (1 if each.positive is None else each.positive for each in (output, other))
    if ours != theirs:
        return f"has positive = {theirs!r}, but this card has positive = {ours!r}"
    if other.anomalous != output.anomalous:
        return f'has anomalous = "{other.anomalous}", but this card has anomalous = "{output.anomalous}"'
    return None


def _other_meaning(member: OutputSection, output: OutputSection) -> str | None:
    """Why a member's scores do not mean what the ensemble's do; None if they do."""
    if output.kind is OutputKind.BINARY:  # each member's score is the probability of one label, whatever its columns
        given, own = (set(each.labels or (0, 1)) for each in (member, output))
    else:
        given, own = member.labels, output.labels  # type: ignore[assignment]
    if given != own:
        labels = "names no labels" if member.labels is None else f"has {list(member.labels)}"
        return f"{labels}, but this ensemble has the labels {list(output.labels or (0, 1))}, in that order"
    side = other_side(member, output)
    if side is not None:
        return side
    if member.outputs != output.outputs:
        return f"has outputs = {list(member.outputs or ())}, but this ensemble has {list(output.outputs or ())}"
    return None
