"""Builds the published interface files: the JSON Schemas, and an AsyncAPI 3.0 document of a pipeline's topics.

``python -m docs`` writes them to schemas/published. Tests validate real output against them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from failsoft.schemas import interface, scored, scored_schema
from failsoft.schemas.interface import (
    Document,
    cloud_event_schema,
    event_schema,
    headers_schema,
    scored_headers_schema,
)

ANSWER: Document = {
    "event_id": "a-17",
    "score": 0.93,
    "label": "fraud",
    "probabilities": None,
    "confidence": 0.93,
    "source": "primary",
    "model": "payments",
    "version": 2,
    "degraded": False,
    "reason": None,
    "revision": 0,
    "final": True,
    "imputed": [],
    "origin": {"topic": "payments.events", "partition": 0, "offset": 17},
    "event_time": "2018-10-30T18:00:00Z",
    "scored_at": "2026-11-24T16:00:00.123Z",
}
"""An answer of a binary model."""

ANSWERS: Mapping[str, Document] = {
    "binary": {},
    "multilabel": {
        "score": 0.9,
        "label": "billing",
        "probabilities": [0.9, 0.1, 0.6],
        "confidence": None,
        "outputs": {"labels": ["billing", "delivery"]},
    },
    "regression": {"score": 41.5, "label": None, "confidence": None, "outputs": {"std": 2.25}},
    "fallback": {
        "score": 0.5,
        "label": "legit",
        "confidence": None,
        "source": "static",
        "model": None,
        "version": None,
        "degraded": True,
        "reason": "breaker_open",
        "final": False,
    },
}
"""What is different in the published examples."""

_PIPELINE: Document = {"description": "The pipeline's name, `name` in pipeline.toml."}

# channel: (address, role, description, cleanup policy, messages).
_CHANNELS: Mapping[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    "input": (
        "{topic}",
        "input",
        "One of the user's topics, `input.topics` in pipeline.toml. All have the same number of partitions, P.",
        "delete",
        ("event", "cloudEvent"),
    ),
    "scored": (
        "{pipeline}.scored",
        "scored",
        "Answers, P partitions. An answer has its event's partition. Read with isolation.level=read_committed.",
        "delete",
        ("answer", "avroAnswer"),
    ),
    "retry": (
        "{pipeline}.retry.{delay}",
        "retry",
        "A rung of the retry ladder, P partitions. No record is attempted before its `failsoft-due-ms`.",
        "delete",
        ("retry",),
    ),
    "dead": (
        "{pipeline}.dead",
        "dead",
        "Dead letters, P partitions: events whose retries are exhausted, or that no attempt can answer.",
        "delete",
        ("deadLetter",),
    ),
    "replay": (
        "{pipeline}.replay",
        "replay",
        "Replayed dead letters, P partitions. They are never written to the user's own topics.",
        "delete",
        ("replay",),
    ),
    "outcomes": (
        "{pipeline}.outcomes",
        "outcomes",
        "One partition, internal: the workers' window summaries, which the owner of the breakers reads.",
        "delete",
        ("internal",),
    ),
    "control": (
        "{pipeline}.control",
        "control",
        "One partition, internal: operators' commands, from the command line to the workers.",
        "delete",
        ("internal",),
    ),
    "alerts": ("{pipeline}.alerts", "alerts", "One partition: alerts as events.", "delete", ("alert",)),
    "breakersChangelog": (
        "{pipeline}-breakers-changelog",
        "changelog",
        "One partition, internal: the changelog of Faust's table of breakers.",
        "compact",
        ("internal",),
    ),
    "rolloutsChangelog": (
        "{pipeline}-rollouts-changelog",
        "changelog",
        "One partition, internal: the changelog of Faust's table of rollouts.",
        "compact",
        ("internal",),
    ),
    "schemas": (
        "{pipeline}.schemas",
        "schemas",
        "One partition, internal, only with `[schema_registry]`: the schemas of events that a worker has met.",
        "compact",
        ("internal",),
    ),
}

_PARAMETERS: Mapping[str, Document] = {
    "pipeline": _PIPELINE,
    "topic": {"description": "One of `input.topics` in pipeline.toml."},
    "delay": {"description": "One of `retry.delays`, as pipeline.toml spells it.", "examples": ["5s", "1m", "1h"]},
}

# operation: ("receive" or "send" from the pipeline's side, channel, summary).
_OPERATIONS: Mapping[str, tuple[str, str, str]] = {
    "scoreEvents": ("receive", "input", "Events to score. Each gets one first and one final answer."),
    "writeAnswers": ("send", "scored", "Answers, corrections and confirmations."),
    "scheduleRetries": ("send", "retry", "Events that failed and may succeed later."),
    "attemptRetries": ("receive", "retry", "Retries that are due and that the breaker admits."),
    "writeDeadLetters": (
        "send",
        "dead",
        "Events that are malformed, invalid or poison, or whose retries are exhausted.",
    ),
    "scoreReplays": ("receive", "replay", "Dead letters that are replayed (`failsoft dead replay`, or another tool)."),
    "reportCounts": ("send", "outcomes", "Counts of calls, failures and slow calls."),
    "foldCounts": ("receive", "outcomes", "The counts of all workers, read by the owner of the breakers."),
    "readCommands": ("receive", "control", "Operators' commands."),
    "writeAlerts": ("send", "alerts", "Conditions that an operator should look at."),
    "writeBreakers": ("send", "breakersChangelog", "The breakers' newest state."),
    "readBreakers": ("receive", "breakersChangelog", "The breakers' newest state, read by every worker."),
    "writeRollouts": ("send", "rolloutsChangelog", "The rollouts' newest state."),
    "readRollouts": ("receive", "rolloutsChangelog", "The rollouts' newest state, read by every worker."),
    "keepSchemas": ("send", "schemas", "Schemas that a worker had from the registry."),
    "readSchemas": ("receive", "schemas", "Schemas that were met, read by every worker before it reads events."),
}


def asyncapi() -> Document:
    """The AsyncAPI document: a pipeline's topics, their messages, and the operations from the pipeline's side."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "failsoft",
            "version": "1.0.0",
            "description": "The topics of one pipeline. Its name prefixes every topic that it owns.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name) for name in _CHANNELS},
        "operations": {name: _operation(*parts) for name, parts in _OPERATIONS.items()},
        "components": {"messages": _messages()},
    }


