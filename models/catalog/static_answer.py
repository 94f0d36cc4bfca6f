"""Checks that a card's static answer is one that its output could give."""

from __future__ import annotations

import math

from failsoft.models.catalog.fields import Label, OutputKind, toml
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.catalog.sections import Static

_SUM = 0.01
"""How far the probabilities may be from 1 in total. People write thirds as 0.33."""


def mistake(static: Static, output: OutputSection) -> str | None:
    """The first key of ``static`` that does not fit ``output``, and what would; None if all fit."""
    for key, reason in (
        ("score", _score(static, output)),
        ("label", _label(static, output)),
        ("probabilities", _probabilities(static, output)),
    ):
        if reason is not None:
            return f"fallback.static.{key}: {reason}"
    return None


def _score(static: Static, output: OutputSection) -> str | None:
    bounds = output.range
    if bounds is None and output.kind is OutputKind.MULTICLASS:
        bounds = (0.0, 1.0)
    if bounds is None or bounds[0] <= static.score <= bounds[1]:
        return None
    return f"{static.score:g} is outside of the output's range: it may be {bounds[0]:g} to {bounds[1]:g}"


def _label(static: Static, output: OutputSection) -> str | None:
    return label_mistake(static.label, output)


def label_mistake(label: Label | None, output: OutputSection) -> str | None:
    """Why an answer that no model gave, the static one or a rule's, cannot have ``label``; None if it can.

    A binary card that names its labels gives no others. Without names, a text may be any: the model's own label, or
    one that says that there is none ("unknown").
    """
    if label is None or output.kind not in (OutputKind.BINARY, OutputKind.ANOMALY):
        return None
    if output.labels is not None and output.kind is OutputKind.BINARY:
        first, second = map(toml, output.labels)
        return None if label in output.labels else f"{label!r} is none of the card's labels: write {first} or {second}"
    if isinstance(output.positive, str):
        if isinstance(label, str):
            return None
        return f"{label} is no label of this model, whose positive label is {toml(output.positive)}: write a text"
    if output.positive is not None and output.positive not in (0, 1):
        return None
    if not isinstance(label, int) or label in (0, 1):
        return None
    return f"{label} is no label of kind {output.kind}: write 0 or 1"


def _probabilities(static: Static, output: OutputSection) -> str | None:
    given = static.probabilities
    if given is None:
        return None
    if output.kind not in (OutputKind.MULTICLASS, OutputKind.MULTILABEL):
        return f"only a multiclass output has them, or a multilabel one, not {output.kind}: remove this key"
    if len(given) < 2:
        return "list at least two, one for each class"
    if output.labels is not None and len(given) != len(output.labels):
        return f"{len(given)} given, but there are {len(output.labels)} labels: write one for each"
    if output.kind is OutputKind.MULTILABEL:
        return None
    total = math.fsum(given)
    if round(abs(total - 1), 6) > _SUM:
        return f"they sum to {total:g}: they must sum to 1"
    return None
