"""What every test may ask for: a real Kafka, and a pipeline's name that no other test has."""

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

# On a machine that stalls an example may take any time, and so may making it: that says nothing of what is tested.
settings.register_profile("shared", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

SIDE_BY_SIDE = 8
"""Runs of tests that choose ports apart from each other; more share them."""


def pytest_configure() -> None:
    """Each process of pytest-xdist has ports of its own: none takes one that another has chosen and not bound yet.

    And Ctrl-C reaches who is started here: what a shell starts with ``&`` ignores SIGINT, and so do all its children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % SIDE_BY_SIDE
    first, end = embedded.PORTS
    share = (end - first) // SIDE_BY_SIDE
    embedded.PORTS = (first + number * share, first + (number + 1) * share)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long`` runs what takes minutes too."""
    parser.addoption("--long", action="store_true", help="also the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked ``long`` waits to be asked for."""
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: --long runs it"))


def pytest_report_header() -> str:
    """Which Kafka this run's integration tests would use."""
    return f"kafka: {broker_kind()}"


@pytest.fixture(scope="session", autouse=True)
def no_java_left() -> Iterator[None]:
    """When the session ends, no Java process that it started is left."""
    yield
    java = [p for p in psutil.Process().children(recursive=True) if "java" in _name(p)]
    _, left = psutil.wait_procs(java, timeout=20)  # one may just be ending
    assert not left, f"still running: {left}"


@pytest.fixture(scope="session")
def kafka(no_java_left: None) -> Iterator[Broker]:
    """One Kafka node for the whole session; a test that kills it starts it again."""
    broker = start_broker()
    yield broker
    broker.stop()


@pytest.fixture
def name() -> str:
    """A pipeline's name: topics, groups and transactional ids that begin with it are this test's alone."""
    return f"t-{uuid.uuid4().hex[:12]}"


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""
