"""The demo's story, chapter by chapter. Each ends when a fact is seen in the topics or metrics, not after a pause."""

from __future__ import annotations

from pathlib import Path

from failsoft.models.catalog.repository import Repository
from failsoft.schemas.model_version import ModelVersion
from failsoft.topics import admin
from failsoft.workers.demo import applications, deploy
from failsoft.workers.demo import run as run
from failsoft.workers.demo.breaker_history import BreakerHistory, openings
from failsoft.workers.demo.environment import Environment, drain
from failsoft.workers.demo.fault import DEAREST, Fault
from failsoft.workers.demo.progress import Narrator
from failsoft.workers.demo.run import ScenarioRun, Script
from failsoft.workers.demo.summary import Sum, ledger, sums
from failsoft.workers.demo.version_history import VersionHistory, undone
from failsoft.workers.demo.watch import read_all
from failsoft.workers.operations import replay as dead
from failsoft.workers.operations.dead_letters import listed
from failsoft.workers.settings import wanted

FULL = Script(delays=("2s", "4s", "10s"), healthy=6, outage=6, calm=2, rate=250)
"""More than a minute of events. The fleet's breaker opens some four seconds into the outage (half of its ten seconds'
window must have failed), tries once in vain after three, and finds the primary well at its second try, six seconds
later. The bad version's opens at once, and goes through both tries in vain."""

FAST = Script(delays=("1s", "2s", "3s"), healthy=1, outage=1, calm=0, rate=150)
"""The same facts with as little waiting as they need: for tests."""


async def run_scenario(script: Script, bootstrap: str, folder: Path, narrator: Narrator) -> list[Sum]:
    """The whole story on the Kafka at ``bootstrap``; the sums that its topics come to.

    Raises StoryFailed or StageFailed when something does not happen. No process is left behind on any path.
    """
    environment = Environment(folder, bootstrap, script.delays)
    pipeline = environment.pipeline
    topology, created = await admin.apply(pipeline.connection(), wanted(pipeline))
    narrator.say(
        f"The pipeline {pipeline.name!r} gets its {len(created)} topics, as `failsoft topics apply` makes them: "
        f"applications in, answers out, a retry ladder ({', '.join(script.delays)}), dead letters, replays."
    )
    source = applications.stream(applications.rows(), script.seed)
    narrator.say(
        "Two workers start, and share the lanes. Each counts at home; what they report opens one breaker for both."
    )
    async with environment.fleet() as workers:
        async with run.play(script, environment, workers, topology.partitions, source, narrator) as s:
            await _healthy(s)
            await _outage(s)
            await _recovery(s)
            await _small_fault(s)
            await _replay(s)
            good, bad = await _bad_version(s)
            await _end(s)
        await drain(workers)
    return await _count(s, good, bad, narrator)


async def _healthy(s: ScenarioRun) -> None:
    s.turn(
        "all is well",
        "Loan applications stream in, and the primary model answers each one, once: will the loan be repaid? "
        "Some lack the car's value: the card says how to fill it in, and the answer names what was filled in. Some are "
        "cut off, or lack what no card can fill in: they go to the dead letters, untouched, and no neighbour in their "
        "batch suffers.",
    )
    await s.until("the primary answers", lambda: s.watch.tallies.first["primary"] > 0, 15)
    model, moves = s.environment.pipeline.model, s.watch.moves
    await s.until("the fleet knows its version", lambda: moves.active(model) is not None, 10)
    await s.stay(s.script.healthy)


async def _outage(s: ScenarioRun) -> None:
    s.turn(
        "the primary fails",
        "The primary starts to fail: not-a-number for every application. A guard looks at each score, so none gets "
        "out: a smaller model answers instead, provisionally, and says so; the application climbs the retry ladder.",
    )
    opened = s.watch.fleet.opened(s.primary)
    s.environment.switch.set(Fault(everything=True))
    took = await s.until("the fleet's breaker opens", lambda: s.watch.fleet.opened(s.primary) > opened, 30)
    s.turn(
        "the breaker is open",
        f"After {took:.0f} s half of the calls in both workers' windows have failed, and the fleet's breaker opens: "
        "the primary is left alone, by both. The fallback answers at once, and the ladder waits: no retry is wasted on "
        "a model that is known to be down.",
    )
    await s.until("both workers obey", lambda: all(s.opened(s.primary).values()), 5)
    before = s.watch.tallies.provisional
    await s.until("fallbacks answer", lambda: s.watch.tallies.provisional > before, 10)
    await s.stay(s.script.outage)


async def _recovery(s: ScenarioRun) -> None:
    s.turn(
        "the primary is repaired",
        "The primary is repaired, and nobody tells the breaker: it finds out by itself. Half open, it lends one of the "
        "workers three probes, for retries that wait; had they failed, it would have waited twice as long.",
    )
    s.environment.switch.set(Fault())
    await s.until("the breaker closes, for both workers", lambda: s.all_are("closed"), 40)
    s.turn(
        "corrections arrive",
        "Closed, for both. The ladder drains, and each provisional answer gets its correction: the primary's own, "
        "final, as revision 1.",
    )
    await s.until("the ladder drains", lambda: s.watch.tallies.waiting == 0, 30)
    await s.stay(s.script.calm)


