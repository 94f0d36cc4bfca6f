"""Refusals: they name the file, the key, the allowed values and a near spelling."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from failsoft.schemas.config.refusal import DEEPEST, MOST_PROBLEMS, Refused, near, refuse, toml


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    deadline: int
    kind: Literal["a", "b"] = "a"

    @field_validator("deadline")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError("must not be negative")
        return value


class _Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: _Inner
    features: list[_Inner] = []
    maybe: _Inner | None = None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"model": {}}, ["model.deadline: missing, and it has no default"]),
        (
            {"model": {"deadline": 1, "deadlin": 2}},
            ["model.deadlin: no such key (did you mean 'deadline'?); known here: deadline, kind"],
        ),
        (
            {"modle": {}, "model": {"deadline": 1}},
            ["modle: no such key (did you mean 'model'?); known here: features, maybe, model"],
        ),
        ({"model": {"deadline": -1}}, ["model.deadline: must not be negative"]),
        ({"model": {"deadline": 1, "kind": "c"}}, ["model.kind: Input should be 'a' or 'b'"]),
        (
            {"model": {"deadline": 1}, "features": [{"deadline": 1}, {"x": 1, "deadline": 1}]},
            ["features[1].x: no such key; known here: deadline, kind"],
        ),
        (
            {"model": {"deadline": 1}, "maybe": {"deadline": 1, "knd": "a"}},
            ["maybe.knd: no such key (did you mean 'kind'?); known here: deadline, kind"],
        ),
        (
            {"model": {"deadline": 1}, "features": "a, b"},
            ["features: 'a, b' is not a list: write its values in brackets, separated by commas"],
        ),
        (
            {"model": {"deadline": 1}, "features": {"deadline": 1}},
            ["features: one table, and not a list of tables: write [[features]] over each"],
        ),
        ({"model": "m"}, ["model: 'm' is not a table: write its keys in braces, or under its name in brackets"]),
        ({"model": {}, "x": 1}, ["model.deadline: missing, and it has no default", None]),
    ],
)
def test_each_mistake_is_a_line_with_its_key(given: dict[str, object], expected: list[str | None]) -> None:
    """A refusal reports every problem, each with its dotted key; None in the cases means any line."""
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate(given)
    refused = refuse("card.toml", caught.value, _Outer)
    assert len(refused.problems) == len(expected)
    assert all(want is None or want == have for want, have in zip(expected, refused.problems, strict=True))


def test_the_message_names_the_file_on_every_line() -> None:
    """Each line of the message names the file, so that it can be understood alone in a terminal or a log."""
    assert str(Refused("p.toml", ["a: b", "c: d"])) == "p.toml: a: b\np.toml: c: d"


def test_only_a_similar_spelling_is_suggested() -> None:
    """A known word is suggested only for a similar spelling."""
    assert near("topcs", ["topics", "format"]) == " (did you mean 'topics'?)"
    assert near("zzz", ["topics", "format"]) == "" and near("x", []) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 20_000, "nested deeper than 32 levels"),
        ("a" + ".b" * 20_000 + " = 1", "nested deeper than 32 levels"),
        ("[x]\na = [" + "9" * 5_000 + "]", "thousands of digits"),
        ("[x]\na = [1, 0x" + "f" * 5_000 + "]", "x.a[1]: a whole number of 20000 bits"),
        ("a = 9223372036854775808", "a: a whole number of 64 bits"),
    ],
    ids=["brackets", "dots", "digits", "hex digits", "64 bits"],
)
def test_a_file_beyond_pythons_limits_is_refused(text: str, message: str) -> None:
    """A file that would later raise RecursionError or ValueError, without file or key, is refused with both."""
    with pytest.raises(Refused) as caught:
        toml("card.toml", text)
    assert caught.value.file == "card.toml" and message in str(caught.value) and len(str(caught.value)) < 1000


def test_values_at_the_limits_are_read() -> None:
    """Nesting and integers exactly at the limits are accepted."""
    assert toml("f", "a" + ".b" * (DEEPEST - 1) + " = 1")
    assert toml("f", "a = [-9223372036854775808, 9223372036854775807]")


def test_a_refusal_is_short_whatever_the_file_holds() -> None:
    """A refusal lists the first problems and the number of others; long keys are cut and control characters escaped."""
    given = {"model": {"deadline": 1}, "k" * 100_000: 1, "\x1b[2J": 1} | {f"k{i}": 1 for i in range(500)}
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate(given)
    refused = refuse("card.toml", caught.value, _Outer)
    assert len(refused.problems) == MOST_PROBLEMS + 1 and refused.problems[-1] == "and 482 more"
    assert len(str(refused)) < 20_000 and "\x1b" not in str(refused)
