"""The tests' failing network: each kind of failure has its effect, and no other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from failsoft.topics.embedded.broker import free_port
from tests.kafka import wait_for
from tests.proxy import HOST, Proxy

SILENT_FOR = 0.3
"""Seconds that a test waits for bytes that must not arrive."""


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that returns what it receives."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield int(server.getsockname()[1])


def _serve(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    try:
        while got := connection.recv(65_536):
            connection.sendall(got)
    except OSError:
        pass
    finally:
        connection.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(free_port(), echo) as started:
        yield started


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=30)


def _said(client: socket.socket, text: bytes, timeout: float = 30.0) -> bytes:
    client.settimeout(timeout)
    client.sendall(text)
    got = b""
    while len(got) < len(text):
        got += client.recv(65_536)
    return got


def test_open_passes_everything(proxy: Proxy) -> None:
    """An open proxy passes all bytes in order, in both directions, and passes on the end of a connection."""
    text = bytes(range(256)) * 4000
    client = _connect(proxy)
    sender = threading.Thread(target=client.sendall, args=(text,))
    sender.start()
    got = b""
    while len(got) < len(text):
        got += client.recv(65_536)
    sender.join()
    assert got == text
    client.close()
    wait_for(lambda: proxy.connections == 0, 30, "the end of the connection")


def test_latency_is_added_in_each_direction(proxy: Proxy) -> None:
    """A latency delays each direction, and chunks under way do not delay each other."""
    with _connect(proxy) as client:
        proxy.latency(0.1)
        began = time.monotonic()
        assert _said(client, b"there and back") == b"there and back"
        assert time.monotonic() - began >= 0.2
        proxy.latency(0.0)
        assert _said(client, b"quick") == b"quick"


def test_a_reset_ends_connections_and_new_ones_pass(proxy: Proxy) -> None:
    """After a reset the client gets an error at once, and new connections work."""
    with _connect(proxy) as client:
        assert _said(client, b"x") == b"x"
        proxy.reset()
        with pytest.raises(ConnectionError):
            while client.recv(1):
                pass
    with _connect(proxy) as client:
        assert _said(client, b"y") == b"y"


def test_a_cut_refuses_until_it_is_healed(proxy: Proxy) -> None:
    """A cut ends connections and refuses new ones until ``heal``."""
    with _connect(proxy) as client:
        assert _said(client, b"x") == b"x"
        proxy.cut()
        with pytest.raises(ConnectionError):
            while client.recv(1):
                pass
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)
    proxy.heal()
    with _connect(proxy) as client:
        assert _said(client, b"y") == b"y"


def test_silence_swallows_and_outlasts_itself_for_the_connections_it_met(proxy: Proxy) -> None:
    """During a silence connections stay open and nothing passes. After ``heal`` only new connections work."""
    with _connect(proxy) as old:
        assert _said(old, b"x") == b"x"
        proxy.silence()
        with _connect(proxy) as met:
            for client in (old, met):
                with pytest.raises(TimeoutError):
                    _said(client, b"lost", SILENT_FOR)
            proxy.heal()
            for client in (old, met):
                with pytest.raises(TimeoutError):
                    _said(client, b"lost too", SILENT_FOR)
            with _connect(proxy) as new:
                assert _said(new, b"heard") == b"heard"
