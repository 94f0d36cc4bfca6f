"""Field types of a card (durations, sizes, rates, labels, values) and the base class of its sections."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
)

from failsoft.schemas import wire
from failsoft.schemas.config import duration, size
from failsoft.schemas.config.key import written
from failsoft.schemas.config.refusal import near
from failsoft.schemas.model_version import NAME_PATTERN, check_model_name

Seconds = Annotated[float, BeforeValidator(duration.seconds), written(duration.PATTERN)]
"""Written as a duration ("200ms"), read as seconds."""

Bytes = Annotated[int, BeforeValidator(size.bytes_of), written(size.PATTERN)]
"""Written as a size ("512MB"), read as bytes."""

Rate = Annotated[float, Field(strict=True, gt=0, le=1)]

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]

Probability = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


def _instance(*types: type, words: str) -> BeforeValidator:
    """A validator that accepts only ``types``. For a union, pydantic would name each member in a key of its own."""

    def check(given: Any) -> Any:
        if type(given) in types:
            return given
        raise ValueError(f"{given!r}: it may be {words}")

    return BeforeValidator(check)


Label = Annotated[
    Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | StrictStr, _instance(int, str, words="a whole number or text")
]
"""A number or a string. Numbers have at most 64 bits, because JSON writers support no more."""


def toml(value: bool | int | float | str) -> str:
    """A label, a name, a text or a value as a card writes it: what JSON writes is TOML too."""
    return wire.dumps(value).decode()


def listed(values: Iterable[int | str]) -> str:
    """The values as a TOML array."""
    return f"[{', '.join(map(toml, values))}]"


Value = Annotated[bool | int | float | str, _instance(bool, int, float, str, words="a number, text, true or false")]
"""A feature's value as TOML gives it. The feature's ``type`` decides which of these types it accepts."""


class OutputKind(StrEnum):
    """The meaning of a model's output."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    ANOMALY = "anomaly"


class Method(StrEnum):
    """How a missing value is imputed. The statistics are those of the training data; ``nan`` leaves it to the model."""

    VALUE = "value"
    MEAN = "mean"
    MEDIAN = "median"
    MODE = "mode"
    LAST_KNOWN = "last_known"
    NAN = "nan"

    @property
    def statistic(self) -> bool:
        return self in (Method.MEAN, Method.MEDIAN, Method.MODE)


METHODS = [method.value for method in Method if method is not Method.VALUE]


def one_of(known: Iterable[str]) -> BeforeValidator:
    """A validator that accepts the words ``known``. It refuses others, with the nearest spelling in the message."""
    words = [str(word) for word in known]

    def check(given: Any) -> Any:
        if given is None or given in words:  # None: left out, in a card that is sent to another process
            return given
        raise ValueError(f"{given!r} is none of {', '.join(map(repr, words))}{near(str(given), words)}")

    return BeforeValidator(check)


ModelName = Annotated[str, AfterValidator(check_model_name), written(NAME_PATTERN)]
"""The name of a model: also the name of its folder."""


class CardSection(BaseModel):
    """A table of card.toml: an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
