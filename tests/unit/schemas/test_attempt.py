"""Attempts: writing and reading the headers of retry, replay and dead-letter records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failsoft.schemas import attempt as attempts
from failsoft.schemas.attempt import MAX_MESSAGE, Attempt
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.letter_id import LetterId
from failsoft.schemas.record import Header, Origin
from tests.kit import INPUT, NOW_MS, Rec, attempt


def _parsed(headers: list[Header]) -> Attempt:
    found = attempts.parse(headers)
    assert isinstance(found, Attempt), found
    return found


def test_written_headers_are_read_back() -> None:
    """Headers read back give the same attempt, with every field set and with every optional field left out."""
    letter = LetterId("-yqePF1vToChssPU5fYHGA", 3, 17)
    full = attempt(
        number=3, replays=2, replay_id="r-1", version=4, next_revision=2, crashes=1, letter=letter, died_ms=9
    )
    bare = attempt(version=None, due_ms=None)
    assert _parsed(full.headers()) == full and _parsed(bare.headers()) == bare
    assert "failsoft-due-ms" not in dict(bare.headers())


def test_header_names_are_those_of_the_contract() -> None:
    """Each header of the contract occurs once, and numbers are decimal."""
    found = attempt(replay_id="r", crashes=1, letter=LetterId(None, 0, 1), died_ms=1).headers()
    assert {k for k, _ in found} == {
        f"failsoft-{name}"
        for name in (
            "attempt",
            "due-ms",
            "origin-topic",
            "origin-partition",
            "origin-offset",
            "origin-timestamp-ms",
            "first-failed-ms",
            "error-kind",
            "error-message",
            "model",
            "model-version",
            "next-revision",
            "replays",
            "replay-id",
            "crashes",
            "letter",
            "died-ms",
        )
    }
    assert len({k for k, _ in found}) == len(found)
    assert dict(found)["failsoft-origin-offset"] == b"77" and dict(found)["failsoft-error-kind"] == b"model_error"


def test_a_dead_letter_also_has_kafkas_header_names() -> None:
    """A dead letter repeats the facts under KIP-1191's names, and has no due time."""
    found = attempt(number=2).dead_headers("loans")
    assert found[-6:] == [
        ("__dlq.errors.topic", INPUT.encode()),
        ("__dlq.errors.partition", b"0"),
        ("__dlq.errors.offset", b"77"),
        ("__dlq.errors.group", b"loans"),
        ("__dlq.errors.delivery.count", b"3"),
        ("__dlq.errors.message", b"it broke"),
    ]
    assert "failsoft-due-ms" not in dict(found)


def test_the_headers_added_take_at_most_4_kib() -> None:
    """All added headers fit into 4 KiB, even with topic, group and model names and the message at their limits."""
    longest = attempt(
        number=2**31,
        origin=Origin("t" * 249, 2**31 - 1, 2**63 - 1, 2**63 - 1),
        first_failed_ms=2**63 - 1,
        failure=Failure(Kind.LOW_CONFIDENCE, "€" * 1000),
        model="m" * 249,
        version=2**63 - 1,
        next_revision=2,
        replays=2**31,
        replay_id="r" * 64,
        crashes=2**31,
        letter=LetterId("A" * 22, 2**31 - 1, 2**63 - 1),
        died_ms=2**63 - 1,
    )
    for headers in (longest.headers(), longest.dead_headers("g" * 180)):
        # a header has its name, its value, and a length field of at most 2 bytes for each
        assert sum(len(k) + len(v or b"") + 4 for k, v in headers) <= 4096


@pytest.mark.parametrize("message", ["x" * 600, "€" * 200, "", "\ud800 alone", "é" * 251])
def test_a_message_is_cut_between_characters(message: str) -> None:
    """A shortened message has at most 500 bytes and is valid UTF-8."""
    short = attempts.shortened(message)
    assert len(short) <= MAX_MESSAGE
    assert message.encode("utf-8", "replace").decode().startswith(short.decode())
    assert len(short) > MAX_MESSAGE - 4 or short.decode() == message.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("failsoft-attempt", b"", "not a decimal number"),
        ("failsoft-attempt", b"+1", "not a decimal number"),
        ("failsoft-attempt", b"1_000", "not a decimal number"),
        ("failsoft-attempt", "²".encode(), "not a decimal number"),
        ("failsoft-attempt", b"-1", "out of range"),
        ("failsoft-attempt", b"9" * 19, "out of range"),
        ("failsoft-attempt", b"9" * 5000, "not a decimal number"),
        ("failsoft-attempt", None, "missing"),
        ("failsoft-letter", b"A/0:1", "is not <topic id>/<partition>:<offset>"),
        ("failsoft-letter", b"0:1 ", "is not <topic id>/<partition>:<offset>"),
        ("failsoft-died-ms", b"soon", "not a decimal number"),
        ("failsoft-due-ms", b"0x10", "not a decimal number"),
        ("failsoft-origin-topic", b"", "0 bytes"),
        ("failsoft-origin-topic", b"\xff", "not UTF-8"),
        ("failsoft-origin-topic", b"t" * 301, "301 bytes"),
        ("failsoft-origin-offset", b"1.5", "not a decimal number"),
        ("failsoft-error-kind", b"mood", "is not a failure kind"),
        ("failsoft-error-message", None, "missing"),
        ("failsoft-model-version", b"two", "not a decimal number"),
        ("failsoft-next-revision", b"-1", "out of range"),
        ("failsoft-replay-id", b"", "0 bytes"),
        ("failsoft-crashes", b"twice", "not a decimal number"),
        ("failsoft-crashes", b"-1", "out of range"),
        ("failsoft-crashes", None, "missing"),
    ],
)
def test_an_invalid_header_is_a_bad_header_failure(name: str, value: bytes | None, why: str) -> None:
    """The failure is bad_header, and its message has the header's name and what is wrong with it."""
    headers = [(k, v) for k, v in attempt(replay_id="r").headers() if k != name]
    found = attempts.parse([*headers, (name, value)])
    assert isinstance(found, Failure) and found.kind is Kind.BAD_HEADER
    assert found.message.startswith(f"{name}: ") and why in found.message


