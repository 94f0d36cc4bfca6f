"""The checks on one version, in this process: what scores and labels mean, missing values, and golden vectors."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact
from failsoft.models.vetting.checks import run_checks
from failsoft.models.vetting.verdict import Check, CheckResult
from tests.onnx_models import Port, features, node, onnx_model

ML = "ai.onnx.ml"
Ports = tuple[list[Port], list[Port]]
PASSED, NOTE, SKIPPED, FAILED = CheckResult.PASSED, CheckResult.NOTE, CheckResult.SKIPPED, CheckResult.FAILED
X2 = features(a="float", b="float")


def checked(
    folder: Path,
    model: onnx.ModelProto,
    output: dict[str, Any],
    given: Sequence[dict[str, Any]] = X2,
    golden: Sequence[Any] = (),
) -> dict[str, Check]:
    """The finished checks by name."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    if golden:
        (folder / "golden.ndjson").write_text("\n".join(map(json.dumps, golden)))
    card = ModelCard.model_validate({"model": {"name": "m"}, "output": output, "features": list(given)})
    artifact = Artifact("m", 1, path, hashlib.sha256(path.read_bytes()).hexdigest(), None, {}, {})
    steps = run_checks(artifact, card, "512 MB", time.perf_counter)
    return {step.name: step for step in steps if isinstance(step, Check)}


def result(checks: dict[str, Check], name: str) -> tuple[CheckResult, str]:
    return checks[name].result, checks[name].message


def net(width: int, *last: str, kind: str = "float") -> onnx.ModelProto:
    """Two features to ``width`` columns of both signs, through the operators ``last``."""
    weights = np.array([[0.9, -0.4, 0.2], [-0.3, 0.8, 0.1]][:2], np.float32)[:, :width]
    names = ["y0", *(f"y{i + 1}" for i in range(len(last)))]
    steps = [node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(last)]
    steps.append(node("Cast", [names[-1]], ["y"], to=TensorProto.DOUBLE if kind == "double" else TensorProto.FLOAT))
    ports: Ports = [("x", "float", ["n", 2])], [("y", kind, ["n", width])]
    return onnx_model(*ports, node("MatMul", ["x", "w"], ["y0"]), *steps, constants={"w": weights})


def classifier(*labels: int | str, post: str = "SOFTMAX") -> onnx.ModelProto:
    """A linear classifier with its own label output, whose second label is likely where ``a`` is large."""
    key = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_ints"
    weights = [-1.0, 0.2, 1.0, 0.1, 0.0, -1.0][: 2 * len(labels)]
    linear = node(
        "LinearClassifier",
        ["x"],
        ["label", "p"],
        domain=ML,
        coefficients=weights,
        intercepts=[0.0] * len(labels),
        post_transform=post,
        **{key: list(labels)},
    )
    kind = "string" if isinstance(labels[0], str) else "int64"
    return onnx_model([("x", "float", ["n", 2])], [("label", kind, ["n"]), ("p", "float", ["n", len(labels)])], linear)


# --- logits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "width", "activation"),
    [("binary", 1, "sigmoid"), ("binary", 2, "softmax"), ("multiclass", 3, "softmax"), ("multilabel", 3, "sigmoid")],
)
def test_logits_fail_with_the_activation_that_mends_them(
    tmp_path: Path, kind: str, width: int, activation: str
) -> None:
    """Scores outside [0, 1] are no note: a logit within it would be answered as a probability."""
    labels = {"labels": ["a", "b", "c"]} if kind == "multilabel" else {}
    found, message = result(checked(tmp_path, net(width), {"kind": kind, **labels}), "output")
    assert found is FAILED and f'activation = "{activation}"' in message and "outside [0, 1]" in message


def test_rows_that_do_not_sum_to_1_fail(tmp_path: Path) -> None:
    """Each score is within [0, 1], and the row's are no probabilities of one choice."""
    found, message = result(checked(tmp_path, net(3, "Sigmoid"), {"kind": "multiclass"}), "output")
    assert found is FAILED and "do not sum to 1" in message and 'kind = "multilabel"' in message


