"""Reads outputs that are not the scores: those that the card carries along, and ZipMap's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.models.catalog.output_section import OutputSection
from failsoft.models.runtime.output_choice import FLOATS, MAPS, described
from failsoft.models.runtime.signature import Mismatch, Port
from failsoft.schemas import wire
from failsoft.schemas.config.refusal import near
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Label, OutputColumn

_TENSORS = (
    *FLOATS,
    *(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "tensor(bool)",
    "tensor(string)",
)

Maps = Sequence[Mapping[Any, float]]


@dataclass(frozen=True, slots=True)
class CarriedOutput:
    """An output that is copied into the answers.

    Attributes:
        name: its name.
        maps: it is a sequence of maps.
        single: it has one value a row, so that a second dimension of 1 is dropped.
    """

    name: str
    maps: bool
    single: bool

    def column(self, value: Any, n: int) -> OutputColumn:
        """Its values for ``n`` rows. Raises Mismatch if it has another number of rows."""
        if self.maps:
            if len(value) != n:
                raise Mismatch(f"output {self.name!r} has {len(value)} maps for {n} rows")
            return _objects(value)
        tensor = widened(np.asarray(value))
        if tensor.ndim == 0 or len(tensor) != n:
            raise Mismatch(f"output {self.name!r} {rows_expected(tensor, n)}")
        if self.single and tensor.shape == (n, 1):
            tensor = tensor[:, 0]
        return tensor if tensor.dtype.kind in "biuf" else tensor.tolist()


def carried(outputs: Sequence[Port], wanted: OutputSection) -> tuple[CarriedOutput, ...]:
    """The outputs that the card carries. Raises Mismatch for a name that the model does not have, and for a type that
    JSON cannot hold.
    """
    by_name = {port.name: port for port in outputs}
    found = []
    for name in wanted.carry:
        port = by_name.get(name)
        if port is None:
            raise Mismatch(
                f"carry: {name!r} is not an output of the model, which has {list(by_name)}{near(name, list(by_name))}"
            )
        if port.type not in (*_TENSORS, *MAPS):
            raise Mismatch(
                f"carry: {described(port)} cannot be copied into an answer: it may be a tensor of numbers, booleans or "
                "strings, or a sequence of maps"
            )
        # An unknown shape (and ONNX Runtime gives a scalar the same one) may turn out to be one value a row.
        single = len(port.shape) == 0 or (len(port.shape) == 2 and port.shape[1] == 1)
        found.append(CarriedOutput(name, port.type in MAPS, single))
    return tuple(found)


def widened(tensor: NDArray[Any]) -> NDArray[Any]:
    """Half precision as float32: a decimal with the few digits of a half would not be what other systems compute."""
    return tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor


def rows_expected(tensor: NDArray[Any], n: int) -> str:
    """What is wrong with the number of rows of ``tensor``, to follow its name."""
    shape = "×".join(map(str, tensor.shape)) or "scalar"
    return f"is {shape} for {n} rows: its first dimension must be that of the batch"


def table_of_maps(
    maps: Maps, keys: tuple[Label, ...] | None
) -> tuple[NDArray[np.float32], tuple[Label, ...], dict[int, Failure]]:
    """ZipMap's maps as a table, its columns' labels, and the rows whose labels are not these.

    ``keys`` are the labels in the wanted order; None takes those of the first row, in its order.
    """
    if keys is None:
        keys = tuple(maps[0]) if len(maps) else ()
    n, k = len(maps), len(keys)
    bad: dict[int, Failure] = {}
    if k > 1 and {*map(len, maps)} <= {k}:
        try:
            values = np.fromiter(chain.from_iterable(map(itemgetter(*keys), maps)), np.float32, n * k)
            return values.reshape(n, k), keys, bad
        except KeyError:
            pass  # a row has other labels: the rows are compared one by one
    table = np.zeros((n, k), np.float32)
    for i, row in enumerate(maps):
        if row.keys() == set(keys):
            table[i] = [row[key] for key in keys]
        else:
            bad[i] = Failure(Kind.BAD_OUTPUT, f"probabilities of the labels {list(row)} instead of {list(keys)}")
    return table, keys, bad


def _objects(maps: Maps) -> list[dict[str, float | None]]:
    """Maps as JSON objects, with the shortest decimals of their float32 numbers."""
    flat = np.fromiter(chain.from_iterable(row.values() for row in maps), np.float32)
    decimals = iter(wire.plain(flat))
    return [{str(key): next(decimals) for key in row} for row in maps]
