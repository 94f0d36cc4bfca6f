"""The look at a model file without a card: its inputs, and what it gives for made-up rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from failsoft.models.runtime.session import Unloadable
from failsoft.models.vetting.bounded_process import Limits
from failsoft.models.vetting.observation import FEW, LONGEST, ROWS, Observation, observe
from tests.onnx_models import node, onnx_model
from tests.versions import bomb, double, endless


def _observe(folder: Path, model: onnx.ModelProto | bytes, limits: Limits | None = None) -> Observation:
    path = folder / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return observe(path, limits)


def test_it_has_the_inputs_and_the_values_of_outputs(tmp_path: Path) -> None:
    """The made-up rows go from zeros to large numbers, so that a score without bounds shows that."""
    seen = _observe(tmp_path, double())
    (x,), (y,) = seen.inputs, seen.outputs
    assert (x.name, x.type, x.shape, y.name) == ("x", "tensor(float)", ("n", 1), "y")
    values = seen.values["y"]
    assert isinstance(values, np.ndarray) and values.shape in ((ROWS, 1), (FEW, 1)) and seen.problem == ""
    assert values[0, 0] == 0 and np.abs(values).max() > 20


def test_texts_and_maps_come_back(tmp_path: Path) -> None:
    """A label may be a text, and a ZipMap gives an object a row."""
    model = onnx_model(
        [("p", "float", ["n", 2]), ("text", "string", ["n"])],
        [("label", "string", ["n"])],
        node("Identity", ["text"], ["label"]),
        node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"]),
    )
    key = onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, onnx.helper.make_tensor_type_proto(1, []))
    model.graph.output.append(onnx.helper.make_value_info("maps", onnx.helper.make_sequence_type_proto(key)))
    seen = _observe(tmp_path, model)
    assert seen.values["label"][:3] == pytest.approx(np.array(["a", "b", ""], dtype=object))
    assert list(seen.values["maps"][0]) == ["no", "yes"]


@pytest.mark.parametrize(("weights", "fixed"), [((5, 1), 5), (None, None)])
def test_a_width_that_the_file_leaves_out_is_tried(tmp_path: Path, weights: tuple[int, int] | None, fixed: int) -> None:
    """A matrix product takes one width; a sum takes each."""
    made = node("ReduceSum", ["x"], ["y"], keepdims=0)
    constants = None
    if weights:
        made, constants = node("MatMul", ["x", "w"], ["y"]), {"w": np.ones(weights, np.float32)}
    model = onnx_model([("x", "float", ["n", None])], [("y", "float", [])], made, constants=constants)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    seen = _observe(tmp_path, model)
    assert (seen.fixed, seen.longest) == (fixed, fixed or LONGEST)


def test_the_longest_sequence_is_found(tmp_path: Path) -> None:
    """A text model has a table of positions, and a longer text raises."""
    model = onnx_model(
        [("ids", "int64", ["n", "s"])],
        [("y", "float", ["n", "s"])],
        node("Shape", ["ids"], ["length"], start=1),
        node("Range", ["zero", "end", "one"], ["positions"]),
        node("Squeeze", ["length"], ["end"]),
        node("Gather", ["table", "positions"], ["y0"]),
        node("Cast", ["ids"], ["f"], to=1),
        node("Add", ["f", "y0"], ["y"]),
        constants={"zero": np.array(0), "one": np.array(1), "table": np.zeros(77, np.float32)},
    )
    model.graph.node.insert(1, model.graph.node.pop(2))
    assert _observe(tmp_path, model).longest == 77


def test_a_model_that_does_not_run_says_why(tmp_path: Path) -> None:
    """Its inputs are known all the same."""
    lookup = onnx_model(
        [("row", "int64", ["n", 1])],
        [("y", "float", ["n", 1])],
        node("Sub", ["row", "big"], ["far"]),
        node("Gather", ["table", "far"], ["y"]),
        constants={"table": np.zeros(2, np.float32), "big": np.array([9])},
    )
    seen = _observe(tmp_path, lookup)
    assert "out of" in seen.problem and seen.values == {} and seen.inputs[0].name == "row"


def test_a_model_that_misbehaves_is_refused(tmp_path: Path) -> None:
    """A file that is none, one that takes too much memory, and one that never ends."""
    with pytest.raises(Unloadable, match="not an ONNX file"):
        _observe(tmp_path, b"no model")
    with pytest.raises(Unloadable, match="stopped"):
        _observe(tmp_path, endless(), Limits(cpu=20, wall=2))
    try:
        seen = _observe(tmp_path, bomb(500_000_000), Limits(memory=100_000_000))
    except Unloadable as error:
        assert "memory" in str(error)
    else:
        assert "memory" in seen.problem.lower() or "alloc" in seen.problem.lower()