def test_a_margin_in_two_columns_is_a_logit_of_its_own(tmp_path: Path) -> None:
    """The softmax of m and -m is the sigmoid of 2m, so another activation is named."""
    ports: Ports = [("x", "float", ["n", 2])], [("y", "float", ["n", 2])]
    weights = np.array([[0.9, -0.9], [-0.3, 0.3]], np.float32)
    margin = onnx_model(*ports, node("MatMul", ["x", "w"], ["y"]), constants={"w": weights})
    found, message = result(checked(tmp_path, margin, {"kind": "binary"}), "output")
    assert found is FAILED and 'activation = "sigmoid"' in message and "margin" in message
    multiclass = {"kind": "multiclass"}
    for output, check in ((multiclass, "output"), ({**multiclass, "activation": "softmax"}, "activation")):
        found, message = result(checked(tmp_path, margin, output), check)
        assert found is FAILED and 'write kind = "binary" and activation = "sigmoid"' in message
    for model, said, right in ((margin, "softmax", "sigmoid"), (net(2), "sigmoid", "softmax")):
        output = {"kind": "binary", "activation": said}
        found, message = result(checked(tmp_path, model, output), "activation")
        assert found is FAILED and f'write activation = "{right}"' in message
        mended = checked(tmp_path, model, {**output, "activation": right})
        assert {mended[name].result for name in ("output", "activation")} == {PASSED}


@pytest.mark.parametrize(("kind", "width", "last"), [("binary", 1, "Sigmoid"), ("multiclass", 3, "Softmax")])
def test_probabilities_pass_without_an_activation_and_fail_with_one(
    tmp_path: Path, kind: str, width: int, last: str
) -> None:
    """A sigmoid of a sigmoid passes each other check, and each answer is wrong."""
    model, activation = net(width, last), last.lower()
    assert result(checked(tmp_path, model, {"kind": kind}), "output")[0] is PASSED
    found, message = result(checked(tmp_path, model, {"kind": kind, "activation": activation}), "activation")
    assert found is FAILED and f'activation = "{activation}" would change them: remove it' in message
    each = {"kind": kind, "activation": "softmax"}
    if kind == "multiclass":  # a probability for each label is none of one choice, and no logit either
        found, message = result(checked(tmp_path, net(width, "Sigmoid"), each), "activation")
        assert found is FAILED and 'kind = "multilabel"' in message


def test_an_activation_of_logits_passes(tmp_path: Path) -> None:
    """The raw scores are judged, not those that the activation made."""
    checks = checked(tmp_path, net(1), {"kind": "binary", "activation": "sigmoid"})
    assert result(checks, "activation")[0] is PASSED


def test_golden_vectors_may_prove_an_activation(tmp_path: Path) -> None:
    """A model may give logits that are all within [0, 1]: vectors that agree decide."""
    model = net(1, "Sigmoid")
    twice = {"kind": "binary", "activation": "sigmoid"}
    golden = [{"features": {"a": 0.0, "b": 0.0}, "expected": {"score": 1 / (1 + np.exp(-0.5))}}]
    assert result(checked(tmp_path, model, twice, golden=golden), "activation")[0] is NOTE


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_in_another_order_than_the_models_columns_fail(tmp_path: Path) -> None:
    """Its own label output shows it. No card mends it, since another ``positive`` is read from the other column."""
    model = classifier(0, 1)
    assert result(checked(tmp_path, model, {"kind": "binary"}), "labels")[0] is PASSED
    turned = node("Gather", ["p0", "turn"], ["p"], axis=1)
    model.graph.node[0].output[1] = "p0"
    model.graph.node.append(turned)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "turn"))
    for positive in (0, 1):
        found, message = result(checked(tmp_path, model, {"kind": "binary", "positive": positive}), "labels")
        assert found is FAILED and "contradicts the card" in message and "export" in message


