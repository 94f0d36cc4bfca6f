"""Derives the ``[[features]]`` of a new card from a model's inputs and metadata. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from failsoft.models.catalog.feature_section import MOST_DIMENSIONS
from failsoft.models.catalog.fields import METHODS, listed, toml
from failsoft.models.runtime import inputs as model_inputs
from failsoft.models.runtime.element_types import card_dtype, card_type
from failsoft.models.runtime.signature import Mismatch, Port
from failsoft.schemas import wire

MOST_SCALARS = 32
"""Most columns without names that become a feature each. Tables of numbers rarely have more columns unless their names
came along, and nobody writes more of them by hand; embeddings begin at about this width.
"""

EXAMPLES: Mapping[str, Sequence[Any]] = {
    "float": [1.5, 0.25, 3.0],
    "int": [1, 2, 0],
    "bool": [True, False, True],
    "string": ["a", "b", "a"],
}
_EXAMPLE_LENGTHS = (3, 1, 2)
"""Lengths of the example events along a dimension of variable length."""

_NUMBERED = re.compile(r"""(\d{1,9}): ('[^']*'|"[^"]*")""")
"""An entry of a dict in Python's spelling, as YOLO writes the names of its classes."""

_MOST_TEXT = 1_000_000
"""Bytes of the longest text in the metadata that is read."""

_TOKENS = re.compile(r"(^|_)(ids?|tokens?|type_ids|segments?)$", re.IGNORECASE)
_MASK = re.compile(r"mask", re.IGNORECASE)
_REPLACED = re.compile(r"__|_$")
_NAME_KEYS = (
    "feature_names",
    "feature_names_in_",
    "features",
    "feature_name",
    "column_names",
    "columns",
    "input_features",
)


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a new card.

    Attributes:
        name: its name.
        type: the ``type`` in the card.
        dtype, shape, max_length, mask: of a tensor.
        input: the ONNX input that it is a column of; None if its name or the model's only input says it.
        comment: on its type.
        field: its path in an event; None if that is its name.
        categories: the strings that it may be; empty if it may be any.
        coerce: another JSON type that means the same is accepted.
        impute: what stands for a missing value; None if the card says nothing of it.
        impute_comment: where ``impute`` comes from.
        whole: of a column without a name, the tensor that its input is as one feature.
    """

    name: str
    type: str
    dtype: str | None = None
    shape: tuple[int, ...] = ()
    max_length: int | None = None
    mask: str | None = None
    input: str | None = None
    comment: str = ""
    field: str | None = None
    categories: tuple[str, ...] = ()
    coerce: bool = False
    impute: bool | int | float | str | None = None
    impute_comment: str = ""
    whole: Feature | None = None

    def lines(self) -> list[str]:
        """Its keys in card.toml."""
        kind = f'type = "{self.type}"'
        given = [f"name = {toml(self.name)}", keyed(kind, self.comment) if self.comment else kind]
        given += [f'dtype = "{self.dtype}"', f"shape = {list(self.shape)}"] if self.dtype else []
        given += [f"max_length = {self.max_length}"] if self.max_length else []
        given += [f"mask = {toml(self.mask)}"] if self.mask else []
        given += [f"input = {toml(self.input)}"] if self.input else []
        given += [f"field = {toml(self.field)}"] if self.field else []
        given += [f"categories = {listed(self.categories)}"] if self.categories else []
        given += ["coerce = true"] if self.coerce else []
        if self.impute is None:
            given.append("# impute = …")
        else:
            given.append(keyed(f"impute = {_imputed(self.impute)}", self.impute_comment))
        if _REPLACED.search(self.name) and not self.field:
            given.append(keyed("# field = …", "its name in an event: the export may have replaced characters by _"))
        return given

    def example(self, n: int) -> Any:
        """The value of example event ``n``."""
        values = EXAMPLES[self.type if self.dtype is None else _of_elements(self.dtype)]
        if self.type != "tensor":
            return values[n]
        length = min(_EXAMPLE_LENGTHS[n], self.max_length or 1)
        return _nested([length if k == -1 else k for k in self.shape], values, n)


@dataclass(frozen=True, slots=True)
class Features:
    """The features of a new card.

    Attributes:
        features: in the card's order.
        notes: what the user should check or do.
    """

    features: Sequence[Feature]
    notes: Sequence[str] = ()


def features_of(
    inputs: Sequence[Port], names: Sequence[str] | None, tabular: bool, fixed: int | None, longest: int | None
) -> Features:
    """The features that fit the model's inputs.

    Args:
        inputs: the model's inputs.
        names: of the columns, from the model's metadata; None if it has none.
        tabular: a library for tables made the model, so that an input of several columns is a part of a table.
        fixed: the only length of a dimension without a number with which the model runs, if there is only one.
        longest: the longest length of such a dimension.

    Raises ValueError for an input that no event can fill.
    """
    if not inputs:
        raise ValueError("it has no input")
    for port in inputs:
        _check(port)
    masks = _masks(inputs, fixed)
    ports = [port for port in inputs if port.name not in masks.values()]
    widths = [_width(port, fixed) for port in ports]
    notes: list[str] = []
    named = _named(ports, widths, names, notes)
    features: list[Feature] = []
    for port, width in zip(ports, widths, strict=True):
        given = named.get(port.name)
        if width == 1:
            features.append(Feature(port.name, _kind(port)))
        elif given is not None:
            features += _columns(port, given, len(ports) > 1)
        elif width is not None and width <= MOST_SCALARS and _is_table(port, tabular, len(ports) > 1):
            alone = [f"feature_{k}" for k in range(1, width + 1)]
            several = [f"{port.name}_{k}" for k in range(1, width + 1)]
            columns = _columns(port, several if len(ports) > 1 else alone, len(ports) > 1)
            dtype = card_dtype(port)
            whole = Feature(port.name, "tensor", dtype, (width,)) if dtype else None
            features += [replace(each, whole=whole) for each in columns]
            notes.append(unnamed(columns))
        elif width is None and len(port.shape) == 2 and tabular and not fixed:
            raise ValueError(
                f"input {port.name!r} does not say how many columns it takes: export it with their number, such as "
                "FloatTensorType([None, 30])"
            )
        else:
            features.append(_tensor(port, fixed, longest, masks.get(port.name), notes))
    return Features(features, notes)


def unnamed(columns: Sequence[Feature]) -> str:
    """The note on an input whose columns have no names."""
    of = "the model" if columns[0].input is None else f"input {columns[0].input!r}"
    return f"{of} takes {len(columns)} columns without names: name the features in the order of the columns"


def column_names(metadata: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """The names of the columns in a model's metadata, and their key: a JSON list or object, or a text with commas."""
    return listed_in(metadata, _NAME_KEYS)


