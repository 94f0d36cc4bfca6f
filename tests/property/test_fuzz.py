"""A short run of each target of `make fuzz`, always the same one, and every case that a long run has found."""

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
"""Of each target: with the corpus some fifteen seconds."""

BOMBS = (b"[" * 100_000, b'{"a":' * 20_000, b"9" * 100_000, b"a." * 50_000 + b"a = 1", b'"' + b"\\u0000" * 15_000)
MOST_MEMORY = 48 << 20
"""Bytes at most for a bomb of a tenth of a megabyte, what its check holds itself included."""


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_the_rule_holds(name: str) -> None:
    """The target's docstring is the rule; mutated seeds are held to it."""
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
    """reasons.toml says of each case what was wrong."""
    TARGETS[path.parent.name].run(path.read_bytes())


def test_each_case_has_its_reason() -> None:
    """And each reason its case."""
    told = tomllib.loads(REASONS.read_text("utf-8"))
    assert {(name, case) for name, cases in told.items() for case in cases} == {(p.parent.name, p.name) for p in CASES}
    assert all(reason.strip() for cases in told.values() for reason in cases.values())
    assert CASES


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_is_something(name: str) -> None:
    """What is refused at its first byte shows nothing when it is mutated."""
    target = TARGETS[name]
    assert target.seeds and all(target.run(seed) for seed in target.seeds)


@pytest.mark.parametrize("name", TARGETS)
def test_a_bomb_takes_bounded_memory(name: str) -> None:
    """Nesting, digits, names and escapes, alone and in the middle of what is right."""
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
