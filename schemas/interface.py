"""JSON Schemas of events, answers and the headers of the pipeline's records.

They use draft 7, which AsyncAPI 3.0 accepts directly. ``failsoft.schemas.publish`` writes them to files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from failsoft.schemas import scored
from failsoft.schemas.attempt import MAX_MESSAGE
from failsoft.schemas.event import MAX_ID, Envelope
from failsoft.schemas.failure import Kind
from failsoft.schemas.positions import POSITIONS, REWIND
from failsoft.schemas.prediction import Source
from failsoft.schemas.scored_schema import CONTENT_TYPE as AVRO

Document = dict[str, Any]

ANSWERS_IN = (scored.CONTENT_TYPE, AVRO)
"""The content types of answers."""

EXAMPLE = Envelope(id="event_id", time="occurred_at", features="features")
"""The envelope of the published event schema. A pipeline's own key names are in its pipeline file."""

_DRAFT = "http://json-schema.org/draft-07/schema#"
_INT64: Document = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_COUNT: Document = {"type": "integer", "minimum": 0}
_TIME: Document = {
    "type": "string",
    "format": "date-time",
    # Most validators ignore "format" by default; the pattern covers those.
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
}

_LOG_HEADERS: Document = {
    POSITIONS: {
        "type": "string",
        "description": "On the last record that a transaction writes to a partition: a JSON object with the offset up "
        "to which the lane has answered each topic. It takes some 50 bytes a topic, beside the other headers.",
    },
    REWIND: {
        "type": "string",
        "minLength": 1,
        "description": "The rewind that read the event again: the id that `failsoft offsets rewind` prints.",
    },
}
"""Headers of the answers, retries and dead letters that tell how they came to be in the log."""


def event_schema(envelope: Envelope = EXAMPLE) -> Document:
    """The schema of an event's value on an input topic, with the key names of ``envelope``."""
    features: Document = {
        "type": "object",
        "description": "One value per feature, with the name and type in the model's card. Other keys are ignored.",
    }
    properties: Document = {}
    if envelope.id is not None:
        properties[envelope.id] = {
            "description": f"The event's id, the same on every answer. A `ce_id` header takes precedence. Without "
            f"both, the id is `<topic>-<partition>-<offset>`. At most {MAX_ID} characters.",
            "anyOf": [{"type": "string", "maxLength": MAX_ID}, _INT64, {"type": "null"}],
        }
    if envelope.time is not None:
        properties[envelope.time] = {
            "description": "When the event happened: in ISO 8601 (a time without a zone is UTC), or an epoch number, "
            "in seconds if it is under 10^11, milliseconds under 10^14, microseconds under 10^17, else nanoseconds. If "
            "it is missing or unreadable, the record's timestamp is used."
        }
    if envelope.features:
        properties[envelope.features] = features
    return {
        "$schema": _DRAFT,
        "title": "Event",
        "description": "An event on an input topic. `[input]` of the pipeline file sets the key names; these are the "
        "example's. A value that does not match is `malformed`.",
        "type": "object",
        "properties": properties,
        "required": [envelope.features] if envelope.features else [],
    }


