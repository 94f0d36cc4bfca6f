"""Rows that fail their model in every way, on a real Kafka. Other rows are answered by the primary.

Failing rows are answered by the fallback, the promise is kept, and the worker neither ends nor grows.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.integration.failing import BOMB, HANGS, KILLS, NAN, RAISES, save_failing
from tests.integration.pipeline import Event, Pipeline, body, events, running
from tests.isolated_models import ended, most, processes
from tests.kafka import Broker, wait_for

LANES = 4
GOOD = 500
ROUNDS = 3

GROWTH = 30_000_000
"""Bytes that a worker may grow by while rows fail. Some buffers reach their full size only after the first round. A
bomb of 4 GB or runs that never end would exceed this.
"""


@dataclass(frozen=True)
class Mode:
    """How the model runs.

    Attributes:
        card: lines of the card's [model].
        rows: the features of each failing row.
        letters: the kind of each row's dead letter.
        first: the failing rows of a lane, by the reason of their first answer.
    """

    card: str
    rows: tuple[dict[str, float], ...]
    letters: tuple[str, ...]
    first: dict[str, int]


THREAD = Mode(
    "",
    ({"x": NAN}, {"row": RAISES}, {"row": HANGS}),
    ("bad_output", "model_error", "timeout"),
    {"bad_output": 1, "model_error": 1, "timeout": 1},
)
PROCESS = Mode(
    # One replica for each lane: each lane has a row that hangs, and no lane may wait for another lane's row.
    f'isolation = "process"\nreplicas = {LANES}\nmemory = "512MB"',
    (*THREAD.rows, {"x": KILLS}, {"x": BOMB}),
    (*THREAD.letters, "poison", "model_error"),
    {**THREAD.first, "model_error": 2, "crashed": 1},
)


def _round(mode: Mode, start: int) -> list[Event]:
    """Good events, and between them each failing row once in each lane."""
    bad = [
        (b"bad", body(start + GOOD + LANES * i + lane, **row), [], lane)
        for i, row in enumerate(mode.rows)
        for lane in range(LANES)
    ]
    return [*events(GOOD // 2, start=start), *bad, *events(GOOD // 2, start=start + GOOD // 2)]


@pytest.mark.parametrize(
    "mode", [pytest.param(THREAD, id="thread", marks=pytest.mark.long), pytest.param(PROCESS, id="process")]
)
def test_rows_that_fail_cost_their_own_answer_only(kafka: Broker, name: str, tmp_path: Path, mode: Mode) -> None:
    """A failing row costs only its own answer, in a thread and in a process.

    Rows give NaN, an index out of range or an endless loop; in a process also a native crash and 4 GB. Each lane gets
    each of them in three rounds. The primary answers the other rows at once. A failing row gets a provisional answer
    with its reason, then a dead letter. The worker is still the same process, and neither it nor its model's processes
    have grown.
    """
    pipeline = Pipeline(tmp_path, kafka.bootstrap, name, partitions=LANES, deadline="1s", model_lines=mode.card)
    save_failing(tmp_path / "models" / "test" / "1" / "model.onnx")
    with running(pipeline) as settlement:
        worker = pipeline.start()
        worker.wait_ready()
        memory = psutil.Process(worker.process.pid)
        sizes = []
        for i in range(ROUNDS):
            pipeline.publish(_round(mode, 1000 * i))
            settlement.wait_final(pipeline.published)
            sizes.append(memory.memory_info().rss)
        children = processes(worker.process.pid)
        assert worker.process.poll() is None, worker.tail()
        assert most(worker.process.pid) < sizes[0] + 2 * GROWTH, "the worker's peak memory was larger"
        assert all(child.memory_info().rss < 512_000_000 for child in children)
        assert worker.drain() == 0, worker.tail()
        wait_for(lambda: all(map(ended, children)), 30, "the model's processes to end")
        verdict = settlement.verdict()
        letters = Counter(r.header("failsoft-error-kind") for r in settlement.reader.records[settlement.dead])
        scored = [json.loads(r.value or b"") for r in settlement.reader.records[settlement.scored]]
    each = ROUNDS * LANES
    assert not verdict.broken, str(verdict)
    assert letters == Counter(mode.letters * each)
    assert verdict.counts == Counter(
        {"primary": ROUNDS * GOOD, **{f"confirmed: {kind}": n for kind, n in letters.items()}}
    )
    reasons = Counter(answer["reason"] for answer in scored if answer["revision"] == 0)
    assert reasons == Counter({None: ROUNDS * GOOD, **{kind: n * each for kind, n in mode.first.items()}})
    assert bool(children) is (mode is PROCESS)
    assert sizes[-1] < sizes[0] + GROWTH, sizes