@pytest.mark.parametrize("positive", ["legit", "fraud"])
def test_labels_of_the_models_own_need_only_the_positive_one(tmp_path: Path, positive: str) -> None:
    """The file has them in the order of its columns; without the positive one both are named."""
    model = classifier("legit", "fraud")
    assert result(checked(tmp_path, model, {"kind": "binary", "positive": positive}), "labels")[0] is PASSED
    found, message = result(checked(tmp_path, model, {"kind": "binary"}), "contract")
    assert found is FAILED and 'positive = "legit" or positive = "fraud"' in message


def test_a_multiclass_model_that_is_read_in_another_order_fails(tmp_path: Path) -> None:
    """Names for numbered classes are the card's; only its own label output shows that the columns are turned."""
    model, names = classifier(0, 1, 2), ["low", "mid", "high"]
    output = {"kind": "multiclass", "labels": names}
    assert result(checked(tmp_path, model, output), "labels")[0] is PASSED
    model.graph.node[0].output[1] = "p0"
    model.graph.node.append(node("Gather", ["p0", "turn"], ["p"], axis=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2, 0]), "turn"))
    found, message = result(checked(tmp_path, model, output), "labels")
    assert found is FAILED and 'labels = ["mid", "high", "low"]' in message


def test_a_threshold_of_ones_own_does_not_contradict_the_model(tmp_path: Path) -> None:
    """The model's label changes at 0.5; the card may choose another threshold."""
    checks = checked(tmp_path, classifier(0, 1), {"kind": "binary", "threshold": 0.9})
    assert result(checks, "labels")[0] is PASSED


def test_a_model_that_decides_elsewhere_is_noted(tmp_path: Path) -> None:
    """Where the scores part its labels at another number, that is its threshold, and no contradiction."""
    steps = [
        node("Sigmoid", ["x"], ["p"]),
        node("Greater", ["p", "limit"], ["is"]),
        node("Cast", ["is"], ["label"], to=TensorProto.INT64),
    ]
    ports: Ports = [("x", "float", ["n", 1])], [("p", "float", ["n", 1]), ("label", "int64", ["n", 1])]
    model = onnx_model(*ports, *steps, constants={"limit": np.float32(0.7)})
    found, message = result(checked(tmp_path, model, {"kind": "binary"}, features(a="float")), "labels")
    assert found is NOTE and "changes between the scores" in message


def detector(outlier: int, inlier: int, low: bool) -> onnx.ModelProto:
    """A score of 3 - |x|, and a label: an outlier where |x| is over 3."""
    steps = [
        node("Abs", ["x"], ["size"]),
        node("Sub", ["three", "size"], ["s"]) if low else node("Sub", ["size", "three"], ["s"]),
        node("Greater", ["size", "three"], ["far"]),
        node("Where", ["far", "outlier", "inlier"], ["label"]),
    ]
    constants = {"three": np.float32(3), "outlier": np.int64(outlier), "inlier": np.int64(inlier)}
    ports: Ports = [("x", "float", ["n", 1])], [("label", "int64", ["n", 1]), ("s", "float", ["n", 1])]
    return onnx_model(*ports, *steps, constants=constants)


@pytest.mark.parametrize("side", ["high", "low"])
@pytest.mark.parametrize(("outlier", "inlier"), [(-1, 1), (1, 0)])
def test_an_anomaly_models_own_label_says_which_side_is_anomalous(
    tmp_path: Path, side: str, outlier: int, inlier: int
) -> None:
    """The other side is refused with the line that mends it; scikit-learn's label is -1, others' is 1."""
    model, one = detector(outlier, inlier, low=side == "low"), features(x="float")
    for said in ("high", "low"):
        output = {"kind": "anomaly", "threshold": 0.0, "anomalous": said}
        found, message = result(checked(tmp_path, model, output, one), "labels")
        assert (found is PASSED) == (said == side)
        assert said == side or (found is FAILED and f'anomalous = "{side}"' in message)


