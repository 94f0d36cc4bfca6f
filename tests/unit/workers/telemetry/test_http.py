"""The worker's web server: its three pages, and that it answers when the event loop is stuck."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from failsoft.workers.commands.error_codes import FAILED, code_of
from failsoft.workers.telemetry.http import CannotListen, PortTaken, Web
from failsoft.workers.telemetry.metrics import Metrics


class Worker:
    """A web server, and the reasons that its two checks return."""

    def __init__(self) -> None:
        self.live: str | None = None
        self.ready: str | None = "models are loading"
        registry = CollectorRegistry()
        self.metrics = Metrics(registry)
        self.web = Web(registry, lambda: self.live, lambda: self.ready)
        self.port = self.web.start()

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        """(status, content type, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type", ""), response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.web.stop()


def test_livez_and_readyz_are_separate_checks(worker: Worker) -> None:
    """Each returns 200, or 503 with the reason as text."""
    assert worker.get("/livez")[::2] == (200, "ok\n")
    assert worker.get("/readyz")[::2] == (503, "models are loading\n")
    worker.live, worker.ready = "lane 3 has made no progress for 31 s", None
    assert worker.get("/livez")[::2] == (503, "lane 3 has made no progress for 31 s\n")
    assert worker.get("/readyz?verbose=1")[::2] == (200, "ok\n")


def test_metrics_are_text_or_openmetrics(worker: Worker) -> None:
    """The scraper's Accept header decides the format."""
    worker.metrics.add("failsoft_dead_total", 7, kind="poison")
    status, type_, body = worker.get("/metrics")
    assert (status, type_.split(";")[0]) == (200, "text/plain")
    assert 'failsoft_dead_total{kind="poison"} 7.0' in body
    _, type_, body = worker.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert type_.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_other_pages_and_methods_are_refused(worker: Worker) -> None:
    """Nothing else is served, and nothing can be changed."""
    assert worker.get("/")[0] == 404
    assert worker.get("/metrics/../etc")[0] == 404
    assert worker.get("/livez", method="POST")[0] == 405


def test_head_has_no_body(worker: Worker) -> None:
    """A HEAD request gets the status without the body."""
    assert worker.get("/readyz", method="HEAD")[::2] == (503, "")


async def test_it_answers_while_the_event_loop_is_stuck() -> None:
    """A stuck event loop must be visible from outside. Here the request itself blocks the loop."""
    worker = Worker()
    ran: list[bool] = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    worker.live = "the event loop is stuck"
    try:
        assert worker.get("/livez")[0] == 503  # blocking, on the loop's thread
        assert not ran, "the loop was not blocked, so the test shows nothing"
    finally:
        worker.web.stop()


def test_a_silent_client_does_not_hold_up_the_others(worker: Worker) -> None:
    """A connection that sends nothing has a thread of its own."""
    with socket.create_connection(("127.0.0.1", worker.port)):
        assert worker.get("/livez")[0] == 200


def test_requests_are_not_logged(worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    """Scrapes, refused requests and clients that close the connection write nothing to stderr."""
    worker.get("/metrics")
    worker.get("/nothing")
    connection = socket.create_connection(("127.0.0.1", worker.port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
    connection.send(b"GET /met")
    connection.close()
    worker.get("/livez")
    assert capfd.readouterr() == ("", "")


def test_a_taken_port_is_named_with_the_option_that_changes_it(worker: Worker) -> None:
    """The error names the port and the option that chooses another."""
    second = Web(CollectorRegistry(), lambda: None, lambda: None, port=worker.port)
    with pytest.raises(PortTaken, match=rf"port {worker.port} of 127\.0\.0\.1 .*--metrics-port"):
        second.start()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a..b", "::ffff:192.0.2.1"])
def test_an_address_of_another_machine_is_named_with_the_options_that_change_it(host: str) -> None:
    """The error is one line. It names the address and the option that chooses another."""
    web = Web(CollectorRegistry(), lambda: None, lambda: None, host)
    with pytest.raises(CannotListen, match=rf"^cannot listen on {host}, port 0: .*--metrics-host") as caught:
        web.start()
    assert "\n" not in str(caught.value) and "None" not in str(caught.value)
    assert code_of(caught.value) == FAILED


def test_a_stopped_server_releases_its_port() -> None:
    """After ``stop`` another server can use the port at once. A second ``stop`` does nothing."""
    first = Worker()
    first.get("/livez")
    first.web.stop()
    first.web.stop()
    second = Web(CollectorRegistry(), lambda: None, lambda: None, port=first.port)
    assert second.start() == first.port
    second.stop()
