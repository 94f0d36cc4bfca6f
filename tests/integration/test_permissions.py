"""The table of rights on a real broker: with a use's rights it works, and without any one of them, that one is named.

Each right is granted to one user of a broker with Kafka's StandardAuthorizer, and taken away in turn.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from failsoft.topics.layout import layout
from failsoft.topics.names import Names
from failsoft.topics.rights import Grantee, Operation, Resource, Right, Use, Without, rights, widened
from failsoft.workers import settings
from failsoft.workers.cli import app
from failsoft.workers.kafka import access
from tests.acl_broker import PASSWORD, PASSWORD_VARIABLE, USER, LockedBroker
from tests.integration.fleet import gauge, lines
from tests.integration.pipeline import Pipeline, Worker, events
from tests.integration.verifier import Settlement
from tests.kafka import wait_for

SECRET = {PASSWORD_VARIABLE: PASSWORD}
MALFORMED = 8
"""Dead letters: more than there are replays."""


@pytest.fixture(scope="module")
def broker(no_java_left: None) -> Iterator[LockedBroker]:
    """A broker on which the pipeline's user may do only what is granted."""
    locked = LockedBroker()
    yield locked
    locked.stop()


class Locked:
    """A pipeline whose file has the user without rights; its topics exist."""

    def __init__(self, broker: LockedBroker, folder: Path, name: str) -> None:
        self.broker = broker
        # With a registry there is a topic of schemas. JSON needs none of them, so that the registry is not asked.
        registry = '[schema_registry]\nurl = "http://127.0.0.1:1"'
        self.pipeline = Pipeline(
            folder, broker.bootstrap, name, partitions=2, delays=["300ms"], secrets=SECRET, sections=registry
        )
        self.settlement: Settlement = self.pipeline.create()
        sasl = f'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nsasl_username = "{USER}"\n'
        text = self.pipeline.file.read_text().replace(broker.bootstrap, broker.locked)
        self.pipeline.file.write_text(text.replace("[input]", f"{sasl}[input]"))
        self.names = Names(name)
        self.to = Grantee(f"User:{USER}", broker.locked)

    def rights(self, use: Use) -> list[Right]:
        """The rights in the table."""
        delays = [(delay, 1.0) for delay in self.pipeline.delays]
        return rights(use, self.names, layout(self.names, self.pipeline.inputs, delays, 2, 1, schemas=True))

    def right(self, operation: Operation, name: str) -> Right:
        """One right of a worker."""
        return next(r for r in self.rights(Use.WORKER) if (r.operation, r.name) == (operation, name))

    def run(self, *arguments: str) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(app, [*arguments, "--pipeline", str(self.pipeline.file)], env=SECRET)

    def lacking(self) -> list[Right]:
        """What a worker finds missing before it takes events."""
        loaded = settings.load(self.pipeline.file, SECRET)
        return asyncio.run(access.lacking(loaded, access.needed(loaded, Use.WORKER)))

    def stop(self) -> None:
        self.pipeline.stop()
        self.settlement.close()


