"""Failed connections are counted by cause and logged: what passes after a while, what a person must mend at once."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import pytest
from aiokafka import client
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed

from failsoft.topics.connection import diagnosis
from failsoft.topics.connection.causes import Finding, Obstacle
from failsoft.workers.kafka import connections
from failsoft.workers.kafka.connections import EVERY, QUIET, ConnectionWatch

OPTIONS = {"bootstrap_servers": "a:1", "security_protocol": "SASL_PLAINTEXT", "sasl_plain_password": "x"}


class Desk:
    """A watch whose connections fail with ``error``, or succeed when it is None; with a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.now = 100.0
        self.counted: list[Obstacle] = []
        monkeypatch.setattr(connections, "create_conn", self._create)
        self.watch = ConnectionWatch(OPTIONS, self.counted.append, lambda: self.now)

    async def _create(self, *_: Any, **__: Any) -> str:
        if self.error is not None:
            raise self.error
        return "connection"

    async def fails(self, error: Exception, after: float = 0.0, raised: type[Exception] | None = None) -> None:
        self.error, self.now = error, self.now + after
        with pytest.raises(raised or type(error)):
            await self.watch.create("a", 1)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


async def test_a_refusal_is_logged_at_once_and_then_seldom(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password needs a person: the first line comes at once, and tells what a running worker needs."""
    for after in (0.0, 1.0, EVERY - 2):
        await desk.fails(SaslAuthenticationFailed("no"), after)
    assert [line for line in caplog.messages if "login_refused" in line] == caplog.messages and len(
        caplog.messages
    ) == 1
    assert "start it again with the new one" in caplog.text
    await desk.fails(SaslAuthenticationFailed("no"), 2.0)
    assert len(caplog.messages) == 2 and desk.counted == [Obstacle.LOGIN_REFUSED] * 4


async def test_a_restarting_broker_is_no_news(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """What a restart causes is logged after some seconds; its end too, if it was."""
    caplog.set_level(logging.INFO)
    await desk.fails(ConnectionRefusedError("refused"))
    await desk.fails(ConnectionRefusedError("refused"), QUIET - 1)
    assert not caplog.messages
    await desk.fails(ConnectionRefusedError("refused"), 1.0)
    assert "no_broker" in caplog.text
    desk.error = None
    assert await desk.watch.create("a", 1) == "connection"
    assert "connected to a:1 again after 5 s" in caplog.text


async def test_another_cause_is_logged_at_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that comes back and then refuses the login says so without a wait."""
    await desk.fails(ConnectionRefusedError("refused"))
    await desk.fails(ConnectionRefusedError("refused"), QUIET)
    await desk.fails(SaslAuthenticationFailed("no"), 1.0)
    assert ["no_broker" in caplog.messages[0], "login_refused" in caplog.messages[1]] == [True, True]


async def test_a_vague_error_is_looked_at_once_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed connection has no cause of its own. One look is taken, and later failures count by what it found."""
    looks = []

    async def explain(host: str, port: int, *_: Any) -> Finding:
        looks.append((host, port))
        return Finding(Obstacle.WRONG_PROTOCOL, "a:1", "the listener speaks SASL_SSL")

    monkeypatch.setattr(diagnosis, "explain", explain)
    closed = KafkaConnectionError("closed")
    await desk.fails(closed)
    for task in list(desk.watch._looking):
        await task
    await desk.fails(closed, 1.0)
    assert looks == [("a", 1)] and desk.counted == [Obstacle.CLOSED, Obstacle.WRONG_PROTOCOL]


async def test_no_kafka_is_an_error_that_aiokafka_expects(desk: Desk) -> None:
    """A ValueError from an answer that is none of Kafka's would end aiokafka's tasks."""
    await desk.fails(ValueError("not Kafka"), raised=KafkaConnectionError)
    await desk.fails(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"))
    assert desk.counted[0] is Obstacle.OTHER


def test_it_replaces_what_aiokafkas_clients_call(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """All clients of the process connect by it, also Faust's."""
    monkeypatch.setattr(client, "create_conn", client.create_conn)
    desk.watch.install()
    assert client.create_conn == desk.watch.create
