"""Cards that do not fit a model's inputs: refused in words that say what would fit."""

from __future__ import annotations

import re
from typing import Any

import pytest

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.statistics import Statistic
from failsoft.models.runtime.inputs import check_imputed, feeds
from failsoft.models.runtime.signature import Mismatch
from failsoft.schemas.features.spec import FeatureType, Spec
from tests.tensors import Input, scalars, specs, tensor, x

A, AB, ABC = scalars("float", "a"), scalars("float", "a", "b"), scalars("float", "a", "b", "c")
IDS = x(["N", "seq"], "int64", "ids")
VECTOR = tensor("embedding", "float32", [127])


@pytest.mark.parametrize(
    ("inputs", "features", "message"),
    [
        ([x(["N", 3])], AB, "has 3 columns, and the card lists 2 features for it: list one feature a column, or one"),
        ([x(["N", 128])], AB, 'type = "tensor", dtype = "float32", shape = [128]'),
        ([x(["N", 4])], [*A, tensor("v", "float32", [2])], "the card lists 2 features of 3 columns"),
        ([x(["N"])], AB, "input 'x' (tensor(float) [N]) takes one value a row, and the card lists 2 features"),
        ([x(["N", 1, 2])], A, "takes [N, 1, 2], and the card lists 1 feature without a shape for it: it takes [[feat"),
        ([x([])], AB, 'type = "tensor", dtype = "float32", shape = [2]'),
        ([x(["N", 2])], [*A, *scalars("string", "b")], "feature 'b' is a string in the card, and input 'x' is a tenso"),
        ([x(["N", 2], "int64")], AB, "feature 'a' is a float in the card, and input 'x' is a tensor(int64), which tak"),
        ([x(["N", 2], "bfloat16")], AB, "input 'x' is a tensor(bfloat16); it may be one of tensor(float16), tensor(fl"),
        ([x([1, 2])], AB, "batches of exactly 1: export it with a dynamic first dimension"),
        (
            [x(["N"], name="ratio"), x(["N"], name="b")],
            scalars("float", "raito", "b"),
            "'ratio' (did you mean 'raito'?)",
        ),
        (
            [x(["N"], name="a"), x(["N"], name="b")],
            ABC,
            "features that the model does not take: 'c': leave them out, or",
        ),
        (
            [x(["N", 2], name="num"), x(["N", 2], "string", "cat")],
            ABC,
            '\'num\' (tensor(float) [N, 2]) takes [[features]] name = "num", type = "tensor", dtype = "float32", '
            'shape = [2], or its columns, each with input = "num"',
        ),
        (
            [x(["N", 1], name="age__years_"), x(["N"], name="a")],
            scalars("float", "age (years)", "a"),
            "takes the feature 'age (years)' if that has input = \"age__years_\"",
        ),
        ([IDS, x(["N"], name="a")], A, 'name = "ids", type = "tensor", dtype = "int64", shape = [-1]'),
        (
            [IDS, x(["N", "seq"], "int64", "attention_mask")],
            [tensor("ids", "int64", [-1])],
            "may be the mask of 'ids', mask = \"attention_mask\"",
        ),
        (
            [x(["N", 2])],
            scalars("float", "a", "b", input="y"),
            "feature 'a' has input = \"y\", and the model has no such",
        ),
        (
            [x(["N", 128], name="embedding")],
            [VECTOR],
            "the shape [127] in the card, and input 'embedding' takes [N, 128]",
        ),
        ([x(["N", 24, 3], name="w")], [tensor("w", "float32", [72])], "shape = [24, 3]"),
        ([x(["N", 4])], [*A, tensor("v", "float32", [1, 3])], "'v' has the shape [1, 3], and is one of 2 features of"),
        (
            [IDS],
            [tensor("ids", "int64", [-1], mask="mask")],
            'has mask = "mask", and the model has no such input: it h',
        ),
        (
            [IDS, x(["N", 2, 2], name="m")],
            [tensor("ids", "int64", [-1], mask="m")],
            "its mask 'm' (tensor(float) [N, 2, 2]) takes no mask",
        ),
        (
            [IDS, x(["N", "seq"], "int64", "b"), x(["N", "seq"], "int64", "m")],
            [tensor("ids", "int64", [-1], mask="m"), tensor("b", "int64", [-1], mask="m")],
            "features 'ids' and 'b' both have mask = \"m\"",
        ),
        (
            [IDS, x(["N", "seq"], "int64", "m")],
            [tensor("ids", "int64", [-1], mask="m"), *scalars("int", "m")],
            "feature 'm' feeds the input 'm', which is the mask of another feature",
        ),
        (
            [x(["N", 64], "int64", "ids")],
            [tensor("ids", "int64", [-1])],
            "a length of 512, and input 'ids' takes [N, 64]: w",
        ),
        ([x(["N", "s"], "uint8", "ids")], [tensor("ids", "int64", [-1], pad=-100)], "pad = -100 is beyond uint8"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(inputs: list[Input], features: list[dict[str, Any]], message: str) -> None:
    """The words name what differs, with both shapes, and propose the keys that would fit."""
    with pytest.raises(Mismatch) as refused:
        feeds(inputs, specs(*features))
    assert message in str(refused.value)


def test_a_card_for_another_model_is_refused_in_few_words() -> None:
    """A message about hundreds of inputs names the first ones only."""
    inputs = [x(["N"], name=f"input_{i}") for i in range(300)]
    with pytest.raises(Mismatch, match="and 295 more") as refused:
        feeds(inputs, tuple(Spec(f"f{i}", FeatureType.FLOAT) for i in range(300)))
    assert len(str(refused.value)) < 1200


@pytest.mark.parametrize(
    ("kind", "feature", "statistic", "refused"),
    [
        (
            "float",
            {"type": "float", "impute": 1e39},
            None,
            "1e+39, with which it is imputed, is beyond the range of float32",
        ),
        (
            "float",
            {"type": "float", "impute": "mean"},
            1e39,
            "1e+39, with which it is imputed, is beyond the range of float32",
        ),
        ("double", {"type": "float", "impute": 1e39}, None, None),
        (
            "int16",
            {"type": "int", "impute": 70000},
            None,
            "70000, with which it is imputed, is beyond the range of int16",
        ),
        ("int16", {"type": "int", "impute": "mean"}, 7.5, None),
        (
            "int16",
            tensor("x", "int64", [2], impute=-40000),
            None,
            "-40000, with which it is imputed, is beyond the range of int16",
        ),
        ("float", {"type": "float", "impute": "nan"}, None, None),
    ],
)
def test_an_imputed_number_fits_the_input(
    kind: str, feature: dict[str, Any], statistic: float | None, refused: str | None
) -> None:
    """As infinity, or cut to the input's bits, it would be another value, and the answer would look right."""
    card = ModelCard.model_validate({"output": {"kind": "regression"}, "features": [{"name": "x"} | feature]})
    made = feeds([x(["N", 2 if "shape" in feature else 1], kind)], card.specs)
    statistics = {"x": Statistic(mean=statistic)}
    if refused is None:
        check_imputed(card, statistics, made.dtypes)
    else:
        with pytest.raises(Mismatch, match=re.escape(refused)):
            check_imputed(card, statistics, made.dtypes)