def test_an_anomaly_threshold_elsewhere_is_noted(tmp_path: Path) -> None:
    """A stricter threshold is the card's to choose, and a card without one gives no label."""
    model, one = detector(-1, 1, low=True), features(x="float")
    output = {"kind": "anomaly", "threshold": -500.0, "anomalous": "low"}
    assert result(checked(tmp_path, model, output, one), "labels")[0] is NOTE
    found, message = result(checked(tmp_path, model, {"kind": "anomaly", "anomalous": "low"}, one), "labels")
    assert found is NOTE and "no threshold" in message


# --- missing values ---------------------------------------------------------------------------------------------------


def test_nan_features_must_get_a_score(tmp_path: Path) -> None:
    """A net's answer to NaN is NaN: the card's promise that the model knows missing values is wrong."""
    known = [dict(feature, impute="nan") for feature in X2]
    found, message = result(checked(tmp_path, net(1, "Sigmoid"), {"kind": "binary"}, known), "nan")
    assert found is FAILED and 'impute = "nan"' in message and "a, b" in message
    steps = [
        node("IsNaN", ["y0"], ["nan"]),
        node("Where", ["nan", "half", "y1"], ["y"]),
        node("Sigmoid", ["y0"], ["y1"]),
    ]
    constants = {"w": np.ones((2, 1), np.float32), "half": np.float32(0.5)}
    ports: Ports = [("x", "float", ["n", 2])], [("y", "float", ["n", 1])]
    steps = [node("MatMul", ["x", "w"], ["y0"]), steps[2], steps[0], steps[1]]
    model = onnx_model(*ports, *steps, constants=constants)
    assert result(checked(tmp_path, model, {"kind": "binary"}, known), "nan")[0] is PASSED
    found, message = result(checked(tmp_path, model, {"kind": "binary"}), "nan")
    assert found is NOTE and 'write impute = "nan"' in message


# --- golden vectors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected", "tolerance", "passes"),
    [
        ("double", 1790000001.0, None, True),
        ("double", 1790000000.0, None, False),
        ("double", 1790000000.0, 1e-8, True),
        ("float", 1790000000.0, None, True),
        ("float", 1790100000.0, None, True),
        ("float16", 1001.0, None, True),
    ],
)
def test_the_tolerance_is_that_of_the_outputs_type(
    tmp_path: Path, kind: str, expected: float, tolerance: float | None, passes: bool
) -> None:
    """A double that is one off is no match, unless the card says that the model computes with less."""
    model = onnx_model([("x", kind, ["n", 1])], [("y", kind, ["n", 1])], node("Identity", ["x"], ["y"]))
    output = {"kind": "regression", **({"tolerance": tolerance} if tolerance else {})}
    value = 1000.0 if kind == "float16" else 1790000001.0
    golden = [{"features": {"x": value}, "expected": {"score": expected}}]
    checks = checked(tmp_path, model, output, features(x="float"), golden)
    assert (checks["golden"].result is PASSED) == passes, checks["golden"].message


def test_further_outputs_are_compared(tmp_path: Path) -> None:
    """By name, each number with the tolerance; an output that is not carried is named."""
    steps = [node("Identity", ["x"], ["y"]), node("Concat", ["x", "x"], ["both"], axis=1)]
    ports: Ports = [("x", "float", ["n", 1])], [("y", "float", ["n", 1]), ("both", "float", ["n", 2])]
    model, one = onnx_model(*ports, *steps), features(x="float")
    output = {"kind": "regression", "output": "y", "carry": ["both"]}

    def compared(both: object, carry: Sequence[str] = ("both",)) -> tuple[CheckResult, str]:
        golden = [{"features": {"x": 2.0}, "expected": {"score": 2.0, "outputs": {"both": both}}}]
        return result(checked(tmp_path, model, {**output, "carry": list(carry)}, one, golden), "golden")

    assert compared([2.0, 2.0])[0] is PASSED
    assert "expected outputs.both[1] 3, got 2" in compared([2.0, 3.0])[1]
    assert "expected 1 outputs.both, got 2" in compared([2.0])[1]
    assert "expected the output 'both', and the answer has none: carry it" in compared([2.0, 2.0], carry=())[1]


