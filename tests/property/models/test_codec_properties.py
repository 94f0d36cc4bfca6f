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
from failsoft.models.runtime.element_types import element_type
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.run_times import RunTimes
from failsoft.schemas import wire
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec
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


TENSORS = tuple(
    Spec(f"{dtype}{i}", FeatureType.TENSOR, tensor=TensorSpec(dtype, shape, 8 if -1 in shape else None))
    for dtype in DType
    for i, shape in enumerate([(2,), (1, 2, 2), (-1,), (2, -1), (-1, 3)])
)


@st.composite
def tensor_columns(draw: st.DrawFn) -> Columns:
    """A batch of tensors of a few types and shapes, with unusable cells, beside a column of strings."""
    specs = (*draw(st.lists(st.sampled_from(TENSORS), min_size=1, max_size=4, unique=True)), SPECS[3])
    n = draw(st.integers(0, 3))
    made = Columns(specs, n, {"s": np.array(draw(st.lists(st.text("aé\ud800"), min_size=n, max_size=n)), object)})
    for spec in specs[:-1]:
        assert spec.tensor is not None
        rows = [draw(rows_of(spec.tensor)) for _ in range(n)]
        if -1 in spec.tensor.shape:
            made.values[spec.name] = np.empty(n, object)
            for i, row in enumerate(rows):
                made.values[spec.name][i] = row
        else:
            empty = np.empty((0, *spec.tensor.shape), element_type(spec))
            made.values[spec.name] = np.array(rows, element_type(spec)) if rows else empty
        if n and draw(st.booleans()):
            made.unusable[spec.name] = np.arange(n) == 0
            made.why[0, spec.name] = "ragged: é"
    return made


@st.composite
def rows_of(draw: st.DrawFn, tensor: TensorSpec) -> Any:
    """One row's tensor: any words, or any bytes as numbers, infinities and NaN included."""
    length = draw(st.integers(0, 3))
    shape = [length if k == -1 else k for k in tensor.shape]
    size = int(np.prod(shape))
    if tensor.dtype is DType.STRING:
        words = draw(st.lists(st.text("aé€😀\x00\n\ud800", max_size=3), min_size=size, max_size=size))
        return np.array([*words, None], object)[:-1].reshape(shape)
    dtype = np.dtype(tensor.dtype.value)
    data = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    if dtype.kind == "b":
        return (np.frombuffer(data, np.uint8) % 2 == 1).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


def bits(column: Any) -> list[Any]:
    """Each row's type, shape and content, bit by bit: a NaN is not equal to itself."""
    return [(r.dtype, r.shape, r.tolist() if r.dtype == object else r.tobytes()) for r in column]


@given(tensor_columns())
def test_tensors_arrive_as_they_were_sent(sent: Columns) -> None:
    """Tensors of each type survive the transport bit by bit: fixed shapes, lengths that differ, empty ones, no rows."""
    segment = Segment.create()
    arrived = codec.columns(*crossed(segment, *codec.send_columns(sent)), sent.specs)
    assert arrived.values["s"].tolist() == sent.values["s"].tolist() and arrived.why == sent.why
    assert {k: v.tolist() for k, v in arrived.unusable.items()} == {k: v.tolist() for k, v in sent.unusable.items()}
    for spec in sent.specs[:-1]:
        there, here = arrived.values[spec.name], sent.values[spec.name]
        assert (there.dtype, there.shape) == (here.dtype, here.shape) and bits(there) == bits(here)
    segment.close()


SIZES = st.lists(st.integers(-1, 4) | st.sampled_from([-(2**63), 2**31, 2**62, 2**63 - 1]), max_size=3)
BLOCKS = st.lists(SIZES.map(lambda sizes: np.array(sizes, np.int64).tobytes()) | st.binary(max_size=24), max_size=6)
BATCH = st.fixed_dictionaries(
    {"rows": st.integers(-1, 3) | st.sampled_from([2**31, "2", None]), "matrix": st.booleans()},
    optional={"why": st.lists(st.tuples(st.integers(-1, 3), st.just("s"), st.just("null")), max_size=2)},
)


