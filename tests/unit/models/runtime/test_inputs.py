"""A model's inputs: which features feed which one, as which tensor, and the cards that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from onnx import TensorProto

from failsoft.models.answers.imputation import impute
from failsoft.models.catalog.card import ModelCard
from failsoft.models.runtime.inputs import Feeds, feeds
from failsoft.models.runtime.padding import MOST_BYTES
from failsoft.models.runtime.signature import Mismatch
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.features.columns import Columns
from failsoft.schemas.features.reading import columns
from failsoft.schemas.features.spec import FeatureType, Spec
from tests.onnx_models import Port, a_card, answer, load, node, onnx_model, same


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
    with pytest.raises(MemoryError, match=r"rows padded to a length of 1000 take .* lower its max_length"):
        feeds([x(["N", "seq"], "int64", "ids")], given).make(rows)


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
            made = fed(inputs, feature, x=values)["x"]
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
        {1: f"feature 'x': beyond the range of int32; {no}"},
        [5, -(2**31)],
    )
    assert imputed("float16", {"name": "x", "type": "float"}, 65504.0, 70000.0)[0] == {
        1: f"feature 'x': beyond the range of float16; {no}"
    }
    assert imputed("uint8", {"name": "x", "type": "int", "impute": 7}, 256, -1, 255) == ({}, [7, 7, 255])
    fixed = [np.array(row) for row in ([1.0, 1e39], [1.0, np.nan], [1e30, -1e30])]
    message = f"feature 'x': an element is beyond the range of float32; {no}"
    assert imputed("float", tensor("x", "float64", [2]), *fixed)[0] == {0: message}
    assert imputed("int32", tensor("x", "int64", [-1]), [], [1, 2**40], [3, 4]) == (
        {1: f"feature 'x': an element is beyond the range of int32; {no}"},
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


def test_a_file_without_the_inputs_shape() -> None:
    """The card says the shape of a tensor; for single values it has to."""
    made = fed([x([])], tensor("v", "float32", [2]), v=np.array([[1, 2]], np.float32))
    assert made["x"].tolist() == [[1, 2]]


def test_a_card_for_another_model_is_refused_in_few_words() -> None:
    """A message about hundreds of inputs names the first ones only."""
    inputs = [x(["N"], name=f"input_{i}") for i in range(300)]
    with pytest.raises(Mismatch, match="and 295 more") as refused:
        feeds(inputs, tuple(Spec(f"f{i}", FeatureType.FLOAT) for i in range(300)))
    assert len(str(refused.value)) < 1200
