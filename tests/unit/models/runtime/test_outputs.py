"""Outputs: each form that models give, on real ONNX models; and the refusals where their meaning is not certain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from failsoft.models.runtime import outputs
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Unloadable
from failsoft.models.runtime.signature import Mismatch
from failsoft.schemas.failure import Failure, Kind
from tests.onnx_models import TYPES, X2, Port, a_card, answer, load, node, onnx_model, port, rows, same

AB = {"a": "float", "b": "float"}
ABC = {**AB, "c": "float"}


class Out(NamedTuple):
    """An output's name, type and shape."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def label(kind: str = "int64", *shape: int | str | None) -> Out:
    return Out("label", f"tensor({kind})", shape or (None,))


def scores(width: int | str | None = 2, kind: str = "float", name: str = "p") -> Out:
    return Out(name, f"tensor({kind})", (None, width))


MAPS = Out("m", "seq(map(string,tensor(float)))", ())


def reader(output: dict[str, Any], ports: Sequence[Out], labels: Sequence[Any] | None = None) -> outputs.OutputReader:
    return outputs.answers(ports, a_card(output, a="float"), labels)


def table(*numbers: Sequence[float], kind: Any = np.float32) -> np.ndarray[Any, np.dtype[Any]]:
    return np.array(numbers, kind)


def zipmap(kind: str, labels: Sequence[int | str]) -> onnx.ModelProto:
    """The input's columns as maps, as scikit-learn's exporter gives probabilities by default."""
    held = helper.make_map_type_proto(TYPES[kind], helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(held))
    key = "classlabels_strings" if kind == "string" else "classlabels_int64s"
    nodes = [
        node("ZipMap", ["x"], ["maps"], domain="ai.onnx.ml", **{key: list(labels)}),
        node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "g", [port("x", "float", ["n", len(labels)])], [port("label", "int64", ["n"]), maps]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "labels", "score", "answered"),
    [
        ({}, None, 0.75, 1),
        ({}, (0, 1), 0.75, 1),
        ({}, (1, 0), 0.25, 0),
        ({"positive": 0}, None, 0.25, 1),
        ({"positive": True}, (False, True), 0.75, 1),
        ({"positive": "fraud"}, ("fraud", "legit"), 0.25, "legit"),
        ({"positive": "legit"}, ("fraud", "legit"), 0.75, "legit"),
        ({"positive": -1}, (-1, 1), 0.25, 1),
        ({"labels": ["legit", "fraud"], "positive": "fraud"}, None, 0.75, "fraud"),
        ({"labels": ["legit", "fraud"], "positive": "fraud"}, (0, 1), 0.75, "fraud"),
        ({"labels": [1, 0]}, None, 0.25, 0),
    ],
)
def test_the_positive_label_chooses_the_column(
    output: dict[str, Any], labels: Any, score: float, answered: int | str
) -> None:
    """Of two columns, the score is the positive label's; the answer's label is the model's own or the card's name."""
    found = reader({"kind": "binary", **output}, [scores()], labels).read([table([0.25, 0.75])], 1)
    assert isinstance(found, ModelOutput) and not found.bad
    row = found.predictions.row(0)
    assert (row.score, row.confidence) == (score, 0.75)
    assert row.label == answered


@pytest.mark.parametrize(
    ("output", "ports", "labels", "words"),
    [
        ({}, [scores()], ("fraud", "legit"), ['positive = "fraud" or positive = "legit"']),
        ({}, [scores()], (-1, 1), ["positive = -1 or positive = 1"]),
        ({"positive": "x"}, [scores()], ("fraud", "legit"), ['"x" is none of them', 'positive = "fraud"']),
        ({"positive": "fraud"}, [scores()], None, ['labels = ["…", "fraud"]', "order of the model's columns"]),
        ({"positive": "fraud"}, [scores(1)], None, ['labels = ["…", "fraud"]']),
        ({}, [label("string"), scores()], None, ["gives a string as label", "labels = "]),
        ({"labels": [0, 1]}, [label("string"), scores()], None, ["numbers [0, 1]", "write the strings"]),
        (
            {"labels": ["legit", "fraud"], "positive": "fraud"},
            [scores()],
            ("fraud", "legit"),
            ['["legit", "fraud"]', '["fraud", "legit"]'],
        ),
        ({"labels": ["a", "b"], "positive": "a"}, [scores()], ("x", "y"), ['["a", "b"]', 'labels = ["x", "y"]']),
        ({"labels": [1, 0]}, [scores()], (0, 1), ["[1, 0]", "[0, 1]"]),
        ({}, [scores()], (0, 1, 2), ["3 labels", 'kind = "multiclass"']),
        ({"kind": "multiclass", "labels": [0, 1, 2]}, [scores(3)], (0, 2, 1), ["[0, 2, 1]"]),
        ({"kind": "multiclass"}, [scores(3)], ("a", "b"), ["3 columns", '["a", "b"]']),
        ({"kind": "multilabel", "labels": ["a", "b"]}, [scores(2)], ("b", "a"), ['["b", "a"]']),
    ],
)
def test_labels_that_are_not_certain_are_refused(
    output: dict[str, Any], ports: list[Out], labels: Any, words: list[str]
) -> None:
    """Where the label of a score is known from nowhere, or card and model contradict, the message has what to write."""
    with pytest.raises(Mismatch) as refused:
        reader({"kind": "binary", **output}, ports, labels)
    assert [word for word in words if word not in str(refused.value)] == []


