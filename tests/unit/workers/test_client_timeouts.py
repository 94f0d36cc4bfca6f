"""The timeouts of the Kafka clients fit each other, and a value that does not is refused with both keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.workers.client_timeouts import ClientTimeouts
from failsoft.workers.pipeline_sections import Kafka

DEFAULT = ClientTimeouts()


def test_the_defaults_are_those_that_were_tried() -> None:
    """Under load, with killed and stopped workers and brokers."""
    found = Kafka().timeouts
    assert found == DEFAULT and not list(found.problems())
    assert (found.fetch, found.replicas, found.group, found.commit, found.drain) == (5.0, 2.0, 2.0, 12.0, 26.0)
    assert (found.stuck_after, found.end) == (30.0, 45.0)


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (
            {"heartbeat_interval": "3s"},
            "kafka.heartbeat_interval: 3s is more than a third of kafka.session_timeout",
        ),
        ({"session_timeout": "2s"}, "kafka.heartbeat_interval: 1s is more than a third of kafka.session_timeout (2s)"),
        (
            {"session_timeout": "45s", "rebalance_timeout": "40s"},
            "kafka.session_timeout: 45s is longer than kafka.rebalance_timeout (40s)",
        ),
        ({"request_timeout": "100ms"}, "kafka.request_timeout: 100ms is less than 500ms"),
        (
            {"request_timeout": "3s"},
            "kafka.request_timeout: 3s does not fit 3 times into kafka.transaction_timeout (8s)",
        ),
        (
            {"rebalance_timeout": "20s"},
            "kafka.rebalance_timeout: 20s is too short for kafka.transaction_timeout (8s)",
        ),
        (
            {"rebalance_timeout": "1m", "transaction_timeout": "20s"},
            "kafka.rebalance_timeout: 1m is too short for kafka.transaction_timeout (20s)",
        ),
        ({"session_timeout": "2d"}, "kafka.session_timeout: 2d is longer than a day"),
        (
            {"max_partition_fetch_bytes": "16MiB"},
            "kafka.max_partition_fetch_bytes: 16MiB, and kafka.fetch_max_bytes: 8MiB: must rise",
        ),
        ({"fetch_max_bytes": "1GiB"}, "kafka.fetch_max_bytes: 1GiB: must rise from at least 16KiB to at most 256MiB"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], keys: str) -> None:
    """Both keys are in the message, with their values."""
    assert any(keys in problem for problem in Kafka(**given).problems()), list(Kafka(**given).problems())


@given(session=st.integers(3, 3_600), transaction=st.integers(2, 900))
def test_what_is_left_out_fits_what_is_given(session: int, transaction: int) -> None:
    """One key may be set alone: those that were left out follow it."""
    found = Kafka(session_timeout=f"{session}s", transaction_timeout=f"{transaction}s").timeouts
    assert not list(found.problems())
    # A request is repeated while its transaction is open, and a leader refuses before it is given up.
    assert 3 * found.request <= found.transaction and found.replicas < found.request
    # The last heartbeat that was answered, one that was not, and a connection to a broker that is away too.
    assert found.group > 0.1 and found.heartbeat + 2 * found.group < found.session
    # A rebalance waits for the slowest drain, and a join for the whole rebalance.
    assert found.commit < found.drain < found.rebalance < found.join
    assert found.commit < found.stuck_after and found.drain < found.end
