"""The features of a new card: what they are for each shape of a model's inputs."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import pytest

from failsoft.models.catalog.feature_section import FeatureSection
from failsoft.models.vetting.observation import ObservedPort
from failsoft.schemas.features.reading import columns
from failsoft.workers.operations.card_features import Feature, column_names, features_of


def port(name: str, kind: str, *shape: int | str | None) -> ObservedPort:
    return ObservedPort(name, f"tensor({kind})", shape)


def made(*inputs: ObservedPort, **known: Any) -> list[tuple[Any, ...]]:
    """(name, type, dtype and shape, input) of each feature."""
    found = features_of(
        inputs, known.get("names"), known.get("tabular", False), known.get("fixed"), known.get("longest")
    )
    return [(f.name, f.type, (f.dtype, *f.shape) if f.dtype else None, f.input) for f in found.features]


def test_an_input_of_one_column_is_a_single_value() -> None:
    """Of each type that an event can hold, with or without the dimension of the column."""
    kinds = {"float": "float", "double": "float", "float16": "float", "int64": "int", "uint8": "int", "bool": "bool"}
    for kind, given in kinds.items():
        assert made(port("a", kind, None, 1), port("b", kind, "n")) == [
            ("a", given, None, None),
            ("b", given, None, None),
        ]
    assert made(port("text", "string", None)) == [("text", "string", None, None)]


def test_a_small_matrix_is_a_feature_a_column() -> None:
    """Its columns get numbered names, and a note asks for their names."""
    assert made(port("X", "float", None, 3)) == [(f"feature_{k}", "float", None, None) for k in (1, 2, 3)]
    (note,) = features_of([port("X", "float", None, 3)], None, True, None, None).notes
    assert "3 columns" in note


@pytest.mark.parametrize(("width", "many"), [(32, True), (33, False), (128, False)])
def test_a_wide_matrix_is_one_vector(width: int, many: bool) -> None:
    """Nobody names 128 columns; with names from the metadata each column is a feature."""
    found = made(port("X", "float", None, width))
    assert len(found) == (width if many else 1) and (many or found == [("X", "tensor", ("float32", width), None)])
    names = [f"c{k}" for k in range(width)]
    assert made(port("X", "float", None, width), names=names) == [(name, "float", None, None) for name in names]


def test_names_that_do_not_fit_are_not_used() -> None:
    """A note says so."""
    found = features_of([port("X", "float", None, 3)], ["a", "b"], False, None, None)
    assert found.features[0].name == "feature_1" and "names 2 columns and it takes 3" in found.notes[0]


def test_blocks_of_a_table_are_columns_of_their_input() -> None:
    """A pipeline of scikit-learn takes a block of numbers and one of texts; a net takes vectors."""
    blocks = port("num", "float", None, 2), port("cat", "string", None, 2)
    expected = [("num_1", "float", None, "num"), ("num_2", "float", None, "num")]
    expected += [("cat_1", "string", None, "cat"), ("cat_2", "string", None, "cat")]  # type: ignore[list-item]
    assert made(*blocks, tabular=True) == expected
    named = made(*blocks, tabular=True, names=["age", "fare", "sex", "port"])
    assert [(f[0], f[3]) for f in named] == [("age", "num"), ("fare", "num"), ("sex", "cat"), ("port", "cat")]
    nets = port("input_ids", "int64", "n", 16), port("numeric", "float", "n", 3)
    assert made(*nets) == [
        ("input_ids", "tensor", ("int64", 16), None),
        ("numeric", "tensor", ("float32", 3), None),
    ]


def test_tokens_and_further_dimensions_are_tensors() -> None:
    """A list of ids has no columns, and a window of time has no names."""
    assert made(port("input_ids", "int64", "n", 16)) == [("input_ids", "tensor", ("int64", 16), None)]
    assert made(port("window", "float", "n", 24, 3)) == [("window", "tensor", ("float32", 24, 3), None)]


def test_a_length_that_differs_has_a_mask() -> None:
    """The mask is told by the sequence; the types of tokens are a feature of their own."""
    ids, mask = port("input_ids", "int64", "batch", "sequence"), port("attention_mask", "int64", "batch", "sequence")
    kinds = port("token_type_ids", "int64", "batch", "sequence")
    found = features_of([ids, mask, kinds], None, False, None, 384).features
    assert [(f.name, f.shape, f.max_length, f.mask) for f in found] == [
        ("input_ids", (-1,), 384, "attention_mask"),
        ("token_type_ids", (-1,), 384, None),
    ]
    image = port("image", "float", "n", 3, "pixels")
    assert [f.mask for f in features_of([image, ids, mask], None, False, None, 384).features] == [
        None,
        "attention_mask",
    ]


def test_the_only_length_that_runs_is_the_width() -> None:
    """Some exporters leave out the number of columns."""
    assert made(port("x", "float", None, None), fixed=2) == [(f"feature_{k}", "float", None, None) for k in (1, 2)]
    fixed = made(port("ids", "int64", "n", "s"), port("mask", "int64", "n", "s"), fixed=8)
    assert fixed == [("ids", "tensor", ("int64", 8), None), ("mask", "tensor", ("int64", 8), None)]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([], "no input"),
        ([port("x", "float", 8, 3)], "'x' takes batches of exactly 8: export it with a dynamic"),
        ([port("x", "complex64", None, 3)], r"'x' is a tensor\(complex64\)"),
        ([ObservedPort("x", "seq(tensor(float))", ())], "'x' is a seq"),
        ([port("x", "float")], "no shape in the file"),
        ([port("x", "float", None, 1, 2, 3, 4, 5)], "5 dimensions a row"),
        ([port("x", "float", None, None)], "does not say how many columns"),
    ],
)
def test_an_input_that_no_event_can_fill_is_refused(inputs: Sequence[ObservedPort], words: str) -> None:
    """The message names the input and what would be right."""
    with pytest.raises(ValueError, match=words):
        features_of(inputs, None, True, None, None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["age", "fare"]', ["age", "fare"]),
        ("age, fare", ["age", "fare"]),
        ("['age', 'fare']", ["age", "fare"]),
        ('{"1": "fare", "0": "age"}', ["age", "fare"]),
        ('{"age": "float", "fare": "float"}', ["age", "fare"]),
        ("{0: 'age', 1: \"fare's\"}", ["age", "fare's"]),
        ("{0: 'age', 1: ", ["age"]),
        ('["age", "age"]', None),
        ("", None),
        ("7", None),
    ],
)
def test_names_in_the_metadata_are_read(text: str, names: list[str] | None) -> None:
    """As a JSON list or object, or as text with commas. Names that are given twice are none."""
    found = column_names({"other": "x", "feature_names": text})
    assert (found and found[1]) == names


def test_a_card_and_an_event_can_have_each_feature() -> None:
    """The lines load as a card's section, and the examples are usable values of it."""
    features = [
        Feature("a", "float", input="block"),
        Feature('say "x"', "string"),
        Feature("age__years_", "float"),
        Feature("v", "tensor", "float16", (2, 3)),
        Feature("t", "tensor", "string", (2,)),
        Feature("ids", "tensor", "int64", (-1, 2), 2, "mask"),
    ]
    sections = [FeatureSection.model_validate(tomllib.loads("\n".join(f.lines()))) for f in features]
    assert [s.name for s in sections] == [f.name for f in features]
    assert sections[5].mask == "mask" and sections[0].input == "block" and "# field" in features[2].lines()[-1]
    examples = [[f.example(n) for f in features] for n in range(3)]
    assert [len(example[5]) for example in examples] == [2, 1, 2]
    read = columns(
        [dict(zip([f.name for f in features], e, strict=True)) for e in examples], [s.spec for s in sections]
    )
    assert not read.why
