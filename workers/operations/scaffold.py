"""Generates the files of a new pipeline from templates, and from a model's inputs and outputs if one is given. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from failsoft.schemas import wire

if TYPE_CHECKING:
    from failsoft.models.runtime.signature import Port

_TYPES = {
    "tensor(float)": "float",
    "tensor(double)": "float",
    "tensor(int64)": "int",
    "tensor(int32)": "int",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
}
_EXAMPLES: dict[str, list[Any]] = {
    "float": [1.5, 0.25, 3.0],
    "int": [1, 2, 3],
    "bool": [True, False, True],
    "string": ["a", "b", "a"],
}
_STATIC = {
    "binary": "{ score = 0.5, label = 0 }",
    "multiclass": '{ score = 0.5, label = "unknown" }',
    "regression": "{ score = 0.0 }",
    "anomaly": "{ score = 0.0, label = 0 }",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The inputs and output of a model, for its card.

    Attributes:
        features: (name, type) of each feature.
        kind: the output's kind.
        notes: guesses that the user should check.
    """

    features: Sequence[tuple[str, str]]
    kind: str
    notes: Sequence[str] = ()


EXAMPLE = Shape([("amount", "float"), ("items", "int")], "binary")
"""Placeholder in the card when no model is given."""


def shape_of(inputs: Sequence[Port], outputs: Sequence[Port]) -> Shape:
    """Derives features from the model's inputs: one for each tensor, or one for each column of a single matrix. Columns
    have no names, so they get numbered ones.

    Raises ValueError for an input of a type that no feature has.
    """
    notes = []
    unknown = [f"{i.name} is a {i.type}" for i in inputs if i.type not in _TYPES]
    if unknown or not inputs:
        raise ValueError(f"no feature type fits the model's inputs: {', '.join(unknown) or 'it has no input'}")
    width = inputs[0].shape[1] if len(inputs) == 1 and len(inputs[0].shape) == 2 else 1
    if isinstance(width, int) and width == 1:
        features = [(i.name, _TYPES[i.type]) for i in inputs]
    else:
        n = width if isinstance(width, int) else 1
        features = [(f"feature_{k}", _TYPES[inputs[0].type]) for k in range(1, n + 1)]
        notes.append(f"the model takes one matrix of {width} columns: name the features in the order of the columns")
    return Shape(features, _kind(outputs, notes), notes)


def files(name: str, model: str, templates: Mapping[str, str], shape: Shape) -> dict[str, str]:
    """The text of each new file by relative path. ``templates``: the templates in workers/templates by file name."""
    fill = {
        "name": name,
        "model": model,
        "output": _output(shape.kind),
        "features": "".join(_feature(*f) for f in shape.features),
        "static": _STATIC[shape.kind],
    }
    folder = f"models/repository/{model}"
    return {
        "pipeline.toml": _filled(templates["pipeline.toml"], fill),
        f"{folder}/card.toml": _filled(templates["card.toml"], fill),
        f"{folder}/1/README.md": _filled(templates["version.md"], fill),
        "events.ndjson": _events(shape),
    }


def _filled(template: str, fill: Mapping[str, str]) -> str:
    for key, text in fill.items():
        template = template.replace("{{" + key + "}}", text)
    return template


def _kind(outputs: Sequence[Port], notes: list[str]) -> str:
    """Guesses the output's kind: labels and scores mean a classifier, one float column a regression. An anomaly model
    looks like a regression, so the guess is added to ``notes`` for the user to check.
    """
    scores = next((o for o in outputs if o.type in ("tensor(float)", "tensor(double)")), None)
    if scores is None:
        if any(o.type.startswith("seq(map") for o in outputs):
            notes.append(
                'the probabilities are maps (zipmap): export with options={"zipmap": False}, and replace model.onnx'
            )
        else:
            notes.append("the model has no float output: check [output] in the card")
        return "regression"
    width = scores.shape[1] if len(scores.shape) == 2 else 1
    labels = any(o.type in ("tensor(int64)", "tensor(string)") for o in outputs)
    if width == 2:
        kind = "binary"
    elif labels and isinstance(width, int) and width > 2:
        kind = "multiclass"
    elif labels and not isinstance(width, int):
        kind = "binary"
    else:
        kind = "regression"
    notes.append(f"the output looks like {kind}: if it is not, change [output] kind in the card")
    return kind


def _output(kind: str) -> str:
    lines = [f'kind = "{kind}"                    # binary, multiclass, regression or anomaly']
    if kind in ("binary", "multiclass"):
        lines.append("# min_confidence = 0.6             # below this confidence the fallback answers")
    if kind == "multiclass":
        lines.append('# classes = ["a", "b", "c"]        # the labels of the columns, in order')
    if kind in ("regression", "anomaly"):
        lines.append("# range = [0.0, 100.0]             # a score outside counts as a failure of the model")
    return "\n".join(lines)


def _feature(name: str, kind: str) -> str:
    return f'[[features]]\nname = {wire.dumps(name).decode()}\ntype = "{kind}"\n# impute = …\n\n'


def _events(shape: Shape) -> str:
    events = [
        {
            "event_id": f"example-{n}",
            "occurred_at": f"2026-01-01T12:00:0{n}Z",
            "features": {name: _EXAMPLES[kind][n] for name, kind in shape.features},
        }
        for n in range(3)
    ]
    return wire.lines(events).decode()
