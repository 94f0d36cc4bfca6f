"""Builds a model repository in a test's folder: cards, versions of small ONNX models, and models that misbehave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from failsoft.models.catalog.repository import Repository
from failsoft.models.vetting.bounded_process import Limits
from failsoft.models.vetting.gate import examine
from failsoft.models.vetting.verdict import Check, Vetting
from tests.onnx_models import Port, node, onnx_model, port

X: Port = ("x", "float", ["n", 1])
Y: Port = ("y", "float", ["n", 1])
CARD = """
[model]
deadline = "{deadline}"
[output]
kind = "regression"
[[features]]
name = "x"
type = "{type}"
impute = 4.0
[fallback]
chain = ["static"]
static = {{ score = 0.0 }}
"""


def double() -> onnx.ModelProto:
    """A model that returns twice its input."""
    return onnx_model([X], [Y], node("Add", ["x", "x"], ["y"]))


def endless(turns: int | None = None) -> onnx.ModelProto:
    """A model with a Loop that never ends, or ends after ``turns`` iterations."""
    body = helper.make_graph(
        [node("Identity", ["c"], ["again"]), node("Identity", ["a"], ["b"])],
        "body",
        [port("i", "int64", []), port("c", "bool", []), port("a", "float", ["n", 1])],
        [port("again", "bool", []), port("b", "float", ["n", 1])],
    )
    loop = helper.make_node("Loop", ["turns" if turns else "", "true", "x"], ["y"], body=body)
    return onnx_model([X], [Y], loop, constants={"true": np.array(True), "turns": np.array(turns or 0)})


def bomb(size: int, hidden: bool = False) -> onnx.ModelProto:
    """A model of 200 bytes that allocates ``size`` floats when loaded; ``hidden``: in a branch that no row takes."""
    ones = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    length = numpy_helper.from_array(np.array([size], np.int64), "size")
    unfolds = [
        node("ConstantOfShape", ["size"], ["big"], value=ones),
        node("ReduceSum", ["big"], ["sum"], keepdims=0),
        node("Mul", ["x", "sum"], ["then"]),
    ]
    if not hidden:
        unfolds[-1] = node("Mul", ["x", "sum"], ["y"])
        return onnx_model([X], [Y], *unfolds, constants={"size": numpy_helper.to_array(length)})
    then = helper.make_graph(unfolds, "then", [], [port("then", "float", ["n", 1])], [length])
    other = helper.make_graph([node("Identity", ["x"], ["else"])], "else", [], [port("else", "float", ["n", 1])])
    return onnx_model(
        [X],
        [Y],
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Greater", ["most", "never"], ["taken"]),
        helper.make_node("If", ["taken"], ["y"], then_branch=then, else_branch=other),
        constants={"never": np.float32(1e9)},
    )


def put(
    root: Path,
    model: onnx.ModelProto | bytes,
    golden: Sequence[Any] | None = None,
    *,
    version: int = 1,
    about: str | None = None,
    deadline: str = "200ms",
    kind: str = "float",
    name: str = "m",
) -> Path:
    """Writes a version of the model ``name`` and returns its folder. ``golden``: one object a line."""
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "card.toml").write_text(CARD.format(deadline=deadline, type=kind))
    (folder / "model.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if golden is not None:
        (folder / "golden.ndjson").write_text("".join(json.dumps(line) + "\n" for line in golden))
    if about is not None:
        (folder / "version.toml").write_text(about)
    return folder


def examined(root: Path, limits: Limits | None = None, version: int = 1, **how: Any) -> Vetting:
    """Vets a version that ``put`` wrote."""
    repository = Repository(root)
    return examine(repository, repository.card("m"), version, limits, **how)


def check(vetting: Vetting, name: str) -> Check:
    """The check with that name; there must be exactly one."""
    (found,) = [c for c in vetting.checks if c.name == name]
    return found


def failed(vetting: Vetting) -> list[str]:
    """The names of the checks that failed."""
    return [c.name for c in vetting.failed]
