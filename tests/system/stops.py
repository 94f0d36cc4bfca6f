"""A worker that stops itself (SIGSTOP) at a named moment of a transaction when a file orders it.

Run ``python -m tests.system.stops PIPELINE FOLDER ID [OPTION …]``. The file ``freeze.ID`` in the folder names the
moment: "before" or "after" a request of the transaction (``REQUESTS``), or "before commit". The worker removes the file
and stops at this moment of its next transaction with outputs. The options change the worker (``OPTIONS``).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from aiokafka import TopicPartition

from failsoft.workers import settings
from failsoft.workers.kafka import clients, log_view
from failsoft.workers.kafka.member import GroupMember
from failsoft.workers.kafka.membership import GroupSettings, Membership
from failsoft.workers.kafka.requests import Offset, OneVersion, error_codes
from failsoft.workers.kafka.sealed_batches import Outputs
from failsoft.workers.kafka.stable_offsets import stable_offsets
from failsoft.workers.kafka.transactional_producer import TransactionalProducer
from failsoft.workers.process import serve
from failsoft.workers.process.composition import Options
from failsoft.workers.telemetry import logs
from tests.integration.pipeline import Pipeline, Worker
from tests.kafka import wait_for

REQUESTS = ("AddPartitionsToTxn", "AddOffsetsToTxn", "Produce", "TxnOffsetCommit", "EndTxn")
"""The requests of a transaction, in the order in which they are sent. The first two are sent at once, and so are the
next two."""

MOMENTS = tuple(f"{when} {request}" for request in REQUESTS for when in ("before", "after"))

BEFORE_COMMIT = "before commit"
"""Between the scoring of a batch and the first request of its transaction."""

STOPS, WENT, COMMITTED = "stops ", "its commit went through", "has committed lanes "
ASKED, STABLE = "asked for offsets", "has stable offsets"
"""Lines that the worker prints."""

UNSTABLE, ANONYMOUS = "unstable-offsets", "no-generation"
BROKEN = (UNSTABLE, ANONYMOUS)
"""Workers that are broken on purpose: they read offsets that an open transaction may still change, or commit offsets
without the group's generation. Kafka allows both, and each can answer an event twice."""

PATIENT_SECONDS = 60


class Stops:
    """Obeys the orders for the worker ``id`` in ``folder``.

    Attributes:
        lanes: the lanes of the present transaction that write an output.
        stopped: the worker was stopped in the present transaction.
    """

    def __init__(self, folder: Path, id: str) -> None:
        self._order, self._gate = folder / f"freeze.{id}", folder / "gate"
        self.lanes: list[int] = []
        self.stopped = False

    def at(self, moment: str) -> None:
        """Stop the process if it is ordered to stop at ``moment``."""
        if not self.lanes:
            return
        try:
            if self._order.read_text() != moment:
                return
            self._order.unlink()
        except FileNotFoundError:
            return
        self.stopped = True
        print(f"{STOPS}{moment} of lanes {self.lanes}", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)

    def begun(self, outputs: Outputs) -> None:
        """A transaction begins."""
        self.lanes = sorted({place.partition for place, batches in outputs if batches})
        self.stopped = False
        self.at(BEFORE_COMMIT)

    def committed(self) -> None:
        """The transaction is committed."""
        if self.stopped:
            print(WENT, flush=True)
        if self._gate.exists():
            print(f"{COMMITTED}{self.lanes}", flush=True)
        self.lanes = []


def install(stops: Stops, *options: str) -> None:
    """Patch the clients that this process will create: they obey ``stops`` and are as ``options`` say."""

    class StoppingClient(clients.AIOKafkaClient):  # type: ignore[misc]
        async def send(self, node_id: int, request: Any, **more: Any) -> Any:
            name = (
                request.name if isinstance(request, OneVersion) and request.name in (*REQUESTS, "OffsetFetch") else ""
            )
            stops.at(f"before {name}")
            response = await super().send(node_id, request, **more)
            if name and not any(code for code, _, _ in error_codes(response)):
                stops.at(f"after {name}")
                if name == "OffsetFetch":
                    print(STABLE, flush=True)
            if name == "OffsetFetch":
                print(ASKED, flush=True)
            return response

    class StoppingProducer(TransactionalProducer):
        async def commit(self, outputs: Outputs, offsets: Mapping[TopicPartition, Offset], member: GroupMember) -> None:
            stops.begun(outputs)
            await super().commit(outputs, offsets, member)
            stops.committed()

    clients.AIOKafkaClient = StoppingClient
    clients.TransactionalProducer = StoppingProducer  # type: ignore[misc]
    for option in options:
        OPTIONS[option]()


def _dynamic() -> None:
    clients.GroupSettings = lambda group, _, *timeouts: GroupSettings(group, None, *timeouts)  # type: ignore[assignment,arg-type,misc]


def _transactions(**how: bool) -> None:
    clients.TransactionalProducer = partial(clients.TransactionalProducer, **how)  # type: ignore[misc,assignment]


def _patient() -> None:
    os.environ["FAILSOFT_KAFKA__TRANSACTION_TIMEOUT"] = f"{PATIENT_SECONDS}s"


def _unstable() -> None:
    async def unstable(client: Any, group: str, tps: Collection[TopicPartition], require_stable: bool) -> Any:
        return await stable_offsets(client, group, tps, require_stable=False)

    log_view.stable_offsets = unstable  # type: ignore[assignment]


def _anonymous() -> None:
    class Anonymous(Membership):
        def member(self) -> GroupMember:
            return GroupMember(super().member().group, -1, "", None)

    clients.Membership = Anonymous  # type: ignore[misc]


OPTIONS: Mapping[str, Callable[[], None]] = {
    "dynamic": _dynamic,
    "transactions-v1": partial(_transactions, transactions_v2=False),
    "patient": _patient,
    UNSTABLE: _unstable,
    ANONYMOUS: _anonymous,
}
"""Dynamic members, not static ones; transactions without KIP-890; transactions that a broker aborts after a minute; and
the broken workers."""


# --- the test's side --------------------------------------------------------------------------------------------------


def start(pipeline: Pipeline, id: str, *options: str) -> Worker:
    """Start such a worker."""
    where = [str(pipeline.file), str(pipeline.folder), id]
    return pipeline.spawn(id, [sys.executable, "-m", "tests.system.stops", *where, *options])


def order(pipeline: Pipeline, worker: Worker, moment: str) -> Path:
    """Order the worker to stop; the file disappears when it obeys."""
    file = pipeline.folder / f"freeze.{worker.id}"
    fresh = file.with_suffix(".new")
    fresh.write_text(moment)
    return fresh.replace(file)


def stop_at(pipeline: Pipeline, worker: Worker, moment: str, within: float) -> None:
    """Order the worker to stop, and return when it has stopped."""
    order(pipeline, worker, moment)
    wait_for(lambda: is_stopped(worker), within, f"{worker.id} to stop {moment}")


def is_stopped(worker: Worker) -> bool:
    """Has the process stopped? It prints its line before it stops."""
    try:
        return bool(psutil.Process(worker.process.pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def said(worker: Worker) -> str:
    """What this process of the worker has logged, and later ones with its id."""
    return worker.log.read_bytes()[worker.begins :].decode(errors="replace")


def main(argv: list[str]) -> int:
    file, folder, worker_id = Path(argv[0]), Path(argv[1]), argv[2]
    install(Stops(folder, worker_id), *argv[3:])
    logs.configure(terminal=False)
    options = Options(worker_id)
    return serve.run(settings.load(file, os.environ), options, lambda address: print("is ready", address, flush=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
