"""Answers in Avro on a real Kafka: registered by ``topics apply``, written and read back while the registry is down."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from tests.integration.pipeline import Pipeline, body, events, running
from tests.integration.reader import Seen
from tests.integration.verifier import Settlement
from tests.kafka import Broker
from tests.registry_server import RegistryServer

AVRO = '[output]\nformat = "avro"\n'
WHY = "READER_FIELD_MISSING_DEFAULT_VALUE: the field 'score'"


def test_answers_in_avro(kafka: Broker, tmp_path: Path, name: str) -> None:
    """A pipeline changes from JSON to Avro, and its registry is down from then on. Answers are read with the registered
    schema, ``last_known`` is restored from both formats, and nothing is lost or doubled.
    """
    with RegistryServer() as registry:
        section = f'[schema_registry]\nurl = "{registry.url}"\n'
        pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=1, sections=section)
        card = tmp_path / "models" / "test" / "card.toml"
        card.write_text(card.read_text().replace('["static"]', '["last_known", "static"]\nlast_known_max_age = "1h"'))
        with running(pipeline) as settlement:
            _answer(pipeline, settlement, 5)
            pipeline.sections = section + AVRO
            pipeline.write()
            schema_id = _register(pipeline, registry)
            schema = fastavro.parse_schema(json.loads(registry.schema(schema_id).text))
            registry.stop()
            _answer(pipeline, settlement, 5)
            _without_registry(pipeline, schema_id)
            _last_known(pipeline, settlement)
            _check(settlement, schema_id, schema)
            _tail(pipeline)


def _answer(pipeline: Pipeline, settlement: Settlement, n: int) -> None:
    worker = pipeline.start()
    pipeline.publish(events(n, pipeline.published))
    settlement.wait_answered(pipeline.published)
    assert worker.drain() == 0


def _register(pipeline: Pipeline, registry: RegistryServer) -> int:
    """No worker runs before ``topics apply``, which the registry may refuse. Returns the schema's id."""
    worker = pipeline.start()
    assert worker.process.wait(60) == 1
    assert "register it with: failsoft topics apply" in worker.tail()
    registry.put(700, "AVRO", '"string"', subject=f"{pipeline.name}.scored-value")
    registry.incompatible = [WHY]
    refused = pipeline.invoke("topics", "apply")
    assert refused.exit_code == 1 and f"{pipeline.name}.scored-value" in refused.stderr and WHY in refused.stderr
    registry.incompatible = []
    done = pipeline.invoke("topics", "apply")
    schema_id = registry.latest(f"{pipeline.name}.scored-value").id
    assert schema_id > 700
    assert f"schema id {schema_id} registered" in done.stderr
    return schema_id


def _without_registry(pipeline: Pipeline, schema_id: int) -> None:
    """Applying again needs no registry, and says that it was not asked."""
    again = pipeline.invoke("topics", "apply")
    assert again.exit_code == 0 and f"schema id {schema_id}, as before" in again.stderr


def _last_known(pipeline: Pipeline, settlement: Settlement) -> None:
    """A worker that starts again remembers answers of both formats."""
    pipeline.start()
    pipeline.publish([(b"k1", body(10, x=2.0), [], None), (b"k6", body(11, x=2.0), [], None)])
    settlement.wait_final(pipeline.published)


def _check(settlement: Settlement, schema_id: int, schema: Any) -> None:
    verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    answers = settlement.reader.records[settlement.scored]
    assert [r.is_avro for r in answers] == [False] * 5 + [True] * 9
    found = [_read(r, schema_id, schema) for r in answers[5:]]
    assert [a["event_id"] for a in found[:5]] == [f"e{i}" for i in range(5, 10)]
    assert [a["score"] for a in found[:5]] == pytest.approx([0.5 + i / 400 for i in range(5, 10)], abs=1e-6)
    assert {a["origin"]["topic"] for a in found} == {f"{settlement.name}.events"}
    known = [a for a in found if a["event_id"] in ("e10", "e11")]
    assert [(a["source"], a["revision"], a["final"]) for a in known[:2]] == [("last_known", 0, False)] * 2
    assert [(a["source"], a["revision"], a["final"]) for a in known[2:]] == [("last_known", 1, True)] * 2
    assert [a["score"] for a in known[:2]] == [answers[1].answer()["score"], found[1]["score"]]


def _read(record: Seen, schema_id: int, schema: Any) -> dict[str, Any]:
    """An answer as a consumer with the registry's schema reads it."""
    value = record.value or b""
    assert value[:5] == b"\0" + schema_id.to_bytes(4, "big")
    rest = io.BytesIO(value[5:])
    found = fastavro.schemaless_reader(rest, schema, None)
    assert isinstance(found, dict) and not rest.read()
    return found


def _tail(pipeline: Pipeline) -> None:
    """Both formats are shown as JSON, and an event of each is found."""
    shown = pipeline.invoke("tail", "--from", "beginning", "--limit", "14", "--json")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["event_id"] for line in lines[:10]] == [f"e{i}" for i in range(10)]
    assert [*lines[6]] == [*lines[1]] and lines[6]["event_time"] == lines[1]["event_time"] == "2018-10-30T18:00:00Z"
    one = pipeline.invoke("tail", "--event", "e6", "--limit", "1", "--json")
    assert json.loads(one.stdout)["event_id"] == "e6"
