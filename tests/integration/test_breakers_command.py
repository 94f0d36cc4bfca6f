"""`failsoft breakers` on a real Kafka without workers: the test itself acts as the owner on the topics."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from failsoft.models.breaker.fleet import fold
from failsoft.models.breaker.rules import BreakerPolicy
from failsoft.schemas.fleet.breaker import Action, BreakerRow, Command, WorkerWindow
from failsoft.schemas.fleet.counts import Counts
from failsoft.topics.names import Names
from tests.integration.pipeline import Pipeline
from tests.kafka import Broker, create_topic, produce, read_all, wait_for

POLICY = BreakerPolicy(
    failure_rate=0.5, window=30, minimum_calls=20, slow_call=9, slow_rate=0.8, open_for=1, max_open=2, probes=3
)

PATIENT = ("--wait", "60")
"""Long enough for the owner to join its group first."""


@pytest.fixture
def pipeline(kafka: Broker, name: str, tmp_path: Path) -> Pipeline:
    """A pipeline without workers that has the topics of its breakers."""
    made = Pipeline(tmp_path, kafka.bootstrap, name)
    for topic in (Names(name).control, Names(name).outcomes):
        create_topic(kafka.bootstrap, topic)
    create_topic(kafka.bootstrap, Names(name).breakers_changelog, configs={"cleanup.policy": "compact"})
    return made


def _write(pipeline: Pipeline, *rows: BreakerRow, deleted: str | None = None) -> None:
    records: list[Any] = [(json.dumps(row.key).encode(), row.to_bytes(), [], 0) for row in rows]
    records += [(json.dumps(deleted).encode(), None, [], 0)] if deleted else []
    produce(pipeline.bootstrap, Names(pipeline.name).breakers_changelog, records)


def _run(pipeline: Pipeline, *arguments: str) -> list[dict[str, Any]]:
    done = pipeline.run("breakers", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def _orders(pipeline: Pipeline) -> list[tuple[bytes | None, Command]]:
    return [(r.key(), Command.parse(r.value())) for r in read_all(pipeline.bootstrap, Names(pipeline.name).control)]


@contextmanager
def _owning(pipeline: Pipeline, worker: str) -> Iterator[None]:
    """Runs a member of the control plane's group that owns the partition of the reports."""
    settings = {"bootstrap.servers": pipeline.bootstrap, "client.id": worker, "log_level": 2}
    consumer = Consumer({**settings, "group.id": Names(pipeline.name).control_group})
    try:
        consumer.subscribe([Names(pipeline.name).outcomes])
        wait_for(lambda: consumer.poll(0.1) or consumer.assignment(), 60, "an assignment")
        yield
    finally:
        consumer.close()


@contextmanager
def _obeying(pipeline: Pipeline, *rows: BreakerRow) -> Iterator[None]:
    """Runs an owner of ``rows``: it folds each order that it reads into each row, and writes the rows."""
    over = threading.Event()
    settings = {"bootstrap.servers": pipeline.bootstrap, "group.id": f"{pipeline.name}-test", "log_level": 2}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
    consumer.subscribe([Names(pipeline.name).control])

    def obey() -> None:
        held = {row.key: row for row in rows}
        while not over.is_set():
            message = consumer.poll(0.05)
            if message is None or message.error():
                continue
            order = Command.parse(message.value())
            for key, row in held.items():
                one = Command(key, order.action, order.who, order.why, order.at_ms)
                held[key] = fold(row, one, POLICY, int(time.time() * 1000), 0.5).row or row
                _write(pipeline, held[key])

    thread = threading.Thread(target=obey)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)
        consumer.close()