def test_every_required_header_must_be_present() -> None:
    """A record without a required header is refused with that header's name; optional headers may be absent."""
    headers = attempt(replay_id="r", crashes=1).headers()
    optional = {"failsoft-due-ms", "failsoft-model-version", "failsoft-replay-id", "failsoft-next-revision"}
    optional |= {"failsoft-crashes"}
    for name, _ in headers:
        found = attempts.parse([h for h in headers if h[0] != name])
        assert isinstance(found, Attempt) if name in optional else found == Failure(Kind.BAD_HEADER, f"{name}: missing")


def test_a_control_header_given_twice_is_bad() -> None:
    """A duplicate control header is refused, even with the same value; the event's own headers may be duplicated."""
    headers = attempt().headers()
    assert attempts.parse([*headers, headers[0]]) == Failure(Kind.BAD_HEADER, "failsoft-attempt: given twice")
    assert isinstance(attempts.parse([("own", b"1"), *headers, ("own", b"1")]), Attempt)


@pytest.mark.parametrize(("kind", "revision"), [(Kind.MALFORMED, 0), (Kind.INVALID, 0), (Kind.TIMEOUT, 1)])
def test_without_a_next_revision_the_kind_implies_it(kind: Kind, revision: int) -> None:
    """A record without next revision, not written by failsoft, gets the lowest one that its failure kind allows."""
    headers = [h for h in attempt(failure=Failure(kind, "")).headers() if h[0] != "failsoft-next-revision"]
    assert _parsed(headers).next_revision == revision


def test_a_negative_timestamp_is_read_back() -> None:
    """Kafka's -1 and other negative timestamps are read back unchanged: they do not make a retry a bad header."""
    for timestamp in (-1, -5):
        origin = Origin(INPUT, 0, 1, timestamp)
        assert _parsed(attempt(origin=origin).headers()).origin == origin


def test_provisional_means_one_answer_so_far() -> None:
    """An attempt is provisional when exactly revision 0 was written: only that awaits a correction or confirmation."""
    assert [attempt(next_revision=n).provisional for n in (0, 1, 2)] == [False, True, False]


def test_another_failure_replaces_the_last_one() -> None:
    """The attempt names the newest failure with its model and version; the rest of the history stays."""
    before = attempt(number=1)
    after = before.failed(Failure(Kind.TIMEOUT, "late"), "m2", 9, 2)
    assert after == replace(
        before, failure=Failure(Kind.TIMEOUT, "late"), model="m2", version=9, next_revision=2, due_ms=None
    )


def test_readable_parts_of_bad_headers_are_salvaged() -> None:
    """A dead letter with one bad header still carries its event's origin."""
    why = Failure(Kind.BAD_HEADER, "failsoft-attempt: not a decimal number")
    elsewhere = Origin("loans.retry.5s", 0, 3, NOW_MS)
    headers = [(k, b"x" if k == "failsoft-attempt" else v) for k, v in attempt(replays=1, next_revision=2).headers()]
    saved = attempts.salvage(headers, why, elsewhere, "m", NOW_MS)
    assert (saved.origin, saved.replays, saved.next_revision) == (attempt().origin, 1, 2)
    assert (saved.number, saved.failure, saved.first_failed_ms) == (0, why, NOW_MS - 8000)
    nothing = attempts.salvage([("failsoft-attempt", None)], why, elsewhere, "m", NOW_MS)
    assert (nothing.origin, nothing.next_revision, nothing.first_failed_ms) == (elsewhere, 1, NOW_MS)
    assert isinstance(attempts.parse(saved.headers()), Attempt)


def test_first_headers_equal_those_of_single_attempts() -> None:
    """Rendering common headers once gives the same headers as rendering each record's own attempt."""
    failure = Failure(Kind.TIMEOUT, "late")
    records = [
        Rec(INPUT, 0, 5, NOW_MS - 3, headers=[("own", b"\xff"), ("own", None), ("failsoft-attempt", b"9")]),
        Rec("other.events", 0, 6, -1),
    ]
    made = attempts.first_headers(records, [NOW_MS + 1, NOW_MS + 2], failure, "m", 3, NOW_MS)
    for record, due, headers in zip(records, (NOW_MS + 1, NOW_MS + 2), made, strict=True):
        origin = Origin(record.topic, 0, record.offset, record.timestamp)
        expected = Attempt(0, origin, NOW_MS, failure, "m", 3, next_revision=1, due_ms=due).headers()
        own = [h for h in record.headers if h[0] == "own"]
        assert headers == [*own, *expected]
    assert attempts.first_headers([], [], failure, "m", 3, NOW_MS) == []
