"""The codec of process isolation: values survive the transport, and invalid answers of a process are detected."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from failsoft.models.isolation import codec
from failsoft.models.isolation.codec import Damaged
from failsoft.models.isolation.transport import Segment
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.schemas import wire
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import FeatureType, Spec
from failsoft.schemas.prediction import Predictions

SPECS = (
    Spec("f", FeatureType.FLOAT),
    Spec("i", FeatureType.INT),
    Spec("b", FeatureType.BOOL),
    Spec("s", FeatureType.STRING),
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "f": st.floats(-1e9, 1e9) | st.none(),
        "i": st.integers(-(2**63), 2**63 - 1),
        "b": st.booleans(),
        "s": st.text("aé€😀\x00\n\ud800", max_size=6),
    },
)


def crossed(segment: Segment, about: dict[str, Any], blocks: list[Any]) -> tuple[Any, list[Any]]:
    """``about`` and ``blocks`` after a transfer through a segment, read as the other process reads them."""
    header, *found = segment.read(segment.write([wire.dumps(about), *blocks]))
    return wire.loads(bytes(header), 1 << 30), found


def same(a: Columns, b: Columns) -> bool:
    values = all(a.values[s.name].tolist() == b.values[s.name].tolist() for s in a.specs)
    masks = {k: v.tolist() for k, v in a.unusable.items()} == {k: v.tolist() for k, v in b.unusable.items()}
    return (a.specs, a.size, a.why) == (b.specs, b.size, b.why) and values and masks


@given(st.lists(ROW, max_size=8))
def test_columns_arrive_as_they_were_sent(events: list[dict[str, object]]) -> None:
    """Columns survive the transport: every type, no rows, unusual strings, and the reasons of unusable cells."""
    segment = Segment.create()
    sent = columns(events, SPECS)
    arrived = codec.columns(*crossed(segment, *codec.send_columns(sent)), SPECS)
    assert same(sent, arrived)
    assert [c.dtype for c in sent.values.values()] == [c.dtype for c in arrived.values.values()]
    segment.close()


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=8))
def test_a_matrix_arrives_as_a_matrix(rows: list[tuple[float, float]]) -> None:
    """In the other process, too, the columns are views of one matrix, so that the model needs no copy."""
    specs = (Spec("a", FeatureType.FLOAT), Spec("b", FeatureType.FLOAT))
    segment = Segment.create()
    sent = columns([{"a": a, "b": b} for a, b in rows], specs)
    arrived = codec.columns(*crossed(segment, *codec.send_columns(sent)), specs)
    assert (arrived.matrix is None) == (sent.matrix is None) and same(sent, arrived)
    if rows:
        assert arrived.matrix is not None and np.shares_memory(arrived.matrix, arrived.values["b"])
    segment.close()


LABELS: list[list[Any] | None] = [None, [1, 2], ["a", "é"], [1, "a"], [None, 3]]
TABLE = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
SCORES = np.array([0.75, 0.5], np.float32)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("table", [None, TABLE])
@pytest.mark.parametrize("confidences", [None, SCORES, np.array([0.5, np.nan])])
def test_answers_arrive_as_they_were_sent(labels: Any, table: Any, confidences: Any) -> None:
    """Each shape of an answer survives the transport, and a failed row keeps its failure."""
    segment = Segment.create()
    bad = {1: Failure(Kind.BAD_OUTPUT, "no \n number")}
    about, blocks = codec.send_answer(ModelOutput(Predictions(SCORES, labels, table, confidences), bad))
    arrived = codec.answer(*crossed(segment, about, blocks), 2)
    segment.write([b"\xff" * 10_000])  # the next batch must not change the answer
    assert isinstance(arrived, ModelOutput) and arrived.bad == bad
    got = arrived.predictions
    assert got.scores.tolist() == SCORES.tolist() and got.labels == labels
    assert (got.probabilities is None) if table is None else np.array_equal(got.probabilities, table)
    assert (got.confidences is None) if confidences is None else np.array_equal(got.confidences, confidences, True)
    segment.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["float32", "int", "text", "scores", "timeout"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
ABOUT = st.dictionaries(st.sampled_from(["failure", "scores", "labels", "probabilities", "confidences", "bad"]), JSON)


@given(ABOUT, st.lists(st.binary(max_size=24), max_size=4))
def test_an_invalid_answer_is_detected(about: dict[str, Any], blocks: list[bytes]) -> None:
    """Any output of a process decodes to an answer for each row or to a failure, or raises Damaged."""
    try:
        found = codec.answer(about, [np.frombuffer(b, np.uint8) for b in blocks], 2)
    except Damaged:
        return
    assert isinstance(found, Failure) or len(found.predictions) == 2
    if isinstance(found, ModelOutput):
        assert found.predictions.labels is None or len(found.predictions.labels) == 2


def test_the_other_side_cannot_shrink_or_overstate_a_segment() -> None:
    """Reading beyond the end of a segment would kill the worker by SIGBUS, so sizes are checked."""
    segment = Segment.create()
    sizes = segment.write([b"abc", b"", b"defg"])
    assert [bytes(block) for block in segment.read(sizes)] == [b"abc", b"", b"defg"]
    with pytest.raises(PermissionError):
        os.ftruncate(segment.fd, 0)
    for claimed in ([1 << 40], [-1], [1.5], ["x"], [10**9, 10**9]):
        with pytest.raises(Damaged):
            segment.read(claimed)  # type: ignore[arg-type]
    segment.close()
