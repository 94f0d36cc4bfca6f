"""What the columns of a classifier mean: the card's labels against the model's own, and which label is the positive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from failsoft.models.catalog.fields import listed, toml
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.runtime.signature import Mismatch
from failsoft.schemas.prediction import Label


@dataclass(frozen=True, slots=True)
class TwoLabels:
    """The labels of a binary model.

    Attributes:
        positive: the label whose probability is the score.
        negative: the other one.
        column: of two columns, the one of the positive label.
        own: the values of the model's label output for the positive and the negative label.
    """

    positive: Label
    negative: Label
    column: int
    own: tuple[Label, Label]


def of_columns(output: OutputSection, own: Sequence[Label] | None) -> tuple[Label, ...] | None:
    """The labels of the model's columns, in order: the card's, otherwise the model's own; None if neither tells.

    Names for a model that numbers its classes 0, 1, 2 … are the card's to give. Raises Mismatch if card and model
    contradict each other.
    """
    given = output.labels
    if own is None or given == tuple(own):
        return given
    if given is None:
        return tuple(own)
    numbered = tuple(own) == tuple(range(len(given)))
    if numbered and all(isinstance(label, str) for label in given):
        return given
    raise Mismatch(
        f"the card's labels are {listed(given)}, and the model's own are {listed(own)}: write labels = {listed(own)}, "
        "in this order, or leave labels out"
    )


def two(output: OutputSection, own: Sequence[Label] | None, label_type: str | None = None) -> TwoLabels:
    """The labels of a binary model. Raises Mismatch if it is not certain which of them the score is for.

    Args:
        output: the card's [output] section.
        own: the model's own labels in the order of its columns; None if they are unknown.
        label_type: the ONNX type of the model's label output; None without one.
    """
    labels, strings = of_columns(output, own), label_type == "tensor(string)"
    if labels is None:
        if output.positive not in (None, 0, 1):
            raise Mismatch(
                f"positive = {toml(output.positive)}, and nothing tells the other label nor which column is whose: add "
                f'labels = ["…", {toml(output.positive)}], in the order of the model\'s columns'
            )
        if strings:
            raise Mismatch(
                "the model gives a string as label, and its labels could not be read from its file: add both to "
                'labels = ["…", "…"], in the order of its columns, and one of them as positive = "…"'
            )
        labels = (0, 1)
    if len(labels) != 2:
        raise Mismatch(
            f'the model has {len(labels)} labels, {listed(labels)}, and a binary output two: write kind = "multiclass"'
        )
    positive = output.positive
    if positive is None and set(labels) == {0, 1}:
        positive = 1
    if positive is None or positive not in labels:
        said = "nothing says" if positive is None else f"{toml(positive)} is none of them, so that nothing says"
        raise Mismatch(
            f"the model's labels are {toml(labels[0])} and {toml(labels[1])}, and {said} which one the score is the "
            f"probability of: write positive = {toml(labels[0])} or positive = {toml(labels[1])} in [output]"
        )
    column = labels.index(positive)
    if strings and not isinstance(positive, str):
        raise Mismatch(
            f"the model gives a string as label, and the card has the numbers {listed(labels)}: write the strings, "
            'labels = ["…", "…"], in the order of its columns'
        )
    numbers = label_type is not None and not strings and isinstance(positive, str)
    other = labels[1 - column]
    return TwoLabels(positive, other, column, (column, 1 - column) if numbers else (positive, other))
