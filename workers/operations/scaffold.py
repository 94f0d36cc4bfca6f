"""Generates the files of a new pipeline from templates and the description of its model. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from failsoft.schemas import wire
from failsoft.workers.operations.card_features import Feature, keyed
from failsoft.workers.operations.card_output import Output

MODEL = "my-model"
"""The name of a model whose file's name says nothing."""

_GENERIC = re.compile(
    r"(onnx|net|network|export(ed)?|output|best|last|final|checkpoint|weights|file"
    r"|(my[-_. ]?)?model([-_. ]?(v?\d+|quantized|quant|int8|fp16|fp32|opt\w*|simplified|final|best))*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a new card says of its model.

    Attributes:
        features: the features, in the model's order.
        output: the output.
        trees: the model is an ensemble of trees, which may know missing values.
        notes: what the user should check or do.
    """

    features: Sequence[Feature]
    output: Output
    trees: bool = False
    notes: Sequence[str] = ()


EXAMPLE = Shape(
    [Feature("amount", "float"), Feature("items", "int")], Output("binary", static="{ score = 0.5, label = 0 }")
)
"""Placeholder in the card when no model is given."""


def model_name(stem: str) -> str:
    """The name of a model's folder, after its file's name without the extension; MODEL if that says nothing."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:200]
    return MODEL if not name or _GENERIC.fullmatch(stem) else name


def files(
    name: str, model: str, templates: Mapping[str, str], shape: Shape, bootstrap: str = "127.0.0.1:9092"
) -> dict[str, str]:
    """The text of each new file by relative path. ``templates``: the templates in workers/templates by file name."""
    fill = {
        "name": name,
        "model": model,
        "bootstrap": bootstrap,
        "output": _output(shape.output),
        "trees": _TREES if shape.trees else "",
        "features": "\n".join(map(_feature, shape.features)),
        "static": shape.output.static,
    }
    folder = f"models/repository/{model}"
    return {
        "pipeline.toml": _filled(templates["pipeline.toml"], fill),
        f"{folder}/card.toml": _filled(templates["card.toml"], fill),
        f"{folder}/1/README.md": _filled(templates["version.md"], fill),
        "events.ndjson": _events(shape),
    }


_TREES = '# This model is an ensemble of trees: impute = "nan" suits one that was trained with missing values.\n'


def _filled(template: str, fill: Mapping[str, str]) -> str:
    for key, text in fill.items():
        template = template.replace("{{" + key + "}}", text)
    return template


def _output(output: Output) -> str:
    lines = [
        f'kind = "{output.kind}"'.ljust(34) + " # binary, multiclass, multilabel, regression or anomaly",
        *output.lines,
    ]
    if output.kind in ("binary", "multiclass"):
        lines.append(keyed("# min_confidence = 0.6", "below this confidence the fallback answers"))
    return "\n".join(lines)


def _feature(feature: Feature) -> str:
    return "\n".join(["[[features]]", *feature.lines(), "# impute = …", ""])


def _events(shape: Shape) -> str:
    events = [
        {
            "event_id": f"example-{n}",
            "occurred_at": f"2026-01-01T12:00:0{n}Z",
            "features": {feature.name: feature.example(n) for feature in shape.features},
        }
        for n in range(3)
    ]
    return wire.lines(events).decode()
