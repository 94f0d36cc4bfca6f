"""What a vetting found: named checks and their results, frozen, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.model_version import ModelVersion

MAX_BYTES = 1_000_000
"""Of a verdict as JSON: a dozen checks with a sentence each are two thousand."""


class CheckResult(StrEnum):
    """How a check ended. Only FAILED keeps a version from serving; a NOTE is for a person to read."""

    PASSED = "passed"
    NOTE = "note"
    SKIPPED = "skipped"
    FAILED = "failed"


CHECKS: Mapping[str, str] = {
    "complete": "the version is whole: its model.onnx is there, and is what version.toml's sha256 says",
    "checksum": "model.onnx is the file whose sha256 version.toml has",
    "single_file": "the weights are inside model.onnx",
    "card": "the card is the one that the worker read",
    "load": "ONNX Runtime loads it, within the limits of memory and time",
    "contract": "names and types of inputs and outputs fit the card; batches have no fixed size",
    "output": "shape and range of what it answers to sample rows",
    "batch": "it takes 1, 2 and 64 rows, and a row's answer does not depend on its neighbours",
    "golden": "the answers that golden.ndjson expects, imputed as live",
    "nan": "what it answers when a float feature is NaN",
    "time": "warm-up, and a row's time against the card's deadline",
    "settled": "no file of the version changed while it was vetted",
}
"""Each check and what it holds, in the order in which they are made."""


@dataclass(frozen=True, slots=True)
class Check:
    """One of CHECKS by name; ``message`` is for people: what was found and, when failed, what to do."""

    name: str
    result: CheckResult
    message: str


@dataclass(frozen=True, slots=True)
class Vetting:
    """The verdict on one version. ``sha256`` (hex) is of the model.onnx that was vetted; ``seconds`` it took."""

    model: str
    version: int
    sha256: str
    checks: tuple[Check, ...]
    seconds: float

    @property
    def key(self) -> str:
        return str(ModelVersion(self.model, self.version))

    @property
    def passed(self) -> bool:
        """It may serve. A verdict without a check proves nothing."""
        return bool(self.checks) and not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.result is CheckResult.FAILED)

    def describe(self) -> str:
        """The failed checks in one line, for logs and alerts."""
        return "; ".join(f"{check.name}: {check.message}" for check in self.failed)

    def to_bytes(self) -> bytes:
        """As one JSON object."""
        checks = [{"name": c.name, "result": c.result.value, "message": c.message} for c in self.checks]
        return wire.dumps(
            {
                "model": self.model,
                "version": self.version,
                "sha256": self.sha256,
                "checks": checks,
                "seconds": self.seconds,
            }
        )

    @classmethod
    def parse(cls, raw: bytes) -> Vetting:
        """What ``to_bytes`` wrote. Raises Malformed for anything else."""
        try:
            match wire.loads(raw, MAX_BYTES):
                case {
                    "model": str(model),
                    "version": int(version),
                    "sha256": str(sha256),
                    "checks": list(checks),
                    "seconds": int() | float() as seconds,
                }:
                    return cls(model, version, sha256, tuple(map(check_of, checks)), float(seconds))
        except ValueError as error:
            raise wire.Malformed(f"not a verdict: {error}") from None
        raise wire.Malformed("not a verdict: a key is missing, or is of another type")


def check_of(given: Any) -> Check:
    """A check as JSON objects hold it. Raises ValueError."""
    match given:
        case {"name": str(name), "result": str(result), "message": str(message)} if name in CHECKS:
            return Check(name, CheckResult(result), message)
    raise ValueError("a check has one of the known names, a result and a message")
