"""The published interface: up to date, valid, and consistent with what the code writes and reads."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import fastavro
import jsonschema
import pytest

from docs import __main__ as pages
from failsoft.schemas import interface, publish, scored_read
from failsoft.schemas.decoding import decode_one
from failsoft.schemas.event import Event, origin_of
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.prediction import Source
from failsoft.schemas.scored import encode
from failsoft.topics.layout import Role, layout
from failsoft.topics.names import Names
from failsoft.topics.routing import route
from tests.kit import REPLAY, RULE, FakeBoard, Rec, attempt, body, broken, events, plan, result, run, waiting

CHECK_FORMATS = jsonschema.FormatChecker()
RARE = ("outputs", "members", "missing", "rewind")
"""Keys of an answer that stand there only where they say something."""

CONTRACT_EXAMPLE = {
    "event_id": "e",
    "score": 0.93,
    "label": 1,
    "probabilities": None,
    "confidence": 0.93,
    "source": "primary",
    "model": "repayment",
    "version": 2,
    "degraded": False,
    "reason": None,
    "revision": 0,
    "final": True,
    "imputed": [],
    "origin": {"topic": "t", "partition": 0, "offset": 17},
    "event_time": "2018-10-30T18:00:00Z",
    "scored_at": "2026-11-24T16:00:00.123Z",
}


def _validator(schema: publish.Document) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(schema, format_checker=CHECK_FORMATS)


SCORED = _validator(interface.scored_schema())


@pytest.mark.parametrize("name", publish.DOCUMENTS)
def test_the_file_in_the_repository_is_up_to_date(name: str) -> None:
    """Each published file equals what `python -m docs` writes."""
    assert f"schemas/published/{name}" in pages.PAGES
    assert f"schemas/published/{name}" not in pages.stale(), "stale: run `python -m docs`"


@pytest.mark.parametrize("name", [n for n in publish.DOCUMENTS if n.endswith(".schema.json")])
def test_a_schema_is_a_valid_schema(name: str) -> None:
    """Each schema is valid by the metaschema of its draft."""
    document = json.loads(publish.text(name))
    assert document["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(document)


# --- answers ---


def test_the_contracts_example_is_an_answer() -> None:
    """The contract's example is valid, and its keys are those of the schema, in the same order."""
    SCORED.validate(CONTRACT_EXAMPLE)
    schema = interface.scored_schema()
    assert schema["required"] == list(CONTRACT_EXAMPLE)
    assert [name for name in schema["properties"] if name not in RARE] == list(CONTRACT_EXAMPLE)


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": ""},
        {"score": None},
        {"source": "oracle"},
        {"degraded": True},
        {"reason": "timeout"},
        {"source": "static", "reason": None, "degraded": True},
        {"reason": "mood"},
        {"revision": -1},
        {"event_time": "yesterday"},
        {"scored_at": "2026-11-24"},
        {"origin": {"topic": "t"}},
        {"more": 1},
        {"outputs": {}},
        {"outputs": None},
        {"members": ["a@1"]},
        {"source": "ensemble", "version": None},
        {"source": "ensemble", "members": ["a@1"]},
        {"source": "ensemble", "version": None, "members": []},
        {"source": "ensemble", "version": None, "members": ["a@1"], "degraded": True},
        {"source": "ensemble", "version": None, "members": ["a@1"], "reason": "timeout"},
        {"source": "ensemble", "version": None, "members": ["a@1"], "final": False},
        {"source": "static", "version": None, "reason": "timeout", "degraded": True, "members": ["a@1"]},
    ],
)
def test_the_schema_refuses_invalid_answers(change: dict[str, Any]) -> None:
    """An answer with one wrong or contradictory field is not valid."""
    assert not SCORED.is_valid(CONTRACT_EXAMPLE | change)


@pytest.mark.parametrize("change", [{}, {"degraded": True, "reason": "timeout"}])
def test_an_ensembles_answer_is_valid(change: dict[str, Any]) -> None:
    """An ensemble's answer, complete or without a member, names the members that answered, each with its version."""
    SCORED.validate(CONTRACT_EXAMPLE | {"source": "ensemble", "version": None, "members": ["a@1", "b@12"]} | change)


