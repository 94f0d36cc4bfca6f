"""Field types of a card: durations, rates, labels, and the base of every section."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
)

from failsoft.schemas.config import duration, size
from failsoft.schemas.config.key import written
from failsoft.schemas.config.refusal import near

Seconds = Annotated[float, BeforeValidator(duration.seconds), written(duration.PATTERN)]
"""Written as a duration ("200ms"), read as seconds."""

Bytes = Annotated[int, BeforeValidator(size.bytes_of), written(size.PATTERN)]
"""Written as a size ("512MB"), read as bytes."""

Rate = Annotated[float, Field(strict=True, gt=0, le=1)]

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]

Label = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | StrictStr
"""JSON writers stop at 64 bits."""

Value = bool | int | float | str
"""A feature's value as TOML gives it; which of them a feature takes is its ``type``'s to say."""


class OutputKind(StrEnum):
    """What the model's output means."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"
    ANOMALY = "anomaly"


class Method(StrEnum):
    """How a missing value is made up for; a statistic is of the training data."""

    VALUE = "value"
    MEAN = "mean"
    MEDIAN = "median"
    MODE = "mode"
    LAST_KNOWN = "last_known"

    @property
    def statistic(self) -> bool:
        return self in (Method.MEAN, Method.MEDIAN, Method.MODE)


METHODS = [method.value for method in Method if method is not Method.VALUE]


def one_of(known: Iterable[str]) -> BeforeValidator:
    """One of the words ``known``; another is refused with its near spelling."""
    words = [str(word) for word in known]

    def check(given: Any) -> Any:
        if given in words:
            return given
        raise ValueError(f"{given!r} is none of {', '.join(map(repr, words))}{near(str(given), words)}")

    return BeforeValidator(check)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
