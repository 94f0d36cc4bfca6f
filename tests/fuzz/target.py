"""A fuzz target: its seeds, the rule that must hold for any input, and the time limit of one input."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.mutate import mutated

CORPUS = Path(__file__).parent / "corpus"

LONGEST = 3.0
"""Seconds of this process's own CPU time for one input; most inputs take under a millisecond."""


@dataclass(frozen=True, slots=True)
class Target:
    """A fuzz target.

    Attributes:
        name: the target's name.
        check: takes an input and raises any exception if the rule does not hold; returns whether the input was
            accepted.
        seeds: inputs that are accepted.
        words: values that mutations insert.
    """

    name: str
    check: Callable[[bytes], bool]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()

    def run(self, data: bytes) -> bool:
        """Checks the rule and the time limit; returns whether the input was accepted."""
        began = time.process_time()
        accepted = self.check(data)
        took = time.process_time() - began
        assert took < LONGEST, f"{len(data)} bytes took {took:.1f} s"
        return accepted

    @property
    def inputs(self) -> st.SearchStrategy[bytes]:
        """Mutated seeds; the corpus is part of the seeds."""
        return mutated((*self.seeds, *(found.read_bytes() for found in self.found())), self.words)

    def found(self) -> list[Path]:
        """The corpus: inputs for which the rule once failed."""
        return sorted((CORPUS / self.name).glob("*"))
