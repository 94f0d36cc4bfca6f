"""The demo's chapters. Each ends when a condition holds in the topics or metrics, not after a fixed pause."""

from __future__ import annotations

from pathlib import Path

from failsoft.models.catalog.repository import Repository
from failsoft.schemas.model_version import ModelVersion
from failsoft.topics import admin
from failsoft.workers.demo import applications, deploy
from failsoft.workers.demo import run as run
from failsoft.workers.demo.breaker_history import BreakerHistory, openings
from failsoft.workers.demo.environment import Environment, drain
from failsoft.workers.demo.fault import EXPENSIVE_FROM, Fault
from failsoft.workers.demo.progress import Narrator
from failsoft.workers.demo.run import ScenarioRun, Script
from failsoft.workers.demo.summary import Sum, ledger, sums
from failsoft.workers.demo.version_history import VersionHistory, undone
from failsoft.workers.demo.watch import read_all
from failsoft.workers.operations import replay as dead
from failsoft.workers.operations.dead_letters import listed
from failsoft.workers.settings import wanted

FULL = Script(delays=("2s", "4s", "10s"), healthy=6, outage=6, calm=2, rate=250)
"""More than a minute of events. The fleet's breaker opens about four seconds into the outage, when half of the calls in
its window of ten seconds have failed. Its first probes, three seconds later, fail. The second ones, six seconds after
that, find the primary repaired. The bad version's breaker opens at once, and both of its half-open periods fail."""

FAST = Script(delays=("1s", "2s", "3s"), healthy=1, outage=1, calm=0, rate=150)
"""The same chapters with as little waiting as possible, for tests."""


