"""Runs one soak test from the first event to the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.integration.pipeline import Pipeline, running
from tests.integration.verifier import Settlement, Verdict
from tests.kafka import Broker, wait_for
from tests.system.soak.crew import Crew
from tests.system.soak.faults import Faults
from tests.system.soak.report import Answer, Report
from tests.system.soak.schedule import Fault, Options
from tests.system.soak.traffic import Traffic
from tests.system.soak.watch import Watch

DELAYS = ("1s", "3s", "6s")

FINAL_WITHIN = 300.0
"""Seconds after the last event and the last fault until every event must be final. A breaker may be open for two of
them and the ladder takes ten; the rest allows for a busy machine that gives a lane a quarter of the time.
"""

READ_WITHIN = 60.0
"""Seconds to read the rest of the published events."""


class SoakPipeline(Pipeline):
    """The tests' pipeline with a short hold, so that versions can be rolled back repeatedly."""

    def card(self) -> str:
        return super().card() + 'hold = "5s"\n'


def soak(
    options: Options,
    schedule: Iterable[Fault],
    folder: Path,
    broker: Broker,
    name: str,
    *,
    changes: Sequence[str] = (),
    delays: Sequence[str] = DELAYS,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Runs a soak test and settles every event. Files are in ``folder``.

    changes: how the workers differ from the product's (tests.system.stops.OPTIONS).
    """
    pipeline = SoakPipeline(
        folder,
        broker.bootstrap,
        name,
        delays=delays,
        partitions=options.partitions,
        deadline="500ms",
        minimum_calls=20,
        after_failed_probes=2,
    )
    with running(pipeline) as settlement:
        crew = Crew(pipeline, options.workers, changes)
        rate = options.events / options.seconds
        traffic = Traffic(broker.bootstrap, pipeline.inputs[0], options.partitions, options.events, rate)
        watch = Watch(settlement)
        faults = Faults(schedule, pipeline, crew, broker, traffic, options.partitions, say)
        say(f"{options.workers} workers start")
        crew.start()
        watch.start()
        traffic.start()
        faults.start()
        try:
            published = traffic.wait()
            faults.stop()
            took = time.time() - traffic.begun
            say(f"{published:,} events published in {took:.0f} s; waiting for final answers")
            trouble = _settle(watch, traffic, published)
            published = traffic.sent
        finally:
            traffic.stop()
            faults.stop()
            crew.stop()
            watch.stop()
        say("the verifier reads to the end")
        verdict = settlement.verdict()
        if len(verdict.fates) < published:
            trouble.append(f"{published:,} events were published, but only {len(verdict.fates):,} are on the topic")
        return Report(
            about={
                "seed": options.seed,
                "workers": options.workers,
                "lanes": options.partitions,
                "brokers": options.brokers,
            },
            events=len(verdict.fates),
            seconds=took,
            faults=sorted(faults.done, key=lambda d: d.began),
            ends=crew.ends,
            answers=list(_answers(settlement, watch)),
            fates=verdict.counts,
            broken=verdict.broken,
            lost_markers=broker.lost_markers(),
            failed=faults.failed,
            skipped=faults.skipped,
            trouble=[*trouble, *_odd(crew), *_lacking(verdict)],
        )


def _settle(watch: Watch, traffic: Traffic, published: int) -> list[str]:
    """Waits until every event is final, while a few more events are published, and then for those.

    On a timeout it only reports the count; the verifier names the events.
    """
    try:
        wait_for(lambda: watch.error or watch.published >= published, READ_WITHIN, "all published events")
        of = watch.only_these()
        traffic.trickle()
        wait_for(lambda: watch.error or watch.settled >= of, FINAL_WITHIN, "every final answer")
        sent = traffic.enough()
        wait_for(lambda: watch.error or watch.published >= sent, READ_WITHIN, "the additional events")
        wait_for(lambda: watch.error or watch.final >= watch.published, FINAL_WITHIN, "their final answers")
    except AssertionError as e:
        return [f"{e}: {watch.final:,} of {watch.published:,} events are final"]
    return []


def _odd(crew: Crew) -> list[str]:
    """Ends that no fault explains: a worker that refuses its pipeline file or usage, or that does not drain."""
    found = [f"{e.id} ended with {e.code}: {e.said}" for e in crew.ends if e.code in (2, 3)]
    return found + [f"{e.id} did not drain ({e.asked})" for e in crew.ends if e.asked in DRAINED and e.code == -9]


DRAINED = ("SIGTERM", "the end")


def _lacking(verdict: Verdict) -> list[str]:
    return [] if verdict.fates else ["no event was published"]


def _answers(settlement: Settlement, watch: Watch) -> Iterable[Answer]:
    """The answers that were read live, with the times of their events."""
    made = {r.place: r.timestamp / 1000 for topic in settlement.inputs for r in settlement.reader.records[topic]}
    for record, read in zip(settlement.reader.records[settlement.scored], watch.arrived, strict=False):
        body = record.answer()
        origin = body["origin"]
        place = origin["topic"], origin["partition"], origin["offset"]
        if place in made:
            first, primary = body["revision"] == 0, body["source"] == "primary"
            yield Answer(place[1], made[place], record.timestamp / 1000, read, primary, first)
