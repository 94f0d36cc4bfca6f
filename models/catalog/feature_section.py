"""A card's ``[[features]]`` sections: the type of a feature, and its imputation."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, StrictBool, StrictInt, WithJsonSchema, model_validator

from failsoft.models.catalog.fields import METHODS, CardSection, Finite, Method, Value, one_of
from failsoft.schemas.config.key import means
from failsoft.schemas.config.refusal import near
from failsoft.schemas.features.spec import DType, FeatureType, Spec, TensorSpec

_VALUE = {"type": ["boolean", "integer", "number", "string"]}
_IMPUTE = WithJsonSchema(
    {
        "anyOf": [
            {"enum": METHODS},
            _VALUE,
            {"type": "object", "properties": {"value": _VALUE}, "required": ["value"], "additionalProperties": False},
        ]
    }
)
"""JSON Schema of ``impute`` as a card writes it; ``Imputation`` is made from that."""


_WORDS = ", ".join(f'"{method}"' for method in METHODS if method != Method.LAST_KNOWN)
_MAY_BE = f'a value, {_WORDS}, or {{ value = "mean" }} if that word is the value'


class Imputation(CardSection):
    """How a missing feature is imputed: a training statistic, a fixed ``value``, or (reserved) its last known value."""

    method: Method
    value: Value | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """``"median"`` is a method; ``3.5`` and ``{ value = "median" }`` are values."""
        if isinstance(given, str) and given in METHODS:
            return {"method": given}
        if given == "none":
            raise ValueError(
                f'"none" is no way to impute: without imputation, leave impute out. It may be a value, {_WORDS}, or '
                '{ value = "none" } if that word is the value'
            )
        if isinstance(given, (bool, int, float, str)):
            return {"method": Method.VALUE, "value": given}
        if isinstance(given, dict) and set(given) == {"value"}:
            return {"method": Method.VALUE, "value": given["value"]}
        if isinstance(given, dict) and given.get("method") in METHODS:
            fixed = ", or only the value" if "value" in given else ""
            raise ValueError(f'a table has only the key "value": write impute = "{given["method"]}"{fixed}')
        raise ValueError(f"it may be {_MAY_BE}")


_STATISTIC = "the one in version.toml"

MAX_LENGTH = 512
"""Default of `max_length`: the sequence length of many text models. A batch is padded to its longest row, so without a
bound one long event would cost the memory of thousands."""

MOST_DIMENSIONS = 4
"""Most dimensions of one event's tensor: video has four (frames, height, width, channels)."""

MOST_ELEMENTS = 10_000_000
"""Most elements of one event's tensor: more than an event of any sensible size holds."""


