"""Fixtures for all tests: a real Kafka, and a unique pipeline name."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import HealthCheck, settings

from failsoft.topics.embedded import broker as embedded
from tests.kafka import Broker, broker_kind, start_broker

# On a stalling machine an example, or its generation, may take any time; that is no property of the code under test.
settings.register_profile("shared", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

SIDE_BY_SIDE = 8
"""The number of port ranges; as many concurrent test processes have distinct ports."""


def pytest_configure() -> None:
    """Gives each process of pytest-xdist its own port range, so that none takes a port that another has chosen.

    Also restores SIGINT: a shell starts ``&`` jobs with SIGINT ignored, and their children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % SIDE_BY_SIDE
    first, end = embedded.PORTS
    share = (end - first) // SIDE_BY_SIDE
    embedded.PORTS = (first + number * share, first + (number + 1) * share)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long`` also runs the tests that take minutes."""
    parser.addoption("--long", action="store_true", help="also the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips tests marked ``long`` unless ``--long`` is given."""
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: --long runs it"))


def pytest_report_header() -> str:
    """Names the kind of Kafka that this run's integration tests use."""
    return f"kafka: {broker_kind()}"


@pytest.fixture(scope="session", autouse=True)
def no_java_left() -> Iterator[None]:
    """Fails if a Java process that the session started is left at its end."""
    yield
    java = [p for p in psutil.Process().children(recursive=True) if "java" in _name(p)]
    _, left = psutil.wait_procs(java, timeout=20)  # a process may just be ending
    assert not left, f"still running: {left}"


@pytest.fixture(scope="session")
def kafka(no_java_left: None) -> Iterator[Broker]:
    """One Kafka node for the whole session; a test that kills it must start it again."""
    broker = start_broker()
    yield broker
    broker.stop()


@pytest.fixture
def name() -> str:
    """A unique pipeline name: topics, groups and transactional ids with this prefix belong to this test alone."""
    return f"t-{uuid.uuid4().hex[:12]}"


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""
