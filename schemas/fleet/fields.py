"""Field types of the messages between workers, and the validation of messages from outside."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from failsoft.schemas.wire import Malformed

T = TypeVar("T")

_LONGEST_PLACE = 200
"""Characters of a field's path in an error. A worker's id, which can be a key in the path, has up to 200."""

# At most 2**53: beyond it, many JSON readers lose precision. Strict: true and "1" are not accepted as 1.
Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Epoch = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Key = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+@[0-9]{1,18}$", max_length=300)]
Target = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=300)]
Worker = Annotated[str, Field(min_length=1, max_length=200)]  # the limits of a worker's id
Text = Annotated[str, Field(max_length=2_000)]
Who = Annotated[str, Field(max_length=200)]  # who and why together become a row's reason, which must fit into Text
Why = Annotated[str, Field(max_length=1_000)]


def checked(schema: TypeAdapter[T], given: object) -> T:
    """Validate ``given`` with ``schema``. Raises Malformed, which names the invalid field."""
    if not isinstance(given, dict):
        raise Malformed("not a JSON object")  # pydantic would accept an instance of the class without checking it
    try:
        return schema.validate_python(given)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"]))[:_LONGEST_PLACE] or "the message"
        raise Malformed(f"{at}: {first['msg']}") from None
