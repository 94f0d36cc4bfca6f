"""Owns the look at a model file that has no card yet: loads and runs it in a subprocess, with the limits of a vetting.

``observe`` starts ``-m failsoft.models.vetting.observation``. Whoever writes the card should get a sentence instead of
a crash.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.runtime.element_types import ELEMENT_TYPES
from failsoft.models.runtime.session import BareSession, Unloadable
from failsoft.models.runtime.signature import Port
from failsoft.models.vetting.bounded_process import Limits, bound_memory, confine, run, why_ended
from failsoft.schemas import wire

ROWS = 32
"""Made-up rows. With so many, an anomaly model calls some of them outliers, and logits leave [0, 1]."""

SLOW = 0.05
"""Seconds for one row, above which FEW rows are run."""

FEW = 4

TIMES = 3
"""Runs of one row of which the quickest counts: a busy machine only ever makes a run slower."""

FIRST_LENGTHS = (8, 16, 32)
"""Lengths of a free dimension that are tried first: most models of sequences take them."""

LONGEST = 512
"""The longest length that is tried; also the default of a card's ``max_length``."""

MOST_COLUMNS = 4_096
"""Columns of an output whose values are returned: more than a classifier of images has (1,000)."""

_SCALES = (0.0, 0.5, 1.0, 3.0, 10.0, 100.0)
_TEXTS = ("a", "b", "")
_MOST_BYTES = 50_000_000
"""Bytes of the subprocess's answer: each output has at most 32 rows of MOST_COLUMNS numbers."""


@dataclass(frozen=True, slots=True)
class ObservedPort:
    """An input or output of the model, as ONNX Runtime describes it."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a model takes, and what it gave for made-up rows.

    Attributes:
        inputs, outputs: its inputs and outputs.
        values: by output, its value for the made-up rows: an array (n, …), or a list with an object a row. An output
            of more than MOST_COLUMNS columns is left out; all are, if the model did not run.
        fixed: the only length of the dimensions without a number with which it runs; None if several do, or none.
        longest: the longest length with which it runs, at most LONGEST; None without such a dimension.
        problem: why it did not run, "" if it ran.
    """

    inputs: tuple[ObservedPort, ...]
    outputs: tuple[ObservedPort, ...]
    values: Mapping[str, NDArray[Any] | list[Any]]
    fixed: int | None = None
    longest: int | None = None
    problem: str = ""


def observe(path: Path, limits: Limits | None = None) -> Observation:
    """Loads the file and runs made-up rows; blocks for at most ``limits.wall`` seconds. Raises Unloadable."""
    limits = limits or Limits()
    memory = limits.of(path)
    ended = run("failsoft.models.vetting.observation", [str(path.absolute()), str(memory)], limits)
    try:
        return _read(wire.loads(ended.out, _MOST_BYTES), str(path))
    except (KeyError, TypeError, ValueError):  # cut off, or written by native code
        raise Unloadable(f"{path}: {why_ended(ended, limits, memory)}") from None


def _read(said: Any, path: str) -> Observation:
    match said:
        case {"unloadable": str(why)}:
            raise Unloadable(f"{path}: {why}")
        case {"inputs": list(inputs), "outputs": list(outputs), "values": dict(values)}:
            given = {name: _value(value) for name, value in values.items()}
            ports = tuple(map(_port, inputs)), tuple(map(_port, outputs))
            return Observation(*ports, given, said.get("fixed"), said.get("longest"), said.get("problem", ""))
    raise wire.Malformed("not an observation")


def _port(said: dict[str, Any]) -> ObservedPort:
    return ObservedPort(said["name"], said["type"], tuple(said["shape"]))


def _value(said: dict[str, Any]) -> NDArray[Any] | list[Any]:
    """An output's value; a null in an array of numbers is one that is not finite."""
    if said["dtype"] == "map":
        return [dict(row) for row in said["rows"]]
    if said["dtype"] == "object":
        return np.array(said["rows"], dtype=object)
    return np.array(said["rows"], dtype=np.float64 if said["dtype"].startswith("float") else said["dtype"])


def main(arguments: Sequence[str]) -> None:
    """Runs in the subprocess: PATH MEMORY CPU WALL PARENT. Writes one JSON object."""
    path, memory, *times = arguments
    out = confine(*times)
    bound_memory(int(memory))
    try:
        said = _observed(BareSession(Path(path)))
    except Unloadable as error:
        said = {"unloadable": str(error)}
    data = wire.dumps(said)
    while data:
        data = data[os.write(out, data) :]
    os._exit(0)  # skip the runtime's shutdown: a crash in it says nothing about the model


