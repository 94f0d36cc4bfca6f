"""Owns the match of a card's features with a model's inputs: columns to tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.statistics import Statistic, fill
from failsoft.models.runtime import element_types
from failsoft.models.runtime.assignment import assign
from failsoft.models.runtime.element_types import ELEMENT_TYPES
from failsoft.models.runtime.padding import Padded, Tensor, pad
from failsoft.models.runtime.proposals import described, proposal, shape_text
from failsoft.models.runtime.signature import Mismatch, Port
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.ranges import beyond
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec

Block = Callable[[Columns], Tensor]
"""Makes one input from a batch."""


@dataclass(frozen=True, slots=True)
class Feeds:
    """How a batch's columns become the model's inputs.

    Attributes:
        blocks: makes the inputs of a fixed shape, by name.
        padded: the features of variable length.
        dtypes: the numpy name of the input's element type, for each feature whose numbers have to fit it: single
            numbers, and tensors with elements that the input's type cannot hold.
    """

    blocks: Mapping[str, Block]
    padded: Sequence[Padded]
    dtypes: Mapping[str, str]

    def make(self, columns: Columns) -> dict[str, Tensor]:
        """The inputs by name. Raises MemoryError if padding takes too much."""
        made = {port: block(columns) for port, block in self.blocks.items()}
        if self.padded:
            made.update(pad(columns, self.padded))
        return made


def feeds(inputs: Sequence[Port], specs: Sequence[Spec]) -> Feeds:
    """How ``specs`` feed ``inputs``. Raises Mismatch, which says what would fit.

    An input takes the features that name it as their ``input``, else the feature of its name, else all features if it
    is the model's only one. It takes one feature, or several as the columns of a matrix, in the card's order: a number
    is one column, a vector as many as it has elements.
    """
    for port in inputs:
        check_port(port)
    given = assign(inputs, specs)
    order = {spec.name: j for j, spec in enumerate(specs)}
    blocks: dict[str, Block] = {}
    padded: list[Padded] = []
    dtypes: dict[str, str] = {}
    for port in given.ports:
        group = given.features[port.name]
        for spec in group:
            dtype = element_types.check(spec, port)
            if spec.type in (FeatureType.FLOAT, FeatureType.INT) or element_types.narrows(spec, dtype):
                dtypes[spec.name] = dtype.name
        tensor = group[0].tensor if len(group) == 1 else None
        if tensor is None:
            _check_columns(group, port)
        else:
            _check_shape(tensor, group[0].name, port)
        if tensor is not None and -1 in tensor.shape:
            padded.append(_padded(group[0], tensor, port, given.masks.get(group[0].name)))
        else:
            blocks[port.name] = _block(port, group, [order[spec.name] for spec in group])
    return Feeds(blocks, padded, dtypes)


def check_imputed(card: ModelCard, statistics: Mapping[str, Statistic], dtypes: Mapping[str, str]) -> None:
    """Raises Mismatch if a feature is imputed with a number that its input, of the type in ``dtypes``, cannot hold: as
    another number or as infinity it would go to the model.
    """
    for feature in card.features:
        dtype, value = dtypes.get(feature.name), fill(feature, statistics)
        if dtype is not None and value is not None and beyond(np.array(value), dtype):
            raise Mismatch(
                f"feature {feature.name!r}: {value!r}, with which it is imputed, is beyond the range of {dtype}, which "
                "the model takes: impute another value, or export the model with another input type"
            )


def invalid(columns: Columns) -> dict[int, Failure]:
    """Rows that must not be answered, because a cell is still unusable: its placeholder is no value."""
    return {i: Failure(Kind.INVALID, f"feature {name!r}: {why}") for (i, name), why in columns.why.items()}


def check_port(port: Port) -> None:
    """Raises Mismatch if no card can feed the input: its type is unknown, or its batches have a fixed size."""
    if port.type not in ELEMENT_TYPES:
        raise Mismatch(f"input {port.name!r} is a {port.type}; it may be one of {', '.join(ELEMENT_TYPES)}")
    if port.shape and isinstance(port.shape[0], int):
        raise Mismatch(
            f"input {port.name!r} takes batches of exactly {port.shape[0]}: export it with a dynamic first "
            "dimension (torch.onnx.export's dynamic_axes or dynamic_shapes, skl2onnx's [None, …])"
        )


def _check_columns(group: Sequence[Spec], port: Port) -> None:
    """Checks features that are columns of one input: single values, and vectors."""
    alone = next((spec for spec in group if spec.tensor is not None and not _vector(spec.tensor)), None)
    if alone is not None:
        assert alone.tensor is not None
        raise Mismatch(
            f"feature {alone.name!r} has the shape {list(alone.tensor.shape)}, and is one of {len(group)} features of "
            f"input {described(port)}: only single values and vectors of a fixed length can be columns of one input"
        )
    count = f"{len(group)} feature{'s' if len(group) > 1 else ''}"
    if len(port.shape) == 1:
        if len(group) > 1 or group[0].tensor is not None:
            raise Mismatch(f"input {described(port)} takes one value a row, and the card lists {count} for it")
    elif not port.shape:
        raise Mismatch(
            f"input {port.name!r} ({port.type}) has no shape in the file, so its columns cannot be checked: say the "
            f'shape in the card, type = "tensor", dtype = "{element_types.card_dtype(port)}", shape = [{len(group)}]'
        )
    elif len(port.shape) > 2:
        raise Mismatch(
            f"input {port.name!r} takes {shape_text(port.shape)}, and the card lists {count} without a shape for it: "
            f"it takes {proposal(port)}"
        )
    else:
        wanted, width = port.shape[1], sum(_width(spec) for spec in group)
        if isinstance(wanted, int) and wanted != width:
            columns = "" if width == len(group) else f" of {width} columns"
            raise Mismatch(
                f"input {port.name!r} has {wanted} columns, and the card lists {count}{columns} for it: list one "
                f"feature a column, or one for all, {proposal(port)}"
            )


def _vector(tensor: TensorSpec) -> bool:
    return len(tensor.shape) == 1 and tensor.shape != (-1,)


def _width(spec: Spec) -> int:
    """The columns that a feature takes in a matrix."""
    return 1 if spec.tensor is None else math.prod(spec.tensor.shape)


def _check_shape(tensor: TensorSpec, name: str, port: Port) -> None:
    """Checks a tensor that has an input of its own. A file without the input's shape leaves it to the card."""
    if not port.shape:
        return
    wanted = port.shape[1:]
    if len(wanted) != len(tensor.shape) or any(
        isinstance(n, int) and given not in (n, -1) for n, given in zip(wanted, tensor.shape, strict=True)
    ):
        raise Mismatch(
            f"feature {name!r} has the shape {list(tensor.shape)} in the card, and input {port.name!r} takes "
            f"{shape_text(port.shape)}, the first for the rows: it takes {proposal(port, name)}"
        )


