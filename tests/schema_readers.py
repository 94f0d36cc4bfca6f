"""A SchemaReader for tests of what uses one: its values are JSON, behind a byte 1 that stands for a real encoding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from failsoft.schemas.features.paths import find
from failsoft.schemas.formats.reader import Decoded, Undecodable

MARK = b"\1"
"""The first byte of a value."""


def encoded(id: int, value: object) -> bytes:
    """A value with Confluent's framing, as ``FakeReader`` reads it."""
    return b"\0" + id.to_bytes(4, "big") + MARK + json.dumps(value).encode()


@dataclass(frozen=True, slots=True)
class FakeRows:
    """DecodedRows of JSON values. ``matrices``: whether numbers are given as a matrix."""

    values: Sequence[Any]
    features: str
    matrices: bool = True

    @property
    def size(self) -> int:
        return len(self.values)

    def column(self, path: str) -> Sequence[Any]:
        return [find(value, path) for value in self.values]

    def feature(self, path: str) -> Sequence[Any]:
        objects = [find(value, self.features) if self.features else value for value in self.values]
        return [bytes.fromhex(at[4:]) if str(at).startswith("hex:") else at for at in (find(o, path) for o in objects)]

    def matrix(self, paths: Sequence[str]) -> NDArray[np.float64] | None:
        columns = [self.feature(path) for path in paths]
        if not self.matrices or not {type(value) for column in columns for value in column} <= {float, int}:
            return None
        return np.array(columns, np.float64).T.copy()


@dataclass(slots=True)
class FakeReader:
    """A SchemaReader that counts the batches that it read.

    Attributes:
        features: path of what holds the features.
        matrices: whether its rows give a matrix.
        batches: how many values each call had.
    """

    features: str = "features"
    matrices: bool = True
    batches: list[int] = field(default_factory=list)

    def read(self, values: Sequence[bytes]) -> Decoded:
        self.batches.append(len(values))
        bad: dict[int, str] = {}
        found: dict[int, Any] = {}
        for i, value in enumerate(values):
            try:
                found[i] = self.value(value)
            except Undecodable:
                bad[i] = f"at byte {len(value)}: cut off"
        return Decoded(FakeRows(list(found.values()), self.features, self.matrices), list(found), bad)

    def value(self, value: bytes) -> Any:
        if not value.startswith(MARK):
            raise Undecodable("not a value")
        try:
            return json.loads(value[1:])
        except (ValueError, RecursionError) as e:
            raise Undecodable(str(e)) from None
