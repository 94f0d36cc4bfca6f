"""Carries out the scheduled faults on workers, broker and model, and records each with the lanes it hit."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException

from tests.integration import fleet
from tests.integration.pipeline import Pipeline, Worker
from tests.kafka import Broker, wait_for
from tests.system import stops
from tests.system.soak.crew import Crew, lanes
from tests.system.soak.schedule import TRACKS, Fault, Kind
from tests.system.soak.traffic import Traffic
from tests.system.soak.worker import DEAF, SEEN
from tests.system.stops import WENT, is_stopped, said

MOOD = {
    Kind.BAD_OUTPUT: "bad output",
    Kind.RAISES: "raises",
    Kind.HANGS: "hangs",
    Kind.NAN: "NaN",
    Kind.DEAF: DEAF,
    Kind.SICK: "bad output",
}

FREEZES_WITHIN = 20.0
"""Seconds for a worker that is to stop in a commit to reach one."""

STOPS_WITHIN = 5.0
"""Seconds between the removal of the order's file and the process's stop."""

OWNED_WITHIN = 60.0
"""Seconds for the control plane to have an owner; the last one may just have been killed."""

STARTS_WITHIN = 120.0
"""Seconds for a worker to be ready again, and for an order to be obeyed, on a busy machine."""

HAS_LANES_WITHIN = 15.0
"""Seconds to wait for a victim to have lanes; after that it is hit without lanes."""

TAKES_OVER_WITHIN = 40.0
"""Seconds until the group has given a stopped worker's lanes to another one: its session of 6, and a rebalance."""

ANSWERS_WITHIN = 5.0
"""Seconds for a worker that has the offsets to commit. One that must wait for the stopped transaction cannot."""

COMMITS_WITHIN = 8.0
"""Seconds for a continued worker to commit or to end."""

MET_WITHIN = 20.0
"""Seconds for an event to meet a model's fault. The fault lasts longer if needed: workers may just have been killed."""

LEAVES_WITHIN = 60.0
"""Seconds for the fleet to roll back a bad version: two half-open cycles under all other faults."""

MEMBERS = 2
"""Workers that join and leave in one round of a rebalance storm; there are three rounds."""


@dataclass
class Done:
    """A fault as it was made.

    Attributes:
        kind: the kind of fault.
        began: its start (epoch seconds).
        ended: its end (epoch seconds).
        lanes: the lanes it hit.
        note: details for the report.
    """

    kind: Kind
    began: float
    ended: float = 0.0
    lanes: list[int] = field(default_factory=list)
    note: str = ""


