"""The notes of `failsoft kafka`: which of them are believed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from failsoft.workers import identity
from failsoft.workers.operations import local_kafka
from failsoft.workers.operations.local_kafka import LocalKafka, noted, running

HERE = LocalKafka("127.0.0.1:9092", "/data")


class Broker:
    """What a note says of a broker."""

    bootstrap, cluster, data = HERE.bootstrap, "c-1", Path(HERE.data)


@pytest.fixture(autouse=True)
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The clusters that answer, by port; the folder of notes is empty."""
    answering = {9092: "c-1"}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(local_kafka, "cluster_at", lambda host, port: answering.get(port))
    return answering


def _notes() -> list[str]:
    return [path.name for path in identity.own_folder().glob("kafka-*.json")]


def test_a_kafka_is_found_while_it_runs() -> None:
    """Its note is removed when it ends."""
    assert running() == []
    with noted(cast(Any, Broker())):
        assert running() == [HERE]
    assert running() == [] and _notes() == []


@pytest.mark.parametrize("answers", [{}, {9092: "another"}])
def test_a_note_is_believed_only_if_its_cluster_answers(clusters: dict[int, str], answers: dict[int, str]) -> None:
    """Another Kafka may have taken the port since, and a process id may be given again."""
    with noted(cast(Any, Broker())):
        clusters.clear()
        clusters.update(answers)
        assert running() == [] and _notes() == [f"kafka-{os.getpid()}.json"]


def test_a_note_whose_process_is_gone_is_removed() -> None:
    """After kill -9 nothing removes it but the next command."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with noted(cast(Any, Broker())):
        folder = identity.own_folder()
        own = folder / f"kafka-{os.getpid()}.json"
        for name in (f"kafka-{ended.pid}.json", f"kafka-{2**80}.json", "kafka-x.json"):
            (folder / name).write_bytes(own.read_bytes())
        assert running() == [HERE] and _notes() == [own.name]


def test_the_newest_comes_first_and_half_a_note_is_skipped(clusters: dict[int, str]) -> None:
    """Several Kafkas may run on one machine."""
    clusters[9093] = "c-2"
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with noted(cast(Any, Broker())), sleeper:
        older = identity.own_folder() / f"kafka-{sleeper.pid}.json"
        older.write_text('{"bootstrap": "127.0.0.1:9093", "cluster": "c-2", "data": "/old"}')
        os.utime(older, (1, 1))
        assert running() == [HERE, LocalKafka("127.0.0.1:9093", "/old")]
        older.write_text('{"bootstrap": "127.0')
        assert running() == [HERE]