def listed_in(metadata: Mapping[str, str], keys: Sequence[str]) -> tuple[str, list[str]] | None:
    """The first of ``keys`` in the metadata that lists different texts, and its list."""
    by_key = {key.lower().rpartition(".")[2]: (key, text) for key, text in metadata.items()}
    for wanted in keys:
        key, text = by_key.get(wanted, ("", ""))
        found = _listed(text)
        if found and len(set(found)) == len(found) and all(found):
            return key, found
    return None


def _listed(text: str) -> list[str]:
    try:
        given = wire.loads(text.encode(), _MOST_TEXT)
    except ValueError:
        python = _NUMBERED.findall(text) if text.startswith("{") else []
        if python:
            return [name[1:-1] for _, name in sorted(python, key=lambda pair: int(pair[0]))]
        return [part.strip().strip("'\"") for part in re.split(r"[,\n]", text.strip().strip("[]()"))] if text else []
    if isinstance(given, dict):
        # {"0": "age"} numbers the names, and {"age": "float"} describes them.
        numbered = all(key.isdigit() for key in given)
        given = [given[key] for key in sorted(given, key=int)] if numbered else list(given)
    return [each for each in given if isinstance(each, str)] if isinstance(given, list) else []


def _imputed(value: bool | int | float | str) -> str:
    """The value of ``impute``: a text that is a method's name is put into a table."""
    return f"{{ value = {toml(value)} }}" if value in METHODS else toml(value)


def keyed(line: str, comment: str) -> str:
    """A line of a card and its comment, which are aligned."""
    return f"{line:<34} # {comment}"


