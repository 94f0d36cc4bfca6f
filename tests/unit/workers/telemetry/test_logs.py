"""Logs: one JSON object a line for all libraries, text on a terminal, and failures at a limited rate."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from failsoft.workers.telemetry.logs import FailureLog, FailureRecord, FewLines, configure, log_always, trace_id


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream to log to. Afterwards pytest's logging is restored."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_line_is_one_json_object(stream: io.StringIO) -> None:
    """Fields, level, logger and a UTC time are keys, and a line break in a value stays inside its line."""
    configure(stream=stream)
    structlog.get_logger("lane").info("opened", lane=3, note="two\nlines")
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "opened", "lane": 3, "note": "two\nlines", "level": "info", "logger": "lane"}


def test_libraries_log_the_same_way(stream: io.StringIO) -> None:
    """Records of the standard library (Faust, aiokafka) pass the same processors, with their arguments filled in."""
    configure(stream=stream)
    logging.getLogger("aiokafka").warning("node %d is gone", 3, extra={"broker": "b"})
    [line] = lines(stream)
    assert line.pop("timestamp")
    assert line == {"event": "node 3 is gone", "level": "warning", "logger": "aiokafka", "broker": "b"}


def test_a_traceback_is_part_of_its_line(stream: io.StringIO) -> None:
    """An error with a traceback is still one object on one line."""
    configure(stream=stream)
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("faust").exception("crashed")
        structlog.get_logger("lane").exception("crashed too")
    assert ["RuntimeError: boom" in line["exception"] for line in lines(stream)] == [True, True]


def test_a_value_that_json_cannot_hold_is_written_as_text(stream: io.StringIO) -> None:
    """Such a value does not lose the line."""
    configure(stream=stream)
    structlog.get_logger().info("odd", value={1, 2}, raw=b"\xff")
    [line] = lines(stream)
    assert (line["value"], line["raw"]) == ("{1, 2}", "b'\\xff'")


def test_the_level_applies_to_structlog_and_the_standard_library(stream: io.StringIO) -> None:
    """Records below the level are not written, and an unknown level is refused."""
    configure("warning", stream=stream)
    structlog.get_logger().info("no")
    logging.getLogger("x").info("no")
    structlog.get_logger().warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]
    with pytest.raises(ValueError, match="'loud'"):
        configure("loud", stream=stream)


def test_configuring_again_does_not_double(stream: io.StringIO) -> None:
    """Each record is written once, however often ``configure`` is called."""
    configure(stream=stream)
    configure(stream=stream)
    logging.getLogger("x").warning("once")
    assert len(lines(stream)) == 1


def test_a_terminal_gets_text(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR leaves the colours out."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    configure(stream=stream, terminal=True)
    structlog.get_logger("lane").info("opened", lane=3)
    assert "\x1b[" in stream.getvalue()
    assert "opened" in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = io.StringIO()
    configure(stream=plain, terminal=True)
    structlog.get_logger("lane").info("opened", lane=3)
    assert "lane=3" in plain.getvalue()
    assert "\x1b[" not in plain.getvalue()


def test_news_is_written_at_any_level(stream: io.StringIO) -> None:
    """That a worker is ready is logged as a JSON object even if only errors are logged."""
    configure("error", stream)
    structlog.get_logger("x").info("not this")
    log_always("worker a is ready", kafka="k:1", next=["failsoft tail"])
    [line] = lines(stream)
    assert (line["event"], line["level"], line["kafka"]) == ("worker a is ready", "info", "k:1")
    assert line["next"] == ["failsoft tail"]


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736"),
        (b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", "4bf92f3577b34da6a3ce929d0e0e4736"),
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736", None),
        (b"\xff\xfe", None),
        (b"", None),
        (None, None),
    ],
)
def test_the_trace_is_read_from_traceparent(header: bytes | None, trace: str | None) -> None:
    """A valid W3C header gives its trace id; anything else gives None and no error."""
    assert trace_id(header) == trace


class Recorder:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append({"event": event, **fields})


def failed(i: int = 0, model: str = "m", kind: str = "timeout", message: str = "took 0.3 s") -> FailureRecord:
    return FailureRecord(f"e{i}", f"in-0-{i}", model, 2, kind, 1, "ab" * 16, message)


def test_a_failure_is_one_line_with_its_event_model_attempt_and_trace() -> None:
    """A reader of the line can find the event, the model, the attempt and the trace."""
    log = Recorder()
    FailureLog(log).failures([failed(7)], now=0.0)
    assert log.lines == [
        {
            "event": "answer degraded",
            "event_id": "e7",
            "origin": "in-0-7",
            "model": "m",
            "version": 2,
            "kind": "timeout",
            "attempt": 1,
            "trace_id": "ab" * 16,
            "message": "took 0.3 s",
            "held_back": 0,
        }
    ]


def test_lines_over_the_rate_are_held_back_and_counted() -> None:
    """Of a burst, the lines of one second are written. The next line has the count of those held back."""
    log = Recorder()
    failures = FailureLog(log, per_second=4)
    failures.failures((failed(i) for i in range(1000)), now=10.0)
    assert [line["event_id"] for line in log.lines] == ["e0", "e1", "e2", "e3"]
    failures.failures([failed(1000)], now=10.125)
    assert len(log.lines) == 4
    failures.failures([failed(1001), failed(1002)], now=10.25)
    assert (log.lines[-1]["event_id"], log.lines[-1]["held_back"]) == ("e1001", 997)


def test_one_models_failures_do_not_hide_anothers() -> None:
    """Each model and kind has a limit of its own."""
    log = Recorder()
    failures = FailureLog(log, per_second=1)
    failures.failures([failed(1), failed(2), failed(3, kind="bad_output"), failed(4, model="n")], now=0.0)
    assert [line["event_id"] for line in log.lines] == ["e1", "e3", "e4"]


def test_an_hour_of_failures_is_limited_and_all_are_counted() -> None:
    """There are at most as many lines as the rate times the time and one burst. Lines and counts add up to all
    failures.
    """
    log = Recorder()
    failures = FailureLog(log, per_second=5)
    for second in range(3600):
        failures.failures((failed(i) for i in range(20)), now=float(second))
    failures.flush()
    written = [line for line in log.lines if "event_id" in line]
    assert len(written) <= 5 * 3600 + 5
    assert len(written) + sum(int(str(line["held_back"])) for line in log.lines) == 20 * 3600


def test_flush_logs_the_counts_that_are_left() -> None:
    """Afterwards no count is left, and none is logged twice."""
    log = Recorder()
    failures = FailureLog(log, per_second=1)
    failures.failures([failed(i) for i in range(4)], now=0.0)
    failures.flush()
    assert log.lines[1:] == [{"event": "answers degraded, not listed", "model": "m", "kind": "timeout", "held_back": 3}]
    failures.flush()
    assert len(log.lines) == 2


def test_a_slow_rate_still_writes() -> None:
    """With a rate below one line a second, a line is still written from time to time."""
    log = Recorder()
    failures = FailureLog(log, per_second=0.125)
    for second in range(17):
        failures.failures([failed(second)], now=float(second))
    assert [line["event_id"] for line in log.lines] == ["e0", "e8", "e16"]
    with pytest.raises(ValueError):
        FailureLog(log, per_second=0)


def test_a_warning_that_repeats_is_held_back() -> None:
    """Five lines a second are written, and the next one has the count of those held back."""
    log = Recorder()
    few = FewLines(log)
    for n in range(100):
        few.warning("a process died", n / 100, number=n)
    few.warning("a process died", 2.0, number=100)
    assert [line["number"] for line in log.lines][:5] == [0, 1, 2, 3, 4] and len(log.lines) == 10
    assert sum(int(str(line["held_back"])) for line in log.lines) == 91


def test_a_long_message_is_cut() -> None:
    """An error that quotes a tensor does not fill the log."""
    log = Recorder()
    FailureLog(log).failures([failed(message="x" * 10_000)], now=0.0)
    assert len(str(log.lines[0]["message"])) == 500


def test_a_degraded_answer_is_json_too(stream: io.StringIO) -> None:
    """A failure through the real logger is one object, with the message in its own field."""
    configure(stream=stream)
    FailureLog(structlog.get_logger("scoring")).failures([failed(1)], now=0.0)
    [line] = lines(stream)
    assert (line["event"], line["event_id"], line["message"]) == ("answer degraded", "e1", "took 0.3 s")


def test_a_library_that_repeats_itself_is_held_back() -> None:
    """In an outage a library logs thousands of lines of one kind: five are written, and the others are counted."""
    out = io.StringIO()
    configure("info", out, terminal=False)
    for n in range(1000):
        logging.getLogger("aiokafka.conn").error("Unable connect to %s", n)
    logging.getLogger("aiokafka.conn").error("another kind of line")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert 5 <= len(lines) <= 8
    assert lines[-1]["event"] == "another kind of line"


def test_libraries_are_quiet_below_a_warning() -> None:
    """A library's info lines are not written at info, but they are at debug."""
    for level, seen in (("info", False), ("debug", True)):
        out = io.StringIO()
        configure(level, out, terminal=False)
        logging.getLogger("aiokafka.consumer").info("Joined group")
        assert bool(out.getvalue()) is seen