async def _small_fault(s: ScenarioRun) -> None:
    n = s.script.dear
    s.turn(
        "a small fault",
        f"Now {n} applications for cars that cost more than {DEAREST:,.0f} €, which the primary has a bug for. Each "
        "fails by itself, so the breaker stays closed and nobody else notices. When the last rung has not helped, the "
        "fallback's answer is confirmed as final, and the application becomes a dead letter, with all that is known.",
    )
    exhausted, patience = s.watch.tallies.exhausted, sum(seconds for _, seconds in s.environment.pipeline.retry.rungs)
    s.environment.switch.set(Fault(above=DEAREST))
    s.feed.add(applications.dear(applications.rows(), n, DEAREST * 2))
    await s.until("retries run out", lambda: s.watch.tallies.exhausted >= exhausted + n, patience + 10)


async def _replay(s: ScenarioRun) -> None:
    s.environment.switch.set(Fault())
    s.turn(
        "dead letters are replayed",
        "The bug is fixed. An operator looks at the dead letters (`failsoft dead list`) and replays them (`failsoft "
        "dead replay`): what failed for the bug gets the primary's answer after all; what is broken by itself comes "
        "back.",
    )
    pipeline, tallies = s.environment.pipeline, s.watch.tallies
    for group in listed(await dead.groups(pipeline, lambda counts: None)):
        s.narrator.note("{count:>5} {kind} ({model}@{version})".format_map(group))
    counts = dead.ReplayProgress()
    await dead.replay(pipeline, dead.EVERYTHING, dead.ReplayOptions(dead.new_id()), counts)
    replayed = counts.replayed
    s.narrator.note(f"{replayed} dead letters replayed")
    await s.until(
        "replays come to something",
        lambda: tallies.replayed == replayed and tallies.corrected_by_replay + tallies.dead_again >= replayed,
        20,
    )
    await s.stay(s.script.calm)


async def _bad_version(s: ScenarioRun) -> tuple[int, int]:
    """The version before, and the bad one."""
    model, moves, fleet = s.environment.pipeline.model, s.watch.moves, s.watch.fleet
    good = moves.active(model)
    assert good is not None
    bad = deploy.copy(s.environment.pipeline)
    key = str(ModelVersion(model, bad))
    s.turn(
        "a bad version is promoted",
        f"Version {bad} of the primary is copied into the repository and promoted (`failsoft models promote {key}`). "
        "Its author multiplied the probability by the car's value, and so it answers in euros. It passes its vetting "
        "all the same: nobody wrote golden vectors for it, and made-up cars are cheap.",
    )
    await deploy.promote(s.environment.pipeline, bad, "the demo", "better on paper")
    await s.until(f"the breaker of {key} opens", lambda: fleet.opened(key) > 0, 20)
    cycles = Repository(Path(s.environment.pipeline.models.repository)).card(model).rollback.after_failed_probes
    s.turn(
        "the fleet looks for a way back",
        "The guard lets none of its scores out, and its breaker opens: fallbacks answer again. This time nobody "
        f"repairs anything. When {cycles} half-open cycles in a row have failed, the fleet's owner goes back to the "
        "last good version by itself, if that passes its vetting now.",
    )
    await s.until("the fleet goes back", lambda: moves.active(model) == good, 40)
    await s.until("both workers serve the version before", lambda: s.all_serve(good) and s.all_are("closed"), 15)
    s.turn(
        "corrections arrive",
        f"Both serve version {good} again, which answers what version {bad} could not: the ladder drains. "
        f"`failsoft models history {model}` says who moved it, when and why; `failsoft models list` how each does.",
    )
    await s.until("the ladder drains", lambda: s.watch.tallies.waiting == 0, 30)
    await s.stay(s.script.calm)
    return good, bad


async def _end(s: ScenarioRun) -> None:
    s.turn(
        "the end",
        "The stream ends. Both workers finish what they have begun and stop, as on any SIGTERM.",
    )
    s.feed.end()
    feeding = s.tasks[0]
    await s.until("the last events are published", feeding.done, 10)
    await s.until("every event has its answer", lambda: s.settled >= s.feed.acknowledged, 20)
    await s.until("the ladder is empty", lambda: s.watch.tallies.waiting == 0, 30)


async def _count(s: ScenarioRun, good: int, bad: int, narrator: Narrator) -> list[Sum]:
    pipeline = s.environment.pipeline
    names = pipeline.names
    narrator.say(
        "Does it add up? A reader that was not there reads every topic from its beginning (committed records only), "
        "and counts."
    )
    rungs = [names.retry(delay) for delay, _ in pipeline.retry.rungs]
    topics = [*pipeline.input.topics, names.scored, *rungs, names.dead, names.replay]
    records = await read_all(pipeline, topics)
    fleet, moves = BreakerHistory(), VersionHistory()
    for record in await read_all(pipeline, [names.breakers_changelog]):
        fleet.fold(record)
    for record in await read_all(pipeline, [names.rollouts_changelog]):
        moves.fold(record)
    alerts = await read_all(pipeline, [names.alerts])
    book = ledger(records, pipeline.input.topics, names)
    found = sums(book, s.feed.acknowledged)
    for version in (good, bad):
        key = str(ModelVersion(pipeline.model, version))
        found += openings(key, fleet, alerts, s.opened(key))
    return found + undone(pipeline.model, bad, good, moves, alerts, book)
