"""The types of a model's inputs: what is cast, what is refused, and the numbers that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.card import ModelCard
from failsoft.models.runtime.inputs import Feeds, feeds
from failsoft.models.runtime.signature import Mismatch
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from tests.tensors import batch, specs, tensor, x

INTEGERS = ["int8", "int16", "int32", "int64", "uint8"]
FLOATS = ["float16", "float32", "float64"]
ONNX = {"float32": "float", "float64": "double"}
FITS: dict[str, set[str]] = {
    **{name: set(FLOATS) for name in FLOATS},
    "int8": {*INTEGERS, *FLOATS},
    "uint8": {*INTEGERS, *FLOATS},
    "int16": {*INTEGERS, "float32", "float64"},
    "int32": {*INTEGERS, "float64"},
    "int64": {*INTEGERS},
    "bool": {*INTEGERS, *FLOATS, "bool"},
    "string": {"string"},
}


@pytest.mark.parametrize("dtype", FITS)
def test_the_types_that_a_tensor_fits(dtype: str) -> None:
    """Of each dtype: the inputs that it is cast to, and the ones for which the dtype to write is said."""
    feature = tensor("x", dtype, [2])
    values = np.array([["a", "b"]], object) if dtype == "string" else np.array([[0, 1]], dtype)
    for wanted in (*INTEGERS, *FLOATS, "bool", "string"):
        inputs = [x(["N", 2], ONNX.get(wanted, wanted))]
        if wanted in FITS[dtype]:
            made = feeds(inputs, specs(feature)).make(batch(specs(feature), x=values))["x"]
            assert made.dtype == (object if wanted == "string" else wanted) and made.tolist() == values.tolist()
        else:
            with pytest.raises(Mismatch, match=f'is a tensor of {dtype} in the card.*write dtype = "{wanted}"'):
                feeds(inputs, specs(feature))


def imputed(kind: str, feature: dict[str, Any], *values: Any) -> tuple[dict[int, str], list[Any]]:
    """The rows of ``values`` that are invalid for an input of this type, and the values of the others."""
    card = ModelCard.model_validate({"output": {"kind": "regression"}, "features": [feature]})
    made: Feeds = feeds([x(["N", "k"] if feature["type"] == "tensor" else ["N"], kind)], card.specs)
    if feature["type"] == "tensor":
        rows = batch(card.specs, x=list(values))
    else:
        rows = columns([{"x": value} for value in values], card.specs)
    done = impute(rows, card, {}, made.dtypes)
    kept = done.columns.take(np.array([i for i in range(len(values)) if i not in done.invalid], np.intp))
    return {i: failure.message for i, failure in done.invalid.items()}, made.make(kept)["x"].tolist()


def test_a_number_that_the_model_cannot_hold() -> None:
    """It is invalid and does not wrap round to another number, or become infinity."""
    no = "the card does not impute it"
    assert imputed("int32", {"name": "x", "type": "int"}, 5, 2**31, -(2**31)) == (
        {1: f"feature 'x': 2147483648 is beyond the range of int32, which the model takes; {no}"},
        [5, -(2**31)],
    )
    assert imputed("float16", {"name": "x", "type": "float"}, 65504.0, 65520.0, -65519.0)[0] == {
        1: f"feature 'x': 65520 is beyond the range of float16, which the model takes; {no}"
    }
    assert imputed("uint8", {"name": "x", "type": "int", "impute": 7}, 256, -1, 255) == ({}, [7, 7, 255])
    fixed = [np.array(row) for row in ([1.0, 1e39], [1.0, np.nan], [3.4028235e38, -1e30])]
    message = f"feature 'x': 1e+39 at [1] is beyond the range of float32, which the model takes; {no}"
    assert imputed("float", tensor("x", "float64", [2]), *fixed)[0] == {0: message}
    assert imputed("int32", tensor("x", "int64", [-1], field="a.x"), [], [1, 2**40], [3, 4]) == (
        {1: f"feature 'x': {2**40} at [1] is beyond the range of int32, which the model takes (field 'a.x'); {no}"},
        [[0, 0], [3, 4]],
    )


def test_a_wide_number_is_for_doubles_only() -> None:
    """A float beyond float32 goes to a model in float64, and is invalid or imputed for one in float32."""
    feature = {"name": "x", "type": "float"}
    wide = np.array([False, True])

    def rows(card: ModelCard) -> Columns:
        return Columns(card.specs, 2, {"x": np.array([1.0, 1e39])}, wide={"x": wide})

    for kind, more, expected in (("double", {}, [1.0, 1e39]), ("float", {"impute": 3.0}, [1.0, 3.0])):
        card = ModelCard.model_validate({"output": {"kind": "regression"}, "features": [{**feature, **more}]})
        made = feeds([x(["N"], kind)], card.specs)
        done = impute(given := rows(card), card, {}, made.dtypes)
        assert not done.invalid and made.make(done.columns)["x"].tolist() == expected
        assert given.values["x"].tolist() == [1.0, 1e39] and not given.unusable
