"""The table of error codes: which ones are retried, and how, and what the final ones mean."""

from __future__ import annotations

import pytest

from failsoft.workers.kafka.request_errors import (
    FENCED,
    LONGEST_WAIT,
    TABLE,
    Code,
    Remedy,
    describe,
    fences,
    gravest,
    out_of_range,
    remedy,
    wait,
)

COORDINATED = [name for name in TABLE if name not in ("FindCoordinator", "ApiVersions", "Produce")]


@pytest.mark.parametrize("request_name", COORDINATED)
def test_a_coordinator_that_moves_is_looked_up_again(request_name: str) -> None:
    """Each request to a coordinator survives its move, its absence and its loading."""
    assert remedy(request_name, Code.NOT_COORDINATOR) is Remedy.COORDINATOR
    assert remedy(request_name, Code.COORDINATOR_NOT_AVAILABLE) is Remedy.COORDINATOR
    assert remedy(request_name, Code.COORDINATOR_LOAD_IN_PROGRESS) is Remedy.WAIT


@pytest.mark.parametrize("code", FENCED)
def test_a_fenced_client_never_tries_again(code: Code) -> None:
    """No request is sent again after a code that says that another client has taken over."""
    assert fences(code)
    assert {remedy(name, code) for name in TABLE} == {Remedy.FINAL}


@pytest.mark.parametrize(
    "code",
    [
        Code.OUT_OF_ORDER_SEQUENCE_NUMBER,
        Code.UNKNOWN_PRODUCER_ID,
        Code.INVALID_TXN_STATE,
        Code.MESSAGE_TOO_LARGE,
        Code.TRANSACTION_ABORTABLE,
        Code.TOPIC_AUTHORIZATION_FAILED,
        Code.UNKNOWN_SERVER_ERROR,
        9_999,
    ],
)
def test_what_the_table_does_not_name_is_final(code: int) -> None:
    """A gap in the sequence, a refused batch and a code that nobody knows are final, and no sign of a successor."""
    assert {remedy(name, code) for name in TABLE} == {Remedy.FINAL}
    assert not fences(code)


def test_a_batch_that_is_in_the_log_already_is_written() -> None:
    """A copy of a batch is a success, and only in the answer to Produce."""
    assert remedy("Produce", Code.DUPLICATE_SEQUENCE_NUMBER) is Remedy.DONE
    others = {remedy(name, Code.DUPLICATE_SEQUENCE_NUMBER) for name in TABLE if name != "Produce"}
    assert others == {Remedy.FINAL}


def test_the_gravest_code_of_a_response_decides() -> None:
    """One refused partition makes the whole request final, whatever the others say."""
    codes = [Code.NONE, Code.NOT_LEADER_OR_FOLLOWER, Code.CONCURRENT_TRANSACTIONS]
    assert gravest("Produce", codes) is Remedy.METADATA
    assert gravest("Produce", [*codes, Code.MESSAGE_TOO_LARGE]) is Remedy.FINAL
    assert gravest("Produce", []) is Remedy.DONE


def test_markers_are_waited_for_two_milliseconds() -> None:
    """Markers take 1 to 5 ms; only a broker that is away makes the client slower."""
    assert [wait(Remedy.MARKERS, tried) for tried in (1, 10, 11)] == [0.002, 0.002, 0.02]
    assert wait(Remedy.UNSTABLE, 1) == wait(Remedy.UNSTABLE, 1_000) == 0.05


@pytest.mark.parametrize("after", [Remedy.WAIT, Remedy.METADATA, Remedy.COORDINATOR])
def test_other_waits_double_up_to_a_bound(after: Remedy) -> None:
    """The first retry comes at once, and a long outage is asked about twice a second."""
    waits = [wait(after, tried) for tried in range(1, 12)]
    assert waits[:4] == [0.002, 0.004, 0.008, 0.016]
    assert waits == sorted(waits) and waits[-1] == wait(after, 10_000) == LONGEST_WAIT


def test_a_code_is_described_by_name_and_meaning() -> None:
    """A person reads the name that Kafka's documentation has, and what to do about it."""
    assert describe(Code.ILLEGAL_GENERATION) == "ILLEGAL_GENERATION: the group has given this member's partitions away"
    assert describe(Code.NOT_COORDINATOR) == "NOT_COORDINATOR"
    assert describe(9_999) == "error 9999"


@pytest.mark.parametrize(("at", "said"), [(8_200_000, "3600 s too late"), (2_500, "0.5 s too early"), (4_000, "")])
def test_a_refused_timestamp_says_by_how_much(at: int, said: str) -> None:
    """Kafka's own message has the numbers only."""
    message = f"Timestamp {at} of message with offset 0 is out of range. The timestamp should be within [3000, 4600000]"
    assert out_of_range(message) == said
    assert out_of_range("refused") == ""


def test_a_refused_timestamp_names_the_clock_and_the_settings() -> None:
    """The refusal of a batch ends the worker, and its operator has to know which host's clock to set."""
    text = describe(Code.INVALID_TIMESTAMP)
    assert all(word in text for word in ("this host's clock", "message.timestamp.after.max.ms", "clock_skew"))
