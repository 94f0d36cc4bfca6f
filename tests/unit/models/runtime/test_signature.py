"""A card and a model: tensors to answers, and the mismatches refused at load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from failsoft.models.runtime.session import Unloadable
from failsoft.schemas.failure import Failure, Kind
from tests.onnx_models import X2, Port, a_card, answer, load, node, onnx_model, rows, same


def test_binary_of_two_columns(tmp_path: Path) -> None:
    """The second column is the score; the threshold gives the label, and the larger probability the confidence."""
    session = load(tmp_path, same(), a_card({"kind": "binary", "threshold": 0.7}, a="float", b="float"))
    assert (session.key, session.model, session.version) == ("m@3", "m", 3)
    outcome = answer(session, (0.25, 0.75), (0.4, 0.6), (0.9, 0.1))
    assert outcome.bad == {}
    assert outcome.predictions.scores.tolist() == pytest.approx([0.75, 0.6, 0.1])
    assert outcome.predictions.scores.dtype == np.float32
    assert outcome.predictions.labels == [1, 0, 0]
    assert outcome.predictions.confidences is not None
    assert outcome.predictions.confidences.tolist() == pytest.approx([0.75, 0.6, 0.9])


@pytest.mark.parametrize("shape", [["n"], ["n", 1]])
def test_binary_of_one_column(tmp_path: Path, shape: list[int | str]) -> None:
    """One number per row, flat or in a column, is the score."""
    model = onnx_model([("a", "float", shape)], [("y", "float", shape)], node("Identity", ["a"], ["y"]))
    assert (
        answer(load(tmp_path, model, a_card({"kind": "binary"}, a="float")), (0.25,)).predictions.row(0).score == 0.25
    )


def test_multiclass(tmp_path: Path) -> None:
    """The most likely class gives label, score and confidence, and all probabilities are kept."""
    output = {"kind": "multiclass", "classes": ["low", "mid", "high"]}
    session = load(tmp_path, same(3), a_card(output, a="float", b="float", c="float"))
    prediction = answer(session, (0.25, 0.625, 0.125)).predictions.row(0)
    assert (prediction.label, prediction.score, prediction.confidence) == ("mid", 0.625, 0.625)
    assert prediction.probabilities == (0.25, 0.625, 0.125)


def test_multiclass_labels_of_the_model(tmp_path: Path) -> None:
    """Without classes in the card the labels are the model's own."""
    model = onnx_model(
        [X2],
        [("label", "int64", ["n"]), ("probabilities", "float", ["n", 2])],
        node("Identity", ["x"], ["probabilities"]),
        node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        node("Add", ["i", "ten"], ["label"]),
        constants={"ten": np.int64(10)},
    )
    session = load(tmp_path, model, a_card({"kind": "multiclass"}, a="float", b="float"))
    assert answer(session, (0.25, 0.75), (1, 0)).predictions.labels == [11, 10]


def test_regression_and_anomaly(tmp_path: Path) -> None:
    """A regression has only a score; an anomaly has a label if the card gives a threshold."""
    plain = answer(load(tmp_path, same(1), a_card({"kind": "regression"}, a="float")), (-7.5,)).predictions
    assert (plain.scores.tolist(), plain.labels, plain.confidences) == ([-7.5], None, None)
    strange = a_card({"kind": "anomaly", "threshold": 2}, a="float")
    assert answer(load(tmp_path, same(1), strange), (1.5,), (2,)).predictions.labels == [0, 1]


def quotient() -> onnx.ModelProto:
    """The first feature divided by the second, which may be infinite or NaN."""
    split = node("Split", ["x"], ["p", "q"], axis=1, num_outputs=2)
    divide, flatten = node("Div", ["p", "q"], ["r"]), node("Squeeze", ["r", "one"], ["y"])
    return onnx_model([X2], [("y", "float", ["n"])], split, divide, flatten, constants={"one": np.array([1])})


def test_a_bad_row_fails_alone(tmp_path: Path) -> None:
    """A score that is not finite or out of range fails its row, and the other rows are answered."""
    session = load(tmp_path, quotient(), a_card({"kind": "binary"}, a="float", b="float"))
    outcome = answer(session, (1, 4), (0, 0), (1, 0), (5, 4), (3, 4))
    assert outcome.predictions.scores[[0, 4]].tolist() == [0.25, 0.75]
    assert np.isfinite(outcome.predictions.scores).all()
    assert {i: f.kind for i, f in outcome.bad.items()} == dict.fromkeys([1, 2, 3], Kind.BAD_OUTPUT)
    assert outcome.bad[3].message == "a score of 1.25; the range is [0, 1]"