def _channel(name: str) -> Document:
    address, role, description, policy, messages = _CHANNELS[name]
    return {
        "address": address,
        "title": role,
        "description": description,
        "parameters": {name: text for name, text in _PARAMETERS.items() if f"{{{name}}}" in address},
        "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
        "bindings": {"kafka": {"topicConfiguration": {"cleanup.policy": [policy]}, "bindingVersion": "0.5.0"}},
    }


def _operation(action: str, channel: str, summary: str) -> Document:
    messages = _CHANNELS[channel][4]
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages],
    }


def _messages() -> Document:
    kept = "The event's value, byte for byte, tombstones included."
    key: Document = {"kafka": {"key": {"description": "The event's key, unchanged."}, "bindingVersion": "0.5.0"}}

    def message(title: str, payload: Document, headers: Document | None = None, **more: object) -> Document:
        found: Document = {"title": title, "payload": payload, **more}
        return found | ({} if headers is None else {"headers": headers, "bindings": key})

    return {
        "event": message("An event", {"$ref": "./event.schema.json"}),
        "cloudEvent": message(
            "An event as a structured CloudEvent",
            {"$ref": "./cloud-event.schema.json"},
            contentType="application/cloudevents+json",
        ),
        "answer": message(
            "An answer",
            {"$ref": "./scored.schema.json"},
            scored_headers_schema([scored.CONTENT_TYPE]),
            examples=[{"name": name, "payload": ANSWER | change} for name, change in ANSWERS.items()],
        ),
        "avroAnswer": message(
            'An answer, with `format = "avro"` in `[output]`: in Confluent\'s wire format, by the schema that '
            "`failsoft topics apply` registers as `<name>.scored-value`",
            {"schemaFormat": "application/vnd.apache.avro;version=1.9.0", "schema": {"$ref": "./scored.avsc"}},
            scored_headers_schema([scored_schema.CONTENT_TYPE]),
            contentType=scored_schema.CONTENT_TYPE,
        ),
        "retry": message("An event that waits for another attempt", {"description": kept}, headers_schema(due=True)),
        "deadLetter": message("A dead letter", {"description": kept}, headers_schema(dead=True)),
        "replay": message("A replayed dead letter", {"description": kept}, headers_schema()),
        "alert": message("An alert", {"type": "object"}),
        "internal": message(
            "An internal message between workers", {"description": "Not an interface: it may change in any version."}
        ),
    }


DOCUMENTS: Mapping[str, Callable[[], Document]] = {
    "event.schema.json": event_schema,
    "cloud-event.schema.json": cloud_event_schema,
    "scored.schema.json": interface.scored_schema,
    "scored.avsc": lambda: scored_schema.SCHEMA,
    "asyncapi.json": asyncapi,
}
"""The function that builds each document, by file name."""


def text(name: str) -> str:
    """The content of the file ``name``."""
    return json.dumps(DOCUMENTS[name](), indent=2, ensure_ascii=False) + "\n"
