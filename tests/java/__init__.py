"""Producers in Java: Confluent's own Avro serializer, and Apicurio's for Protobuf and JSON in Confluent's wire format.

Maven Central has no Protobuf or JSON serializer of Confluent's. Its Avro serializer is there within a jar of Apache
Pinot, under its own name.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import java
from failsoft.topics.embedded.broker import java_runtime
from failsoft.topics.embedded.jars import KAFKA, Coordinates, jars
from tests.maven import artifact

PINOT = "1.5.0"
SERDES = "3.1.7"
APICURIO: Coordinates = (
    ("io.apicurio", "apicurio-registry-protobuf-serde-kafka", SERDES),
    ("io.apicurio", "apicurio-registry-jsonschema-serde-kafka", SERDES),
    ("com.google.protobuf", "protobuf-java-util", "4.33.1"),
    ("org.apache.kafka", "kafka-clients", KAFKA),
    ("org.slf4j", "slf4j-simple", "1.7.36"),
)
SENT_WITHIN = 120.0
"""Seconds for a JVM to start, register a schema and send some events."""


def send_avro(bootstrap: str, registry: str, topic: str, schema: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Send ``events``, in Avro's JSON encoding, by Confluent's serializer. ``registry`` speaks Confluent's API."""
    shaded = artifact(
        ("org.apache.pinot", "pinot-confluent-avro", PINOT),
        "shaded",
        "jar",
        "fcba31945ab17f393008f46975b37dd12516e59f536b0bec5a19ab9fd84464d1",
    )
    _run("AvroSender", [shaded], [bootstrap, registry, topic, str(schema)], events)


def send_protobuf(
    bootstrap: str, registry: str, topic: str, descriptors: Path, message: str, events: Iterable[Mapping[str, Any]]
) -> None:
    """Send ``events``, in Protobuf's JSON mapping, by Apicurio's serializer. ``registry`` is Apicurio's own API."""
    _run("ApicurioSender", _apicurio(), [bootstrap, registry, topic, str(descriptors), message], events)


def send_json(bootstrap: str, registry: str, topic: str, events: Iterable[Mapping[str, Any]]) -> None:
    """Send ``events`` by Apicurio's serializer, under the newest schema of the topic's subject."""
    _run("ApicurioSender", _apicurio(), [bootstrap, registry, topic], events)


def _apicurio() -> list[Path]:
    return jars(f"apicurio-serdes-{SERDES}", APICURIO)


def _run(program: str, class_path: list[Path], arguments: list[str], events: Iterable[Mapping[str, Any]]) -> None:
    source = Path(__file__).with_name(f"{program}.java")
    path = os.pathsep.join(map(str, class_path))
    classes = java.compiled(source, path)
    options = ["-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    line = [str(java_runtime()), *options, "-cp", f"{classes}{os.pathsep}{path}", program, *arguments]
    given = "".join(f"{json.dumps(event)}\n" for event in events)
    done = subprocess.run(line, input=given, capture_output=True, text=True, timeout=SENT_WITHIN, check=False)
    assert done.returncode == 0, f"{program}: {done.stderr[-3000:]}"
