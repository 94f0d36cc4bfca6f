"""Owns the vetting of a version in a subprocess with limits: ``vet`` starts ``-m failsoft.models.vetting.gate``.

What a model does there (memory, an endless loop, a native crash) becomes a verdict and does not affect a worker.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version as installed
from pathlib import Path

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact, NotOneFile, Repository, UnknownModel
from failsoft.models.runtime.memory import out_of_memory, over_memory
from failsoft.models.vetting import golden
from failsoft.models.vetting.bounded_process import Limits, bound_memory, confine, mb, run, why_ended
from failsoft.models.vetting.cache import VettingCache
from failsoft.models.vetting.verdict import Check, CheckResult, Vetting, check_of
from failsoft.schemas import wire
from failsoft.schemas.config.refusal import Refused

_LINE = 100_000  # bytes of the longest line that the subprocess writes


def examine(
    repository: Repository,
    card: ModelCard,
    version: int,
    limits: Limits | None = None,
    passes: VettingCache | None = None,
    anew: bool = False,
) -> Vetting:
    """The verdict on a version of the repository; blocks. Raises Refused for a card or version.toml with a mistake.

    If ``passes`` holds a pass for the same files, versions and limits, that pass is returned without a subprocess,
    unless ``anew``. A version that is incomplete, or that changes during the vetting, fails.
    """
    limits = limits or Limits()
    try:
        artifact = repository.artifact(card.name, version)
    except UnknownModel as error:
        return _verdict(card.name, version, "", Check("complete", CheckResult.FAILED, str(error)))
    except NotOneFile as error:
        return _verdict(card.name, version, "", Check("single_file", CheckResult.FAILED, str(error)))
    key = _key(artifact, card, limits)
    cached = passes.recall(key) if passes is not None and not anew else None
    if cached is not None:
        return replace(cached, model=card.name, version=version)  # the same files may have passed as another version
    vetting = vet(artifact, card, limits)
    try:
        settled = key == _key(repository.artifact(card.name, version), card, limits)
    except (UnknownModel, Refused):
        settled = False
    if not settled:
        message = "a file of the version changed during the vetting: it is still being copied, or needs a new number"
        changed = Check("settled", CheckResult.FAILED, message)
        return Vetting(card.name, version, artifact.sha256, (*vetting.checks, changed), vetting.seconds)
    if passes is not None and vetting.passed:
        passes.remember(key, vetting)
    return vetting


def vet(artifact: Artifact, card: ModelCard, limits: Limits | None = None) -> Vetting:
    """The verdict on one version from a subprocess; blocks for at most ``limits.wall`` seconds.

    A failure of the model is part of the verdict and not raised. ``card`` must be the same as the card.toml beside the
    version.
    """
    limits = limits or Limits()
    began = time.monotonic()
    memory = limits.of(artifact.path)
    arguments = [str(artifact.path.absolute()), artifact.sha256, _fingerprint(card), str(memory)]
    try:
        ended = run("failsoft.models.vetting.gate", arguments, limits)
    except OSError as error:
        failure = Check("load", CheckResult.FAILED, f"the vetting's process cannot be started: {error.strerror}")
        return _verdict(artifact.model, artifact.version, artifact.sha256, failure)
    checks, running = _read(ended.out)
    if running is None and out_of_memory(ended.err) and all(c.result is not CheckResult.FAILED for c in checks):
        # ONNX Runtime tries to unfold constants. Without memory for them it warns and loads the model all the same. A
        # worker has no such limit, so there the constants would take the memory.
        unfolds = Check("load", CheckResult.FAILED, over_memory(mb(memory)))
        checks = [unfolds if check.name == "load" else check for check in checks]
    if running is not None:
        checks.append(Check(running, CheckResult.FAILED, why_ended(ended, limits, memory)))
    seconds = round(time.monotonic() - began, 3)
    return Vetting(artifact.model, artifact.version, artifact.sha256, tuple(checks), seconds)


def _verdict(model: str, version: int, sha256: str, check: Check) -> Vetting:
    return Vetting(model, version, sha256, (check,), 0.0)


def _read(out: bytes) -> tuple[list[Check], str | None]:
    """The finished checks, and the name of the check that was running when the subprocess ended (None: it finished)."""
    checks: list[Check] = []
    running: str | None = "load"
    for line in out.splitlines():
        try:
            step = wire.loads(line, _LINE)
            match step:
                case {"begins": str(running)}:
                    continue
                case {"ends": True}:
                    return checks, None
            checks.append(check_of(step))
        except ValueError:  # the process died while it wrote its last line
            break
    return checks, running


def _fingerprint(card: ModelCard) -> str:
    return hashlib.sha256(card.model_dump_json().encode()).hexdigest()


def _key(artifact: Artifact, card: ModelCard, limits: Limits) -> str:
    """A hash of all that a verdict depends on. Raises Refused for a file that cannot be read."""
    import onnxruntime

    folder = artifact.path.parent
    parts = [artifact.sha256, _fingerprint(card), onnxruntime.__version__, installed("failsoft"), repr(asdict(limits))]
    whole = hashlib.sha256("\n".join(parts).encode())
    for name in ("version.toml", golden.FILE):
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise Refused(str(folder / name), [f"cannot be read: {error.strerror}"]) from error
        whole.update(hashlib.sha256(content).digest())
    return whole.hexdigest()


def main(arguments: Sequence[str]) -> None:
    """Runs in the subprocess: PATH SHA256 CARD MEMORY CPU WALL PARENT. Writes a line of JSON per step and an end
    line.
    """
    path, sha256, card, memory, *times = arguments
    out = confine(*times)
    for step in _steps(Path(path), sha256, card, int(memory)):
        os.write(out, wire.dumps(step) + b"\n")
    os.write(out, wire.dumps({"ends": True}) + b"\n")
    os._exit(0)  # skip the runtime's shutdown: a crash in it says nothing about the model


def _steps(path: Path, sha256: str, fingerprint: str, memory: int) -> Iterator[dict[str, str]]:
    from failsoft.models.vetting.checks import run_checks

    bound_memory(memory)
    repository = Repository(path.parents[2])
    model, version = path.parents[1].name, int(path.parent.name)
    yield {"begins": "card"}
    try:
        card = repository.card(model)
        artifact = repository.artifact(model, version)
    except (UnknownModel, Refused) as error:
        yield _as_json(Check("card", CheckResult.FAILED, str(error)))
        return
    if _fingerprint(card) != fingerprint:
        message = "card.toml changed after the worker read it: restart the worker, so that it uses the new one"
        yield _as_json(Check("card", CheckResult.FAILED, message))
        return
    if artifact.sha256 != sha256:
        yield _as_json(Check("settled", CheckResult.FAILED, f"{path} changed after it was checked"))
        return
    for step in run_checks(artifact, card, mb(memory), time.perf_counter):
        yield {"begins": step} if isinstance(step, str) else _as_json(step)


def _as_json(check: Check) -> dict[str, str]:
    """A finished check as the line's JSON object."""
    return {"name": check.name, "result": check.result.value, "message": check.message}


if __name__ == "__main__":
    main(sys.argv[1:])