def test_binary_labels_that_the_model_gives_are_compared() -> None:
    """With labels that only the card or a default tells, the model's own label output must not contradict them."""
    plain = reader({"kind": "binary"}, [label(), scores()])
    assert plain.names == ["p", "label"]
    p = table([0.75, 0.25], [0.25, 0.75])
    assert isinstance(plain.read([p, np.array([0, 1])], 2), ModelOutput)
    # A threshold of its own does not matter, and one label alone shows nothing.
    assert isinstance(plain.read([p, np.array([[1], [1]])], 2), ModelOutput)
    for own, words in (([1, 0], "say the opposite of the card"), ([1, 2], "own label 2 is neither 1 nor 0")):
        failure = plain.read([p, np.array(own)], 2)
        assert isinstance(failure, Failure) and failure.kind is Kind.BAD_OUTPUT and words in failure.message
    named = reader({"kind": "binary", "labels": ["no", "yes"], "positive": "yes"}, [label("string"), scores(1)])
    assert isinstance(named.read([table([0.2], [0.8]), np.array(["no", "yes"], object)], 2), ModelOutput)
    failure = named.read([table([0.2], [0.8]), np.array(["yes", "no"], object)], 2)
    assert isinstance(failure, Failure) and '"yes" have a lower score' in failure.message
    failure = named.read([table([0.2], [0.8]), np.array(["yes"], object)], 2)
    assert isinstance(failure, Failure) and "not one label per row" in failure.message


def test_a_bad_row_does_not_disturb_the_comparison() -> None:
    """A row without a usable score is bad by itself; its placeholder is not compared."""
    plain = reader({"kind": "binary"}, [label(), scores(1)])
    found = plain.read([table([0.25], [np.nan], [0.75]), np.array([0, 1, 1])], 3)
    assert isinstance(found, ModelOutput) and sorted(found.bad) == [1]


def test_labels_that_the_file_tells_are_not_fetched() -> None:
    """With the model's own labels and a column for each, the label output costs nothing."""
    assert reader({"kind": "binary"}, [label(), scores()], (0, 1)).names == ["p"]
    known = reader({"kind": "multiclass"}, [label("string"), scores(3)], ("x", "y", "z"))
    found = known.read([table([0, 0.25, 0.75])], 1)
    assert known.names == ["p"] and isinstance(found, ModelOutput) and found.predictions.labels == ["z"]


def test_a_class_order_that_the_model_contradicts() -> None:
    """A row whose own label is not the card's most probable one is bad; a tie is none of these."""
    named = reader({"kind": "multiclass", "labels": ["x", "y"]}, [label("string"), scores()])
    given = table([0.25, 0.75], [0.25, 0.75], [0.5, 0.5])
    found = named.read([given, np.array(["y", "x", "y"], object)], 3)
    assert isinstance(found, ModelOutput) and sorted(found.bad) == [1]
    assert 'own label is "x", and the most probable one by the card is "y"' in found.bad[1].message
    failure = named.read([given, np.array(["y", "z", "y"], object)], 3)
    assert isinstance(failure, Failure) and "none of the card's" in failure.message


def test_two_columns_that_are_no_distribution_are_bad() -> None:
    """Two columns that do not sum to one are two logits or something else, and never half of an answer."""
    found = reader({"kind": "binary"}, [scores()]).read([table([0.25, 0.75], [0.75, 0.75], [np.nan, 0.5])], 3)
    assert isinstance(found, ModelOutput) and sorted(found.bad) == [1, 2]
    assert found.bad[1].message == "invalid probabilities: they sum to 1.5"