@pytest.fixture(scope="module")
def locked(broker: LockedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """A pipeline that a worker has run with exactly the rights of the table, on events that are answered, retried,
    answered by the fallback and dead, one of which was replayed. The control plane came up and obeyed an order.
    """
    found = Locked(broker, tmp_path_factory.mktemp("locked"), "locked")
    try:
        with broker.granted(found.rights(Use.WORKER)):
            worker = found.pipeline.start()
            worker.wait_ready()
            wait_for(lambda: gauge(worker, "failsoft_control_plane_up") == 1, 60, "the control plane")
            found.pipeline.publish([*events(20, bad_every=5), *[(b"m", b"{", [], None)] * MALFORMED])
            found.settlement.wait_final(20 + MALFORMED)
            with broker.granted([Right(Resource.TOPIC, found.names.control, Operation.WRITE)]):
                assert found.run("breakers", "reset", "test").exit_code == 0  # the owner has obeyed it
            assert worker.drain() == 0
            assert not lines(worker, "the control plane ended; local breakers decide until it is back")
        with broker.granted(found.rights(Use.REPLAY)):  # an empty topic is not fetched, so Read would not be missed
            assert found.run("dead", "replay", "--limit", "1").exit_code == 0
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def scoring(broker: LockedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """Another pipeline, whose workers come and go while events arrive."""
    found = Locked(broker, tmp_path_factory.mktemp("scoring"), "scoring")
    try:
        yield found
    finally:
        found.stop()


COMMANDS: dict[Use, list[tuple[str, ...]]] = {
    Use.SHOW: [("topics", "show")],
    Use.DEAD: [("dead", "list")],
    Use.REPLAY: [("dead", "replay", "--limit", "1")],
    Use.BREAKERS: [("breakers",)],
    Use.BREAKER_ORDERS: [("breakers", "close", "test", "--wait", "0")],
    Use.MODELS: [("models", "list")],
    Use.MODEL_ORDERS: [("models", "rollback", "test", "--wait", "0")],
    Use.OFFSETS: [("offsets", "show")],
    Use.OFFSET_ORDERS: [("offsets", "repair", "--all")],
    Use.TAIL: [("tail", "--from", "beginning", "--limit", "1")],
    Use.PUBLISH: [("publish",)],
}


def test_a_worker_keeps_its_promise_with_the_rights_of_the_table(locked: Locked) -> None:
    """Every event was settled, with no right to create anything."""
    verdict = locked.settlement.verdict()
    assert not verdict.broken, verdict


@pytest.mark.parametrize("use", COMMANDS)
def test_a_command_names_each_right_that_it_lacks(locked: Locked, use: Use, tmp_path: Path) -> None:
    """With its rights it works. Without any one of them, it exits with 1 and prints the command that grants it."""
    (command,) = COMMANDS[use]
    if use is Use.PUBLISH:
        (tmp_path / "events.ndjson").write_text('{"id": "p", "features": {"x": 0.5, "row": 0, "colour": "red"}}\n')
        command = (*command, str(tmp_path / "events.ndjson"))
    needed = locked.rights(use)
    with locked.broker.granted(needed):
        for right in needed:
            with locked.broker.without(right):
                done = locked.run(*command)
            assert done.exit_code == 1, (right, done.output, done.exception)
            assert locked.to.refusal(right) in done.stderr, (right, done.stderr)
        done = locked.run(*command)
        assert done.exit_code == 0, (done.output, done.exception)


def test_a_worker_knows_each_right_that_it_lacks(locked: Locked) -> None:
    """It asks before it takes events: the answer is exactly the right that was taken away."""
    needed = locked.rights(Use.WORKER)
    with locked.broker.granted(needed):
        assert locked.lacking() == []
        for right in needed:
            with locked.broker.without(right):
                assert locked.lacking() == [right]


def test_the_printed_commands_with_a_prefix_are_enough(locked: Locked) -> None:
    """``topics acl`` prints one prefix for the pipeline's own topics, and a worker with it lacks nothing."""
    with locked.broker.granted(widened(locked.rights(Use.WORKER), locked.names)):
        assert locked.lacking() == []
    printed = [json.loads(line)["command"] for line in locked.run("topics", "acl").stdout.splitlines()]
    assert printed == locked.to.commands(widened(locked.rights(Use.WORKER), locked.names))


def test_topics_apply_names_the_topic_that_it_may_not_create(broker: LockedBroker, tmp_path: Path) -> None:
    """With Create it creates all; afterwards it needs none."""
    fresh = Locked(broker, tmp_path, "fresh")
    try:
        own = [r.name for r in fresh.rights(Use.APPLY) if r.operation is Operation.CREATE]
        for done in broker.admin.delete_topics([n for n in own if n not in fresh.pipeline.inputs]).values():
            done.result(timeout=30)
        needed = fresh.rights(Use.APPLY)
        refused = Right(Resource.TOPIC, fresh.names.dead, Operation.CREATE)
        create = [right for right in needed if right.operation is Operation.CREATE]
        with broker.granted(needed):
            with broker.without(refused):
                done = fresh.run("topics", "apply")
                assert done.exit_code == 1 and fresh.to.refusal(refused) in done.stderr, done.output
            assert fresh.run("topics", "apply").exit_code == 0
            broker.revoke(*create)
            assert fresh.run("topics", "apply").exit_code == 0
            broker.grant(*create)
    finally:
        fresh.stop()


def test_a_worker_without_a_right_to_write_takes_no_event(locked: Locked) -> None:
    """It exits with 1 before it joins its group, and names the right."""
    write = locked.right(Operation.WRITE, locked.names.scored)
    with locked.broker.granted(r for r in locked.rights(Use.WORKER) if r != write):
        refused = locked.pipeline.start("refused")
        assert refused.process.wait(60) == 1
        assert locked.to.refusal(write) in refused.tail() and "lanes assigned" not in refused.tail(1_000)


def test_events_are_scored_without_the_control_plane_and_settings(scoring: Locked) -> None:
    """A worker without any right of the control plane, and without DescribeConfigs, answers events. Its gauge is 0, the
    log names each right, and after the grant the control plane comes up.
    """
    needed = scoring.rights(Use.WORKER)
    essential = [right for right in needed if right.without is Without.REFUSES]
    plane = [right for right in needed if right.without is Without.LOCAL]
    with scoring.broker.granted(essential):
        worker = scoring.pipeline.start("alone")
        worker.wait_ready()
        assert gauge(worker, "failsoft_control_plane_up") == 0
        (line,) = lines(worker, "the control plane is not started; local breakers decide")[:1]
        assert line.said["lacking"] == [scoring.to.refusal(right) for right in plane]
        (unread,) = lines(worker, "the settings of topics may not be read and are not verified")
        assert scoring.names.dead in unread.said["topics"]
        _publish(scoring, 10)
        with scoring.broker.granted(plane):
            wait_for(lambda: gauge(worker, "failsoft_control_plane_up") == 1, 60, "the control plane after the grant")
            assert worker.drain() == 0


def test_a_right_taken_away_ends_the_worker_and_given_back_loses_nothing(scoring: Locked) -> None:
    """The running worker ends and names the right, of a topic or of its group. The next one names it before it takes
    events. After the grants every event is answered once.
    """
    write = scoring.right(Operation.WRITE, scoring.names.scored)
    group = scoring.right(Operation.READ, scoring.names.group)
    with scoring.broker.granted(scoring.rights(Use.WORKER)):
        worker = scoring.pipeline.start("rotated")
        worker.wait_ready()
        with scoring.broker.without(write):
            scoring.pipeline.publish(events(10, start=scoring.pipeline.published))
            assert worker.process.wait(60) == 1
            _named(worker, scoring.to.refusal(write))
            again = scoring.pipeline.start("rotated")
            assert again.process.wait(60) == 1
            _named(again, scoring.to.refusal(write))
        worker = scoring.pipeline.start("rotated")
        worker.wait_ready()
        with scoring.broker.without(group):
            scoring.pipeline.publish(events(10, start=scoring.pipeline.published))
            assert worker.process.wait(60) == 1
            _named(worker, scoring.to.refusal(group))
        mended = scoring.pipeline.start("rotated")
        _publish(scoring, 10)
        assert mended.drain() == 0
    verdict = scoring.settlement.verdict()
    assert not verdict.broken, verdict


def test_a_topic_that_may_not_be_read_stops_the_lanes_until_it_may(scoring: Locked) -> None:
    """The worker stays and names the right. After the grant the lanes read on."""
    right = scoring.right(Operation.READ, scoring.pipeline.inputs[0])
    with scoring.broker.granted(scoring.rights(Use.WORKER)):
        worker = scoring.pipeline.start("stays")
        worker.wait_ready()
        with scoring.broker.without(right):
            scoring.pipeline.publish(events(10, start=scoring.pipeline.published))
            stopped = wait_for(lambda: lines(worker, "a lane is stopped"), 60, "a stopped lane")
            assert stopped[0].said["cause"] == "not_authorized"
            assert stopped[0].said["mend"] == f"grant it with: {scoring.to.command(right)}"
        _publish(scoring, 10)
        assert worker.process.poll() is None and worker.drain() == 0
    verdict = scoring.settlement.verdict()
    assert not verdict.broken, verdict


def _publish(locked: Locked, count: int) -> None:
    """Publish events, and wait until every event so far is answered."""
    locked.pipeline.publish(events(count, start=locked.pipeline.published))
    locked.settlement.wait_answered(locked.pipeline.published, 60)


def _named(worker: Worker, refusal: str) -> None:
    assert refusal in worker.tail(1_000).replace('\\"', '"'), worker.tail(40)
