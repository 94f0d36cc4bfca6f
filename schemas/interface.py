"""JSON Schemas of what users write and read: events, answers, and the headers of both and of what is in between.

Draft 7, because that is what AsyncAPI 3.0 takes without further ado. ``failsoft.schemas.publish`` makes files of them.
"""

from __future__ import annotations

from typing import Any

from failsoft.schemas.attempt import MAX_MESSAGE
from failsoft.schemas.event import MAX_ID, Envelope
from failsoft.schemas.failure import Kind
from failsoft.schemas.prediction import Source

Document = dict[str, Any]

EXAMPLE = Envelope(id="event_id", time="occurred_at", features="features")
"""The envelope of the published event schema: a pipeline's own names are in its pipeline file."""

_DRAFT = "http://json-schema.org/draft-07/schema#"
_INT64: Document = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_COUNT: Document = {"type": "integer", "minimum": 0}
_TIME: Document = {
    "type": "string",
    "format": "date-time",
    # for validators that do not look at formats, which is the default of most
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
}


def event_schema(envelope: Envelope = EXAMPLE) -> Document:
    """An event's value on an input topic, as ``envelope`` names its parts."""
    features: Document = {
        "type": "object",
        "description": "One value a feature, as the model's card names and types it. Others are ignored.",
    }
    properties: Document = {}
    if envelope.id is not None:
        properties[envelope.id] = {
            "description": f"The event's id, the same on every answer. Without it: the `ce_id` header before, and "
            f"`<topic>-<partition>-<offset>` after. At most {MAX_ID} characters.",
            "anyOf": [{"type": "string", "maxLength": MAX_ID}, _INT64, {"type": "null"}],
        }
    if envelope.time is not None:
        properties[envelope.time] = {
            "description": "When it happened, ISO 8601; without a zone it is UTC. Without a time that can be read, the "
            "record's timestamp."
        }
    if envelope.features:
        properties[envelope.features] = features
    return {
        "$schema": _DRAFT,
        "title": "Event",
        "description": "What failsoft reads from an input topic. The names of the keys are the pipeline file's "
        "`[input]`; these are the example's. A value that does not fit is `malformed`.",
        "type": "object",
        "properties": properties,
        "required": [envelope.features] if envelope.features else [],
    }


def cloud_event_schema(envelope: Envelope = EXAMPLE) -> Document:
    """A structured CloudEvent, read when a record's content-type begins with application/cloudevents."""
    data = {k: v for k, v in event_schema(Envelope(features=envelope.features)).items() if k in ("type", "required")}
    data["properties"] = event_schema(Envelope(features=envelope.features))["properties"]
    return {
        "$schema": _DRAFT,
        "title": "Structured CloudEvent",
        "description": "An event whose `content-type` begins with `application/cloudevents`: its id, time and data "
        "are used, whatever the pipeline file names.",
        "type": "object",
        "properties": {
            "id": {"anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_ID}, _INT64]},
            "time": {"description": "RFC 3339; else the record's timestamp."},
            "data": data,
        },
        "required": ["id", "data"],
    }


def scored_schema() -> Document:
    """An answer's value on `<name>.scored`."""
    properties: Document = {
        "event_id": {"type": "string", "minLength": 1, "maxLength": MAX_ID},
        "score": {"type": "number"},
        "label": {"type": ["integer", "string", "null"]},
        "probabilities": {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 1},
        "confidence": {"type": ["number", "null"]},
        "source": {"description": "Who answered.", "enum": [str(source) for source in Source]},
        "model": {
            "description": "The model that answered, or the rule; null when the static answer was given.",
            "type": ["string", "null"],
        },
        "version": {"description": "Null where a rule, an ensemble or nobody answered.", "type": ["integer", "null"]},
        "members": {
            "description": "Of an ensemble, and only there: who spoke, as model@version.",
            "type": "array",
            "items": {"type": "string", "pattern": "^.+@[1-9][0-9]*$"},
            "minItems": 1,
            "uniqueItems": True,
        },
        "degraded": {
            "description": "Somebody other than the primary answered, or an ensemble without some member.",
            "type": "boolean",
        },
        "reason": {
            "description": "The failure kind that kept the primary (or a member of it) away, or null.",
            "enum": [None, *(str(kind) for kind in Kind if kind is not Kind.BAD_HEADER)],
        },
        "revision": {"description": "Of an event's answers the highest counts.", **_COUNT},
        "final": {"description": "No correction will follow by itself.", "type": "boolean"},
        "imputed": {"description": "Features that were made up for.", "type": "array", "items": {"type": "string"}},
        "origin": {
            "description": "The record that first carried the event.",
            "type": "object",
            "properties": {"topic": {"type": "string", "minLength": 1}, "partition": _COUNT, "offset": _COUNT},
            "required": ["topic", "partition", "offset"],
            "additionalProperties": False,
        },
        "event_time": _TIME,
        "scored_at": _TIME,
    }
    whole: Document = {"properties": {"degraded": {"const": False}, "reason": {"const": None}}}
    degraded: Document = {"properties": {"degraded": {"const": True}, "reason": {"type": "string"}}}
    final: Document = {"properties": {"final": {"const": True}}}
    alone: Document = {"not": {"required": ["members"]}}
    unversioned: Document = {"required": ["members"], "properties": {"version": {"const": None}}}
    return {
        "$schema": _DRAFT,
        "title": "Scored",
        "description": "An answer. To have one an event, keep the record of the highest revision for each event_id.",
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name != "members"],
        "additionalProperties": False,
        "if": {"properties": {"source": {"const": str(Source.PRIMARY)}}},
        "then": {"allOf": [whole, final, alone]},
        "else": {
            "if": {"properties": {"source": {"const": str(Source.ENSEMBLE)}}},
            "then": {"allOf": [final, unversioned], "oneOf": [whole, degraded]},
            "else": {"allOf": [degraded, alone]},
        },
    }


