"""A model's inputs: which features feed which one, and as which tensor."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from failsoft.models.catalog.card import ModelCard
from failsoft.models.runtime.inputs import feeds
from failsoft.models.runtime.padding import MOST_BYTES
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from tests.onnx_models import Port, a_card, answer, load, node, onnx_model, same
from tests.tensors import Input, batch, scalars, specs, tensor, x


def fed(inputs: Sequence[Input], *features: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The model's inputs that the card's ``features`` make of ``values``."""
    given = specs(*features)
    made = feeds(inputs, given).make(batch(given, **values))
    assert all(each.flags["C_CONTIGUOUS"] for each in made.values())
    return made


def test_one_tensor_per_feature_of_mixed_types(tmp_path: Path) -> None:
    """Each feature goes to the input with its name, as that input's type; the card's order does not matter."""
    inputs: list[Port] = [
        ("s", "string", ["n", 1]),
        ("d", "double", ["n", 1]),
        ("i", "int64", ["n"]),
        ("j", "int32", ["n", 1]),
        ("b", "bool", ["n", 1]),
        ("f", "float", ["n", 1]),
    ]
    encode = node("LabelEncoder", ["s"], ["s1"], domain="ai.onnx.ml", keys_strings=["x", "y"], values_floats=[1.0, 2.0])
    casts = [node("Cast", [name], [name + "1"], to=TensorProto.FLOAT) for name in "dijb"]
    column = node("Unsqueeze", ["i1", "one"], ["i2"])
    total = node("Sum", ["s1", "d1", "i2", "j1", "b1", "f"], ["y"])
    model = onnx_model(
        inputs, [("y", "float", ["n", 1])], encode, *casts, column, total, constants={"one": np.array([1])}
    )
    card = a_card({"kind": "regression"}, f="float", b="bool", s="string", j="int", i="int", d="float")
    session = load(tmp_path, model, card)
    session.warm()
    made = answer(session, (0.5, True, "y", 100, 1000, 0.25), (0.5, False, "x", 1, 2, 3))
    assert made.predictions.scores.tolist() == [1103.75, 7.5]
    assert session.dtypes == {"f": "float32", "j": "int32", "i": "int64", "d": "float64"}


def test_a_matrix_in_the_cards_order(tmp_path: Path) -> None:
    """The columns of a single matrix are the card's features in order; integers and booleans become numbers."""
    session = load(tmp_path, same(3), a_card({"kind": "multiclass"}, b="bool", i="int", f="float"))
    probabilities = answer(session, (True, 0, 0.0), (False, 1, 0.0), (False, 0, 1.0)).predictions.probabilities
    assert probabilities is not None and probabilities.tolist() == np.eye(3).tolist()


def test_an_unusable_cell_is_never_answered(tmp_path: Path) -> None:
    """The placeholder in a cell that was not imputed is never used as a value."""
    outcome = answer(load(tmp_path, same(1), a_card({"kind": "binary"}, a="float")), (0.5,), (None,))
    assert outcome.bad == {1: Failure(Kind.INVALID, "feature 'a': null")}


def test_several_columns_of_several_inputs() -> None:
    """``input`` makes features the columns of an input, in the card's order, beside inputs by name."""
    inputs = [x(["N", 2], name="num"), x([None, 2], "string", "cat"), x(["N"], "int64", "id")]
    features = [
        *scalars("float", "fare", input="num"),
        *scalars("string", "sex", input="cat"),
        *scalars("int", "id"),
        *scalars("float", "age", input="num"),
        *scalars("string", "port", input="cat"),
    ]
    made = fed(inputs, *features, fare=[1.5, 2.5], age=[30.0, 40.0], sex=["m", "f"], port=["S", "C"], id=[7, 8])
    assert made["num"].tolist() == [[1.5, 30.0], [2.5, 40.0]] and made["num"].dtype == np.float32
    assert made["cat"].tolist() == [["m", "S"], ["f", "C"]] and made["cat"].dtype == object
    assert made["id"].tolist() == [7, 8] and made["id"].dtype == np.int64


@pytest.mark.parametrize("order", ["abcd", "acbd"])
def test_blocks_of_a_card_of_floats(order: str) -> None:
    """Inputs that are blocks of the events' one matrix get their columns, whether these are neighbours or not."""
    where = {"a": "left", "b": "left", "c": "right", "d": "right"}
    given = specs(*({"name": name, "type": "float", "input": where[name]} for name in order))
    rows = columns([dict(zip("abcd", (1, 2, 3, 4), strict=True)), dict(zip("abcd", (5, 6, 7, 8), strict=True))], given)
    assert rows.matrix is not None
    made = feeds([x(["N", 2], name="left"), x(["N", 2], "double", "right")], given).make(rows)
    assert (made["left"].tolist(), made["right"].tolist()) == ([[1, 2], [5, 6]], [[3, 4], [7, 8]])
    assert made["left"].dtype == np.float32 and made["right"].dtype == np.float64


