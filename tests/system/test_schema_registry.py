"""Producers in Java and Python, a real schema registry, and its death: each format's events are answered, once each.

The registry is Apicurio. In Java, Avro is written by Confluent's own serializer, Protobuf and JSON by Apicurio's in
Confluent's wire format. Python's events are the bytes of Confluent's own serializers (tests/golden), with the id that
this registry gave to their schema.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import golden, java
from tests.apicurio import Apicurio
from tests.integration.pipeline import Event, Pipeline, running
from tests.integration.reader import Seen
from tests.kafka import Broker, wait_for

pytestmark = pytest.mark.long

SCHEMAS = Path(golden.__file__).parent / "schemas"
SENT = [
    {"event_id": f"java-{i}", "occurred_at": "2026-11-24T10:00:00Z", "features": {"a": i / 4, "b": 0.5}}
    for i in range(40)
]
OLD = {"avro": "payment.avsc", "protobuf": "payment.proto", "json": "payment.schema.json"}
NEW = {"avro": "payment-2.avsc", "protobuf": "payment-2.proto"}
FACTOR = 0.1
"""The model's score is so much of ``a``."""


class Payments(Pipeline):
    """A pipeline for the events of ``tests/golden/schemas/payment``."""

    def card(self) -> str:
        return super().card().replace('name = "x"\n', 'name = "x"\nfield = "a"\n')

    def save_version(self, version: int, factor: float = FACTOR, megabytes: int = 0) -> None:
        super().save_version(version, factor, megabytes)

    def write(self) -> None:
        super().write()
        text = self.file.read_text()
        self.file.write_text(
            text.replace('id = "id"', 'id = "event_id"').replace('time = "at"', 'time = "occurred_at"')
        )


def send_by_java(format: str, kafka: Broker, registry: Apicurio, topic: str, folder: Path) -> None:
    """Sends SENT from Java; its serializer registers the schema, but that of JSON."""
    if format == "avro":
        java.send_avro(kafka.bootstrap, registry.url, topic, SCHEMAS / OLD[format], SENT)
    elif format == "protobuf":
        made = folder / "payment.bin"
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={SCHEMAS}", "--include_imports"]
        subprocess.run([*protoc, f"--descriptor_set_out={made}", OLD[format]], check=True)
        java.send_protobuf(kafka.bootstrap, registry.native, topic, made, "Payment", SENT)
    else:
        registry.register(f"{topic}-value", "JSON", golden.schema(OLD[format]).text)
        java.send_json(kafka.bootstrap, registry.native, topic, SENT)


def by_python(file: str, event: str, schema_id: int, n: int = 1) -> list[Event]:
    """A golden event ``n`` times, as Confluent's serializer writes it for a registry that gave this id."""
    (found,) = [each for each in golden.events(file=file, framing="value") if each.event == event]
    return [(b"k%d" % i, b"\0" + schema_id.to_bytes(4, "big") + found.payload, [], None) for i in range(n)]


def register(registry: Apicurio, file: str) -> int:
    """The id that the registry gives to a golden schema, under a subject of its own."""
    schema = golden.schema(file)
    return registry.register(f"python.{file}", schema.type, schema.text)


def answers(scored: list[Seen]) -> list[dict[str, Any]]:
    return [json.loads(each.value or b"") for each in scored]


@pytest.mark.parametrize("format", ["avro", "protobuf", "json"])
def test_events_of_java_and_python_are_answered_also_with_the_registry_dead(
    format: str, kafka: Broker, name: str, tmp_path: Path
) -> None:
    """Known ids are answered by workers that start with the registry dead. A new id waits, which is said, and is
    answered once when the registry is back. JSON needs no registry at all.
    """
    with Apicurio(tmp_path) as registry:
        pipeline = Payments(
            tmp_path,
            kafka.bootstrap,
            name,
            input_lines=f'format = "{format}"',
            sections=f'[schema_registry]\nurl = "{registry.url}"\nopen_for = "1s"\nmax_open = "1s"\n',
        )
        with running(pipeline) as settlement:
            reader = settlement.reader
            # 1. The registry is up: both producers' events are answered.
            worker = pipeline.start("w0")
            send_by_java(format, kafka, registry, pipeline.inputs[0], tmp_path)
            known = register(registry, OLD[format])
            pipeline.publish(by_python(OLD[format], "payment-1", known, 20))
            pipeline.published += len(SENT)
            settlement.wait_final(pipeline.published)
            # 2. The registry is killed, and so is the worker. A schema was registered that no worker met.
            new = register(registry, NEW[format]) if format in NEW else known + 1_000_000
            registry.kill()
            worker.kill()
            workers = [pipeline.start(f"w{i}") for i in (1, 2)]
            pipeline.publish(by_python(OLD[format], "payment-1", known, 20))
            settlement.wait_final(pipeline.published)
            unknown = by_python(NEW[format], "payment-3", new, 20) if format in NEW else []
            unknown = unknown or by_python(OLD[format], "payment-4", new, 20)
            before = pipeline.published
            pipeline.publish(unknown)
            if format in NEW:
                reader.until(
                    lambda: sum(len(reader.records[rung]) for rung in settlement.rungs) >= 80,
                    60,
                    "four rounds of the ladder",
                )
                wait_for(
                    lambda: any("events wait unanswered" in each.log.read_text() for each in workers), 30, "a log line"
                )
                assert len(reader.records[settlement.scored]) == before
                # 3. The registry is back.
                registry.start()
            settlement.wait_final(pipeline.published)
            for each in workers:
                assert each.drain() == 0, each.tail()
            verdict = settlement.verdict()
    assert not verdict.broken, str(verdict)
    assert verdict.counts == {"primary": pipeline.published}
    scores = {f"java-{i}": i / 4 * FACTOR for i in range(40)}
    scores |= {"payment-1": 1.5 * FACTOR, "payment-3": 4.5 * FACTOR, "payment-4": 1.0 * FACTOR}
    found = answers(reader.records[settlement.scored])
    assert len(found) == pipeline.published
    assert all(each["revision"] == 0 and each["final"] for each in found)
    assert [each["score"] for each in found] == pytest.approx([scores[each["event_id"]] for each in found], abs=1e-6)
    assert {each["event_time"][:19] for each in found if each["event_id"].startswith("java")} == {"2026-11-24T10:00:00"}