def cloud_event_schema(envelope: Envelope = EXAMPLE) -> Document:
    """The schema of a structured CloudEvent: a record whose content-type begins with application/cloudevents."""
    data = {k: v for k, v in event_schema(Envelope(features=envelope.features)).items() if k in ("type", "required")}
    data["properties"] = event_schema(Envelope(features=envelope.features))["properties"]
    encoded = "The data in base64, in place of `data`: JSON, or Avro or Protobuf where `datacontenttype` says so."
    return {
        "$schema": _DRAFT,
        "title": "Structured CloudEvent",
        "description": "An event whose `content-type` begins with `application/cloudevents`. Its id, time and data "
        "are used; the pipeline file's `id` and `time` do not apply.",
        "type": "object",
        "properties": {
            "id": {"anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_ID}, _INT64]},
            "time": {"description": "RFC 3339. Otherwise the record's timestamp is used."},
            "data_base64": {"description": encoded, "type": ["string", "null"], "contentEncoding": "base64"},
        },
        "required": ["id"],
        "anyOf": [
            {"properties": {"data": data, "data_base64": {"type": "null"}}, "required": ["data"]},
            {"properties": {"data": {"type": "null"}, "data_base64": {"type": "string"}}, "required": ["data_base64"]},
        ],
    }


def scored_schema() -> Document:
    """The schema of an answer's value on `<name>.scored`."""
    properties: Document = {
        "event_id": {"type": "string", "minLength": 1, "maxLength": MAX_ID},
        "score": {"type": "number"},
        "label": {"type": ["integer", "string", "null"]},
        "probabilities": {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 1},
        "confidence": {"type": ["number", "null"]},
        "outputs": {
            "description": "Only where there are any: further outputs by name. `carry` of the card's `[output]` copies "
            "outputs of the model; a regression with several columns has each column, by the names in `outputs`; "
            "multilabel has in `labels` all labels that reach the threshold; an ensemble has those that its members "
            "carry, as `member.output`. A number that is not finite is null.",
            "type": "object",
            "minProperties": 1,
        },
        "source": {"description": "What gave the answer.", "enum": [str(source) for source in Source]},
        "model": {
            "description": "The model or the rule that answered; null for the static answer.",
            "type": ["string", "null"],
        },
        "version": {
            "description": "The model's version; null for the answer of a rule, an ensemble or the static answer.",
            "type": ["integer", "null"],
        },
        "members": {
            "description": "Only in an ensemble's answer: the members that answered, as model@version.",
            "type": "array",
            "items": {"type": "string", "pattern": "^.+@[1-9][0-9]*$"},
            "minItems": 1,
            "uniqueItems": True,
        },
        "degraded": {
            "description": "True when the primary did not answer, or an ensemble answered without a member.",
            "type": "boolean",
        },
        "reason": {
            "description": "The failure kind that kept the primary (or a member of it) from answering, or null.",
            "enum": [None, *(str(kind) for kind in Kind if kind is not Kind.BAD_HEADER)],
        },
        "revision": {"description": "Of an event's answers, the one with the highest revision counts.", **_COUNT},
        "final": {
            "description": "True when no correction follows, unless an operator replays the event.",
            "type": "boolean",
        },
        "imputed": {"description": "Features that were imputed.", "type": "array", "items": {"type": "string"}},
        "missing": {
            "description": "Only with features that the model got as NaN, because their values are missing (`impute = "
            '"nan"`): their names.',
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "uniqueItems": True,
        },
        "origin": {
            "description": "The record that first carried the event.",
            "type": "object",
            "properties": {"topic": {"type": "string", "minLength": 1}, "partition": _COUNT, "offset": _COUNT},
            "required": ["topic", "partition", "offset"],
            "additionalProperties": False,
        },
        "event_time": _TIME,
        "scored_at": _TIME,
        "rewind": {
            "description": "Only where a rewind (`failsoft offsets rewind`) read the event again: its id.",
            "type": "string",
            "minLength": 1,
        },
    }
    whole: Document = {"properties": {"degraded": {"const": False}, "reason": {"const": None}}}
    degraded: Document = {"properties": {"degraded": {"const": True}, "reason": {"type": "string"}}}
    final: Document = {"properties": {"final": {"const": True}}}
    alone: Document = {"not": {"required": ["members"]}}
    unversioned: Document = {"required": ["members"], "properties": {"version": {"const": None}}}
    return {
        "$schema": _DRAFT,
        "title": "Scored",
        "description": "An answer. To keep one per event, take the record of the highest revision for each event_id.",
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in ("outputs", "members", "missing", "rewind")],
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
    """The schema of the control headers of a retry (``due``), dead-letter (``dead``) or replay record, as text."""
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
            "description": "That record's timestamp (epoch milliseconds); -1 if it has none.",
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
            "description": "The revision of the next answer: 0 if there is no answer yet, 1 after a provisional "
            "answer, 2 after a final one.",
        },
        "failsoft-replays": {**number, "description": "How often the event was replayed."},
    }
    if due:
        required["failsoft-due-ms"] = {
            **number,
            "description": "The record is not attempted before this time (epoch milliseconds).",
        }
    if dead:  # KIP-1191's names
        required |= {
            "__dlq.errors.topic": {**text, "description": "The same as failsoft-origin-topic."},
            "__dlq.errors.partition": {**number, "description": "The same as failsoft-origin-partition."},
            "__dlq.errors.offset": {**number, "description": "The same as failsoft-origin-offset."},
            "__dlq.errors.group": {**text, "description": "The consumer group of the pipeline's workers."},
            "__dlq.errors.delivery.count": {**number, "description": "All attempts: the first one and the retries."},
            "__dlq.errors.message": message,
        }
    optional: Document = {
        "failsoft-model-version": {**number, "description": "The version that failed; absent if none was called."},
        "failsoft-replay-id": {**text, "description": "The replay that wrote it: `failsoft dead replay --replay-id`."},
        "failsoft-crashes": {
            **number,
            "description": "How often the model's process died with the event in flight; absent means 0.",
        },
        "failsoft-letter": {
            "type": "string",
            "pattern": "^([A-Za-z0-9_-]{22}/)?[0-9]{1,10}:[0-9]{1,19}$",
            "description": "The dead letter that was replayed: `<topic id>/<partition>:<offset>` of its record. The id "
            "is absent where the brokers give topics none.",
        },
        **_LOG_HEADERS,
    }
    if dead:
        optional["failsoft-died-ms"] = {**number, "description": "When the letter was written (epoch milliseconds)."}
    return {
        "type": "object",
        "description": "Added to the event's own headers, which are unchanged. Each occurs at most once, in UTF-8.",
        "properties": required | optional,
        "required": list(required),
    }


def scored_headers_schema(content_types: Sequence[str] = ANSWERS_IN) -> Document:
    """The schema of an answer's headers. A reader can filter by them without parsing the value."""
    properties: Document = {
        "content-type": {
            "enum": list(content_types),
            "description": "How the answer is encoded, by `format` in `[output]`. Avro is in Confluent's wire format.",
        },
        "failsoft-revision": {
            "type": "string",
            "pattern": "^[0-9]{1,19}$",
            "description": "Of an event's answers, the one with the highest revision counts.",
        },
        "failsoft-source": {"enum": [str(source) for source in Source], "description": "What gave the answer."},
    }
    trace: Document = {
        name: {"type": "string", "description": "Copied from the event (W3C Trace Context)."}
        for name in ("traceparent", "tracestate")
    }
    return {"type": "object", "properties": properties | trace | _LOG_HEADERS, "required": list(properties)}
