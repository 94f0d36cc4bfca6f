"""A card's ``[[features]]`` sections: the type of a feature, and its imputation."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, WithJsonSchema, model_validator

from failsoft.models.catalog.fields import METHODS, CardSection, Finite, Method, Value, one_of
from failsoft.schemas.config.key import means
from failsoft.schemas.config.refusal import near
from failsoft.schemas.features import FLOAT32_MAX, FeatureType, Spec

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
        if isinstance(given, (bool, int, float, str)):
            return {"method": Method.VALUE, "value": given}
        if isinstance(given, dict) and set(given) == {"value"}:
            return {"method": Method.VALUE, "value": given["value"]}
        if isinstance(given, dict) and given.get("method") in METHODS:
            fixed = ", or only the value" if "value" in given else ""
            raise ValueError(f'a table has only the key "value": write impute = "{given["method"]}"{fixed}')
        raise ValueError('it may be a value, "mean", "median", "mode", or { value = "mean" } if that word is the value')


_STATISTIC = "the one in version.toml"


class FeatureSection(CardSection):
    """A feature, in the order of the model's columns. An event without it is `invalid` unless `impute` is given."""

    name: Annotated[str, Field(min_length=1), means("The feature's name in the event and in the model.", "car_value")]
    type: Annotated[FeatureType, one_of(FeatureType), means("The type of its JSON value.", "float")]
    required: Annotated[
        StrictBool,
        means("Whether each event must have it. Excludes `impute`.", False, left_out="`true` without `impute`"),
    ] = True
    impute: Annotated[
        Annotated[Imputation, _IMPUTE] | None,
        means(
            "What replaces a missing or unusable value: a statistic of the training data, or a fixed value. "
            '`{ value = "median" }` is a fixed value that is spelled like a statistic. `"last_known"` is reserved: the '
            "workers of this version refuse it.",
            "median",
            0.0,
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
        if self.mode is not None:
            self.check("mode", self.mode)
        if self.impute is not None:
            if self.impute.method in (Method.MEAN, Method.MEDIAN) and not numeric:
                raise ValueError(
                    f'{self.name!r}: a {self.type} has no {self.impute.method}; it may be "mode" or a value '
                    '(write { value = "' + self.impute.method + '" } if that is the value)'
                )
            if self.impute.method is Method.VALUE:
                self.check("impute", self.impute.value)
        return self

    def check(self, key: str, value: object) -> None:
        """Checks that an event could have ``value``, which the card gives under ``key``. Raises ValueError if not."""
        match self.type:
            case FeatureType.FLOAT:
                fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= FLOAT32_MAX
            case FeatureType.INT:
                fits = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
            case FeatureType.BOOL:
                fits = isinstance(value, bool)
            case FeatureType.STRING:
                fits = isinstance(value, str)
        if not fits:
            hint = near(value, METHODS) if isinstance(value, str) else ""
            raise ValueError(f"{self.name!r}: {key} is {value!r}, which is not a {self.type}{hint}")
        if self.unseen == "unusable" and self.categories is not None and value not in self.categories:
            raise ValueError(f"{self.name!r}: {key} is {value!r}, which is not one of its categories")

    @property
    def spec(self) -> Spec:
        known = None if self.categories is None or self.unseen == "pass" else frozenset(self.categories)
        return Spec(self.name, self.type, known)
