"""A version proved in a bounded subprocess before it is trusted: ``vet`` starts ``-m failsoft.models.vetting.gate``.

A model is foreign code with weights. Loading it may take all memory (157 bytes of constants unfold to 770 MB), never
end, or crash natively; each of these is a verdict here, and touches no worker. The process ends with its parent, has
nothing of the parent's environment and open files, and gives up memory, processor time and wall time beyond its limits.
"""

from __future__ import annotations

import hashlib
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version as installed
from pathlib import Path

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.repository import Artifact, NotOneFile, Repository, UnknownModel
from failsoft.models.runtime.memory import out_of_memory, over_memory
from failsoft.models.runtime.parent_death import ender
from failsoft.models.vetting import golden
from failsoft.models.vetting.cache import VettingCache
from failsoft.models.vetting.verdict import Check, CheckResult, Vetting, check_of
from failsoft.schemas import wire
from failsoft.schemas.config.refusal import Refused

_LINE = 100_000
# Where the interpreter's own libraries are may be told by these; without them it would not start.
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# More than numpy's linear algebra needs for rows of features; each thread more is memory that counts.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_LATE = 5
"""Seconds after the parent's limit at which the process ends itself, should nobody have ended it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a vetting may take. On Linux all of it is enforced; elsewhere memory is not.

    ``memory`` is in bytes, beside what Python and ONNX Runtime take, and ``times`` as much as model.onnx is large is
    added to it. ``cpu`` and ``wall`` are seconds, start of the process included.
    """

    # A worker is held to 300 MB in all, so that what unfolds to more than this is a mistake, or wants a larger limit.
    memory: int = 512_000_000
    # Reading, parsing, optimising and packing each hold the weights once for a while.
    times: int = 6
    # A net of 500 MB loads in some 5 s; start and imports take one.
    cpu: float = 30.0
    # Twice that, since the cores may be shared with the workers that answer meanwhile.
    wall: float = 60.0

    def of(self, artifact: Artifact) -> int:
        """Bytes that this version may take."""
        return self.memory + self.times * artifact.path.stat().st_size


def examine(
    repository: Repository,
    card: ModelCard,
    version: int,
    limits: Limits | None = None,
    passes: VettingCache | None = None,
    anew: bool = False,
) -> Vetting:
    """The verdict on a version of the repository, blocking. Raises Refused for a card or version.toml with a mistake.

    A pass that ``passes`` remembers, of the same files, versions and limits, is given back without a subprocess,
    unless ``anew``. A version that is not whole, or that changes meanwhile, fails.
    """
    limits = limits or Limits()
    try:
        artifact = repository.artifact(card.name, version)
    except UnknownModel as error:
        return _verdict(card.name, version, "", Check("complete", CheckResult.FAILED, str(error)))
    except NotOneFile as error:
        return _verdict(card.name, version, "", Check("single_file", CheckResult.FAILED, str(error)))
    key = _key(artifact, card, limits)
    known = passes.recall(key) if passes is not None and not anew else None
    if known is not None:
        return replace(known, model=card.name, version=version)  # the same files passed, maybe under another number
    vetting = vet(artifact, card, limits)
    try:
        settled = key == _key(repository.artifact(card.name, version), card, limits)
    except (UnknownModel, Refused):
        settled = False
    if not settled:
        told = "a file of the version changed while it was vetted: it is still being copied, or needs a new number"
        changed = Check("settled", CheckResult.FAILED, told)
        return Vetting(card.name, version, artifact.sha256, (*vetting.checks, changed), vetting.seconds)
    if passes is not None and vetting.passed:
        passes.remember(key, vetting)
    return vetting


def vet(artifact: Artifact, card: ModelCard, limits: Limits | None = None) -> Vetting:
    """The verdict on one version, by a subprocess, blocking for at most ``limits.wall`` seconds. Raises nothing for
    what the model does; ``card`` must be the one beside it, as it is on disk.
    """
    limits = limits or Limits()
    began = time.monotonic()
    given = [str(artifact.path.absolute()), artifact.sha256, _fingerprint(card), str(limits.of(artifact))]
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "failsoft.models.vetting.gate",
                *given,
                str(limits.cpu),
                str(limits.wall),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            cwd="/",
            start_new_session=True,  # a terminal's Ctrl-C is the parent's to handle
        )
    except OSError as error:
        told = Check("load", CheckResult.FAILED, f"the vetting's process cannot be started: {error.strerror}")
        return _verdict(artifact.model, artifact.version, artifact.sha256, told)
    late = False
    try:
        out, err = process.communicate(timeout=limits.wall)
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
        out, err = process.communicate()
    finally:
        if process.poll() is None:  # the parent is asked to end
            process.kill()
            process.wait()
    checks, doing = _read(out)
    said = err.decode(errors="replace")
    if doing is None and out_of_memory(said) and all(c.result is not CheckResult.FAILED for c in checks):
        # ONNX Runtime tries to unfold constants, warns that it has no memory for them, and goes on without: under these
        # limits it loads, and in a worker, which has none, it takes them all.
        unfolds = Check("load", CheckResult.FAILED, over_memory(_mb(limits.of(artifact))))
        checks = [unfolds if check.name == "load" else check for check in checks]
    if doing is not None:
        why = _why(process.returncode, late, said, limits, limits.of(artifact))
        checks.append(Check(doing, CheckResult.FAILED, why))
    seconds = round(time.monotonic() - began, 3)
    return Vetting(artifact.model, artifact.version, artifact.sha256, tuple(checks), seconds)