@pytest.mark.parametrize("change", publish.ANSWERS.values(), ids=publish.ANSWERS)
def test_the_published_examples_are_answers(change: dict[str, Any]) -> None:
    """Each example of an answer in the AsyncAPI document is valid."""
    SCORED.validate(publish.ANSWER | change)


def _real_answers() -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Value and headers of real answers: of each link, provisional, corrected and confirmed."""
    chain = ["model:lite", f"rule:{RULE}", "static"]
    trace = [("traceparent", b"00-a-b-01")]
    records = [
        *events(3),
        Rec(offset=3, value=body(None, y=None), headers=trace),
        Rec(offset=4, timestamp=-1, value=b'{"features": {"x": 0.5}}'),
        waiting(),
        waiting("loans.retry.1m", number=1),
        waiting(REPLAY, next_revision=2),
    ]
    several = {"score": 0.7, "label": "yes", "confidence": 0.6, "probabilities": [0.3, 0.7]}
    for models in ({}, {"m": broken}, {"m": broken, "lite": broken}, {"m": lambda call: result([0.55] * len(call))}):
        for answer in (several, None):
            done = run(records, plan(chain, 0.6, lambda values, answer=answer: answer), models=models)
            for topic, rows in route(done.verdicts, Names("loans")):
                for _, value, headers in rows if topic == "loans.scored" else ():
                    yield json.loads(value or b""), {k: (v or b"").decode() for k, v in headers}


def test_answers_in_avro_match_their_schema() -> None:
    """What is routed with a schema's id is framed with it, and is read by the published schema; its headers match."""
    done = run(events(2))
    [(_, rows)] = route(done.verdicts, Names("loans"), 300)
    schema = fastavro.parse_schema(json.loads(publish.text("scored.avsc")))
    headers = _validator(publish.asyncapi()["components"]["messages"]["avroAnswer"]["headers"])
    for _, value, found in rows:
        assert value is not None and value[:5] == b"\x00\x00\x00\x01\x2c"
        record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        assert record["event_id"] == scored_read.loads(value, 10_000)["event_id"]
        SCORED.validate(scored_read.loads(value, 10_000))
        headers.validate({k: (v or b"").decode() for k, v in found})
    assert len(rows) == 2


def test_real_answers_match_the_schema() -> None:
    """Answers and their headers match the schemas for every source and revision."""
    headers = _validator(interface.scored_headers_schema())
    seen: set[tuple[str, int, bool]] = set()
    for value, found in _real_answers():
        SCORED.validate(value)
        headers.validate(found)
        assert found["failsoft-revision"] == str(value["revision"]) and found["failsoft-source"] == value["source"]
        seen.add((value["source"], value["revision"], value["final"]))
    assert seen >= {
        ("primary", 0, True),
        ("primary", 1, True),
        ("primary", 2, True),
        ("fallback_model", 0, False),
        ("fallback_model", 1, True),
        ("rule", 0, False),
        ("static", 0, False),
        ("fallback_model", 0, True),
        ("static", 1, True),
    }


def test_every_source_and_every_reason_is_published() -> None:
    """The schema lists every source, and every failure kind except bad_header, which gets no answer."""
    properties = interface.scored_schema()["properties"]
    assert set(properties["source"]["enum"]) == set(Source)
    assert set(properties["reason"]["enum"]) == {None, *Kind} - {Kind.BAD_HEADER}


def test_an_answer_without_optional_fields_matches_the_schema() -> None:
    """A static answer with no confidence, no model and nothing imputed matches the schema."""
    done = run(events(1), registry=FakeBoard(admits={"m@2": 0}))
    (value,) = encode(done.verdicts.answered[0].answers)
    SCORED.validate(json.loads(value))
    assert json.loads(value)["confidence"] is None and json.loads(value)["model"] is None


# --- events ---


