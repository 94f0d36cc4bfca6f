"""The tests' faults of single requests: each has its effect on the request that it names, and on no other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from failsoft.topics.embedded.broker import free_port
from tests.answers import API_KEYS, Frames, RequestFault, Trap, Traps, answers, correlation
from tests.kafka import wait_for
from tests.proxy import HOST, Proxy

NOTHING_FOR = 0.3
"""Seconds that a test waits for an answer that must not come."""

LATE = 0.5


def _request(name: str, number: int, client: str = "w0") -> bytes:
    header = API_KEYS[name].to_bytes(2, "big") + b"\0\1" + number.to_bytes(4, "big")
    text = client.encode()
    body = header + len(text).to_bytes(2, "big") + text + b"body"
    return len(body).to_bytes(4, "big") + body


class FakeBroker:
    """A server that notes each request, and answers with its correlation alone."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self._server = socket.create_server((HOST, 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        frames = Frames()
        with suppress(OSError), connection:
            while got := connection.recv(65_536):
                for frame in frames.cut(got):
                    self.seen.append(frame)
                    connection.sendall(b"\0\0\0\4" + correlation(frame))


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    started = FakeBroker()
    yield started
    started.close()


@pytest.fixture
def traps() -> Traps:
    return Traps()


@pytest.fixture
def client(broker: FakeBroker, traps: Traps) -> Iterator[socket.socket]:
    with Proxy(free_port(), broker.port, traps) as proxy, socket.create_connection((HOST, proxy.port), 30) as opened:
        opened.settimeout(30)
        yield opened


def _answered(client: socket.socket, n: int) -> list[int]:
    """The numbers of the next ``n`` answers."""
    got = b""
    while len(got) < 8 * n:
        more = client.recv(8 * n - len(got))
        if not more:
            raise ConnectionResetError
        got += more
    return [int.from_bytes(answers(got[at : at + 8]), "big") for at in range(0, len(got), 8)]


def _silent(client: socket.socket) -> bool:
    client.settimeout(NOTHING_FOR)
    try:
        return not client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(30)


def _trap(fault: RequestFault) -> Trap:
    return Trap("EndTxn", fault, LATE, ("w0",))


def test_a_trap_catches_one_request_of_its_kind(client: socket.socket, traps: Traps, broker: FakeBroker) -> None:
    """Other requests, and those of other clients, pass; so does the second request of the kind."""
    traps.set(_trap(RequestFault.ANSWERED_TWICE))
    client.sendall(_request("Produce", 1) + _request("EndTxn", 2, "w0.fleet"))
    assert _answered(client, 2) == [1, 2] and traps.sprung == 0
    client.sendall(_request("EndTxn", 3) + _request("EndTxn", 4))
    assert _answered(client, 3) == [3, 3, 4] and traps.sprung == 1
    assert len(broker.seen) == 4


def test_a_cleared_trap_catches_nothing(client: socket.socket, traps: Traps) -> None:
    """A trap that is removed has no effect."""
    traps.set(_trap(RequestFault.ANSWERED_TWICE))
    traps.clear()
    client.sendall(_request("EndTxn", 1))
    assert _answered(client, 1) == [1] and _silent(client)


def test_a_late_answer_comes_late(client: socket.socket, traps: Traps) -> None:
    """The answer, and those after it on the connection, come after the delay."""
    traps.set(_trap(RequestFault.LATE))
    client.sendall(_request("EndTxn", 1) + _request("Produce", 2))
    assert _silent(client)
    assert _answered(client, 2) == [1, 2]


def test_a_request_that_is_sent_twice_has_one_answer(client: socket.socket, traps: Traps, broker: FakeBroker) -> None:
    """The broker gets the request twice; the client gets the first answer, and those of later requests."""
    traps.set(_trap(RequestFault.SENT_TWICE))
    client.sendall(_request("EndTxn", 1) + _request("Produce", 2))
    assert _answered(client, 2) == [1, 2]
    assert broker.seen == [_request("EndTxn", 1), _request("EndTxn", 1), _request("Produce", 2)]


def test_a_lost_answer_ends_the_connection(client: socket.socket, traps: Traps, broker: FakeBroker) -> None:
    """The broker obeys, and the client sees a reset."""
    traps.set(_trap(RequestFault.LOST))
    client.sendall(_request("EndTxn", 1))
    with pytest.raises(ConnectionResetError):
        _answered(client, 1)
    assert broker.seen == [_request("EndTxn", 1)]


def test_a_silent_connection_answers_nothing_more(client: socket.socket, traps: Traps, broker: FakeBroker) -> None:
    """The broker obeys; the connection stays open, and later requests are not even delivered."""
    traps.set(_trap(RequestFault.SILENT))
    client.sendall(_request("EndTxn", 1))
    assert _silent(client) and broker.seen == [_request("EndTxn", 1)]
    client.sendall(_request("Produce", 2))
    assert _silent(client) and len(broker.seen) == 1


def test_a_stale_request_is_delivered_after_its_connection(
    client: socket.socket, traps: Traps, broker: FakeBroker
) -> None:
    """The connection is reset before the broker has the request; the broker gets it later all the same."""
    traps.set(_trap(RequestFault.STALE))
    client.sendall(_request("EndTxn", 1))
    with pytest.raises(ConnectionResetError):
        _answered(client, 1)
    assert not broker.seen
    wait_for(lambda: broker.seen == [_request("EndTxn", 1)], 30, "the stale request")


def test_frames_are_cut_wherever_chunks_end() -> None:
    """A stream gives the same messages however it is split."""
    messages = [_request("Produce", 1), _request("EndTxn", 2), b"\0\0\0\0"]
    stream = b"".join(messages)
    for size in (1, 3, 7, len(stream)):
        frames = Frames()
        cut = [frame for at in range(0, len(stream), size) for frame in frames.cut(stream[at : at + size])]
        assert cut == messages