async def run_scenario(script: Script, bootstrap: str, folder: Path, narrator: Narrator) -> list[Sum]:
    """Runs all chapters on the Kafka at ``bootstrap``; returns the sums counted from its topics.

    Raises ScenarioFailed or EnvironmentFailed when something expected does not happen. All processes end in any case.
    """
    environment = Environment(folder, bootstrap, script.delays)
    pipeline = environment.pipeline
    topology, created = await admin.apply(pipeline.connection(), wanted(pipeline))
    narrator.say(
        f"The pipeline {pipeline.name!r} gets its {len(created)} topics, as with `failsoft topics apply`: "
        f"applications, answers, a retry ladder ({', '.join(script.delays)}), dead letters, replays and control topics."
    )
    source = applications.stream(applications.rows(), script.seed)
    narrator.say(
        "Two workers start and share the partitions. Each counts the model's failures and reports them; from the "
        "reports the fleet decides on one breaker for both."
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
    s.begin(
        "all is well",
        "Loan applications arrive, and the primary model answers each one once: will the loan be repaid? "
        "Some lack the car's value. The model's card says how to fill it in, and the answer names the filled-in "
        "features. Some are cut off, or lack a required feature. They become dead letters, unchanged; the other "
        "applications of the same batch are answered.",
    )
    await s.until("the primary answers", lambda: s.watch.tallies.first["primary"] > 0, 15)
    model, moves = s.environment.pipeline.model, s.watch.moves
    await s.until("the fleet knows its version", lambda: moves.active(model) is not None, 10)
    await s.stay(s.script.healthy)


async def _outage(s: ScenarioRun) -> None:
    s.begin(
        "the primary fails",
        "The primary starts to fail: its score is NaN (not a number) for every application. failsoft checks each "
        "score and publishes none of these. A smaller model answers instead. Its answer is marked as provisional, and "
        "the application goes to the retry ladder.",
    )
    opened = s.watch.fleet.opened(s.primary)
    s.environment.switch.set(Fault(everything=True))
    took = await s.until("the fleet's breaker opens", lambda: s.watch.fleet.opened(s.primary) > opened, 30)
    s.begin(
        "the breaker is open",
        f"After {took:.0f} s half of the recent calls of both workers have failed, and the fleet's breaker opens: "
        "no worker calls the primary any more. The fallback answers at once. Retries wait, so that no attempt is "
        "wasted on a model that is known to be down.",
    )
    await s.until("both workers obey", lambda: all(s.opened(s.primary).values()), 5)
    before = s.watch.tallies.provisional
    await s.until("fallbacks answer", lambda: s.watch.tallies.provisional > before, 10)
    await s.stay(s.script.outage)


async def _recovery(s: ScenarioRun) -> None:
    s.begin(
        "the primary is repaired",
        "The primary is repaired. Nobody resets the breaker: it finds out by itself. It becomes half-open and lets one "
        "worker make three probes, with retries that wait. If a probe fails, it opens again and waits twice as long.",
    )
    s.environment.switch.set(Fault())
    await s.until("the breaker closes, for both workers", lambda: s.all_are("closed"), 40)
    s.begin(
        "corrections arrive",
        "The breaker is closed for both workers. The primary now answers the waiting retries. Each of these answers "
        "corrects a provisional one: it is final, and its revision is 1.",
    )
    await s.until("the ladder drains", lambda: s.watch.tallies.waiting == 0, 30)
    await s.stay(s.script.calm)


async def _small_fault(s: ScenarioRun) -> None:
    n = s.script.expensive
    s.begin(
        "a small fault",
        f"Now {n} applications arrive for cars that cost more than {EXPENSIVE_FROM:,.0f} €, and the primary has a bug "
        "for such cars. Only they fail, so the breaker stays closed and the primary answers all others. After the last "
        "retry the fallback's answer is confirmed as final, and each becomes a dead letter with its origin and error.",
    )
    exhausted, patience = s.watch.tallies.exhausted, sum(seconds for _, seconds in s.environment.pipeline.retry.rungs)
    s.environment.switch.set(Fault(above=EXPENSIVE_FROM))
    s.feed.add(applications.expensive(applications.rows(), n, EXPENSIVE_FROM * 2))
    await s.until("retries run out", lambda: s.watch.tallies.exhausted >= exhausted + n, patience + 10)


async def _replay(s: ScenarioRun) -> None:
    s.environment.switch.set(Fault())
    s.begin(
        "dead letters are replayed",
        "The bug is fixed. An operator lists the dead letters (`failsoft dead list`) and replays them (`failsoft dead "
        "replay`). Those that failed because of the bug now get the primary's answer. Those with a broken or "
        "incomplete event become dead letters again.",
    )
    pipeline, tallies = s.environment.pipeline, s.watch.tallies
    for group in listed(await dead.groups(pipeline, lambda counts: None)):
        s.narrator.note("{count:>5} {kind} ({model}@{version})".format_map(group))
    counts = dead.ReplayProgress()
    await dead.replay(pipeline, dead.EVERYTHING, dead.ReplayOptions(dead.new_id()), counts)
    replayed = counts.replayed
    s.narrator.note(f"{replayed} dead letters replayed")
    await s.until(
        "every replay has a result",
        lambda: tallies.replayed == replayed and tallies.corrected_by_replay + tallies.dead_again >= replayed,
        20,
    )
    await s.stay(s.script.calm)


async def _bad_version(s: ScenarioRun) -> tuple[int, int]:
    """Promotes a bad version and waits for its rollback; returns the version before it, and the bad one."""
    model, moves, fleet = s.environment.pipeline.model, s.watch.moves, s.watch.fleet
    good = moves.active(model)
    assert good is not None
    bad = deploy.copy(s.environment.pipeline)
    key = str(ModelVersion(model, bad))
    s.begin(
        "a bad version is promoted",
        f"Version {bad} of the primary is copied into the repository and promoted (`failsoft models promote {key}`). "
        "It has a bug: it squares the car's value in half precision, so that a real car's is infinite and its score "
        "is not a number. It still passes its vetting: it has no golden vectors (examples with expected scores), and "
        "most cars that vetting makes up are cheap.",
    )
    await deploy.promote(s.environment.pipeline, bad, "the demo", "better on paper")
    await s.until(f"the breaker of {key} opens", lambda: fleet.opened(key) > 0, 20)
    cycles = Repository(Path(s.environment.pipeline.models.repository)).card(model).rollback.after_failed_probes
    s.begin(
        "the fleet rolls back",
        "failsoft publishes none of its scores, because they are no numbers. Its breaker opens, and fallbacks "
        f"answer again. This time nobody repairs anything. After {cycles} failed half-open periods in a row the fleet "
        "rolls back by itself to the last good version, if that version passes its vetting now.",
    )
    await s.until("the fleet rolls back", lambda: moves.active(model) == good, 40)
    await s.until("both workers serve the version before", lambda: s.all_serve(good) and s.all_are("closed"), 15)
    s.begin(
        "corrections arrive",
        f"Both workers serve version {good} again. It answers the retries that version {bad} could not. "
        f"`failsoft models history {model}` shows who changed the version, when and why; `failsoft models list` shows "
        "the health of each version.",
    )
    await s.until("the ladder drains", lambda: s.watch.tallies.waiting == 0, 30)
    await s.stay(s.script.calm)
    return good, bad


async def _end(s: ScenarioRun) -> None:
    s.begin(
        "the end",
        "No more applications are sent. Both workers finish their work and stop, as on any SIGTERM.",
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
        "Do the counts add up? A separate reader reads every topic from its beginning (committed records only) and "
        "counts."
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
    totals = sums(book, s.feed.acknowledged)
    for version in (good, bad):
        key = str(ModelVersion(pipeline.model, version))
        totals += openings(key, fleet, alerts, s.opened(key))
    return totals + undone(pipeline.model, bad, good, moves, alerts, book)
