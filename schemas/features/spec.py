"""What a model takes: each feature's type, shape and bounds, and where an event has it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FeatureType(StrEnum):
    """The JSON type that a feature's value must have. Nothing is converted, unless the spec says ``coerce``: ``"1"``
    and ``true`` are not numbers."""

    FLOAT = "float"
    INT = "int"
    BOOL = "bool"
    STRING = "string"
    TENSOR = "tensor"


class DType(StrEnum):
    """The type of a tensor's elements, by numpy's names."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    BOOL = "bool"
    STRING = "string"

    @property
    def floating(self) -> bool:
        return self in (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The tensor of one row: a list (of lists) of elements, or base64 of their little-endian bytes in row-major order.

    Attributes:
        dtype: type of its elements.
        shape: its dimensions; at most one is -1, a length that differs by row.
        max_length: the most elements along the -1 dimension; None without one.
        truncate: a longer row is cut off at ``max_length``; otherwise it is unusable.
        pad: the element that shorter rows of a batch are filled up with.
        mask: the ONNX input that is told 1 for what is there and 0 for padding; None if there is none.
    """

    dtype: DType
    shape: tuple[int, ...]
    max_length: int | None = None
    truncate: bool = False
    pad: bool | int | float | str = 0
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """One feature that a model requires.

    Attributes:
        name: its name in the model and in messages.
        type: JSON type of its value.
        categories: accepted strings; None accepts any string.
        field: path in the event's features, with dots; None: its name.
        minimum, maximum: a number outside counts as missing; None: no bound.
        coerce: values of another JSON type that mean the same are accepted: "3.5" is 3.5, 1 is true, 1234 is "1234".
        nan: a missing value goes to the model as NaN, and is not imputed.
        input: the ONNX input that it is a column of; None: the input of its name, or the only one.
        tensor: what a value of type TENSOR is; None for the other types.
    """

    name: str
    type: FeatureType
    categories: frozenset[str] | None = None
    field: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    coerce: bool = False
    nan: bool = False
    input: str | None = None
    tensor: TensorSpec | None = None

    @property
    def path(self) -> str:
        """Where the event has it."""
        return self.field or self.name
