"""The Avro schema of scored records, which ``failsoft topics apply`` registers as ``<name>.scored-value``.

A new field may only be added at the end, with a default. So this version reads the answers of later ones, whatever ids
the registry gave, and no reader of the project needs a registry. The version that adds a field must also read answers
that end before it.
"""

from __future__ import annotations

import json
from typing import Any

from failsoft.schemas.failure import Kind
from failsoft.schemas.prediction import Source

Document = dict[str, Any]

CONTENT_TYPE = "application/avro"
"""The header of an answer in Avro, by the name that CloudEvents gives the format."""

_PLAIN: list[Any] = ["null", "boolean", "long", "double", "string"]
VALUES: list[Any] = [
    *_PLAIN,
    {"type": "array", "items": _PLAIN},
    {
        "type": "record",
        "name": "Json",
        "doc": "A value with more levels: its JSON text.",
        "fields": [{"name": "json", "type": "string"}],
    },
]
"""The branches of a further output's value."""

_STRINGS = {"type": "array", "items": "string"}


def _field(name: str, type_: Any, doc: str, **default: object) -> Document:
    return {"name": name, "type": type_, "doc": doc, **default}


def _moment(name: str, doc: str) -> Document:
    return _field(name, {"type": "long", "logicalType": "timestamp-micros"}, doc)


SCHEMA: Document = {
    "type": "record",
    "name": "Scored",
    "namespace": "failsoft",
    "doc": "An answer. To keep one per event, take the record of the highest revision for each event_id.",
    "fields": [
        _field("event_id", "string", "The event's id."),
        _field("score", "double", "The model's score."),
        _field(
            "label",
            ["null", "long", "string"],
            "The model's own label, if it gives one. An integer beyond 64 bits is a string.",
            default=None,
        ),
        _field(
            "probabilities",
            ["null", {"type": "array", "items": "double"}],
            "One number per class, if any.",
            default=None,
        ),
        _field("confidence", ["null", "double"], "The model's confidence, if it gives one.", default=None),
        _field("outputs", {"type": "map", "values": VALUES}, "Further outputs by name.", default={}),
        _field("source", "string", f"What gave the answer: {', '.join(Source)}."),
        _field(
            "model", ["null", "string"], "The model or rule that answered; null for the static answer.", default=None
        ),
        _field(
            "version",
            ["null", "long"],
            "The model's version; null for the answer of a rule, an ensemble or the static answer.",
            default=None,
        ),
        _field(
            "members",
            _STRINGS,
            "Of an ensemble's answer: the members that answered, as model@version.",
            default=[],
        ),
        _field(
            "degraded", "boolean", "True when the primary did not answer, or an ensemble answered without a member."
        ),
        _field(
            "reason",
            ["null", "string"],
            "The failure kind that kept the primary (or a member of it) from answering: "
            f"{', '.join(kind for kind in Kind if kind is not Kind.BAD_HEADER)}.",
            default=None,
        ),
        _field("revision", "int", "Of an event's answers, the one with the highest revision counts."),
        _field("final", "boolean", "True when no correction follows, unless an operator replays the event."),
        _field("imputed", _STRINGS, "Features that were imputed.", default=[]),
        _field("missing", _STRINGS, "Features that the model got as NaN, because they are missing.", default=[]),
        _field(
            "origin",
            {
                "type": "record",
                "name": "Origin",
                "fields": [
                    {"name": "topic", "type": "string"},
                    {"name": "partition", "type": "int"},
                    {"name": "offset", "type": "long"},
                ],
            },
            "The record that first carried the event.",
        ),
        _moment("event_time", "When the event happened; else the time of its record."),
        _moment("scored_at", "When the answer was given."),
        _field(
            "rewind",
            ["null", "string"],
            "The id of the rewind (`failsoft offsets rewind`) that read the event again, if one did.",
            default=None,
        ),
    ],
}

TEXT = json.dumps(SCHEMA, ensure_ascii=False, separators=(",", ":"))
"""The schema as it is registered."""


def subject(pipeline: str) -> str:
    """The registry's name for the schema of a pipeline's answers."""
    return f"{pipeline}.scored-value"


def is_scored(text: str) -> bool:
    """Whether a registered schema is this one, apart from its documentation."""
    try:
        return bool(_shape(json.loads(text)) == _shape(SCHEMA))
    except (ValueError, RecursionError):
        return False


def _shape(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _shape(value) for key, value in schema.items() if key != "doc"}
    return [_shape(each) for each in schema] if isinstance(schema, list) else schema