# --- inputs and cost --------------------------------------------------------------------------------------------------


def test_rows_are_made_up_for_tensors(tmp_path: Path) -> None:
    """Fixed and variable lengths: the model takes the batches, and the time says rows a second."""
    given: list[dict[str, Any]] = [
        {"name": "ids", "type": "tensor", "dtype": "int64", "shape": [-1], "max_length": 9},
        {"name": "v", "type": "tensor", "dtype": "float32", "shape": [2]},
    ]
    steps = [
        node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        node("ReduceMean", ["floats", "axis"], ["mean"], keepdims=1),
        node("ReduceMean", ["v", "axis"], ["m"], keepdims=1),
        node("Add", ["mean", "m"], ["y"]),
    ]
    ports: Ports = [("ids", "int64", ["n", "k"]), ("v", "float", ["n", 2])], [("y", "float", ["n", 1])]
    checks = checked(tmp_path, onnx_model(*ports, *steps, constants={"axis": [1]}), {"kind": "regression"}, given)
    assert "16 of 16 made-up rows answered" in checks["output"].message
    assert checks["batch"].result in (PASSED, NOTE) and "rows a second" in checks["time"].message


def test_rows_longer_than_the_model_takes_are_noted(tmp_path: Path) -> None:
    """A table of positions with 20 entries, and a card that lets 512 through: the short rows do not show it."""
    given: list[dict[str, Any]] = [{"name": "ids", "type": "tensor", "dtype": "int64", "shape": [-1]}]
    steps = [
        node("CumSum", ["ones", "axis"], ["positions"]),
        node("Gather", ["table", "positions"], ["floats"]),
        node("ReduceSum", ["floats", "axes"], ["y"], keepdims=1),
        node("Sub", ["ids", "ids"], ["zeros"]),
        node("Add", ["zeros", "one"], ["ones"]),
    ]
    constants = {"axis": np.array(1), "axes": [1], "one": np.array(1), "table": np.ones(20, np.float32)}
    ports: Ports = [("ids", "int64", ["n", "k"])], [("y", "float", ["n", 1])]
    model = onnx_model(*ports, *steps[3:], *steps[:3], constants=constants)
    found, message = result(checked(tmp_path, model, {"kind": "regression"}, given), "length")
    assert found is NOTE and "write the max_length that the model takes" in message
    given[0]["max_length"] = 19
    assert result(checked(tmp_path, model, {"kind": "regression"}, given), "length")[0] is PASSED


@pytest.mark.parametrize(
    ("kind", "feature", "dtype"),
    [
        ("float", {"type": "float", "impute": 1e39}, "float32"),
        ("int32", {"type": "int", "impute": "median", "median": 3e9}, "int32"),
        ("int32", {"type": "tensor", "dtype": "int64", "shape": [1], "impute": 2**31}, "int32"),
    ],
)
def test_an_imputed_value_beyond_the_models_type_is_refused(
    tmp_path: Path, kind: str, feature: dict[str, Any], dtype: str
) -> None:
    """It would be infinite for the model, or another number."""
    cast = node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    model = onnx_model([("x", kind, ["n", 1])], [("y", "float", ["n", 1])], cast)
    checks = checked(tmp_path, model, {"kind": "regression"}, [{"name": "a", **feature}])
    failed, message = result(checks, "contract")
    assert failed is FAILED and f"beyond the range of {dtype}" in message and "'a'" in message
    assert list(checks)[-1] == "contract"