class Faults:
    """Runs a thread for each track. A fault starts when it is due and the track's last fault has ended."""

    def __init__(
        self,
        schedule: Iterable[Fault],
        pipeline: Pipeline,
        crew: Crew,
        broker: Broker,
        traffic: Traffic,
        partitions: int,
        say: Callable[[str], None],
    ) -> None:
        self._pipeline, self._crew, self._broker, self._traffic, self._say = pipeline, crew, broker, traffic, say
        self._all = list(range(partitions))
        self._over = threading.Event()
        self._version = 1
        self.done: list[Done] = []
        self.failed: list[str] = []
        self.skipped = 0
        faults = list(schedule)
        tracks = [[f for f in faults if f.kind in deck] for deck, _ in TRACKS.values()]
        self._threads = [threading.Thread(target=self._run, args=(t,), daemon=True) for t in tracks if t]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Starts no new fault and waits for those that run: on a slow machine the schedule is late."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, track: list[Fault]) -> None:
        for fault in track:
            if self._over.wait(max(0.0, self._traffic.begun + fault.at - time.time())):
                self.skipped += 1
                continue
            done = Done(fault.kind, time.time())
            try:
                _DO[fault.kind](self, fault, done)
            except Exception:  # noqa: BLE001
                self.failed.append(f"{fault}: {traceback.format_exc()}")
            else:
                done.ended = time.time()
                self.done.append(done)
                self._say(f"{done.began - self._traffic.begun:6.1f} s  {done.kind}, lanes {done.lanes} {done.note}")

    def _wait(self, seconds: float) -> None:
        self._over.wait(seconds)

    # --- processes ---

    def _ready(self, fault: Fault) -> Worker:
        """The victim. Waits up to HAS_LANES_WITHIN for its lanes: a worker that is starting has little to lose."""
        with suppress(AssertionError):
            wait_for(lambda: lanes(self._crew[fault.victim]), HAS_LANES_WITHIN, "a victim with lanes")
        return self._crew[fault.victim]

    def _kill(self, fault: Fault, done: Done) -> None:
        self._kill_one(self._ready(fault), done)

    def _kill_one(self, worker: Worker, done: Done) -> None:
        done.lanes = lanes(worker)
        done.began = time.time()
        alive = self._crew.kill(worker, done.kind)
        done.note = worker.id + ("" if alive else ", dead already")

    def _owner(self, fault: Fault, done: Done) -> None:
        found: list[Worker] = []

        def look() -> bool:
            with suppress(KafkaException):
                owner = fleet.owner(self._pipeline, self._crew.all())
                found[:] = [owner] if owner is not None and owner.process.poll() is None else []
            return bool(found)

        try:
            wait_for(look, OWNED_WITHIN, "an owner of the breakers")
        except AssertionError:
            done.kind = Kind.KILL  # no worker owns them now: the report must not claim that an owner was killed
            found = [self._ready(fault)]
        self._kill_one(found[0], done)

    def _stop(self, fault: Fault, done: Done) -> None:
        worker = self._ready(fault)
        done.lanes, done.began, done.note = lanes(worker), time.time(), worker.id
        self._crew.asked(worker, done.kind)
        if worker.process.poll() is None:
            with suppress(ProcessLookupError):
                worker.signal(signal.SIGSTOP)
            self._wait(fault.lasts)
            with suppress(ProcessLookupError):
                worker.signal(signal.SIGCONT)

    def _stop_in_commit(self, fault: Fault, done: Done) -> None:
        """Stops a worker at a moment of its next commit, and continues it after the others had time to take over.

        With workers that are broken on purpose it waits for more: another worker has read the offsets of a lane in that
        commit, and has committed in it if the offsets let it.
        """
        worker = self._ready(fault)
        order, gate = stops.order(self._pipeline, worker, fault.moment), self._pipeline.folder / "gate"
        with suppress(AssertionError):
            wait_for(lambda: not order.exists(), FREEZES_WITHIN, "a commit to stop in")
        try:
            order.unlink()  # removed before the worker did so: it will not stop
            done.note = f"{worker.id} reached no commit"
            return
        except FileNotFoundError:
            with suppress(AssertionError):
                wait_for(lambda: is_stopped(self._crew[fault.victim]), STOPS_WITHIN, "it to stop")
        worker = self._crew[fault.victim]  # it may have been killed and its successor stopped instead
        if not is_stopped(worker):
            done.note = f"{worker.id} was killed first"
            return
        done.lanes, done.began = lanes(worker), time.time()
        self._crew.asked(worker, done.kind)
        went = said(worker).count(WENT)
        if self._crew.options:
            gate.touch()
            self._taken_over(worker)
        else:
            self._wait(fault.lasts)
        with suppress(ProcessLookupError):
            worker.signal(signal.SIGCONT)
        with suppress(AssertionError):
            wait_for(
                lambda: worker.process.poll() is not None or said(worker).count(WENT) > went,
                COMMITS_WITHIN,
                "the zombie to commit or to end",
            )
        gate.unlink(missing_ok=True)
        through = said(worker).count(WENT) > went
        done.note = f"{worker.id} {fault.moment}, " + ("which went through" if through else "which did not go through")

    def _taken_over(self, stopped: Worker) -> None:
        """Waits until another worker has asked for the offsets, and then a while until it has committed in a lane."""
        others = [w for w in self._crew.all() if w is not stopped]
        begin = {w.id: len(said(w)) for w in others}
        frozen = _committing(said(stopped))

        def since() -> str:
            return "\n".join(said(w)[begin[w.id] :] for w in others)

        wait_for(lambda: stops.ASKED in since(), TAKES_OVER_WITHIN, "a takeover of the lanes")
        with suppress(AssertionError):
            wait_for(lambda: frozen & _committed(since()), ANSWERS_WITHIN, "a commit in a lane that was taken over")

    def _rolling(self, fault: Fault, done: Done) -> None:
        done.lanes = self._all
        for worker in self._crew.all():
            self._crew.drain(worker)
            wait_for(lambda w=worker: self._successor(w), STARTS_WITHIN, f"{worker.id} to be started again")
        done.note = f"{len(self._crew.all())} workers"

    def _successor(self, worker: Worker) -> bool:
        now = self._crew.workers[worker.id]
        return now is not worker and ("is ready" in said(now) or now.process.poll() is not None)

    def _storm(self, fault: Fault, done: Done) -> None:
        """Three times, two more workers join; one leaves in order and the other is killed."""
        done.lanes = self._all
        for turn in range(3):
            extra = [self._crew.spawn(f"x{i}") for i in range(MEMBERS)]
            self._wait(fault.lasts / 3)
            for i, worker in enumerate(extra):
                self._crew.kill(worker, done.kind) if (turn + i) % 2 else self._crew.drain(worker, done.kind)
                self._crew.note(worker)
        done.note = f"{3 * MEMBERS} joined and left"

    def _poison(self, fault: Fault, done: Done) -> None:
        self._traffic.poison()
        self._wait(fault.lasts)

    def _broker_restart(self, fault: Fault, done: Done) -> None:
        done.lanes = self._all
        self._broker.restart()

    def _broker_kill(self, fault: Fault, done: Done) -> None:
        done.lanes = self._all
        self._broker.kill()
        self._broker.start()

    # --- the model ---

    def _mood(self, fault: Fault, done: Done) -> None:
        one = fault.kind is Kind.SICK
        done.lanes = lanes(self._ready(fault)) if one else self._all
        suffix = f".w{fault.victim}" if one else ""
        mood, fresh = self._pipeline.folder / f"mood{suffix}", self._pipeline.folder / "mood.new"
        seen = self._pipeline.folder / SEEN
        seen.unlink(missing_ok=True)
        fresh.write_text(MOOD[fault.kind])
        fresh.replace(mood)
        self._wait(fault.lasts)
        try:
            wait_for(seen.exists, MET_WITHIN, "an event that meets it")
        except AssertionError:
            done.note = "met by no event"
        mood.unlink()

    def _bad_version(self, fault: Fault, done: Done) -> None:
        """Promotes a version that passes its vetting and fails on real events.

        The fleet rolls back automatically. If it does not in time, the soak orders the rollback.
        """
        done.lanes = self._all
        self._version += 1
        version = self._version
        self._pipeline.save_version(version, factor=10.0)
        wait_for(lambda: self._promoted(version), STARTS_WITHIN, f"an order for version {version} to be obeyed")
        done.began = time.time()
        try:
            wait_for(lambda: self._active() not in (None, version), LEAVES_WITHIN, "a rollback")
            done.note = f"version {version} rolled back automatically after {time.time() - done.began:.1f} s"
        except AssertionError:
            ordered = self._pipeline.run("models", "rollback", "test", "--why", "the soak goes on")
            done.note = f"version {version} not rolled back after {LEAVES_WITHIN:.0f} s; order: {ordered.returncode}"

    def _promoted(self, version: int) -> bool:
        with suppress(subprocess.TimeoutExpired):
            if self._pipeline.run("models", "promote", f"test@{version}", "--why", "a soak").returncode == 0:
                return True
        return self._active() == version

    def _active(self) -> int | None:
        """The fleet's active version; None while it cannot be read."""
        try:
            return int(fleet.rollouts(self._pipeline)[-1]["active"])
        except (KafkaException, AssertionError, IndexError):
            return None


def _committing(text: str) -> set[int]:
    """The lanes of the commit in which a worker stopped last, according to its log."""
    return _numbers(text.rpartition(stops.STOPS)[2].partition("\n")[0])


def _committed(text: str) -> set[int]:
    """The lanes that were committed, according to logs."""
    lines = [line for line in text.splitlines() if line.startswith(stops.COMMITTED)]
    return set().union(*map(_numbers, lines))


def _numbers(line: str) -> set[int]:
    """The numbers of the list at a line's end."""
    return {int(n) for n in re.findall(r"\d+", line.rpartition("[")[2])}


_DO: dict[Kind, Callable[[Any, Fault, Done], None]] = {
    Kind.KILL: Faults._kill,
    Kind.OWNER: Faults._owner,
    Kind.STOP: Faults._stop,
    Kind.STOP_IN_COMMIT: Faults._stop_in_commit,
    Kind.ROLLING: Faults._rolling,
    Kind.STORM: Faults._storm,
    Kind.BROKER_RESTART: Faults._broker_restart,
    Kind.BROKER_KILL: Faults._broker_kill,
    Kind.POISON: Faults._poison,
    Kind.BAD_VERSION: Faults._bad_version,
    **dict.fromkeys(MOOD, Faults._mood),
}