@given(st.sampled_from(TENSORS), BATCH, BLOCKS)
def test_a_damaged_batch_is_detected(spec: Spec, about: dict[str, Any], blocks: list[bytes]) -> None:
    """Any blocks decode to a row of its shape for each event, or raise Damaged."""
    try:
        found = codec.columns(about, [np.frombuffer(b, np.uint8) for b in blocks], (spec, SPECS[3]))
    except Damaged:
        return
    assert spec.tensor is not None
    assert about["matrix"] or all(len(column) == found.size for column in found.values.values())
    for row in found.values[spec.name] if not about["matrix"] else ():
        assert all(k in (-1, n) for k, n in zip(spec.tensor.shape, row.shape, strict=True))


@pytest.mark.parametrize(
    "message",
    [{}, {"dtypes": None}, {"dtypes": ["float32"]}, {"dtypes": {"a": 32}}, {"dtypes": {"a": "object"}}],
)
def test_types_that_no_input_has(message: dict[str, Any]) -> None:
    """A loaded model's message names a type of numbers for each feature, or is damaged."""
    assert codec.dtypes({"dtypes": {"a": "float16", "b": "int64"}}) == {"a": "float16", "b": "int64"}
    with pytest.raises(Damaged):
        codec.dtypes(message)


@pytest.mark.parametrize("given", [[0.5], [0.5, "a"], [-1, 0], "ab", {"run": 1}])
def test_times_that_are_no_seconds(given: Any) -> None:
    """A loaded model's message has two times, or none, or is damaged."""
    assert codec.times({"times": [0.5, 0]}) == RunTimes(0.5, 0) and codec.times({"times": None}) is None
    with pytest.raises(Damaged):
        codec.times({"times": given})


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


OUTPUTS: dict[str, Any] = {
    "f": np.array([0.1, np.nan], np.float32),
    "d": np.array([[[1e300], [0]], [[1], [2]]]),
    "i": np.array([[2**62, -1], [0, 1]]),
    "u": np.array([255, 0], np.uint8),
    "b": np.array([True, False]),
    "none": np.zeros((2, 0, 3)),
    "words": ["a", {"k": [None, 2**63]}],
}


def test_outputs_arrive_as_they_were_sent() -> None:
    """Further outputs keep their order, types, shapes and values."""
    segment = Segment.create()
    about, blocks = codec.send_answer(ModelOutput(Predictions(SCORES, outputs=OUTPUTS), {}))
    arrived = codec.answer(*crossed(segment, about, blocks), 2)
    segment.write([b"\xff" * 10_000])
    assert isinstance(arrived, ModelOutput) and arrived.predictions.outputs is not None
    got = arrived.predictions.outputs
    assert list(got) == list(OUTPUTS) and got["words"] == OUTPUTS["words"]
    for name, sent in OUTPUTS.items():
        if isinstance(sent, np.ndarray):
            assert (got[name].dtype, got[name].shape) == (sent.dtype, sent.shape)  # type: ignore[union-attr]
            assert np.array_equal(got[name], sent, equal_nan=sent.dtype.kind == "f")
    segment.close()


@pytest.mark.parametrize(
    ("outputs", "block"),
    [
        ([["a", None]], b"[1]"),
        ([["a", None]], b"{}"),
        ([["a", None]], b"[1, NaN]"),
        ([["a", None]], b"[" * 5000),
        ([["a", ["float32", 1]]], b"1234"),
        ([["a", ["float32", -1]]], b""),
        ([["a", ["float32", 10**30]]], b"12345678"),
        ([["a", ["object"]]], b"12345678"),
        ([["a", ["float16"]]], b"1234"),
        ([["a", ["bool"]]], b"\x00\x02"),
        ([["a", ["uint8", True]]], b"12"),
        ([["a", ["uint8"]], ["a", ["uint8"]]], b"12"),
        ([[1, ["uint8"]]], b"12"),
        ([["\ud800", ["uint8"]]], b"12"),
        ([], b""),
        (["a"], b"12"),
    ],
)
def test_impossible_outputs_are_detected(outputs: Any, block: bytes) -> None:
    """An output of another length, type or shape than it claims, or without a usable name, is not decoded."""
    blocks = [np.frombuffer(part, np.uint8) for part in (SCORES.tobytes(), block, block)]
    with pytest.raises(Damaged):
        codec.answer({"scores": "float32", "outputs": outputs}, blocks, 2)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["float32", "int", "text", "scores", "timeout", "bool"]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
ABOUT = st.dictionaries(
    st.sampled_from(["failure", "scores", "labels", "probabilities", "confidences", "bad", "outputs"]), JSON
)


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
