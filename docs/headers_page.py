"""docs/reference/headers.md: the record headers that failsoft reads and writes."""

from __future__ import annotations

from collections.abc import Iterator

from docs.markdown import code, page, table
from failsoft.schemas.interface import Document, headers_schema, scored_headers_schema

READ = {
    "ce_id": "The event's id (CloudEvents, binary mode). It takes precedence over the field of `input.id`.",
    "ce_time": "The event's time (CloudEvents, binary mode). It takes precedence over the field of `input.time`.",
    "ce_dataschema": "Where it is an address in `schema_registry.url` with `/schemas/ids/7` or `/schemas/guids/...`, "
    "Avro or Protobuf data without framing has this schema (CloudEvents, binary mode).",
    "content-type": "When it begins with `application/cloudevents`, the value is a structured CloudEvent: its `id`, "
    "`time` and `data` (or `data_base64`) are used. Beside `ce_id` or `ce_specversion`, it says whether the data is "
    "JSON, Avro or Protobuf; without these it is not read.",
    "__value_schema_id": "The schema of the value in Confluent's header form: a byte 1 and a GUID. It takes precedence "
    "over the five bytes before the value. Of Protobuf, the message's indexes follow.",
    "traceparent": "Copied unchanged to every record that is made from the event (W3C Trace Context).",
    "tracestate": "Copied in the same way as `traceparent`.",
}
"""Headers of an event on an input topic that failsoft reads, with their meaning."""

_RETRY, _DEAD, _REPLAY = "retry", "dead letter", "replay"


def control_headers() -> Iterator[tuple[str, Document, str]]:
    """Each header of a retry, dead-letter or replay record: its name, its schema and the records that have it."""
    schemas = {
        _RETRY: headers_schema(due=True),
        _DEAD: headers_schema(dead=True),
        _REPLAY: headers_schema(),
    }
    names = dict.fromkeys(name for schema in schemas.values() for name in schema["properties"])
    for name in names:
        where = [record for record, schema in schemas.items() if name in schema["properties"]]
        schema = schemas[where[0]]
        on = "all" if len(where) == len(schemas) else ", ".join(where)
        yield name, schema["properties"][name], on if name in schema["required"] else f"{on}; may be absent"


def headers_page() -> str:
    """docs/reference/headers.md."""
    scored = scored_headers_schema()
    return page(
        "# Record headers",
        "",
        "Header values are UTF-8 text, and numbers are decimal. Generated from `schemas/interface.py`, as is the",
        "[AsyncAPI document](../../schemas/published/asyncapi.json).",
        "",
        "## On events",
        "",
        "On an input topic, headers that begin with `failsoft-` are removed, since only the pipeline's own topics are",
        "trusted to carry them. All other headers are kept. A record with all headers of a dead letter that is on",
        "`<name>.dead` is that letter, which another tool sent back: it is replayed",
        "([0020](../decisions/0020-redriven-letters.md)).",
        "",
        *table(("header", "meaning"), ((code(name), meaning) for name, meaning in READ.items())),
        "",
        "## On answers",
        "",
        *table(
            ("header", "value", "meaning"),
            ((code(name), value(schema), schema["description"]) for name, schema in scored["properties"].items()),
        ),
        "",
        "## On retries, dead letters and replays",
        "",
        "These headers are added to the event's own headers, which are kept byte for byte. Each occurs once. A retry",
        "or replay with wrong headers goes to the dead letters as `bad_header`.",
        "",
        *table(
            ("header", "on", "value", "meaning"),
            ((code(name), on, value(schema), schema["description"]) for name, schema, on in control_headers()),
        ),
        "",
        "The names with `__dlq` are those that Kafka gives a dead letter (KIP-1191). The failure kinds are listed in",
        "[failure kinds](failure-kinds.md).",
    )


def value(schema: Document) -> str:
    """The values that a header may have, in words."""
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return "a failure kind" if "timeout" in schema["enum"] else ", ".join(code(each) for each in schema["enum"])
    return "number" if "[0-9]" in schema.get("pattern", "") else "text"
