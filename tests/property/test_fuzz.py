"""A short, deterministic run of each target of `make fuzz`, and every input in the corpus."""

from __future__ import annotations

import tomllib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.target import CORPUS
from tests.fuzz.targets import TARGETS

REASONS = CORPUS / "reasons.toml"
CASES = sorted(path for name in TARGETS for path in TARGETS[name].found())

EXAMPLES = 100
"""Examples of each target; with the corpus they take some fifteen seconds."""

BOMBS = (b"[" * 100_000, b'{"a":' * 20_000, b"9" * 100_000, b"a." * 50_000 + b"a = 1", b'"' + b"\\u0000" * 15_000)
MOST_MEMORY = 48 << 20
"""Bytes of memory for an input of a tenth of a megabyte, including what the check itself holds."""


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_the_rule_holds(name: str) -> None:
    """The rule in each target's docstring holds for mutated seeds."""
    target = TARGETS[name]

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(target.inputs)
    def held(data: bytes) -> None:
        target.run(data)

    held()


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_stays_fixed(path: Path) -> None:
    """Each input in the corpus now keeps the rule; reasons.toml states what was wrong."""
    TARGETS[path.parent.name].run(path.read_bytes())


def test_each_case_has_its_reason() -> None:
    """Each input in the corpus has a reason in reasons.toml, and each reason has an input."""
    reasons = tomllib.loads(REASONS.read_text("utf-8"))
    assert {(name, case) for name, cases in reasons.items() for case in cases} == {
        (p.parent.name, p.name) for p in CASES
    }
    assert all(reason.strip() for cases in reasons.values() for reason in cases.values())
    assert CASES


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_is_something(name: str) -> None:
    """Each seed is accepted: mutations of a seed that is refused at its first byte would test nothing."""
    target = TARGETS[name]
    assert target.seeds and all(target.run(seed) for seed in target.seeds)


@pytest.mark.parametrize("name", TARGETS)
def test_a_bomb_takes_bounded_memory(name: str) -> None:
    """Deep nesting, long numbers, names and escapes take bounded memory, alone and inside a valid input."""
    target = TARGETS[name]
    seed = target.seeds[0]
    middle = seed.rfind(b" ", 0, len(seed) // 2) + 1
    tracemalloc.start()
    try:
        for bomb in BOMBS:
            for data in (bomb, seed[:middle] + bomb + seed[middle:]):
                tracemalloc.reset_peak()
                target.check(data)
                peak = tracemalloc.get_traced_memory()[1]
                assert peak < MOST_MEMORY, f"{bomb[:10]!r}…: {peak >> 20} MB"
    finally:
        tracemalloc.stop()
