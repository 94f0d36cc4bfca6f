"""The share of malformed events: said once when most of a minute's events are, and once when they no longer are."""

from __future__ import annotations

from failsoft.workers.telemetry.malformed_share import LEAST, SPAN, MalformedShare

WHY = "value byte 0 is 0x00"


def test_more_than_half_is_said_once() -> None:
    """A half is not yet most; the next malformed event is, and those after it are no news."""
    share = MalformedShare()
    assert share.add("t", 20, 10, WHY, 0.0) is None
    change = share.add("t", 1, 1, WHY, 1.0)
    assert change is not None and change.on
    assert (change.topic, change.events, change.malformed) == ("t", 21, 11)
    assert change.text == f"11 of 21 events in 60 s are malformed; one of them: {WHY}"
    assert share.add("t", 100, 100, WHY, 2.0) is None


def test_it_ends_when_few_are_malformed() -> None:
    """Between a quarter and a half nothing changes, so that a share around a half is no series of alerts."""
    share = MalformedShare()
    assert share.add("t", 100, 100, WHY, 0.0)
    assert share.add("t", 200, 0, "", 1.0) is None
    change = share.add("t", 100, 0, "", 2.0)
    assert change is not None and not change.on
    assert change.text == "100 of 400 events in 60 s are malformed"


def test_the_window_forgets() -> None:
    """What is older than a minute does not count."""
    share = MalformedShare()
    assert share.add("t", 1_000, 1_000, WHY, 0.0)
    change = share.add("t", LEAST, 0, "", SPAN + 1)
    assert change is not None and not change.on


def test_few_events_say_nothing() -> None:
    """Neither that a topic is unreadable, nor that it is readable again."""
    share = MalformedShare()
    assert share.add("t", LEAST - 1, LEAST - 1, WHY, 0.0) is None
    assert share.add("t", 1, 1, WHY, 1.0)
    assert share.add("t", LEAST - 1, 0, "", SPAN + 2) is None
    assert share.add("t", 1, 0, "", SPAN + 3)


def test_topics_are_apart() -> None:
    """A sound topic does not hide that all of another one is malformed."""
    share = MalformedShare()
    assert share.add("good", 10_000, 0, "", 0.0) is None
    change = share.add("bad", 10, 10, WHY, 0.0)
    assert change is not None and change.topic == "bad"