# --- kinds ------------------------------------------------------------------------------------------------------------


def test_multilabel(tmp_path: Path) -> None:
    """Each column is a label of its own: all that reach the threshold are listed, the highest is the answer's."""
    card = a_card({"kind": "multilabel", "labels": ["x", "y", "z"]}, **ABC)
    found = answer(load(tmp_path, same(3), card), (0.625, 0.25, 0.75), (0.25, 0.375, 0.25), (0.5, 2, 0.5))
    first, second, _ = (found.predictions.row(i) for i in range(3))
    assert (first.score, first.label, first.confidence) == (0.75, "z", None)
    assert first.probabilities == (0.625, 0.25, 0.75) and first.outputs == {"labels": ["x", "z"]}
    assert (second.score, second.label, second.outputs) == (0.375, None, {"labels": []})
    assert found.bad == {2: Failure(Kind.BAD_OUTPUT, "label 'y': a score of 2; the range is [0, 1]")}


@pytest.mark.parametrize("form", ["tensor", "sequence"])
def test_multilabel_of_a_classifier_per_label(tmp_path: Path, form: str) -> None:
    """scikit-learn's trees give (labels, n, 2), its MultiOutputClassifier a sequence of (n, 2): each second column."""
    split = node("Split", ["x"], ["p", "q"], axis=1, num_outputs=2)
    one, both = [], []
    for name in "pq":
        one += [node("Sub", ["unit", name], [f"not_{name}"])]
        both += [node("Concat", [f"not_{name}", name], [f"both_{name}"], axis=1)]
    if form == "tensor":
        tops = [node("Unsqueeze", [f"both_{n}", "zero"], [f"top_{n}"]) for n in "pq"]
        joined = [*tops, node("Concat", ["top_p", "top_q"], ["y"], axis=0)]
        out = port("y", "float", [2, "n", 2])
    else:
        joined = [node("SequenceConstruct", ["both_p", "both_q"], ["y"])]
        held = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 2])
        out = helper.make_value_info("y", helper.make_sequence_type_proto(held))
    constants = [
        onnx.numpy_helper.from_array(np.float32(1), "unit"),
        onnx.numpy_helper.from_array(np.array([0]), "zero"),
    ]
    graph = helper.make_graph([split, *one, *both, *joined], "g", [port(*X2)], [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    found = answer(load(tmp_path, model, a_card({"kind": "multilabel"}, **AB)), (0.75, 0.25), (0.5, 1), (0, 0))
    assert found.predictions.outputs == {"labels": [[0], [0, 1], []]} and not found.bad
    assert found.predictions.labels == [0, 1, None]


def test_regression_of_several_columns(tmp_path: Path) -> None:
    """The first column is the score, all are in the outputs by name; a number that is not finite fails its row."""
    card = a_card({"kind": "regression", "outputs": ["lat", "lon"]}, **AB)
    found = answer(load(tmp_path, same(2), card), (52.5, 13.25), (1.0, float(np.finfo(np.float32).max)))
    assert found.predictions.row(0).score == 52.5
    assert found.predictions.row(0).outputs == {"lat": 52.5, "lon": 13.25}
    bad = reader({"kind": "regression", "outputs": ["lat", "lon"]}, [scores()]).read([table([1, 2], [1, np.inf])], 2)
    assert isinstance(bad, ModelOutput) and bad.bad == {1: Failure(Kind.BAD_OUTPUT, "'lon' is inf")}


def test_anomalies_on_the_low_side(tmp_path: Path) -> None:
    """With ``anomalous = "low"`` a score under the threshold is 1; on the high side one that reaches it."""
    for side, labels in (("low", [0, 0, 1]), ("high", [1, 1, 0])):
        card = a_card({"kind": "anomaly", "threshold": 0, "anomalous": side}, a="float")
        assert answer(load(tmp_path, same(1), card), (0.5,), (0.0,), (-0.5,)).predictions.labels == labels


def test_logits_become_probabilities(tmp_path: Path) -> None:
    """Sigmoid and softmax are stable for logits of any size, and come before every check."""
    card = a_card({"kind": "binary", "activation": "sigmoid"}, a="float")
    got = answer(load(tmp_path, same(1), card), (0.0,), (1.5,), (-1.5,), (1000.0,), (-1000.0,)).predictions
    assert got.scores.tolist() == pytest.approx([0.5, 0.8175745, 0.1824255, 1, 0])
    assert got.scores.dtype == np.float32
    card = a_card({"kind": "binary", "activation": "softmax"}, **AB)
    assert answer(load(tmp_path, same(2), card), (1.0, 2.5), (900.0, -900.0)).predictions.scores.tolist() == (
        pytest.approx([0.8175745, 0.0])
    )
    card = a_card({"kind": "multiclass", "activation": "softmax"}, **ABC)
    row = answer(load(tmp_path, same(3), card), (1e30, 0.0, -1e30), (1.0, 2.0, 3.0)).predictions
    assert row.probabilities is not None
    assert row.probabilities.tolist() == [[1, 0, 0], pytest.approx([0.0900306, 0.2447285, 0.6652409])]
    card = a_card({"kind": "multilabel", "activation": "sigmoid"}, **AB)
    assert answer(load(tmp_path, same(2), card), (3.0, -3.0)).predictions.outputs == {"labels": [[0]]}
    nan = reader({"kind": "multiclass", "activation": "softmax"}, [scores()]).read([table([np.inf, 0], [0, 0])], 2)
    assert isinstance(nan, ModelOutput) and sorted(nan.bad) == [0]


def test_doubles_stay_doubles_and_halves_become_floats(tmp_path: Path) -> None:
    """A double is answered with all its digits; half precision is widened to float32."""
    session = load(tmp_path, same(1, "double"), a_card({"kind": "regression"}, a="float"))
    got = answer(session, (1790000186.4,)).predictions
    assert got.scores.dtype == np.float64 and got.row(0).score == 1790000186.4
    cast = node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)
    half = onnx_model([X2], [("y", "float16", ["n", 2])], cast)
    got = answer(load(tmp_path, half, a_card({"kind": "binary"}, **AB)), (0.3, 0.7)).predictions
    assert got.scores.dtype == np.float32 and got.scores.tolist() == [float(np.float16(0.7))]
    wide = reader({"kind": "multiclass"}, [scores(2, "double")]).read([table([0.1, 0.9], kind=np.float64)], 1)
    assert isinstance(wide, ModelOutput) and wide.predictions.row(0).probabilities == (0.1, 0.9)


# --- maps -------------------------------------------------------------------------------------------------------------


def test_zipmap_is_read(tmp_path: Path) -> None:
    """Maps are read as columns; their keys are the model's own labels."""
    card = a_card({"kind": "binary"}, **AB)
    got = answer(load(tmp_path, zipmap("int64", [0, 1]), card), (0.25, 0.75), (0.625, 0.375)).predictions
    assert (got.scores.tolist(), got.labels) == ([0.75, 0.375], [1, 0])
    card = a_card({"kind": "multiclass"}, **ABC)
    got = answer(load(tmp_path, zipmap("string", ["a", "b", "c"]), card), (0.25, 0.625, 0.125)).predictions
    assert got.labels == ["b"] and got.row(0).probabilities == (0.25, 0.625, 0.125)
    card = a_card({"kind": "binary", "positive": "fraud"}, **AB)
    got = answer(load(tmp_path, zipmap("string", ["legit", "fraud"]), card), (0.25, 0.75)).predictions
    assert (got.scores.tolist(), got.labels) == ([0.75], ["fraud"])


def test_zipmaps_labels_are_held_against_the_card(tmp_path: Path) -> None:
    """A map whose labels are not the card's fails the warm-up, with the line that mends it."""
    session = load(tmp_path, zipmap("int64", [1, 2]), a_card({"kind": "binary"}, **AB))
    failure = session.run(rows(session.card, (0.25, 0.75)))
    assert isinstance(failure, Failure) and "positive = 1 or positive = 2" in failure.message
    with pytest.raises(Unloadable, match="positive = 1 or positive = 2"):
        session.warm()
    with pytest.raises(Mismatch, match='positive = "no" or positive = "yes"'):
        reader({"kind": "binary"}, [MAPS], ("no", "yes"))


def test_the_columns_of_maps_have_the_models_order() -> None:
    """The labels that the file tells give the columns' order, whatever the order of the map's keys."""
    known = reader({"kind": "multiclass"}, [MAPS], ("z", "a"))
    found = known.read([[{"a": 0.25, "z": 0.75}, {"a": 1.0, "z": 0.0}]], 2)
    assert isinstance(found, ModelOutput) and found.predictions.row(0).probabilities == (0.75, 0.25)
    assert found.predictions.labels == ["z", "a"]


@pytest.mark.parametrize("odd", [{"a": 1.0}, {"a": 0.5, "b": 0.5}, {"a": 0.5, "z": 0.25, "b": 0.25}])
def test_a_map_with_other_labels_is_bad(odd: dict[str, float]) -> None:
    """A row with other labels than the first is bad, and its neighbours are answered."""
    found = reader({"kind": "multiclass"}, [MAPS]).read([[{"a": 0.25, "z": 0.75}, odd, {"z": 0.0, "a": 1.0}]], 3)
    assert isinstance(found, ModelOutput) and found.predictions.labels is not None
    assert (found.predictions.labels[0], found.predictions.labels[2]) == ("z", "a")
    assert list(found.bad) == [1] and "instead of ['a', 'z']" in found.bad[1].message


# --- carried ----------------------------------------------------------------------------------------------------------


def carrying() -> onnx.ModelProto:
    """A score, and beside it a mean of one column, ids, a tensor of rank 3, flags and words."""
    outs: list[Port] = [
        ("y", "float", ["n", 1]),
        ("std", "float", ["n", 1]),
        ("ids", "int64", ["n", 2]),
        ("cube", "double", ["n", 2, 1]),
        ("half", "float16", ["n", 2]),
        ("flag", "bool", ["n", 2]),
        ("word", "string", ["n"]),
    ]
    nodes = [
        node("Split", ["x"], ["y", "q"], axis=1, num_outputs=2),
        node("Log", ["q"], ["std"]),
        node("Cast", ["x"], ["ids_"], to=TensorProto.INT64),
        node("Add", ["ids_", "large"], ["ids"]),
        node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        node("Unsqueeze", ["wide", "two"], ["cube"]),
        node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        node("Cast", ["x"], ["flag"], to=TensorProto.BOOL),
        node("Gather", ["words", "best"], ["word"]),
        node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
    ]
    nodes.append(nodes.pop(-2))
    words = np.array(["left", 'ri"ght'], object)
    return onnx_model([X2], outs, *nodes, constants={"large": np.int64(2**62), "two": np.array([2]), "words": words})


def test_outputs_are_carried_along(tmp_path: Path) -> None:
    """Tensors of every kind are copied with their values exact; what is not finite is null, and fails no row."""
    names = ["std", "ids", "cube", "half", "flag", "word"]
    card = a_card({"kind": "regression", "output": "y", "carry": names}, **AB)
    found = answer(load(tmp_path, carrying(), card), (0.5, 1.0), (3.0, 0.0))
    assert not found.bad and found.predictions.outputs is not None
    first, second = (found.predictions.row(i).outputs for i in range(2))
    assert first == {
        "std": 0.0,
        "ids": [2**62, 2**62 + 1],
        "cube": [[0.5], [1.0]],
        "half": [0.5, 1.0],
        "flag": [True, True],
        "word": 'ri"ght',
    }
    assert second is not None and (second["std"], second["word"]) == (None, "left")
    assert list(first) == names  # in the card's order


def test_the_carried_outputs_leave_one_for_the_score(tmp_path: Path) -> None:
    """An output that is carried is no candidate for the score; so ``carry`` may choose by itself."""
    outs: list[Port] = [("mean", "float", ["n", 1]), ("std", "float", ["n", 1])]
    model = onnx_model([X2], outs, node("Split", ["x"], ["mean", "std"], axis=1, num_outputs=2))
    found = answer(load(tmp_path, model, a_card({"kind": "regression", "carry": ["std"]}, **AB)), (7.0, 0.25))
    assert found.predictions.row(0).score == 7 and found.predictions.row(0).outputs == {"std": 0.25}


def test_maps_can_be_carried(tmp_path: Path) -> None:
    """A sequence of maps becomes an object for each row, with the shortest decimals of its numbers."""
    model = zipmap("int64", [3, 5])
    model.graph.output.append(port("y", "float", ["n", 2]))
    model.graph.node.append(node("Identity", ["x"], ["y"]))
    card = a_card({"kind": "binary", "output": "y", "carry": ["maps", "label"]}, **AB)
    found = answer(load(tmp_path, model, card), (0.3, 0.7))
    assert found.predictions.row(0).outputs == {"maps": {"3": 0.3, "5": 0.7}, "label": 1}


def test_a_carried_output_without_the_batchs_dimension() -> None:
    """A carried output that has another number of rows fails the batch: nothing says which row is whose."""
    ports = [scores(1), Out("ids", "tensor(int64)", (5,))]
    failure = reader({"kind": "regression", "carry": ["ids"]}, ports).read([table([1.0], [2.0]), np.arange(5)], 2)
    assert isinstance(failure, Failure) and "'ids' is 5 for 2 rows" in failure.message


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "ports", "words"),
    [
        (
            {},
            [scores(1), scores(8, name="q"), scores(3, "double", "r")],
            ["'p' (tensor(float), ?×1)", "'r' (tensor(double), ?×3)", 'output = "p"', 'carry = ["q", "r"]'],
        ),
        ({}, [label()], ["no output is a float tensor ('label' (tensor(int64), ?))", "scores or probabilities"]),
        (
            {"output": "label"},
            [label(), scores()],
            ["'label' (tensor(int64), ?) holds no scores", "'p' (tensor"],
        ),
        ({}, [Out("y", "tensor(float)", ("n", 1, 2))], ["3 dimensions, n×1×2", "without the dimensions of 1"]),
        ({}, [Out("y", "tensor(float)", ("n", 9, 2))], ["3 dimensions, n×9×2", "one step or position", "carry"]),
        (
            {"kind": "multiclass"},
            [Out("ids", "tensor(int64)", ("n", 5)), scores(5)],
            ["top-k", 'kind = "regression", outputs = ["score_1", "score_2", …] and carry = ["ids"]', '"multilabel"'],
        ),
        (
            {},
            [Out("label", "tensor(int64)", ("n", 2)), scores(2)],
            ["if each column is a label of its own"],
        ),
        ({"kind": "regression"}, [scores(3)], ["3 columns", 'outputs = ["…", "…", "…"]']),
        ({"kind": "regression", "outputs": ["a", "b"]}, [scores(3)], ["the card's outputs name 2"]),
        ({"kind": "multiclass"}, [scores(1)], ['one column is kind = "binary"']),
        ({}, [scores(3)], ['kind = "multiclass", or "multilabel"']),
        ({"kind": "anomaly"}, [scores(2)], ["2 columns, not those of an anomaly output"]),
        ({"activation": "softmax"}, [scores(1)], ['write activation = "sigmoid"']),
        ({"carry": ["sdt"]}, [scores(), scores(1, name="std")], ["carry: 'sdt'", "did you mean 'std'"]),
        ({"carry": ["p"]}, [scores()], ["all float outputs are in carry"]),
        ({"carry": ["s"]}, [scores(), Out("s", "seq(tensor(string))", ())], ["carry: 's' (seq(tensor(string)))"]),
        ({"kind": "multilabel", "carry": ["labels"]}, [scores(), label()._replace(name="labels")], ["rename"]),
        ({"kind": "multiclass"}, [Out("s", "seq(tensor(float))", ())], ['write kind = "multilabel"']),
    ],
)
def test_an_output_that_cannot_be_the_answer_is_refused(
    output: dict[str, Any], ports: list[Out], words: list[str]
) -> None:
    """The message names the output with its type and shape, and what would be right."""
    with pytest.raises(Mismatch) as refused:
        reader({"kind": "binary", **output}, ports)
    assert [word for word in words if word not in str(refused.value)] == [], str(refused.value)


def test_top_k_can_be_answered_as_the_refusal_says() -> None:
    """The best of a list: its highest score is the answer's, and the ids are carried."""
    ports = [Out("ids", "tensor(int64)", ("n", 2)), scores(2)]
    card = {"kind": "regression", "outputs": ["score_1", "score_2"], "carry": ["ids"]}
    found = reader(card, ports).read([table([9, 7]), np.array([[41, 3]])], 1)
    assert isinstance(found, ModelOutput)
    assert found.predictions.row(0).outputs == {"score_1": 9, "score_2": 7, "ids": [41, 3]}
    json.dumps(found.predictions.row(0).outputs)


def test_an_output_without_a_batchs_dimension_fails() -> None:
    """An output that has the same size for any number of rows fails the batch, and says what it needs."""
    for tensor in (np.float32(0.5), table([0.5, 0.5])[0]):
        failure = reader({"kind": "binary"}, [Out("y", "tensor(float)", ())]).read([tensor], 1)
        assert isinstance(failure, Failure) and "first dimension must be that of the batch" in failure.message
