"""Inputs of models without a model, features of a card, and batches of tensors made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from failsoft.models.catalog.card import ModelCard
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.spec import Spec


class Input(NamedTuple):
    """An input of a model, as ONNX Runtime describes it."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def x(shape: Sequence[int | str | None], kind: str = "float", name: str = "x") -> Input:
    return Input(name, f"tensor({kind})", shape)


def specs(*features: dict[str, Any]) -> tuple[Spec, ...]:
    return ModelCard.model_validate({"output": {"kind": "regression"}, "features": features}).specs


def scalars(kind: str, *names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind, **more} for name in names]


def tensor(name: str, dtype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "tensor", "dtype": dtype, "shape": shape, **more}


def batch(given: tuple[Spec, ...], **values: Any) -> Columns:
    """Columns of ``values``. A list of lists of a feature of variable length becomes one array a row."""
    made = {}
    for spec in given:
        if spec.tensor is not None and -1 in spec.tensor.shape:
            dtype = object if spec.tensor.dtype == "string" else spec.tensor.dtype.value
            made[spec.name] = np.empty(len(values[spec.name]), object)
            for i, row in enumerate(values[spec.name]):
                made[spec.name][i] = np.array(row, dtype).reshape(spec.tensor.shape)
        else:
            made[spec.name] = np.array(values[spec.name])
    return Columns(given, len(next(iter(made.values()))), made)
