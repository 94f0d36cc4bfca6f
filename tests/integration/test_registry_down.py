"""A real Kafka, Avro events, and a schema registry that dies: known schemas are answered, a new one waits."""

from __future__ import annotations

import io
import json
import re
import urllib.request
from pathlib import Path

import fastavro

from failsoft.schemas.formats.registered import Registered
from tests.integration.pipeline import Event, Pipeline, Worker, running
from tests.integration.verifier import waits
from tests.kafka import Broker, read_all, wait_for
from tests.registry_server import RegistryServer

SCHEMA = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "features", "type": {"type": "record", "name": "F", "fields": [{"name": "x", "type": "double"}]}},
    ],
}
WIDER = SCHEMA | {"fields": [{"name": "note", "type": ["null", "string"]}, *SCHEMA["fields"]]}
AT = 1_800_000_000_000


def avro_events(schema_id: int, schema: object, start: int, n: int) -> list[Event]:
    """Events in Confluent's framing. The model's score is ``x``."""
    parsed, found = fastavro.parse_schema(schema), list[Event]()
    for i in range(start, start + n):
        out = io.BytesIO(b"\0" + schema_id.to_bytes(4, "big"))
        out.seek(0, io.SEEK_END)
        row = {"id": f"e{i}", "at": AT + i, "features": {"x": (i % 1000) / 1000}, "note": "new"}
        fastavro.schemaless_writer(out, parsed, row)
        found.append((b"k%d" % i, out.getvalue(), [], None))
    return found


def unread(workers: list[Worker]) -> float:
    """How many events wait unanswered, by the workers' metrics."""
    total = 0.0
    for worker in workers:
        address = re.findall(r'"http": "([^"]+)"', worker.log.read_text())[-1]
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
            total += sum(
                float(line.split()[1])
                for line in answer.read().decode().splitlines()
                if line.startswith("failsoft_unread_events ")
            )
    return total


def test_a_new_schema_waits_unanswered_until_the_registry_is_back(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Workers that start while the registry is dead answer events of schemas that any worker met. Those of a new one
    wait, which is counted, said and alerted, and use up no attempt; each is answered once when the registry is back.
    """
    with RegistryServer() as registry:
        known = registry.register(f"{name}.events-value", "AVRO", json.dumps(SCHEMA))
        new = registry.register(f"{name}.events-value", "AVRO", json.dumps(WIDER))
        pipeline = Pipeline(
            tmp_path,
            kafka.bootstrap,
            name,
            input_lines='format = "avro"',
            sections=f'[schema_registry]\nurl = "{registry.url}"\nopen_for = "1s"\nmax_open = "1s"\n',
        )
        with running(pipeline) as settlement:
            first = pipeline.start("w0")
            first.wait_ready()
            pipeline.publish(avro_events(known, SCHEMA, 0, 40))
            settlement.wait_final(40)
            kept = read_all(kafka.bootstrap, f"{name}.schemas", until=bool)
            assert [(r.key(), Registered.parse(r.value() or b"").ref) for r in kept] == [(b"%d" % known, known)]
            first.kill()
            registry.stop()

            workers = [pipeline.start(f"w{i}") for i in range(2)]
            pipeline.publish(avro_events(known, SCHEMA, 40, 40))
            pipeline.publish(avro_events(new, WIDER, 100, 20))
            settlement.wait_final(80)
            for worker in workers:  # both have metrics then, and the lanes are where they stay
                worker.wait_ready()
            wait_for(lambda: unread(workers) == 20, 60, "20 waiting events")
            reader, rungs = settlement.reader, settlement.rungs
            # Without the rule of the open breaker, the ladder of two attempts would have ended.
            reader.until(
                lambda: sum(len(reader.records[rung]) for rung in rungs) >= 20 * 4, 60, "four rounds of the ladder"
            )
            assert not reader.records[settlement.dead] and unread(workers) == 20
            alerts = read_all(
                kafka.bootstrap, f"{name}.alerts", until=lambda found: any(b'"unread"' in r.value() for r in found)
            )

            registry.start()
            settlement.wait_final(100)
            wait_for(lambda: unread(workers) == 0, 30, "no waiting event")
            for worker in workers:
                assert worker.drain() == 0, worker.tail()
            verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts == {"primary": 100}
    assert set(verdict.ids.values()) == {f"e{i}" for i in (*range(80), *range(100, 120))}
    answers = [json.loads(r.value or b"") for r in reader.records[settlement.scored]]
    assert all(a["revision"] == 0 and a["final"] and a["score"] == int(a["event_id"][1:]) / 1000 for a in answers)
    waited = [r for rung in rungs for r in reader.records[rung]]
    assert all(map(waits, waited)) and f"schema id {new}" in (waited[0].header("failsoft-error-message") or "")
    assert any(f"schema id {new}" in json.loads(alert.value() or b"{}")["reason"] for alert in alerts)
    said = [json.loads(line) for worker in workers for line in worker.log.read_text().splitlines()]
    lines = [line for line in said if line["event"].startswith("events wait unanswered")]
    assert 1 <= len(lines) <= 6 and not any(line["event"] == "answer degraded" for line in said)