class FeatureSection(CardSection):
    """A feature, in the order of the model's columns. An event without it is `invalid` unless `impute` is given."""

    name: Annotated[
        str, Field(min_length=1), means("The feature's name: in the event, in the model and in messages.", "car_value")
    ]
    type: Annotated[
        FeatureType,
        one_of(FeatureType),
        means("The type of its JSON value; a tensor is a list (of lists), or base64.", "float"),
    ]
    field: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        means(
            "Where the event has it: a path with dots within `[input] features`. A name that has dots itself is found "
            "first.",
            "payload.after.amount",
            left_out="its name",
        ),
    ] = None
    required: Annotated[
        StrictBool,
        means("Whether each event must have it. Excludes `impute`.", False, left_out="`true` without `impute`"),
    ] = True
    impute: Annotated[
        Annotated[Imputation, _IMPUTE] | None,
        means(
            "What replaces a missing or unusable value: a statistic of the training data, or a fixed value. "
            '`{ value = "median" }` is a fixed value that is spelled like a statistic. `"nan"` hands NaN to a model '
            "that knows missing values, such as trees: the answer names the feature in `missing`, and nothing is "
            'imputed. `"last_known"` is reserved: the workers of this version refuse it.',
            "median",
            0.0,
            "nan",
            {"value": "median"},
            left_out="no imputation: the event is `invalid`",
        ),
    ] = None
    categories: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None,
        means("The strings that the model knows. Only for a string.", ["a", "b"], left_out="every string is known"),
    ] = None
    unseen: Annotated[
        Literal["unusable", "pass"],
        one_of(["unusable", "pass"]),
        means("A string outside `categories` counts as missing (`unusable`), or goes to the model (`pass`).", "pass"),
    ] = "unusable"
    minimum: Annotated[
        Finite | None, means("A number under this counts as missing. Only for numbers.", 0.0, left_out="no bound")
    ] = None
    maximum: Annotated[
        Finite | None, means("A number over this counts as missing. Only for numbers.", 150.0, left_out="no bound")
    ] = None
    coerce: Annotated[
        StrictBool,
        means(
            'Accept a value of another JSON type that means the same: `"3.5"` is 3.5, `"true"` and 1 are true, 3.0 is '
            '3, 1234 is `"1234"`. Not for a tensor.',
            True,
        ),
    ] = False
    input: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        means(
            "The ONNX input that it is a column of. Its columns are the features with this input, in the card's order.",
            "numeric",
            left_out="the input of its name, or the only one",
        ),
    ] = None
    dtype: Annotated[
        DType | None,
        one_of(DType),
        means("The type of a tensor's elements. Only for a tensor.", "float32", left_out="a tensor must have it"),
    ] = None
    shape: Annotated[
        tuple[StrictInt, ...] | None,
        means(
            "The dimensions of a tensor. One may be -1, a length that differs by event: a batch is padded to its "
            "longest. Only for a tensor.",
            [128],
            left_out="a tensor must have it",
            minItems=1,
        ),
    ] = None
    max_length: Annotated[
        Annotated[StrictInt, Field(ge=1)] | None,
        means(
            "The most elements along the dimension -1; a longer value is unusable.",
            128,
            left_out=f"{MAX_LENGTH} with a -1 in `shape`",
        ),
    ] = None
    truncate: Annotated[
        StrictBool, means("A longer value is cut off at `max_length` instead. Only with a -1 in `shape`.", True)
    ] = False
    pad: Annotated[
        Value | None,
        means(
            "The element that shorter values of a batch are filled up with. Only with a -1 in `shape`.",
            1,
            left_out='0, false or `""`',
        ),
    ] = None
    mask: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        means(
            "The ONNX input that is told 1 for what is there and 0 for padding. Only with a -1 in `shape`.",
            "attention_mask",
            left_out="no input is told",
        ),
    ] = None
    mean: Annotated[
        Finite | None,
        means("The mean of the training data, for `impute`. Only for a number.", 21.5, left_out=_STATISTIC),
    ] = None
    median: Annotated[
        Finite | None,
        means("The median of the training data, for `impute`. Only for a number.", 20.0, left_out=_STATISTIC),
    ] = None
    mode: Annotated[
        Value | None, means("The most frequent value of the training data, for `impute`.", "a", left_out=_STATISTIC)
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _required_unless_imputed(cls, given: Any) -> Any:
        if isinstance(given, dict) and "required" not in given:
            return {**given, "required": "impute" not in given}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numeric = self.type in (FeatureType.FLOAT, FeatureType.INT)
        if self.required and self.impute is not None:
            raise ValueError(f"{self.name!r} is both required and imputed: leave out one of the two")
        if self.categories is not None and self.type is not FeatureType.STRING:
            raise ValueError(f"{self.name!r}: only a string has categories, not a {self.type}")
        if not numeric and (self.mean is not None or self.median is not None):
            raise ValueError(f"{self.name!r}: a {self.type} has no mean or median")
        problem = _tensor_problem(self) or _bounds_problem(self)
        if problem is not None:
            raise ValueError(f"{self.name!r}: {problem}")
        if self.mode is not None:
            self.check("mode", self.mode)
        if self.impute is not None:
            self._check_imputation(self.impute, numeric)
        return self

    def _check_imputation(self, impute: Imputation, numeric: bool) -> None:
        if impute.method is Method.NAN:
            if not (self.type is FeatureType.FLOAT or (self._fixed and self.dtype is not None and self.dtype.floating)):
                raise ValueError(
                    f"{self.name!r}: only a float or a tensor of floats with a fixed shape can be NaN, not "
                    + (f"a {self.type}" if self.type is not FeatureType.TENSOR else f"{self.dtype} {self.shape}")
                )
            return
        if self.type is FeatureType.TENSOR and (impute.method is not Method.VALUE or not self._fixed):
            raise ValueError(
                f'{self.name!r}: a tensor is imputed with one value for all elements of a fixed shape, or with "nan"'
            )
        if impute.method in (Method.MEAN, Method.MEDIAN) and not numeric:
            raise ValueError(
                f'{self.name!r}: a {self.type} has no {impute.method}; it may be "mode" or a value '
                '(write { value = "' + impute.method + '" } if that is the value)'
            )
        if impute.method is Method.VALUE:
            self.check("impute", impute.value)

    @property
    def _fixed(self) -> bool:
        """A tensor whose rows all have the same shape."""
        return self.shape is not None and -1 not in self.shape

    def check(self, key: str, value: object) -> None:
        """Checks that an event could have ``value``, which the card gives under ``key``. Raises ValueError if not."""
        if self.type is FeatureType.TENSOR:
            assert self.dtype is not None, "a tensor has a dtype"
            fits, needed = _is_element(value, self.dtype), f"{self.dtype} element"
        else:
            fits, needed = _is_scalar(value, self.type), str(self.type)
        if not fits:
            hint = f"{near(value, METHODS)}: it may be {_MAY_BE}" if isinstance(value, str) and key == "impute" else ""
            if key == "impute" and isinstance(value, float) and math.isnan(value):
                hint = ': write impute = "nan", in quotes, to hand NaN to a model that knows missing values'
            raise ValueError(f"{self.name!r}: {key} is {value!r}, which is not a {needed}{hint}")
        if self.unseen == "unusable" and self.categories is not None and value not in self.categories:
            raise ValueError(f"{self.name!r}: {key} is {value!r}, which is not one of its categories")

    @property
    def spec(self) -> Spec:
        known = None if self.categories is None or self.unseen == "pass" else frozenset(self.categories)
        return Spec(
            self.name,
            self.type,
            known,
            self.field,
            self.minimum,
            self.maximum,
            self.coerce,
            self.impute is not None and self.impute.method is Method.NAN,
            self.input,
            self._tensor,
        )

    @property
    def _tensor(self) -> TensorSpec | None:
        if self.dtype is None or self.shape is None:
            return None
        length = None if self._fixed else self.max_length or MAX_LENGTH
        empty = "" if self.dtype is DType.STRING else False if self.dtype is DType.BOOL else 0
        pad = empty if self.pad is None else self.pad
        return TensorSpec(self.dtype, self.shape, length, self.truncate, pad, self.mask)


_OF_TENSORS = ("dtype", "shape", "max_length", "truncate", "pad", "mask")


def _tensor_problem(feature: FeatureSection) -> str | None:
    """Why the keys of a tensor do not fit together, or None."""
    given = [key for key in _OF_TENSORS if key in feature.model_fields_set]
    if feature.type is not FeatureType.TENSOR:
        return f"{given[0]}: only a tensor has it, not a {feature.type}" if given else None
    if feature.dtype is None or feature.shape is None:
        missing = "dtype" if feature.dtype is None else "shape"
        example = 'dtype = "float32"' if missing == "dtype" else "shape = [128]"
        return f"{missing}: missing, and a tensor needs it: {example}"
    if feature.coerce:
        return "coerce: the elements of a tensor are not converted"
    if not 1 <= len(feature.shape) <= MOST_DIMENSIONS:
        return f"shape: {list(feature.shape)} has {len(feature.shape)} dimensions; it may have 1 to {MOST_DIMENSIONS}"
    if any(n < 1 and n != -1 for n in feature.shape) or feature.shape.count(-1) > 1:
        return f"shape: {list(feature.shape)}: each dimension is at least 1, and at most one is -1"
    if feature._fixed:
        needless = next((key for key in given if key not in ("dtype", "shape")), None)
        if needless is not None:
            return f"{needless}: only with a -1 in shape, a length that differs by event"
    size = math.prod(abs(n) for n in feature.shape) * (1 if feature._fixed else feature.max_length or MAX_LENGTH)
    if size > MOST_ELEMENTS:
        return f"shape: {list(feature.shape)} has {size} elements; it may have {MOST_ELEMENTS}"
    if feature.pad is not None and not _is_element(feature.pad, feature.dtype):
        return f"pad: {feature.pad!r} is not a {feature.dtype} element"
    return None


def _bounds_problem(feature: FeatureSection) -> str | None:
    """Why ``minimum`` and ``maximum`` do not fit, or None."""
    key = next((key for key in ("minimum", "maximum") if getattr(feature, key) is not None), None)
    if key is None:
        return None
    numbers = feature.type in (FeatureType.FLOAT, FeatureType.INT)
    if not numbers and (feature.dtype is None or feature.dtype in (DType.BOOL, DType.STRING)):
        return f"{key}: only a number has bounds, not a {feature.dtype or feature.type}"
    if feature.minimum is not None and feature.maximum is not None and feature.minimum > feature.maximum:
        return f"minimum: {feature.minimum:g} is over the maximum of {feature.maximum:g}"
    return None


_FLOAT64_MAX = float(np.finfo(np.float64).max)


def _is_scalar(value: object, kind: FeatureType) -> bool:
    match kind:
        case FeatureType.FLOAT:
            return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _FLOAT64_MAX
        case FeatureType.INT:
            return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        case FeatureType.BOOL:
            return isinstance(value, bool)
    return isinstance(value, str)


def _is_element(value: object, dtype: DType) -> bool:
    if dtype in (DType.STRING, DType.BOOL):
        return isinstance(value, str if dtype is DType.STRING else bool)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if dtype.floating:
        return abs(value) <= float(np.finfo(dtype.value).max)
    bounds = np.iinfo(dtype.value)
    return isinstance(value, int) and int(bounds.min) <= value <= int(bounds.max)
