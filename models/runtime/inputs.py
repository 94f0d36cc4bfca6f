"""Owns the match of a card's features with a model's inputs: columns to tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.runtime.signature import Mismatch, Port
from failsoft.schemas.config.refusal import near
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.spec import FeatureType, Spec

Tensor = NDArray[Any]

# The feature types that each tensor type accepts. A conversion that changes values (float to integer, number to string)
# is refused.
_NUMBERS = frozenset({FeatureType.FLOAT, FeatureType.INT, FeatureType.BOOL})
_TENSORS: dict[str, tuple[Any, frozenset[FeatureType]]] = {
    "tensor(float)": (np.float32, _NUMBERS),
    "tensor(double)": (np.float64, _NUMBERS),
    "tensor(int64)": (np.int64, frozenset({FeatureType.INT, FeatureType.BOOL})),
    "tensor(int32)": (np.int32, frozenset({FeatureType.INT, FeatureType.BOOL})),
    "tensor(bool)": (np.bool_, frozenset({FeatureType.BOOL})),
    "tensor(string)": (object, frozenset({FeatureType.STRING})),
}


@dataclass(frozen=True, slots=True)
class Feeds:
    """How a batch's columns become the model's inputs.

    Attributes:
        make: the inputs by name, from a batch.
        int32: features whose numbers must fit the model's int32.
    """

    make: Callable[[Columns], dict[str, Tensor]]
    int32: tuple[str, ...]

    def unfit(self, columns: Columns) -> dict[int, Failure]:
        """Rows that must not be answered: a number does not fit the model's int32, or a cell is still unusable."""
        bad: dict[int, Failure] = {}
        for name in self.int32:
            column = columns.values[name]
            for i in np.flatnonzero((column < -(2**31)) | (column >= 2**31)).tolist():
                bad[i] = Failure(Kind.INVALID, f"feature {name!r}: {column[i]} does not fit the model's int32")
        for (i, name), why in columns.why.items():
            bad[i] = Failure(Kind.INVALID, f"feature {name!r}: {why}")
        return bad


def feeds(inputs: Sequence[Port], specs: Sequence[Spec]) -> Feeds:
    """One matrix with its columns in the card's order, or one tensor per feature, matched by name. Raises Mismatch."""
    for port in inputs:
        if port.type not in _TENSORS:
            raise Mismatch(f"input {port.name!r} is a {port.type}; it may be one of {', '.join(_TENSORS)}")
        if len(port.shape) not in (1, 2):
            raise Mismatch(f"input {port.name!r} has {len(port.shape)} dimensions; it may have one or two")
        if isinstance(port.shape[0], int):
            raise Mismatch(
                f"input {port.name!r} takes batches of exactly {port.shape[0]}: export it with a dynamic first "
                "dimension (torch.onnx.export's dynamic_axes or dynamic_shapes, skl2onnx's [None, …])"
            )
    if len(inputs) == 1 and len(inputs[0].shape) == 2 and (len(specs) > 1 or inputs[0].name != specs[0].name):
        return _matrix(inputs[0], tuple(specs))
    return _by_name(inputs, specs)


def _matrix(port: Port, specs: tuple[Spec, ...]) -> Feeds:
    width = port.shape[1]
    if isinstance(width, int) and width != len(specs):
        raise Mismatch(f"input {port.name!r} has {width} columns, and the card lists {len(specs)} features")
    dtype, takes = _TENSORS[port.type]
    for spec in specs:
        _check_type(spec, port, takes)

    def make(columns: Columns) -> dict[str, Tensor]:
        if columns.matrix is not None:
            return {port.name: columns.matrix.astype(dtype)}
        block = np.empty((columns.size, len(specs)), dtype)
        for j, spec in enumerate(specs):
            block[:, j] = columns.values[spec.name]
        return {port.name: block}

    return Feeds(make, _narrowed(specs) if dtype is np.int32 else ())


def _by_name(inputs: Sequence[Port], specs: Sequence[Spec]) -> Feeds:
    wanted, by_feature = [port.name for port in inputs], {spec.name: spec for spec in specs}
    missing = [f"{name!r}{near(name, by_feature)}" for name in wanted if name not in by_feature]
    unused = [f"{name!r}{near(name, wanted)}" for name in by_feature if name not in wanted]
    if missing:
        raise Mismatch(f"the model takes features that the card does not list: {', '.join(missing)}")
    if unused:
        raise Mismatch(f"the card lists features that the model does not take: {', '.join(unused)}")
    plan = []
    for port in inputs:
        dtype, takes = _TENSORS[port.type]
        _check_type(by_feature[port.name], port, takes)
        if len(port.shape) == 2 and isinstance(port.shape[1], int) and port.shape[1] != 1:
            raise Mismatch(f"input {port.name!r} has {port.shape[1]} columns, and a single feature has one")
        plan.append((port.name, dtype, (-1, 1)[: len(port.shape)]))

    def make(columns: Columns) -> dict[str, Tensor]:
        return {
            name: np.ascontiguousarray(columns.values[name], dtype=dtype).reshape(shape) for name, dtype, shape in plan
        }

    return Feeds(make, _narrowed([by_feature[name] for name, dtype, _ in plan if dtype is np.int32]))


def _check_type(spec: Spec, port: Port, takes: frozenset[FeatureType]) -> None:
    if spec.type not in takes:
        fits = ", ".join(sorted(takes))
        raise Mismatch(
            f"feature {spec.name!r} is a {spec.type} in the card, and input {port.name!r} is a {port.type}, which "
            f"takes {fits}: change the feature's type, or export the model with another input type"
        )


def _narrowed(specs: Sequence[Spec]) -> tuple[str, ...]:
    return tuple(spec.name for spec in specs if spec.type is FeatureType.INT)
