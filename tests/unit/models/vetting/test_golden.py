"""Golden vectors: which lines are read, and which answers count as expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from failsoft.models.vetting import golden
from failsoft.models.vetting.golden import Golden, mismatches, tolerance
from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.failure import Failure, Kind
from failsoft.schemas.prediction import Prediction

SCORE = Prediction(0.5)


def _read(tmp_path: Path, text: str) -> list[Golden] | None:
    (tmp_path / "golden.ndjson").write_text(text)
    return golden.read(tmp_path / "golden.ndjson")


def test_a_line_is_a_vector(tmp_path: Path) -> None:
    """Empty lines are skipped but counted; label, probabilities and tolerance are optional."""
    text = '{"features": {"x": 1}, "expected": {"score": 1}}\n\n'
    text += (
        '{"features": {}, "expected": {"score": 0.7, "label": "b", "probabilities": [0.3, 0.7]}, "tolerance": 0.1}\n'
    )
    assert _read(tmp_path, text) == [
        Golden(1, {"x": 1}, Prediction(1.0)),
        Golden(3, {}, Prediction(0.7, "b", (0.3, 0.7)), 0.1),
    ]
    assert golden.read(tmp_path / "none.ndjson") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ('{"features": {"x": NaN}, "expected": {"score": 1}}', r"NaN is not JSON \(features.x\): write null"),
        ("", "is empty"),
        ('{"features": {}}', "expected: missing"),
        ('{"features": [], "expected": {"score": 1}}', "features: "),
        ('{"features": {}, "expected": {"score": "1"}}', "expected.score: "),
        ('{"features": {}, "expected": {"score": 1, "lable": 1}}', "did you mean 'label'"),
        ('{"features": {}, "expected": {"score": 1}, "tolerance": -1}', "tolerance: "),
    ],
)
def test_an_invalid_line_is_refused(tmp_path: Path, line: str, message: str) -> None:
    """The message names the file, the line and the key."""
    with pytest.raises(Refused, match=message) as refused:
        _read(tmp_path, line)
    assert "golden.ndjson" in str(refused.value) and (not line or "line 1" in str(refused.value))


def test_a_data_set_is_refused(tmp_path: Path) -> None:
    """A file with too many lines is refused, because it would slow every start."""
    line = '{"features": {}, "expected": {"score": 1}}\n'
    with pytest.raises(Refused, match="10001 lines"):
        _read(tmp_path, line * 10_001)


@pytest.mark.parametrize(
    ("expected", "got", "message"),
    [
        (Prediction(0.5), Prediction(0.50004), ""),
        (Prediction(0.5), Prediction(0.5001), "expected score 0.5, got 0.5001"),
        (Prediction(0.0), Prediction(9e-7), ""),
        (Prediction(0.0), Prediction(2e-6), "2e-06 apart, 1e-06 allowed"),
        (Prediction(1e6), Prediction(1e6 + 99), ""),
        (Prediction(0.5, 1), Prediction(0.5, 1), ""),
        (Prediction(0.5), Prediction(0.5, 1), ""),
        (Prediction(0.5, 1), Prediction(0.5, 0), "expected label 1, got 0"),
        (Prediction(0.5, 1), Prediction(0.5, "1"), "expected label 1, got '1'"),
        (Prediction(0.5, None, (0.5, 0.5)), Prediction(0.5), "expected 2 probabilities, got none"),
        (Prediction(0.5, None, (0.5, 0.5)), Prediction(0.5, None, (0.5, 0.3, 0.2)), "got 3"),
        (Prediction(0.5, None, (0.5, 0.5)), Prediction(0.5, None, (0.5, 0.4)), "expected probabilities[1] 0.5"),
    ],
)
def test_an_answer_is_compared(expected: Prediction, got: Prediction, message: str) -> None:
    """The tolerance is 1e-4 of the number plus 1e-6; a label must be equal; values that the line omits are ignored."""
    sentences = mismatches([Golden(7, {}, expected)], [got])
    assert [f.startswith("line 7: ") and message in f for f in sentences] == ([True] if message else [])


def test_a_tolerance_widens_and_never_narrows() -> None:
    """A line may allow a larger difference than the default, but not a smaller one: float32 is not precise enough."""
    assert mismatches([Golden(1, {}, SCORE, 0.2)], [Prediction(0.69)]) == []
    assert mismatches([Golden(1, {}, SCORE, 0.0)], [Prediction(0.50004)]) == []
    assert mismatches([Golden(1, {}, SCORE, 0.2)], [Prediction(0.71)]) != []


def test_no_answer_is_a_mismatch() -> None:
    """The message says why there is no answer."""
    (message,) = mismatches([Golden(2, {}, SCORE)], [Failure(Kind.INVALID, "feature 'x': missing")])
    assert message == "line 2: expected score 0.5, got no answer (invalid: feature 'x': missing)"


def test_few_mismatches_are_quoted() -> None:
    """The message quotes the first three and says how many more there are."""
    message = golden.describe(["a", "b", "c", "d", "e"], 20)
    assert message == "5 of 20 answers are not as expected: a; b; c; and 2 more"


@pytest.mark.parametrize(
    ("dtype", "expected", "got", "same"),
    [
        ("int64", 1790000000, 1790000001, False),
        ("float64", 1790000000.0, 1790000001.0, False),
        ("float32", 1790000000.0, 1790000001.0, True),
        ("int64", [7, 8.0], [7, 8], True),
    ],
)
def test_carried_outputs_have_their_own_tolerance(dtype: str, expected: Any, got: Any, same: bool) -> None:
    """That of their type, which may differ from the score's; a whole number is an id, and the next one is another."""
    vector = Golden(1, {}, Prediction(1.0, None), outputs={"ids": expected})
    answer = Prediction(1.0, None, outputs={"ids": got})
    assert (not mismatches([vector], [answer], carried={"ids": tolerance(dtype, None)})) == same
