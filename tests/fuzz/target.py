"""A target: seeds, a rule that must hold of whatever bytes come, and the time that it may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzz.mutate import mutated

CORPUS = Path(__file__).parent / "corpus"

LONGEST = 3.0
"""Seconds of this process's own time for one input, of which most take under a millisecond."""


@dataclass(frozen=True, slots=True)
class Target:
    """``check`` takes an input and raises, an AssertionError or anything else, where the rule does not hold. It says
    whether the input was something, not only refused: seeds are, and enough of what is made of them should be.
    """

    name: str
    check: Callable[[bytes], bool]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()

    def run(self, data: bytes) -> bool:
        """The rule, and that it took no longer than it may."""
        began = time.process_time()
        accepted = self.check(data)
        took = time.process_time() - began
        assert took < LONGEST, f"{len(data)} bytes took {took:.1f} s"
        return accepted

    @property
    def inputs(self) -> st.SearchStrategy[bytes]:
        """Mutated seeds; what was found before is a seed too."""
        return mutated((*self.seeds, *(found.read_bytes() for found in self.found())), self.words)

    def found(self) -> list[Path]:
        """The corpus: inputs for which the rule did not hold once."""
        return sorted((CORPUS / self.name).glob("*"))
