"""Outputs of models that only a test has: their names, types and shapes, and the reader of a card and such outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from failsoft.models.runtime.outputs import OutputReader, answers
from tests.onnx_models import a_card


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


def reader(output: dict[str, Any], ports: Sequence[Out], labels: Sequence[Any] | None = None) -> OutputReader:
    return answers(ports, a_card(output, a="float"), labels)


def table(*numbers: Sequence[float], kind: Any = np.float32) -> np.ndarray[Any, np.dtype[Any]]:
    return np.array(numbers, kind)