def _verdict(model: str, version: int, sha256: str, check: Check) -> Vetting:
    return Vetting(model, version, sha256, (check,), 0.0)


def _environment() -> dict[str, str]:
    """What the process needs to start, and nothing else: passwords for Kafka are in the environment."""
    path = os.pathsep.join(str(Path(each).resolve()) for each in sys.path)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, **_ONE_THREAD, "PYTHONPATH": path, "PYTHONUTF8": "1"}


def _read(out: bytes) -> tuple[list[Check], str | None]:
    """The checks that were made, and the one under way when the process ended: None if it came to its end."""
    checks: list[Check] = []
    doing: str | None = "load"
    for line in out.splitlines():
        try:
            said = wire.loads(line, _LINE)
            match said:
                case {"begins": str(doing)}:
                    continue
                case {"ends": True}:
                    return checks, None
            checks.append(check_of(said))
        except ValueError:  # the last line of a process that died in the middle of it
            break
    return checks, doing


def _why(code: int, late: bool, said: str, limits: Limits, memory: int) -> str:
    """Why a process that did not come to its end did not."""
    if late:
        return f"not done within {limits.wall:g} s, and was stopped: a loop without end, or a limit that is too low"
    if code == -signal.SIGXCPU:
        return f"took more than {limits.cpu:g} s of processor time, and was stopped"
    if out_of_memory(said):
        return over_memory(_mb(memory))
    if code == -signal.SIGKILL:
        return "was killed from outside: the machine has no memory left, most likely"
    if code < 0:
        return f"crashed natively ({signal.Signals(-code).name})"
    last = (said.strip().splitlines() or ["no message"])[-1]
    return f"the vetting's process ended with {code}: {last}"


def _fingerprint(card: ModelCard) -> str:
    return hashlib.sha256(card.model_dump_json().encode()).hexdigest()


def _key(artifact: Artifact, card: ModelCard, limits: Limits) -> str:
    """Of everything that a verdict depends on. Raises Refused for a file that cannot be read."""
    import onnxruntime

    folder = artifact.path.parent
    told = [artifact.sha256, _fingerprint(card), onnxruntime.__version__, installed("failsoft"), repr(asdict(limits))]
    whole = hashlib.sha256("\n".join(told).encode())
    for name in ("version.toml", golden.FILE):
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise Refused(str(folder / name), [f"cannot be read: {error.strerror}"]) from error
        whole.update(hashlib.sha256(content).digest())
    return whole.hexdigest()


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def main(arguments: Sequence[str]) -> None:
    """The process: PATH SHA256 CARD MEMORY CPU WALL PARENT. Writes a line of JSON for each step, and one at the end."""
    path, sha256, card, memory, cpu, wall, parent = arguments
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever else is printed is not ours
    ender(int(parent))()  # elsewhere than on Linux its limits end it
    signal.alarm(math.ceil(float(wall)) + _LATE)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, math.ceil(float(cpu)))
    for said in _steps(Path(path), sha256, card, int(memory)):
        os.write(out, wire.dumps(said) + b"\n")
    os.write(out, wire.dumps({"ends": True}) + b"\n")
    os._exit(0)  # all is said; what a runtime does while it is taken down proves nothing


def _steps(path: Path, sha256: str, fingerprint: str, memory: int) -> Iterator[dict[str, str]]:
    from failsoft.models.vetting.checks import run_checks

    _bound_memory(memory)
    repository = Repository(path.parents[2])
    model, version = path.parents[1].name, int(path.parent.name)
    yield {"begins": "card"}
    try:
        card = repository.card(model)
        artifact = repository.artifact(model, version)
    except (UnknownModel, Refused) as error:
        yield _said(Check("card", CheckResult.FAILED, str(error)))
        return
    if _fingerprint(card) != fingerprint:
        told = "card.toml is not the one that was read before: restart the worker, so that it serves by the new one"
        yield _said(Check("card", CheckResult.FAILED, told))
        return
    if artifact.sha256 != sha256:
        yield _said(Check("settled", CheckResult.FAILED, f"{path} changed after it was checked"))
        return
    for step in run_checks(artifact, card, _mb(memory), time.perf_counter):
        yield {"begins": step} if isinstance(step, str) else _said(step)


def _said(check: Check) -> dict[str, str]:
    return {"name": check.name, "result": check.result.value, "message": check.message}


def _lower(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _bound_memory(memory: int) -> None:
    """RLIMIT_DATA counts what is allocated and not what is reserved or mapped from files, so it is the model's own.

    Only Linux counts so; elsewhere there is no limit but those of time.
    """
    if sys.platform.startswith("linux"):
        status = Path("/proc/self/status").read_text()
        taken = int(status.partition("VmData:")[2].split()[0]) * 1024
        _lower(resource.RLIMIT_DATA, taken + memory)


if __name__ == "__main__":
    main(sys.argv[1:])