def headers_schema(*, due: bool = False, dead: bool = False) -> Document:
    """The control headers of a retry (``due``), dead-letter (``dead``) or replay record, as text."""
    number: Document = {"type": "string", "pattern": "^[0-9]{1,19}$"}
    text: Document = {"type": "string", "minLength": 1}
    message: Document = {
        "type": "string",
        "description": f"What was wrong, for people. At most {MAX_MESSAGE} bytes.",
        "maxLength": MAX_MESSAGE,
    }
    required: Document = {
        "failsoft-attempt": {**number, "description": "Retries so far."},
        "failsoft-origin-topic": {**text, "description": "The topic of the record that first carried the event."},
        "failsoft-origin-partition": {**number, "description": "That record's partition."},
        "failsoft-origin-offset": {**number, "description": "That record's offset."},
        "failsoft-origin-timestamp-ms": {
            "type": "string",
            "pattern": "^-?[0-9]{1,19}$",
            "description": "That record's timestamp (epoch milliseconds); -1 where it has none.",
        },
        "failsoft-first-failed-ms": {**number, "description": "When the event first failed (epoch milliseconds)."},
        "failsoft-error-kind": {
            "enum": [str(kind) for kind in Kind],
            "description": "The kind of the newest failure.",
        },
        "failsoft-error-message": message,
        "failsoft-model": {**text, "description": "The model that the event was meant for."},
        "failsoft-next-revision": {
            **number,
            "description": "The revision of the next answer: 0 when none was given, 1 after a provisional one, "
            "2 after a final one.",
        },
        "failsoft-replays": {**number, "description": "How often it was replayed."},
    }
    if due:
        required["failsoft-due-ms"] = {**number, "description": "Not attempted before (epoch milliseconds)."}
    if dead:  # KIP-1191's names
        required |= {
            "__dlq.errors.topic": {**text, "description": "The same as failsoft-origin-topic."},
            "__dlq.errors.partition": {**number, "description": "The same as failsoft-origin-partition."},
            "__dlq.errors.offset": {**number, "description": "The same as failsoft-origin-offset."},
            "__dlq.errors.group": {**text, "description": "The consumer group of the pipeline's workers."},
            "__dlq.errors.delivery.count": {**number, "description": "Attempts: the retries and the first."},
            "__dlq.errors.message": message,
        }
    optional: Document = {
        "failsoft-model-version": {**number, "description": "The version that failed; absent where none was asked."},
        "failsoft-replay-id": {**text, "description": "The replay that sent it: `failsoft dead replay --replay-id`."},
        "failsoft-crashes": {**number, "description": "Deaths of its model's process with it in flight; absent is 0."},
    }
    return {
        "type": "object",
        "description": "Beside the event's own headers, which are untouched. Each is there at most once, in UTF-8.",
        "properties": required | optional,
        "required": list(required),
    }


def scored_headers_schema() -> Document:
    """The headers of an answer, by which a reader may filter without parsing."""
    properties: Document = {
        "content-type": {"const": "application/json", "description": "How the answer is encoded."},
        "failsoft-revision": {
            "type": "string",
            "pattern": "^[0-9]{1,19}$",
            "description": "Of an event's answers the highest counts.",
        },
        "failsoft-source": {"enum": [str(source) for source in Source], "description": "Who answered."},
    }
    trace: Document = {
        name: {"type": "string", "description": "The event's own (W3C Trace Context)."}
        for name in ("traceparent", "tracestate")
    }
    return {"type": "object", "properties": properties | trace, "required": list(properties)}