def _observed(model: BareSession) -> dict[str, Any]:
    said: dict[str, Any] = {"inputs": _ports(model.inputs), "outputs": _ports(model.outputs), "values": {}}

    def run(n: int, length: int) -> list[Any] | str:
        """Runs ``n`` made-up rows, in which each dimension without a number has the given length."""
        try:
            return model.run(_made_up(model.inputs, n, length))
        except ValueError as error:
            return str(error)

    free = any(not isinstance(n, int) for port in model.inputs for n in port.shape[1:])
    length, problem = None, ""
    for tried in (*FIRST_LENGTHS, *range(1, LONGEST + 1)) if free else (1,):
        given = run(1, tried)
        if not isinstance(given, str):
            length = tried
            break
        problem = problem or given
    if length is None:
        return {**said, "problem": problem}
    if free:
        others = [n for n in (length + 1, length + 2, 2 * length) if not isinstance(run(1, n), str)]
        said |= {"longest": _longest(run, max(others))} if others else {"fixed": length, "longest": length}
    n = ROWS if min(_seconds(run, length) for _ in range(TIMES)) < SLOW else FEW
    given = run(n, length)
    if isinstance(given, str):
        return {**said, "problem": f"it takes 1 row, and not {n}: {given}"}
    values = {port.name: _said(tensor, n) for port, tensor in zip(model.outputs, given, strict=True)}
    return {**said, "values": {name: value for name, value in values.items() if value is not None}}


def _seconds(run: Callable[[int, int], list[Any] | str], length: int) -> float:
    """How long a run of one row takes."""
    began = time.perf_counter()
    run(1, length)
    return time.perf_counter() - began


def _longest(run: Callable[[int, int], list[Any] | str], works: int) -> int:
    """The longest length that runs, from one that does: models of sequences have a table of positions."""
    if works >= LONGEST or not isinstance(run(1, LONGEST), str):
        return max(works, LONGEST)
    fails = LONGEST
    while fails - works > 1:
        middle = (works + fails) // 2
        works, fails = (works, middle) if isinstance(run(1, middle), str) else (middle, fails)
    return works


def _ports(ports: Iterable[Port]) -> list[dict[str, Any]]:
    return [{"name": port.name, "type": port.type, "shape": list(port.shape)} for port in ports]


def _made_up(inputs: Sequence[Port], n: int, length: int) -> dict[str, NDArray[Any]]:
    """Rows from zeros to large numbers; integers are 0 and 1, since they may be indices into a table.

    Raises ValueError for an input of another type.
    """
    random = np.random.default_rng(13)
    feeds: dict[str, NDArray[Any]] = {}
    for port in inputs:
        shape = [n, *(k if isinstance(k, int) else length for k in port.shape[1:])] if port.shape else [n, length]
        if port.type not in ELEMENT_TYPES:
            raise ValueError(f"input {port.name!r} is a {port.type}")
        dtype = ELEMENT_TYPES[port.type]
        if dtype.kind == "O":
            feeds[port.name] = np.resize(np.array(_TEXTS, dtype=object), shape)
        elif dtype.kind == "f":
            scales = np.resize(
                _SCALES[1:] if n == 1 else _SCALES[-FEW:] if n == FEW else _SCALES, (n, *(1 for _ in shape[1:]))
            )
            feeds[port.name] = (random.normal(size=shape) * scales).astype(dtype)
        else:
            feeds[port.name] = random.integers(0, 2, size=shape).astype(dtype)
    return feeds


def _said(tensor: Any, n: int) -> dict[str, Any] | None:
    """The value of one output for JSON; None if it is too large, or no value for each row."""
    if isinstance(tensor, list):
        if len(tensor) == n and all(isinstance(row, dict) and len(row) <= MOST_COLUMNS for row in tensor):
            return {"dtype": "map", "rows": [[[key, float(value)] for key, value in row.items()] for row in tensor]}
        return None
    array = np.asarray(tensor)
    if array.ndim == 0 or len(array) != n or array.size > n * MOST_COLUMNS:
        return None
    kept = array.astype(np.float64) if array.dtype.kind == "f" else array
    return {"dtype": str(array.dtype), "rows": kept.tolist()}


if __name__ == "__main__":
    main(sys.argv[1:])