def _check(port: Port) -> None:
    try:
        model_inputs.check_port(port)
    except Mismatch as error:
        raise ValueError(str(error)) from None
    if not port.shape:
        raise ValueError(
            f"input {port.name!r} has no shape in the file: export it with one, and a first dimension of rows"
        )
    if len(port.shape) > MOST_DIMENSIONS + 1:
        least = f"a card's shape has at most {MOST_DIMENSIONS}"
        raise ValueError(f"input {port.name!r} has {len(port.shape) - 1} dimensions a row; {least}")


def _masks(inputs: Sequence[Port], fixed: int | None) -> dict[str, str]:
    """By the name of a sequence's input, the input of its mask: the sequence with the same dimension comes first."""
    masks: dict[str, str] = {}
    for mask in inputs:
        if not _MASK.search(mask.name) or len(mask.shape) != 2 or mask.type == "tensor(string)":
            continue
        sequences = [
            port
            for port in inputs
            if not _MASK.search(port.name) and port.name not in masks and -1 in _dimensions(port, fixed)
        ]
        same = [port for port in sequences if mask.shape[1] in port.shape[1:] and mask.shape[1] is not None]
        if sequences and -1 in _dimensions(mask, fixed):
            masks[(same or sequences)[0].name] = mask.name
    return masks


def _dimensions(port: Port, fixed: int | None) -> list[int]:
    """The dimensions of one row; -1 for a length that differs by row."""
    return [n if isinstance(n, int) else fixed or -1 for n in port.shape[1:]]


def _width(port: Port, fixed: int | None) -> int | None:
    """The columns of an input that is a matrix of a fixed width, 1 for a single value; None for others."""
    match _dimensions(port, fixed):
        case []:
            return 1
        case [int(n)] if n > 0:
            return n
    return None


def _named(
    ports: Sequence[Port], widths: Sequence[int | None], names: Sequence[str] | None, notes: list[str]
) -> dict[str, Sequence[str]]:
    """The names of the columns by input, if there is one for each column; adds a note if there is not."""
    if names is None or all(width == 1 for width in widths):
        return {}
    columns = sum(width or 0 for width in widths)
    if None in widths or columns != len(names):
        notes.append(f"the model's metadata names {len(names)} columns and it takes {columns}: the names are not used")
        return {}
    given, at = {}, 0
    for port, width in zip(ports, widths, strict=True):
        given[port.name] = names[at : at + (width or 0)]
        at += width or 0
    return given


def _is_table(port: Port, tabular: bool, several: bool) -> bool:
    """Whether the columns of a matrix without names are single values. Beside other inputs a net takes vectors."""
    return not _TOKENS.search(port.name) and (tabular or not several)


def _columns(port: Port, names: Sequence[str], several: bool) -> list[Feature]:
    return [Feature(name, _kind(port), input=port.name if several else None) for name in names]


def _tensor(port: Port, fixed: int | None, longest: int | None, mask: str | None, notes: list[str]) -> Feature:
    shape = tuple(_dimensions(port, fixed))
    if shape.count(-1) > 1:
        notes.append(
            f"input {port.name!r} has several dimensions without a number, and in a card only one may be -1: write the "
            "others in the card's shape"
        )
    dtype = card_dtype(port)
    if dtype is None:
        raise ValueError(
            f"input {port.name!r} is a {port.type}, and no dtype of a tensor in a card is that: export int64"
        )
    return Feature(
        port.name,
        "tensor",
        dtype,
        shape,
        longest if -1 in shape else None,
        mask if -1 in shape else None,
    )


def _kind(port: Port) -> str:
    kind = card_type(port)
    assert kind is not None, "its type was checked"
    return kind


def _of_elements(dtype: str) -> str:
    """The type of a single value that is an element of a tensor."""
    return dtype if dtype in ("string", "bool") else "float" if dtype.startswith("float") else "int"


def _nested(shape: Sequence[int], values: Sequence[Any], at: int) -> Any:
    """A list of lists of this shape, whose elements repeat ``values``."""
    if not shape:
        return values[at % len(values)]
    return [_nested(shape[1:], values, at + k) for k in range(shape[0])]
