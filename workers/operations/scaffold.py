"""A new pipeline's files, as text: from the templates, and from a model's inputs and outputs if there is one. Pure."""

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
    """What a card has to know of a model: (name, type) of its features, and its output's kind."""

    features: Sequence[tuple[str, str]]
    kind: str
    told: Sequence[str] = ()
    """What was guessed, for the user to check."""


EXAMPLE = Shape([("amount", "float"), ("items", "int")], "binary")
"""Stands in the card until the user knows better."""


def shape_of(inputs: Sequence[Port], outputs: Sequence[Port]) -> Shape:
    """The features by the model's inputs: one a tensor, or the columns of its one matrix, which have no names.

    Raises ValueError for an input that no feature can be.
    """
    told = []
    unknown = [f"{i.name} is a {i.type}" for i in inputs if i.type not in _TYPES]
    if unknown or not inputs:
        raise ValueError(f"no feature can be an input of this type: {', '.join(unknown) or 'there is none'}")
    width = inputs[0].shape[1] if len(inputs) == 1 and len(inputs[0].shape) == 2 else 1
    if isinstance(width, int) and width == 1:
        features = [(i.name, _TYPES[i.type]) for i in inputs]
    else:
        n = width if isinstance(width, int) else 1
        features = [(f"feature_{k}", _TYPES[inputs[0].type]) for k in range(1, n + 1)]
        told.append(f"the model takes one matrix of {width} columns: name the features in its order")
    return Shape(features, _kind(outputs, told), told)


def files(name: str, model: str, templates: Mapping[str, str], shape: Shape) -> dict[str, str]:
    """Text by relative path. ``templates`` are those of workers/templates, by file name."""
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


def _kind(outputs: Sequence[Port], told: list[str]) -> str:
    """A label beside scores is a classifier's; one float column is a regression's (or an anomaly's: who knows?)."""
    scores = next((o for o in outputs if o.type in ("tensor(float)", "tensor(double)")), None)
    if scores is None:
        if any(o.type.startswith("seq(map") for o in outputs):
            told.append('the probabilities come as maps (zipmap): export with options={"zipmap": False}, init again')
        else:
            told.append("the model has no output of floats: see [output] in the card")
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
    told.append(f"the output looks like {kind}: if it is not, change [output] kind in the card")
    return kind


def _output(kind: str) -> str:
    lines = [f'kind = "{kind}"                    # binary, multiclass, regression or anomaly']
    if kind in ("binary", "multiclass"):
        lines.append("# min_confidence = 0.6             # less sure than this, and the fallback answers")
    if kind == "multiclass":
        lines.append('# classes = ["a", "b", "c"]        # the labels of the columns, in order')
    if kind in ("regression", "anomaly"):
        lines.append("# range = [0.0, 100.0]             # a score outside is a failure of the model")
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