def _padded(spec: Spec, tensor: TensorSpec, port: Port, mask: Port | None) -> Padded:
    """How a tensor of variable length is fed. A length that the model fixes is that of every batch."""
    dtype = ELEMENT_TYPES[port.type]
    numbers = dtype.kind in "iuf" and tensor.dtype not in (DType.BOOL, DType.STRING)
    if numbers and beyond(np.array(tensor.pad), dtype.name):
        raise Mismatch(f"feature {spec.name!r}: pad = {tensor.pad} is beyond {dtype.name}, which the model takes")
    length = port.shape[1 + tensor.shape.index(-1)] if port.shape else None
    if mask is None:
        return Padded(spec.name, tensor, port.name, dtype, _checked_length(spec, tensor, length, port))
    told = ELEMENT_TYPES[mask.type]
    if told.kind == "O" or len(mask.shape) not in (0, 2):
        raise Mismatch(
            f"feature {spec.name!r}: its mask {described(mask)} takes no mask, which is numbers or booleans of "
            "[N, length]"
        )
    of_mask = mask.shape[1] if mask.shape else None
    if isinstance(of_mask, int):
        if isinstance(length, int) and length != of_mask:
            raise Mismatch(
                f"feature {spec.name!r}: input {described(port)} and its mask {described(mask)} have different lengths"
            )
        length, port = of_mask, mask
    return Padded(spec.name, tensor, port.name, dtype, _checked_length(spec, tensor, length, port), (mask.name, told))


def _checked_length(spec: Spec, tensor: TensorSpec, length: int | str | None, port: Port) -> int | str | None:
    if isinstance(length, int) and (tensor.max_length is None or tensor.max_length > length):
        raise Mismatch(
            f"feature {spec.name!r} may have a length of {tensor.max_length}, and input {port.name!r} takes "
            f"{shape_text(port.shape)}: write {length} for -1 in its shape if every event has this length, or "
            f"max_length = {length} if shorter ones are to be padded, or export the model with a dynamic length"
        )
    return length


def _block(port: Port, group: Sequence[Spec], positions: Sequence[int]) -> Block:
    """Makes the input from features of a fixed shape, which are in the card at ``positions``."""
    dtype = ELEMENT_TYPES[port.type]
    first = group[0].name
    if len(group) == 1 and group[0].tensor is not None:
        return lambda columns: np.ascontiguousarray(columns.values[first], dtype)
    if len(port.shape) == 1:
        return lambda columns: np.ascontiguousarray(columns.values[first], dtype)
    begin, end = positions[0], positions[-1] + 1
    chosen: Any = slice(begin, end) if list(positions) == list(range(begin, end)) else np.array(positions)

    def make(columns: Columns) -> Tensor:
        if columns.matrix is not None:
            return columns.matrix[:, chosen].astype(dtype, order="C")
        block = np.empty((columns.size, width), dtype)
        for spec, at, stop in places:
            block[:, at if stop == at + 1 else slice(at, stop)] = columns.values[spec]
        return block

    places, width = [], 0
    for spec in group:
        places.append((spec.name, width, width + _width(spec)))
        width += _width(spec)
    return make
