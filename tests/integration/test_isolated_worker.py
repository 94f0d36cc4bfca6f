"""A worker whose primary runs in a process of its own, on a real Kafka: rows that kill that process."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
from onnx import save

from tests.integration.pipeline import Pipeline, Worker, body, events, running
from tests.isolated_models import LEAST, ended, processes
from tests.kafka import Broker, wait_for
from tests.onnx_models import node, onnx_model

KILLS = 4
"""Rows that kill the model's process, with every other row of the call."""


def _deadly(path: Path) -> None:
    """Writes a model whose score is ``x`` in [0, 1]; ``row`` = -1 ends its process (tests.isolated_models.deadly)."""
    model = onnx_model(
        [("x", "float", ["n", 1]), ("row", "int64", ["n", 1]), ("colour", "string", ["n", 1])],
        [("score", "float", ["n", 1])],
        node("Equal", ["row", "nought"], ["none"]),
        node("Where", ["none", "one", "row"], ["divisor"]),
        node("Div", ["least", "divisor"], ["q"]),
        node("Cast", ["q"], ["f"], to=1),
        node("Mul", ["f", "zero"], ["z"]),
        node("Clip", ["x", "zero", "unity"], ["clipped"]),
        node("Add", ["z", "clipped"], ["score"]),
        node("StringConcat", ["colour", "colour"], ["unused"]),
        constants={
            "least": np.int64(LEAST),
            "zero": np.float32(0),
            "unity": np.float32(1),
            "one": np.int64(1),
            "nought": np.int64(0),
        },
    )
    model.opset_import[0].version = 20
    save(model, str(path))


def test_a_row_that_kills_its_model_costs_its_own_answer_only(kafka: Broker, name: str, tmp_path: Path) -> None:
    """A row that kills the model's process costs only its own answer.

    The other rows are answered by the primary, the row by the fallback with the reason. The worker survives every crash
    and keeps the promise. After its drain no process is left.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, model_lines='isolation = "process"\nmemory = "1GB"')
    _deadly(tmp_path / "models" / "test" / "1" / "model.onnx")
    with running(pipeline) as settlement:
        worker = pipeline.start("w0")
        worker.wait_ready()
        children = (
            wait_for(lambda: len(found := processes(worker.process.pid)) == 2 and found, 30, "its processes") or []
        )
        deadly = [(b"k%d" % i, body(100_000 + i, row=-1), [], i % 4) for i in range(KILLS)]
        pipeline.publish([*events(1000), *deadly, *events(1000, start=1000)])
        settlement.wait_final(pipeline.published)
        assert worker.process.poll() is None, worker.tail()
        wait_for(lambda: _crashes(worker) >= KILLS, 30, "each crash to be counted")
        children += processes(worker.process.pid)
        assert worker.drain() == 0, worker.tail()
        wait_for(lambda: all(map(ended, children)), 30, "the model's processes to end")
        verdict = settlement.verdict()
        scored = [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]
    assert not verdict.broken, str(verdict)
    assert verdict.counts["primary"] == 2000, verdict.counts
    given = Counter(
        (a["source"], a["reason"]) for a in scored if a["event_id"].startswith("e1000") and len(a["event_id"]) > 5
    )
    assert set(given) <= {("static", "crashed"), ("static", "poison"), ("static", "unavailable")}, given
    assert given["static", "crashed"] >= KILLS


def test_a_worker_killed_leaves_no_process_of_its_model(kafka: Broker, name: str, tmp_path: Path) -> None:
    """After kill -9 of the worker alone, the processes of its model end by themselves."""
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, model_lines='isolation = "process"\nreplicas = 2')
    with running(pipeline):
        worker = pipeline.start("w0")
        worker.wait_ready()
        children = (
            wait_for(lambda: len(found := processes(worker.process.pid)) == 3 and found, 30, "its processes") or []
        )
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait(60)
        wait_for(lambda: all(map(ended, children)), 30, "the model's processes to end")


def _crashes(worker: Worker) -> float:
    """The number of restarts after a crash in the worker's metrics."""
    (address,) = set(re.findall(r"http://[0-9.]+:[0-9]+", worker.log.read_text()))
    page = urllib.request.urlopen(f"{address}/metrics", timeout=30).read().decode()
    found = re.findall(r'failsoft_model_restarts_total\{.*why="crashed".*\} ([0-9.e+]+)', page)
    return sum(map(float, found))
