"""The benchmark's pages, tables, plot and phase timer, without Kafka and without running a program."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson
import pytest

from benchmarks import encoded, kinds, page, plot, table
from benchmarks.__main__ import _names, _options, _runnable
from benchmarks.candidates import ALL, EXACTLY, FAUST, HAND, Figures
from benchmarks.events import FEATURES, ODD, events, odd_among
from benchmarks.phases import Phases
from benchmarks.programs import handwritten
from failsoft.schemas import wire

ROOT = Path(__file__).resolve().parents[2]


def figures(rate: float) -> Figures:
    return Figures(rate, 1 / rate, Counter(), [], 0.0)


FOUND = {EXACTLY: [figures(50), figures(80)], HAND: [figures(100), figures(100)]}


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    """Writing a section keeps the text around the markers, and a second write replaces the first."""
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- begin: rates -->\nold\n<!-- end: rates -->\nafter <!-- begin: memory -->\n")
    for text in ("first", "second"):
        page.write(path, "rates", text)
    assert path.read_text() == (
        "before\n<!-- begin: rates -->\n\nsecond\n\n<!-- end: rates -->\nafter <!-- begin: memory -->\n"
    )


def test_a_page_without_a_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A page without both markers is left unchanged, and the error names the missing lines."""
    path = tmp_path / "page.md"
    path.write_text("<!-- begin: rates -->\n")
    with pytest.raises(ValueError, match=re.escape("<!-- end: rates -->")):
        page.write(path, "rates", "text")
    assert path.read_text() == "<!-- begin: rates -->\n"


def test_ratios_are_of_the_same_round() -> None:
    """A ratio is the median of the rounds' own ratios, with their spread, and not the ratio of two medians."""
    text = table.render(FOUND)
    assert "exactly once / hand-written aiokafka loop: 0.65 (0.50..0.80)" in text
    assert re.search(r"\| failsoft, exactly once +\| +65 \| +50\.\.80 \|", text)


def test_the_table_does_without_a_program_that_did_not_run() -> None:
    """Without the hand-written loop, ratios refer to the first program."""
    text = table.render({EXACTLY: [figures(50)], FAUST: [figures(2)]})
    assert "of exactly" in text and "exactly once / Faust agent, one send an event: 25.00" in text


def test_a_program_that_cannot_run_is_left_out_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A peer that this machine cannot run is skipped; one line says which, and why."""
    gone = replace(FAUST, missing=lambda: "it has no compiler")
    assert _runnable([HAND, gone, EXACTLY]) == [HAND, EXACTLY]
    assert capsys.readouterr().err == "left out: Faust agent, one send an event: it has no compiler\n"


def test_the_plot_has_a_bar_a_program_and_the_fastest_first() -> None:
    """The plot is well-formed SVG: a bar for each program, the fastest first, in proportion to its rate."""
    root = ET.fromstring(plot.bars(FOUND, "a & b"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [e.text for e in root.iter(f"{space}text")]
    assert texts.index(HAND.title) < texts.index(EXACTLY.title)
    widths = [float(e.attrib["width"]) for e in root.iter(f"{space}rect")][1:]
    assert widths == sorted(widths, reverse=True) and widths[1] / widths[0] == pytest.approx(0.65, abs=0.001)


def test_one_event_in_a_hundred_is_odd() -> None:
    """One event in a hundred is odd, counted from the events' own bytes and by the function that checks runs."""
    name, below = ODD
    odd = [wire.loads(value, 1000)["features"][name] < below for _, value in events(12_345)]
    assert sum(odd[:10_000]) == odd_among(10_000) == 100
    assert sum(odd) == odd_among(12_345)


def test_a_program_that_there_is_not_is_refused_by_name() -> None:
    """An unknown program is refused with a list of all programs; each program has a unique name."""
    with pytest.raises(Exception, match="'fast' is not a program; choose from: exactly, "):
        _names("exactly,fast")
    assert len({c.name for c in ALL}) == len(ALL)


@pytest.mark.parametrize("given", [["--bootstrap", "here:1", "--rounds", "2"], ["--bootstrap=here:1", "--rounds", "2"]])
def test_the_command_on_the_page_names_nobodys_cluster(given: list[str]) -> None:
    """The command on the page leaves out the address of a cluster."""
    assert list(_options(given)) == ["--rounds", "2"]


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_profiled_functions_exist_where_they_are_called() -> None:
    """In a process of its own, since they stay wrapped. A function that was moved would end the profile."""
    code = "from benchmarks.programs.profiled_worker import Phases, patch; patch(Phases())"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_a_phase_is_charged_with_its_own_time_only() -> None:
    """Time of an inner phase is not charged to the outer one, in functions, generators and coroutines."""
    phases, own = Phases(), SimpleNamespace()

    def inner() -> None:
        burn(0.02)

    def steps() -> Generator[int, int, int]:
        burn(0.01)
        own.inner()
        got = yield 1
        return got + 1

    async def outer() -> int:
        generator = own.steps()
        next(generator)
        burn(0.03)  # between two steps: not the generator's
        try:
            generator.send(41)
        except StopIteration as end:
            return int(end.value)
        return 0

    own.inner, own.steps, own.outer = inner, steps, outer
    phases.function(own, "inner", "inner")
    phases.generator(own, "steps", "steps")
    phases.coroutine(own, "outer", "outer")
    with pytest.raises(StopIteration) as ended:
        own.outer().send(None)
    assert ended.value.value == 42
    spent = {phase: ns / 1e9 for phase, ns in phases.spent().items()}
    assert spent["inner"] == pytest.approx(0.02, abs=0.004)
    assert spent["steps"] == pytest.approx(0.01, abs=0.004)
    assert spent["outer"] == pytest.approx(0.03, abs=0.004)
    phases.clear()
    assert phases.spent() == {}


def test_a_vector_is_the_same_as_json_and_as_base64() -> None:
    """The rates of both are compared, so both must carry the same numbers."""
    (_, as_json), (_, as_base64) = (next(kinds.vector_events(t, 1)) for t in (kinds.as_json, kinds.as_base64))
    numbers, text = (orjson.loads(value)["features"]["embedding"] for value in (as_json, as_base64))
    assert len(numbers) == kinds.LENGTH
    assert np.array_equal(np.array(numbers, np.float32), np.frombuffer(base64.b64decode(text), "<f4"))


@pytest.mark.parametrize(
    ("made", "decode"),
    [
        (encoded.avro_events, handwritten.decode_avro),
        (encoded.protobuf_events, handwritten.decode_protobuf),
    ],
)
def test_an_event_is_the_same_in_each_format(
    made: Callable[[int], Iterator[tuple[bytes, bytes]]], decode: Callable[[], handwritten.Decode]
) -> None:
    """The rates of the formats are compared, so all must carry the same ids and numbers."""
    wanted = handwritten.decode_json(itemgetter(*FEATURES))([value for _, value in events(20)])
    assert decode()([value for _, value in made(20)]) == wanted
    assert [key for key, _ in made(20)] == [key for key, _ in events(20)]
