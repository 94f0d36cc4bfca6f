"""The coordinator of the group or of the transaction moves to another broker in the middle of each step of a commit.

A worker stops itself at the step, its coordinator moves, and the worker goes on, on three brokers and under load.
Nothing is lost, doubled, early or never final.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from tests.cluster import Cluster
from tests.integration.pipeline import Pipeline
from tests.integration.verifier import Settlement
from tests.kafka import wait_for
from tests.system import stops
from tests.system.faulty_run import settle
from tests.system.recovery import answered_everywhere
from tests.system.soak.crew import Crew
from tests.system.stops import MOMENTS, is_stopped

pytestmark = pytest.mark.long  # three brokers fill two cores for minutes: make long

N = 2_000
RATE = 200.0
FAILING = 100

STOPS_WITHIN, MOVES_WITHIN = 60.0, 60.0
"""Seconds for a commit to come, also from a worker that is starting again; and for a new leader, on a busy machine."""

Find = Callable[[Cluster, str, str], int]
COORDINATORS: dict[str, Find] = {
    "of the group": lambda cluster, name, worker: cluster.coordinator_of_group(name),
    "of the transaction": lambda cluster, name, worker: cluster.coordinator_of_transactions(f"{name}.{worker}"),
}
"""The node that coordinates; from the pipeline's name and the worker's id."""


@dataclass(frozen=True)
class Move:
    """How a coordinator moves.

    Attributes:
        whose: a key of COORDINATORS.
        killed: its broker is killed, and the worker goes on before another one leads. Otherwise the broker is shut down
            in order, and the worker goes on when another one leads.
    """

    whose: str
    killed: bool

    @property
    def moments(self) -> list[str]:
        """A kill just after an answer is like one just before the next request."""
        return [moment for moment in MOMENTS if not self.killed or moment.startswith("before")]

    def __str__(self) -> str:
        return f"{self.whose}, {'killed' if self.killed else 'handed over'}"


MOVES = [Move(whose, killed) for whose in COORDINATORS for killed in (False, True)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests of this file."""
    with Cluster(tmp_path_factory.mktemp("coordinators")) as started:
        yield started


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Each test begins with three brokers in sync and a working network."""
    cluster.whole()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("move", MOVES, ids=str)
def test_a_coordinator_moves_in_each_step(cluster: Cluster, name: str, tmp_path: Path, move: Move) -> None:
    """A coordinator that moves in the middle of a step costs time, or the worker, and never an event."""
    pipeline = Pipeline(tmp_path, cluster.bootstrap, name)
    crew = Crew(pipeline, 2)

    def faults(settlement: Settlement) -> None:
        for turn, moment in enumerate(move.moments):
            _move(cluster, pipeline, crew, f"w{turn % 2}", move, moment)
            answered_everywhere(settlement)
            cluster.wait_in_sync()

    settle(pipeline, crew, faults, N, RATE, FAILING)


def _move(cluster: Cluster, pipeline: Pipeline, crew: Crew, id: str, move: Move, moment: str) -> None:
    """Stop a worker at ``moment``, move its coordinator, and let the worker go on. All brokers run in the end."""
    stops.order(pipeline, crew.workers[id], moment)
    wait_for(lambda: is_stopped(crew.workers[id]), STOPS_WITHIN, f"{id} to stop {moment}")
    victim = crew.workers[id]
    node = wait_for(lambda: max(0, _at(cluster, pipeline, id, move)), MOVES_WITHIN, f"the coordinator {move.whose}")
    if move.killed:
        cluster.nodes[node].kill()
        victim.signal(signal.SIGCONT)
        cluster.nodes[node].start()
        return
    restart = threading.Thread(target=cluster.nodes[node].restart, name="restart")
    restart.start()
    try:
        wait_for(lambda: _at(cluster, pipeline, id, move) not in (node, -1), MOVES_WITHIN, f"a move {move.whose}")
    finally:
        victim.signal(signal.SIGCONT)
        restart.join()


def _at(cluster: Cluster, pipeline: Pipeline, id: str, move: Move) -> int:
    """The node that coordinates; -1 if none does, or the asked broker is gone."""
    try:
        return COORDINATORS[move.whose](cluster, pipeline.name, id)
    except KafkaException:
        return -1
