"""Owns a vetting's verdict: named checks and their results, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from failsoft.schemas import wire
from failsoft.schemas.model_version import ModelVersion

MAX_BYTES = 1_000_000
"""Largest verdict as JSON. A dozen checks with a sentence each take two thousand bytes."""


class CheckResult(StrEnum):
    """How a check ended. Only FAILED keeps a version from serving; a NOTE is information for the operator."""

    PASSED = "passed"
    NOTE = "note"
    SKIPPED = "skipped"
    FAILED = "failed"


CHECKS: Mapping[str, str] = {
    "complete": "the version is complete: model.onnx exists and has the sha256 that version.toml gives",
    "checksum": "model.onnx has the sha256 that version.toml gives",
    "single_file": "the weights are inside model.onnx",
    "card": "the card is the one that the worker read",
    "load": "ONNX Runtime loads it, within the limits of memory and time",
    "contract": "names and types of inputs and outputs fit the card; batches have no fixed size",
    "output": "its answers to sample rows have the right shape and range",
    "golden": "it gives the answers in golden.ndjson, with features imputed as in live scoring",
    "activation": "the card's activation is that of the model's logits, and not one of probabilities",
    "labels": "its own label output agrees with the card about the sample rows",
    "batch": "it takes 1, 2 and 64 rows, and a row's answer does not depend on its neighbours",
    "maps": "what it costs that its probabilities are maps (ZipMap)",
    "length": "it takes rows as long as max_length, and empty ones",
    "nan": "its answer when a float feature is NaN",
    "time": "the time of the first run and of a row, against the card's deadline",
    "settled": "no file of the version changed during the vetting",
}
"""Each check and what it verifies, in the order in which the checks run."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: a key of CHECKS.
        result: how it ended.
        message: what was found and, if it failed, what to do.
    """

    name: str
    result: CheckResult
    message: str


@dataclass(frozen=True, slots=True)
class Vetting:
    """The verdict on one version.

    Attributes:
        model: the model's name.
        version: the version's number.
        sha256: of the model.onnx that was vetted (hex), "" if there was none.
        checks: the checks that ran, in order.
        seconds: how long the vetting took.
    """

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
        """The version may serve. A verdict without checks does not pass."""
        return bool(self.checks) and not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.result is CheckResult.FAILED)

    def describe(self) -> str:
        """The failed checks in one line, for logs and alerts."""
        return "; ".join(f"{check.name}: {check.message}" for check in self.failed)

    def to_bytes(self) -> bytes:
        """The verdict as one JSON object."""
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
        """Reads what ``to_bytes`` wrote. Raises Malformed for anything else."""
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
        raise wire.Malformed("not a verdict: a key is missing or has another type")


def check_of(given: Any) -> Check:
    """Reads a check from its JSON object. Raises ValueError."""
    match given:
        case {"name": str(name), "result": str(result), "message": str(message)} if name in CHECKS:
            return Check(name, CheckResult(result), message)
    raise ValueError("a check has one of the known names, a result and a message")
