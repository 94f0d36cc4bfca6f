"""Types of fields that messages between workers share, and how a value from outside becomes one of their classes."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from failsoft.schemas.wire import Malformed

T = TypeVar("T")

_LONGEST_PLACE = 200
"""Characters of a field's place in an error: a worker's name, which is a key in it, has so many."""

# Past 2**53 other readers' JSON numbers are not exact. Strict: true is no 1, and "1" is none either.
Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Epoch = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Key = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+@[0-9]{1,18}$", max_length=300)]
Target = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=300)]
Worker = Annotated[str, Field(min_length=1, max_length=200)]  # as workers' ids are
Text = Annotated[str, Field(max_length=2_000)]
Who = Annotated[str, Field(max_length=200)]  # who and why make a row's reason, which has a limit of its own
Why = Annotated[str, Field(max_length=1_000)]


def checked(schema: TypeAdapter[T], given: object) -> T:
    """``given`` as ``schema`` has it. Raises Malformed, naming the field."""
    if not isinstance(given, dict):
        raise Malformed("not a JSON object")  # otherwise an instance, of which nothing is checked, would pass
    try:
        return schema.validate_python(given)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"]))[:_LONGEST_PLACE] or "the whole"
        raise Malformed(f"{at}: {first['msg']}") from None