def test_a_vector_in_place_of_numbers() -> None:
    """A vector of 3 and three numbers both fit an input of three columns, and so do a vector of 2 and a number."""
    wide = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    one = fed([x(["N", 3])], tensor("embedding", "float32", [3]), embedding=np.array(wide, np.float32))
    a, b, c = zip(*wide, strict=True)
    three = fed([x(["N", 3])], *scalars("float", "a", "b", "c"), a=a, b=b, c=c)
    mixed = fed(
        [x(["N", 3])], *scalars("float", "a"), tensor("v", "float32", [2]), a=a, v=np.array(wide, np.float32)[:, 1:]
    )
    assert one["x"].tolist() == three["x"].tolist() == mixed["x"].tolist() == wide


def test_tensors_of_any_rank() -> None:
    """A tensor goes to the input of its name, to the one it names, or to the only one, in its own shape."""
    window = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    image = np.arange(24, dtype=np.uint8).reshape(2, 2, 3, 2)
    ids = np.arange(8, dtype=np.int64).reshape(2, 4)
    made = fed(
        [x(["N", 3, 2], name="window"), x([None, 2, "h", 2], name="pixels"), x(["N", 4], "int32", "ids")],
        tensor("window", "float32", [3, 2]),
        tensor("image", "uint8", [2, 3, 2], input="pixels"),
        tensor("ids", "int64", [4]),
        window=window,
        image=image,
        ids=ids,
    )
    assert np.array_equal(made["window"], window) and made["window"].dtype == np.float32
    assert np.array_equal(made["pixels"], image) and made["pixels"].dtype == np.float32
    assert np.array_equal(made["ids"], ids) and made["ids"].dtype == np.int32
    assert fed([x(["N", 3, 2], name="in")], tensor("w", "float32", [3, 2]), w=window)["in"].shape == (2, 3, 2)


@pytest.mark.parametrize("shape", [["N"], ["N", 1]])
def test_single_strings(shape: list[int | str]) -> None:
    """A string goes to the only input, flat or in a column, whatever the input's name."""
    made = fed([x(shape, "string")], *scalars("string", "text"), text=["My parcel", ""])
    assert made["x"].reshape(-1).tolist() == ["My parcel", ""] and made["x"].ndim == len(shape)


MASKS = [("int64", np.int64), ("int32", np.int32), ("bool", np.bool_), ("float", np.float32)]


@pytest.mark.parametrize(("kind", "dtype"), MASKS)
def test_variable_length_is_padded_and_masked(kind: str, dtype: Any) -> None:
    """Rows are padded to the batch's longest with ``pad``, and the mask tells 1 for what is there."""
    inputs = [x(["N", "seq"], "int64", "ids"), x(["N", "seq"], kind, "attention_mask")]
    made = fed(inputs, tensor("ids", "int64", [-1], pad=9, mask="attention_mask"), ids=[[1, 2, 3], [], [4]])
    assert made["ids"].tolist() == [[1, 2, 3], [9, 9, 9], [4, 9, 9]] and made["ids"].dtype == np.int64
    assert made["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert made["attention_mask"].dtype == dtype


@pytest.mark.parametrize("rows", [[[]], []])
def test_a_batch_without_elements(rows: list[list[int]]) -> None:
    """The length is at least 1: a batch of empty rows, and of no rows, has a shape that models take."""
    made = fed([x(["N", "seq"], "int64", "ids")], tensor("ids", "int64", [-1], pad=1), ids=rows)
    assert made["ids"].tolist() == [[1]] * len(rows) and made["ids"].shape == (len(rows), 1)


def test_variable_length_in_any_dimension() -> None:
    """The dimension -1 may be any one, and strings are padded too."""
    made = fed(
        [x(["N", "t", 2], name="steps"), x(["N", 2, "t"], name="series"), x(["N", "w"], "string", "words")],
        tensor("steps", "float32", [-1, 2]),
        tensor("series", "float64", [2, -1], pad=-1),
        tensor("words", "string", [-1], pad="<pad>"),
        steps=[[[1, 2], [3, 4], [5, 6]], [[7, 8]]],
        series=[[[1, 2, 3], [4, 5, 6]], [[7], [8]]],
        words=[["a"], ["b", "c"]],
    )
    assert made["steps"].tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8], [0, 0], [0, 0]]]
    assert made["series"].tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, -1, -1], [8, -1, -1]]]
    assert made["series"].dtype == np.float32 and made["words"].tolist() == [["a", "<pad>"], ["b", "c"]]


