"""Generates the files of a new pipeline from templates and the description of its model. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failsoft.models.catalog.fields import listed, toml
from failsoft.schemas import wire
from failsoft.schemas.formats.wire_format import WireFormat
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
class EventSource:
    """What a new pipeline file says of its events.

    Attributes:
        format: how their values are encoded.
        id, time: the fields that have them; None: no field has.
        features: the field that holds the features; "" is the event itself.
        registry: the addresses of the schema registry; None: there is none.
        examples: example events, as JSON values; None: they are made of the features.
    """

    format: WireFormat = WireFormat.JSON
    id: str | None = "event_id"
    time: str | None = "occurred_at"
    features: str = "features"
    registry: str | None = None
    examples: Sequence[Any] | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What a new card says of its model.

    Attributes:
        features: the features, in the model's order.
        output: the output.
        trees: the model is an ensemble of trees, which may know missing values.
        notes: what the user should check or do.
        source: what the pipeline file says of the events.
        unmatched: names of the features that no field of the events' schema has; example events lack them.
    """

    features: Sequence[Feature]
    output: Output
    trees: bool = False
    notes: Sequence[str] = ()
    source: EventSource = EventSource()
    unmatched: Sequence[str] = ()


EXAMPLE = Shape(
    [Feature("amount", "float"), Feature("items", "int")], Output("binary", static="{ score = 0.5, label = 0 }")
)
"""Placeholder in the card when no model is given."""


def model_name(stem: str) -> str:
    """The name of a model's folder, after its file's name without the extension; MODEL if that says nothing."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:200]
    return MODEL if not name or _GENERIC.fullmatch(stem) else name


def files(
    name: str,
    model: str,
    templates: Mapping[str, str],
    shape: Shape,
    bootstrap: str = "127.0.0.1:9092",
    topics: Sequence[str] = (),
) -> dict[str, str]:
    """The text of each new file by relative path.

    Args:
        name: the pipeline's name.
        model: the primary model's name.
        templates: the templates in workers/templates by file name.
        shape: what the card says of the model, and the pipeline file of the events.
        bootstrap: the brokers.
        topics: the input topics; without one it is ``<name>.events``.
    """
    edit = "" if topics else "EDIT: your event topics; "
    fill = {
        "model": model,
        "name_line": keyed(f'name = "{name}"', "prefixes every topic, group and transactional id of this pipeline"),
        "model_line": keyed(f'model = "{model}"', "the primary model: a folder in models/repository"),
        "topics": keyed(
            f"topics = {listed(topics or [f'{name}.events'])}", f"{edit}all must have the same number of partitions"
        ),
        "bootstrap": bootstrap,
        "input": _input(shape.source),
        "registry": _registry(shape.source.registry),
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


def _input(source: EventSource) -> str:
    """The lines of ``[input]`` about an event's parts."""
    lines = (
        []
        if source.format is WireFormat.JSON
        else [f'format = "{source.format}"'.ljust(34) + " # with the schemas of [schema_registry]"]
    )
    for key, path, what in (("id", source.id, _ID), ("time", source.time, _TIME)):
        lines.append(keyed(f"{key} = {toml(path)}" if path else f"# {key} = …", what))
    lines.append(
        keyed(f"features = {toml(source.features)}", 'the field that holds the features; "": the event itself')
    )
    return "\n".join(lines)


_ID = "the field with an event's id, else topic-partition-offset; a ce_id header is first"
_TIME = "the field with an event's time, else it is the record's"


def _registry(url: str | None) -> str:
    lines = [
        "[schema_registry]",
        keyed(f"url = {toml(url or 'http://127.0.0.1:8081')}", "or several, comma-separated"),
        '# username = "…"                   # the password: export FAILSOFT_SCHEMA_REGISTRY__PASSWORD=…',
    ]
    return "".join(f"{line if url or line[0] == '#' else f'# {line}'}\n" for line in lines)


def _output(output: Output) -> str:
    lines = [
        f'kind = "{output.kind}"'.ljust(34) + " # binary, multiclass, multilabel, regression or anomaly",
        *output.lines,
    ]
    if output.kind in ("binary", "multiclass"):
        lines.append(keyed("# min_confidence = 0.6", "below this confidence the fallback answers"))
    return "\n".join(lines)


def _feature(feature: Feature) -> str:
    return "\n".join(["[[features]]", *feature.lines(), ""])


def _events(shape: Shape) -> str:
    if shape.source.examples is not None:
        return wire.lines(shape.source.examples).decode()
    events = [
        {
            "event_id": f"example-{n}",
            "occurred_at": f"2026-01-01T12:00:0{n}Z",
            "features": {feature.name: feature.example(n) for feature in shape.features},
        }
        for n in range(3)
    ]
    return wire.lines(events).decode()