def test_the_list_is_the_changelogs_last_rows_and_names_the_owner(pipeline: Pipeline) -> None:
    """The list has the newest row of each version and names the owner. `list` may be left out.

    A deleted row is not listed. A model without a row is listed as closed.
    """
    (new,) = _run(pipeline)
    assert (new["breaker"], new["state"], new["generation"], new["owner"]) == ("test", "closed", 0, None)

    with _owning(pipeline, "w7"):
        now = int(time.time() * 1000)  # the window is fresh for thirty seconds
        first = BreakerRow("test@1", since_ms=now - 5000, windows={"w0": WorkerWindow(1, now, Counts(40, 10, 0, 8))})
        opened = BreakerRow("test@1", "open", 1, now, now + 600_000, reason="10 of 40", changed_by="w0")
        _write(pipeline, first, BreakerRow("test@2", since_ms=now), BreakerRow("test@3"), deleted="test@3")
        one, two = _run(pipeline, "list")
        assert (one["breaker"], one["calls"], one["failure_rate"], one["failure_rate_opens"]) == (
            "test@1",
            40,
            0.25,
            0.5,
        )
        assert (two["breaker"], two["state"], two["owner"]) == ("test@2", "closed", "w7")
        _write(pipeline, opened)
        one, two = _run(pipeline)
    assert (one["state"], one["generation"], one["reason"], one["changed_by"]) == ("open", 1, "10 of 40", "w0")
    assert 0 < one["half_open_in_seconds"] <= 600 and one["owner"] == "w7"


def test_an_order_is_written_and_the_rows_that_obey_it_are_shown(pipeline: Pipeline) -> None:
    """An order applies to one version or to all versions of a model. It carries who and why.

    The command shows each row's state before and after.
    """
    rows = [BreakerRow("test@1"), BreakerRow("test@2", "disabled", 4)]
    _write(pipeline, *rows)
    with _obeying(pipeline, *rows):
        shown = _run(pipeline, "open", "test", "--why", "drift", "--who", "ann", *PATIENT)
        assert [(r["breaker"], r["was"], r["state"], r["generation"]) for r in shown] == [
            ("test@1", "closed", "forced_open", 1),
            ("test@2", "disabled", "forced_open", 5),
        ]
        assert {r["reason"] for r in shown} == {"ann: drift"}
        (one,) = _run(pipeline, "close", "test@1", *PATIENT)
        assert (one["breaker"], one["was"], one["state"], one["generation"]) == ("test@1", "forced_open", "closed", 2)
        for order in ("disable", "reset"):
            assert len(_run(pipeline, order, "test", *PATIENT)) == 2

    orders = _orders(pipeline)
    assert [key for key, _ in orders] == [b"test"] * 4
    assert [(o.target, o.action) for _, o in orders] == [
        ("test", Action.FORCE_OPEN),
        ("test@1", Action.CLOSE),
        ("test", Action.DISABLE),
        ("test", Action.RESET),
    ]
    assert (orders[0][1].who, orders[0][1].why) == ("ann", "drift")
    assert "@" in orders[1][1].who and orders[1][1].why == ""


def test_without_an_owner_the_order_stands(pipeline: Pipeline) -> None:
    """Without an owner the command writes the order and exits 1 after the wait; with --wait 0 it exits 0."""
    done = pipeline.run("breakers", "disable", "test@1", "--wait", "0.5")
    assert done.returncode == 1 and done.stdout == b""
    assert b"is written to" in done.stderr and b"when a worker owns the breakers" in done.stderr
    done = pipeline.run("breakers", "reset", "test", "--wait", "0")
    assert done.returncode == 0 and b"is written to" in done.stderr
    assert [o.action for _, o in _orders(pipeline)] == [Action.DISABLE, Action.RESET]


def test_what_there_is_not_is_not_ordered(pipeline: Pipeline) -> None:
    """An unknown model or version exits 2, and nothing is written."""
    for target, message in (("tset", b"did you mean 'test'?"), ("test@9", b"there are: test@1")):
        done = pipeline.run("breakers", "open", target)
        assert done.returncode == 2, done.stderr.decode()
        assert message in b" ".join(done.stderr.replace("│".encode(), b" ").split())
    assert not _orders(pipeline)


def test_a_pipeline_without_topics_is_told_to_apply_them(kafka: Broker, name: str, tmp_path: Path) -> None:
    """Without topics, the command exits 1 and names the command that creates them."""
    done = Pipeline(tmp_path, kafka.bootstrap, name).run("breakers")
    assert done.returncode == 1 and b"failsoft topics apply" in done.stderr