def test_inputs_that_share_a_length() -> None:
    """Inputs whose length has the same name in the model are padded alike, and others by themselves."""
    inputs = [x(["N", "seq"], "int64", name) for name in ("ids", "types")] + [x(["N", "other"], "int64", "tags")]
    features = [tensor(name, "int64", [-1]) for name in ("ids", "types", "tags")]
    made = fed(inputs, *features, ids=[[1, 2, 3], [4]], types=[[1, 1], [2]], tags=[[5], [6]])
    assert {name: each.shape[1] for name, each in made.items()} == {"ids": 3, "types": 3, "tags": 1}


def test_joined_columns_are_padded_together() -> None:
    """Calls that share a run get the longest row of all of them, as one batch would."""
    given = specs(tensor("ids", "int64", [-1]), tensor("v", "float32", [1]))
    parts = [batch(given, ids=[row], v=[[1.0]]) for row in ([1], [], [2, 3])]
    made = feeds([x(["N", "seq"], "int64", "ids"), x(["N", 1], name="v")], given).make(Columns.concat(parts))
    assert made["ids"].tolist() == [[1, 0], [0, 0], [2, 3]] and made["v"].shape == (3, 1)


def test_a_length_that_the_model_fixes() -> None:
    """Every batch is padded to the length of the input, or of the mask."""
    feature = tensor("ids", "int64", [-1], max_length=4, mask="mask")
    for ids, mask in ((4, "s"), ("s", 4), (4, 4)):
        inputs = [x(["N", ids], "int64", "ids"), x(["N", mask], "int64", "mask")]
        assert fed(inputs, feature, ids=[[1, 2], [3]])["mask"].tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]


def test_padding_beyond_memory_fails_with_words() -> None:
    """One long row among many would multiply the memory: the batch is refused before its memory is taken."""
    given = specs(tensor("ids", "int64", [-1], max_length=1_000_000))
    rows = batch(given, ids=[list(range(1000))] + [[]] * (MOST_BYTES // 8000))
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError, match=r"rows padded to a length of 1000 take .* lower its max_length"):
            feeds([x(["N", "seq"], "int64", "ids")], given).make(rows)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MOST_BYTES >> 5


def test_a_mask_beyond_memory_fails_too() -> None:
    """The elements of a mask may be wider than those of what it masks."""
    given = specs(tensor("ids", "uint8", [-1], max_length=1_000_000, mask="mask"))
    rows = batch(given, ids=[[0] * 1000] + [[]] * (MOST_BYTES // 8000))
    with pytest.raises(MemoryError, match=r"rows padded to a length of 1000 take 1024 MB"):
        feeds([x(["N", "seq"], "uint8", "ids"), x(["N", "seq"], "int64", "mask")], given).make(rows)


def test_a_model_of_ids_a_mask_and_numbers(tmp_path: Path) -> None:
    """A batch of several tensors runs, in float16 and by way of made-up rows, and each row's padding is left out."""
    model = onnx_model(
        [("ids", "int64", ["n", "s"]), ("mask", "float", ["n", "s"]), ("numeric", "float16", ["n", 3])],
        [("y", "float", ["n", 1])],
        node("Gather", ["table", "ids"], ["e"]),
        node("Mul", ["e", "mask"], ["m"]),
        node("ReduceSum", ["m", "one"], ["t"], keepdims=1),
        node("Cast", ["numeric"], ["n32"], to=TensorProto.FLOAT),
        node("ReduceSum", ["n32", "one"], ["u"], keepdims=1),
        node("Add", ["t", "u"], ["y"]),
        constants={"table": np.array([100, 1, 2, 3], np.float32), "one": np.array([1])},
    )
    features = [tensor("ids", "int32", [-1], mask="mask"), tensor("numeric", "float32", [3])]
    session = load(
        tmp_path,
        model,
        ModelCard.model_validate({"model": {"name": "m"}, "output": {"kind": "regression"}, "features": features}),
    )
    session.warm()
    numeric = np.array([[0.5, 0, 0], [1, 1, 1]], np.float32)
    outcome = session.run(batch(session.card.specs, ids=[[1, 2, 3], [3]], numeric=numeric))
    assert not isinstance(outcome, Failure) and outcome.predictions.scores.tolist() == [6.5, 6.0]
    assert session.dtypes == {"numeric": "float16"}


def test_a_file_without_the_inputs_shape() -> None:
    """The card says the shape of a tensor; for single values it has to."""
    made = fed([x([])], tensor("v", "float32", [2]), v=np.array([[1, 2]], np.float32))
    assert made["x"].tolist() == [[1, 2]]
