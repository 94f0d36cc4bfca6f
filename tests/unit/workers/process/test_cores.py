"""The number of processes for ``--processes auto``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from failsoft.workers.process import cores


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000\n", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
        ("x", 8),
        ("1 0", 8),
    ],
)
def test_a_containers_limit_bounds_the_cores(cpu_max: str, expected: int) -> None:
    """A container may use less than the cores that it sees, and a fraction of a core is still one process."""
    assert cores.limited(8, cpu_max) == expected


@pytest.mark.parametrize(
    ("usable", "limit", "expected"), [(1, None, 1), (2, None, 1), (8, None, 7), (8, "300000 100000", 2)]
)
def test_one_core_is_left_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, usable: int, limit: str | None, expected: int
) -> None:
    """At least one process runs, also on one core. Without the file there is no limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)))
    monkeypatch.setattr(cores, "CPU_MAX", tmp_path / "cpu.max")
    if limit is not None:
        cores.CPU_MAX.write_text(limit)
    assert cores.auto_processes() == expected
