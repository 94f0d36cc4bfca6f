"""Small ONNX models for tests, matching cards, and sessions of both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact
from failsoft.models.runtime.session import ModelOutput, Session
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns

TYPES = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
    "float16": TensorProto.FLOAT16,
}
Port = tuple[str, str, Sequence[int | str | None]]
X2: Port = ("x", "float", ["n", 2])


def port(name: str, kind: str, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TYPES[kind], shape)


def onnx_model(inputs: Sequence[Port], outputs: Sequence[Port], *nodes: Any, constants: Any = None) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(v), name) for name, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [port(*i) for i in inputs], [port(*o) for o in outputs], weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


node = helper.make_node


def same(width: int | str = 2, kind: str = "float") -> onnx.ModelProto:
    """A model whose output is its input, so that a test chooses the output."""
    return onnx_model([("x", kind, ["n", width])], [("y", kind, ["n", width])], node("Identity", ["x"], ["y"]))


def features(**types: str) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind in types.items()]


def a_card(output: dict[str, Any], **types: str) -> ModelCard:
    return ModelCard.model_validate({"model": {"name": "m"}, "output": output, "features": features(**types)})


def load(folder: Path, model: onnx.ModelProto | bytes, card: ModelCard) -> Session:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    path = folder / "model.onnx"
    path.write_bytes(content)
    return Session(Artifact("m", 3, path, hashlib.sha256(content).hexdigest(), None, {}, {}), card)


def rows(card: ModelCard, *values: Sequence[object]) -> Columns:
    names = [spec.name for spec in card.specs]
    return columns([dict(zip(names, row, strict=True)) for row in values], card.specs)


def answer(session: Session, *values: Sequence[object]) -> ModelOutput:
    outcome = session.run(rows(session.card, *values))
    assert isinstance(outcome, ModelOutput), outcome
    return outcome


def looked_up() -> onnx.ModelProto:
    """The score is ``table[row]`` from a table with one entry, so any ``row`` but 0 raises for its whole batch."""
    ports: list[Port] = [("row", "int64", ["n", 1])]
    gather = node("Gather", ["table", "row"], ["y"])
    return onnx_model(ports, [("y", "float", ["n", 1])], gather, constants={"table": np.array([0.5], np.float32)})


def endless() -> onnx.ModelProto:
    """The score is ``x``. If the largest ``x`` is 9, an endless Loop starts, which terminate can stop."""
    body = helper.make_graph(
        [node("Identity", ["going"], ["goes_on"]), node("Identity", ["held"], ["held_on"])],
        "body",
        [port("step", "int64", []), port("going", "bool", []), port("held", "float", [])],
        [port("goes_on", "bool", []), port("held_on", "float", [])],
    )
    return onnx_model(
        [("x", "float", ["n", 1])],
        [("y", "float", ["n", 1])],
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Equal", ["most", "nine"], ["going"]),
        node("Loop", ["", "going", "zero"], ["held"], body=body),
        node("Add", ["x", "held"], ["y"]),
        constants={"nine": np.float32(9), "zero": np.float32(0)},
    )


def unstoppable(size: int) -> onnx.ModelProto:
    """The score is ``x``. If the largest ``x`` is 9, one operator multiplies two ``size`` by ``size`` matrices of
    integers. Terminate does not stop an operator.
    """
    return onnx_model(
        [("x", "float", ["n", 1])],
        [("y", "float", ["n", 1])],
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Equal", ["most", "nine"], ["marked"]),
        node("Where", ["marked", "large", "small"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("one", TensorProto.INT64, [1], [1])),
        node("MatMul", ["ones", "ones"], ["product"]),
        node("ReduceMin", ["product"], ["least"], keepdims=0),
        node("Cast", ["least"], ["number"], to=TensorProto.FLOAT),
        node("Mul", ["number", "zero"], ["nothing"]),
        node("Add", ["x", "nothing"], ["y"]),
        constants={
            "nine": np.float32(9),
            "zero": np.float32(0),
            "large": np.array([size, size], np.int64),
            "small": np.array([1, 1], np.int64),
        },
    )
