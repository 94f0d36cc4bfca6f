"""Real ONNX models that crash, hang or use up memory for certain values, and helpers to find their processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from onnx import helper

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact
from failsoft.models.isolation.isolated_session import Isolated
from tests.onnx_models import features, node, onnx_model, port

LEAST = -(2**63)


def deadly() -> onnx.ModelProto:
    """Answers ``y``; a batch with ``x`` = -1 kills the process (SIGFPE).

    ONNX Runtime 1.32 guards an integer division against a divisor of zero, but not the least integer divided by -1,
    whose result no integer holds.
    """
    return onnx_model(
        [("x", "int64", ["n", 1]), ("y", "float", ["n", 1])],
        [("out", "float", ["n", 1])],
        node("Div", ["least", "x1"], ["q"]),
        node("Cast", ["q"], ["f"], to=1),
        node("Mul", ["f", "zero"], ["z"]),
        node("Add", ["z", "y"], ["out"]),
        node("Where", ["none", "one", "x"], ["x1"]),
        node("Equal", ["x", "nought"], ["none"]),
        constants={"least": np.int64(LEAST), "zero": np.float32(0), "one": np.int64(1), "nought": np.int64(0)},
    )


def hanging() -> onnx.ModelProto:
    """Answers ``y`` after a loop of as many turns as the largest ``x``. Each turn is short, so the loop can be
    stopped.
    """
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Sin", ["v"], ["w"])],
        "body",
        [port("k", "int64", []), port("go", "bool", []), port("v", "float", ["n", 1])],
        [port("go_on", "bool", []), port("w", "float", ["n", 1])],
    )
    return onnx_model(
        [("x", "int64", ["n", 1]), ("y", "float", ["n", 1])],
        [("out", "float", ["n", 1])],
        node("ReduceMax", ["x"], ["times"], keepdims=0),
        node("Loop", ["times", "yes", "y"], ["turned"], body=body),
        node("Mul", ["turned", "zero"], ["z"]),
        node("Add", ["z", "y"], ["out"]),
        constants={"yes": np.bool_(True), "zero": np.float32(0)},
    )


def heavy() -> onnx.ModelProto:
    """Answers ``y`` after squaring a matrix with the largest ``x`` as its side: one operator, which cannot be
    stopped.
    """
    return onnx_model(
        [("x", "int64", ["n", 1]), ("y", "float", ["n", 1])],
        [("out", "float", ["n", 1])],
        node("ReduceMax", ["x"], ["side"], keepdims=0),
        node("Reshape", ["side", "one"], ["s"]),
        node("Concat", ["s", "s"], ["shape"], axis=0),
        node("ConstantOfShape", ["shape"], ["m"]),
        node("MatMul", ["m", "m"], ["mm"]),
        node("ReduceSum", ["mm"], ["sum"], keepdims=0),
        node("Mul", ["sum", "zero"], ["z"]),
        node("Add", ["z", "y"], ["out"]),
        constants={"one": np.array([1], np.int64), "zero": np.float32(0)},
    )


def greedy() -> onnx.ModelProto:
    """Answers ``y`` after filling as many floats as the largest ``x``."""
    return onnx_model(
        [("x", "int64", ["n", 1]), ("y", "float", ["n", 1])],
        [("out", "float", ["n", 1])],
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Reshape", ["most", "one"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["m"]),
        node("ReduceSum", ["m"], ["sum"], keepdims=0),
        node("Add", ["sum", "y"], ["out"]),
        constants={"one": np.array([1], np.int64)},
    )


def a_card(output: dict[str, Any] | None = None, types: dict[str, str] | None = None, **model: Any) -> ModelCard:
    return ModelCard.model_validate(
        {
            "model": {"name": "m", "isolation": "process"} | model,
            "output": output or {"kind": "regression"},
            "features": features(**(types or {"x": "int", "y": "float"})),
        }
    )


def artifact(folder: Path, model: onnx.ModelProto | bytes) -> Artifact:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    path = folder / "model.onnx"
    path.write_bytes(content)
    return Artifact("m", 3, path, hashlib.sha256(content).hexdigest(), None, {}, {})


def processes(parent: int | None = None) -> list[psutil.Process]:
    """The models' processes below ``parent`` (default: this process); each forkserver comes before its replicas."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if "failsoft.models.isolation.forkserver" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def replicas() -> list[psutil.Process]:
    """The processes that run batches."""
    ours = psutil.Process().pid
    return [p for p in processes() if _parent(p) != ours]


def forkservers() -> list[psutil.Process]:
    """The processes that load a model and fork its replicas."""
    ours = psutil.Process().pid
    return [p for p in processes() if _parent(p) == ours]


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def cmdline(process: psutil.Process) -> list[str]:
    """The command line of a process; empty if the process has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def user_time(process: psutil.Process) -> float:
    """Seconds of user time of a process; 0 after it has ended, which a looping process does at its deadline."""
    try:
        return float(process.cpu_times().user)
    except psutil.NoSuchProcess:
        return 0.0


def ended(process: psutil.Process) -> bool:
    """True if the process has ended, also if its parent has not waited for it yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def most(pid: int) -> int:
    """The largest number of bytes that the process ever had in memory."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


Start = Callable[..., Isolated]