def test_not_finite_is_bad_without_a_range(tmp_path: Path) -> None:
    """A regression without a range may give any score except infinity and NaN."""
    outcome = answer(
        load(tmp_path, quotient(), a_card({"kind": "regression"}, a="float", b="float")), (1, 0), (0, 0), (9, 3)
    )
    assert sorted(outcome.bad) == [0, 1] and outcome.predictions.scores[2] == 3
    assert outcome.bad[0].message == "a score of inf"


def test_a_score_that_rounding_moved_out_of_range(tmp_path: Path) -> None:
    """A score that float32 rounding moved beyond a bound becomes the bound."""
    score = float(np.nextafter(np.float32(1), np.float32(2)))
    outcome = answer(load(tmp_path, same(1), a_card({"kind": "binary"}, a="float")), (score,), (-1e-8,))
    assert (outcome.predictions.scores.tolist(), outcome.bad) == ([1.0, 0.0], {})


def test_logits_are_not_probabilities(tmp_path: Path) -> None:
    """A multiclass row that does not sum to one, or has a negative value, is bad."""
    session = load(tmp_path, same(2), a_card({"kind": "multiclass"}, a="float", b="float"))
    outcome = answer(session, (0.5, 0.5), (2, 3), (-1, 2), (0.5, 0.75))
    assert sorted(outcome.bad) == [1, 2, 3]
    assert outcome.bad[1].message == "invalid probabilities: they sum to 5"


def test_wrong_width_fails_the_batch(tmp_path: Path) -> None:
    """An output whose width is known only at run time, and does not fit the card's kind, fails the whole batch."""
    model = onnx_model(
        [("x", "float", ["n", "k"])], [("y", "float", ["n", "w"])], node("Concat", ["x", "x"], ["y"], axis=1)
    )
    session = load(tmp_path, model, a_card({"kind": "binary"}, a="float", b="float"))
    outcome = session.run(rows(session.card, (0, 1)))
    assert isinstance(outcome, Failure) and outcome.kind is Kind.BAD_OUTPUT
    assert outcome.message.startswith("output 'y' is 1×4, not those of a binary output: write kind")


def two_outputs() -> onnx.ModelProto:
    outputs: list[Port] = [("y", "float", ["n", 1]), ("z", "float", ["n", 1])]
    nodes = node("Identity", ["x"], ["y"]), node("Neg", ["x"], ["z"])
    return onnx_model([("x", "float", ["n", 1])], outputs, *nodes)


def deep() -> onnx.ModelProto:
    unsqueeze = node("Unsqueeze", ["x", "one"], ["y"])
    return onnx_model([X2], [("y", "float", ["n", 1, 2])], unsqueeze, constants={"one": np.array([1])})


A, AB = {"a": "float"}, {"a": "float", "b": "float"}
ABC = {**AB, "c": "float"}


@pytest.mark.parametrize(
    ("model", "output", "types", "message"),
    [
        (same(3), {}, AB, "has 3 columns, and the card lists 2 features"),
        (same(3), {}, ABC, "has 3 columns, not those of a binary output"),
        (same(3), {"kind": "multiclass", "classes": ["p", "q"]}, ABC, "not those of a multiclass output of 2 labels"),
        (deep(), {}, AB, "output 'y' has 3 dimensions"),
        (same(2, "int64"), {}, {"a": "int", "b": "int"}, "no output is a float tensor"),
        (same(2), {"output": "z"}, AB, "output 'z' is not an output of the model, which has ['y']"),
        (two_outputs(), {}, A, "'z' (tensor(float), n×1)): choose one in the card's [output]"),
        (b"not a model", {}, A, "not an ONNX file, or a damaged one"),
    ],
)
def test_a_mismatch_is_refused_at_load(
    tmp_path: Path, model: onnx.ModelProto | bytes, output: dict[str, Any], types: dict[str, str], message: str
) -> None:
    """A model that does not match its card never serves; the message says where they differ and what to do."""
    with pytest.raises(Unloadable) as refused:
        load(tmp_path, model, a_card({"kind": "binary", **output}, **types))
    assert message in str(refused.value)
    assert str(refused.value).startswith("m@3: ")


def test_the_card_chooses_among_outputs(tmp_path: Path) -> None:
    """``output`` in the card chooses one of several float outputs."""
    session = load(tmp_path, two_outputs(), a_card({"kind": "regression", "output": "z"}, x="float"))
    assert answer(session, (2.0,)).predictions.scores.tolist() == [-2.0]
