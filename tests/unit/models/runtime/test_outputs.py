"""Outputs: each form that models give, on real ONNX models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from failsoft.models.catalog.fields import OutputKind
from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.runtime.outputs import ModelOutput
from failsoft.models.runtime.session import Unloadable
from failsoft.models.vetting.probabilities import logits
from failsoft.schemas.failure import Failure, Kind
from tests.onnx_models import TYPES, X2, Port, a_card, answer, load, node, onnx_model, port, same
from tests.output_ports import MAPS, Out, reader, scores, table

AB = {"a": "float", "b": "float"}
ABC = {**AB, "c": "float"}


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


# --- kinds ---


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


def test_pairs_that_are_no_probabilities_are_bad() -> None:
    """The two columns of a label are its absence and its presence; labels of more classes are no pairs."""
    several = reader({"kind": "multilabel"}, [Out("y", "tensor(float)", (2, None, 2))])
    found = several.read([np.array([[[0.25, 0.75], [1, 1]], [[0.5, 0.5], [1, 0]]], np.float32)], 2)
    assert isinstance(found, ModelOutput) and list(found.bad) == [1]
    assert found.bad[1].message == "label 0: its two probabilities sum to 2"
    ragged = reader({"kind": "multilabel"}, [Out("y", "seq(tensor(float))", ())])
    failure = ragged.read([[np.zeros((2, 2), np.float32), np.zeros((2, 3), np.float32)]], 2)
    assert isinstance(failure, Failure) and "2×2 and 2×3" in failure.message


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


def test_half_precision_is_judged_as_a_vetting_judges_it() -> None:
    """What rounding may do to half precision passes the vetting, and is answered: the number after 1 is 1.00098."""
    single = [[1.001], [0.5]]
    got = reader({"kind": "binary"}, [scores(1, "float16")]).read([table(*single, kind=np.float16)], 2)
    assert isinstance(got, ModelOutput) and not got.bad and got.predictions.scores.tolist() == [1, 0.5]
    assert logits(np.array(single), "float16", OutputSection(kind=OutputKind.BINARY)) is None
    rows = [[0.5, 0.3, 0.215]]
    got = reader({"kind": "multiclass"}, [scores(3, "float16")]).read([table(*rows, kind=np.float16)], 1)
    assert isinstance(got, ModelOutput) and not got.bad
    assert logits(np.array(rows), "float16", OutputSection(kind=OutputKind.MULTICLASS)) is None


# --- maps ---


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
    """Labels that the file does not tell are those of the maps, and are held against the card in each batch."""
    with pytest.raises(Unloadable, match="positive = 1 or positive = 2"):
        load(tmp_path, zipmap("int64", [1, 2]), a_card({"kind": "binary"}, **AB))
    unknown = reader({"kind": "binary"}, [MAPS])
    failure = unknown.read([[{"no": 0.25, "yes": 0.75}]], 1)
    assert isinstance(failure, Failure) and 'positive = "no" or positive = "yes"' in failure.message
    swapped = reader({"kind": "multiclass", "labels": ["yes", "no"]}, [MAPS])
    failure = swapped.read([[{"no": 0.25, "yes": 0.75}]], 1)
    assert isinstance(failure, Failure) and '["yes", "no"]' in failure.message


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


# --- carried ---


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
    card = a_card({"kind": "binary", "output": "y", "positive": 5, "carry": ["maps", "label"]}, **AB)
    found = answer(load(tmp_path, model, card), (0.3, 0.7))
    assert found.predictions.row(0).outputs == {"maps": {"3": 0.3, "5": 0.7}, "label": 1}


def test_a_carried_output_without_the_batchs_dimension() -> None:
    """A carried output that has another number of rows fails the batch: nothing says which row is whose."""
    ports = [scores(1), Out("ids", "tensor(int64)", (5,))]
    failure = reader({"kind": "regression", "carry": ["ids"]}, ports).read([table([1.0], [2.0]), np.arange(5)], 2)
    assert isinstance(failure, Failure) and "'ids' is 5 for 2 rows" in failure.message