@pytest.mark.parametrize(
    "value",
    [
        {"event_id": "e", "occurred_at": "2018-10-30T18:00:00Z", "features": {"x": 1}},
        {"features": {}},
        {"event_id": 7, "features": {}, "more": [1]},
        {"event_id": None, "occurred_at": None, "features": {"x": None}},
        {"event_id": "", "features": {}},
        {},
        {"features": []},
        {"event_id": True, "features": {}},
        {"event_id": "x" * 1025, "features": {}},
        {"event_id": {"a": 1}, "features": {}},
        {"event_id": 2**63 - 1, "features": {}},
        [],
        "text",
        None,
    ],
)
def test_the_event_schema_accepts_what_the_decoder_accepts(value: object) -> None:
    """A value that matches the event schema is decoded, and any other value is malformed."""
    record = Rec(value=json.dumps(value).encode())
    read = decode_one(record, origin_of(record), interface.EXAMPLE)
    fits = _validator(interface.event_schema()).is_valid(value)
    assert fits is isinstance(read, Event), read
    if isinstance(read, Failure):
        assert read.kind is Kind.MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        {"id": "c", "time": "2018-10-30T18:00:00Z", "data": {"features": {}}},
        {"id": "c", "data": {"features": {}}, "specversion": "1.0"},
        {"data": {"features": {}}},
        {"id": "", "data": {"features": {}}},
        {"id": "c", "data": {}},
        {"id": "c", "data": [1]},
        {"id": "c"},
        {"id": "c", "data_base64": b64encode(b'{"features": {}}').decode()},
        {"id": "c", "data": None, "data_base64": b64encode(b'{"features": {}}').decode()},
        {"id": "c", "data": {"features": {}}, "data_base64": None},
        {"id": "c", "data": {"features": {}}, "data_base64": ""},
        {"id": "c", "data_base64": 5},
        {"id": "c", "data_base64": None},
        [],
    ],
)
def test_the_cloud_event_schema_accepts_what_the_decoder_accepts(value: object) -> None:
    """A structured CloudEvent matches its schema exactly when it is decoded."""
    headers = [("content-type", b"application/cloudevents+json")]
    record = Rec(value=json.dumps(value).encode(), headers=headers)
    read = decode_one(record, origin_of(record), interface.EXAMPLE)
    assert _validator(interface.cloud_event_schema()).is_valid(value) is isinstance(read, Event), read


# --- topics ---


def test_the_topics_are_an_asyncapi_3_document() -> None:
    """The document has AsyncAPI's version 3.0.0, and each reference resolves to a part of it or to a published file."""
    document = json.loads(publish.text("asyncapi.json"))
    assert document["asyncapi"] == "3.0.0" and document["info"]["title"] and document["info"]["version"]
    for reference in _references(document):
        file, _, path = reference.partition("#")
        if file:
            assert file.removeprefix("./") in publish.DOCUMENTS
            continue
        here: Any = document
        for part in path.strip("/").split("/"):
            here = here[part]
    for channel in document["channels"].values():
        named = {part.split("}")[0] for part in channel["address"].split("{")[1:]}
        assert named == set(channel["parameters"])
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert all(m["$ref"].startswith(f"{channel}/messages/") for m in operation["messages"])


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)


def test_every_topic_of_a_pipeline_has_its_channel() -> None:
    """The channels have the address, role and cleanup policy of the topics that `topics apply` creates."""
    channels = publish.asyncapi()["channels"].values()
    topics = layout(Names("loans"), ["loans.events"], [("5s", 5.0)], 4, 1_000_000, schemas=True)
    published = {
        (
            c["address"].format(pipeline="loans", delay="5s", topic="loans.events"),
            c["title"],
            c["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"][0],
        )
        for c in channels
    }
    assert published == {(t.name, str(t.role), t.configs.get("cleanup.policy", "delete")) for t in topics}
    assert {c["title"] for c in channels} == set(Role)


def test_control_headers_match_the_schema() -> None:
    """The headers of retry, dead-letter and replay records match their schemas, which list every header."""
    for full in (attempt(replay_id="r", letter=LetterId("A" * 22, 0, 1)), attempt(version=None)):
        for schema, headers in (
            (interface.headers_schema(due=True), full.headers()),
            (interface.headers_schema(dead=True), replace(full, died_ms=1).dead_headers("loans")),
        ):
            found = {k: (v or b"").decode() for k, v in headers}
            _validator(schema).validate(found)
            assert found.keys() <= schema["properties"].keys()
            assert not _validator(schema).is_valid(found | {"failsoft-attempt": "-1"})
    assert "failsoft-due-ms" not in interface.headers_schema()["properties"]
