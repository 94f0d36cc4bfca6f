"""Real ONNX models for the test pipeline: one fails on certain values of a row, one needs 800 MB when it is loaded.

The first one keeps what tests.integration.pipeline.save_model does for a ``row`` (7 raises, -1 loops without end).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.integration.pipeline import save_model
from tests.isolated_models import LEAST
from tests.onnx_models import node

NAN = -0.5
"""A value of ``x`` whose score is NaN, in that row only."""

KILLS = 13.0
"""A value of ``x`` that ends the process natively (SIGFPE), with every row in it (tests.isolated_models.deadly)."""

BOMB = 1e9
"""A value of ``x`` that makes the model fill a tensor of that many floats, 4 GB, for the whole batch."""

RAISES, HANGS = 7, -1
"""Values of ``row``: an out-of-range Gather, and a Loop without end."""


def save_failing(path: Path) -> None:
    """Writes a model that fails on NAN, KILLS, BOMB, RAISES and HANGS. Other rows score as with ``save_model``, up to
    rounding."""
    model, graph = _extended(path)
    graph.node.extend(
        [
            node("Sqrt", ["plain"], ["root"]),
            node("Mul", ["root", "root"], ["square"]),
            node("Equal", ["x", "deadly"], ["kills"]),
            node("Where", ["kills", "minus", "plus"], ["divisor"]),
            node("Div", ["lowest", "divisor"], ["quotient"]),
            node("Cast", ["quotient"], ["number"], to=TensorProto.FLOAT),
            node("Mul", ["number", "zero"], ["survived"]),
            node("ReduceMax", ["x"], ["most"], keepdims=0),
            node("Cast", ["most"], ["size"], to=TensorProto.INT64),
            node("Reshape", ["size", "flat"], ["shape"]),
            node("ConstantOfShape", ["shape"], ["filled"]),
            node("ReduceSum", ["filled"], ["held_nothing"], keepdims=0),
            node("Sum", ["square", "survived", "held_nothing"], ["score"]),
        ]
    )
    constants = {
        "deadly": np.float32(KILLS),
        "minus": np.int64(-1),
        "plus": np.int64(1),
        "lowest": np.int64(LEAST),
        "flat": np.array([1], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    onnx.save(model, path)


def save_bomb(path: Path) -> None:
    """Writes a model a few hundred bytes larger than ``save_model``'s that allocates 800 MB when loaded. Its scores are
    the same."""
    model, graph = _extended(path)
    graph.node.extend(
        [
            node("ConstantOfShape", ["many"], ["filled"]),
            node("ReduceSum", ["filled"], ["held_nothing"], keepdims=0),
            node("Add", ["plain", "held_nothing"], ["score"]),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.array([200_000_000], np.int64), "many"))
    onnx.save(model, path)


def _extended(path: Path) -> tuple[onnx.ModelProto, onnx.GraphProto]:
    """The model of ``save_model`` with its score renamed to ``plain``; the caller adds nodes that make ``score``."""
    save_model(path)
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "plain"
    return model, model.graph
