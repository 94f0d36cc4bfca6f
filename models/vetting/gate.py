"""Owns the vetting of a version in a subprocess with limits: ``vet`` starts ``-m failsoft.models.vetting.gate``.

A model is foreign code with weights. Loading it may use up the memory (157 bytes of constants unfold to 770 MB), never
end, or crash natively. Each of these becomes a verdict and does not affect a worker. The subprocess ends with its
parent, inherits neither environment nor open files, and is stopped beyond its limits of memory, processor time and wall
time.
"""

from __future__ import annotations

import hashlib
import math
import os
import resource
import signal
import subprocess
import sys
import sysconfig
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

_LINE = 100_000  # bytes of the longest line that the subprocess writes
# These variables may name the folder of the interpreter's own libraries; without them it would not start.
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# One thread is enough for numpy's linear algebra here, and the memory of each further thread counts against the limit.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_LATE = 5
"""Seconds after the wall limit at which the subprocess ends itself, in case its parent has not ended it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a vetting may use. All limits are enforced on Linux; elsewhere the memory limit is not.

    Attributes:
        memory: bytes beyond what Python and ONNX Runtime take.
        times: this many times the size of model.onnx is added to ``memory``.
        cpu: seconds of processor time, the start of the subprocess included.
        wall: seconds of wall time, the start of the subprocess included.
    """

    # A worker should need at most 300 MB in all, so a model that needs more than 512 MB is a mistake or needs a larger
    # limit.
    memory: int = 512_000_000
    # Reading, parsing, optimising and packing each hold a copy of the weights for some time.
    times: int = 6
    # A network of 500 MB loads in about 5 s; start and imports take 1 s.
    cpu: float = 30.0
    # Twice ``cpu``, because workers that answer events may share the cores.
    wall: float = 60.0

    def of(self, artifact: Artifact) -> int:
        """Bytes that this version may take beyond what Python and ONNX Runtime take."""
        return self.memory + self.times * artifact.path.stat().st_size


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
    arguments = [str(artifact.path.absolute()), artifact.sha256, _fingerprint(card), str(limits.of(artifact))]
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "failsoft.models.vetting.gate",
                *arguments,
                str(limits.cpu),
                str(limits.wall),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd="/",
            start_new_session=True,  # the parent handles a terminal's Ctrl-C
        )
    except OSError as error:
        failure = Check("load", CheckResult.FAILED, f"the vetting's process cannot be started: {error.strerror}")
        return _verdict(artifact.model, artifact.version, artifact.sha256, failure)
    late = False
    try:
        out, err = process.communicate(timeout=limits.wall)
    except subprocess.TimeoutExpired:
        late = True
        process.kill()
        out, err = process.communicate()
    finally:
        if process.poll() is None:  # an exception, such as KeyboardInterrupt, ended the wait
            process.kill()
            process.wait()
    checks, running = _read(out)
    stderr = err.decode(errors="replace")
    if running is None and out_of_memory(stderr) and all(c.result is not CheckResult.FAILED for c in checks):
        # ONNX Runtime tries to unfold constants. Without memory for them it warns and loads the model all the same. A
        # worker has no such limit, so there the constants would take the memory.
        unfolds = Check("load", CheckResult.FAILED, over_memory(_mb(limits.of(artifact))))
        checks = [unfolds if check.name == "load" else check for check in checks]
    if running is not None:
        why = why_ended(process.returncode, late, stderr, limits, limits.of(artifact))
        checks.append(Check(running, CheckResult.FAILED, why))
    seconds = round(time.monotonic() - began, 3)
    return Vetting(artifact.model, artifact.version, artifact.sha256, tuple(checks), seconds)


def _verdict(model: str, version: int, sha256: str, check: Check) -> Vetting:
    return Vetting(model, version, sha256, (check,), 0.0)


def environment() -> dict[str, str]:
    """Only the variables that the subprocess needs to start: Kafka's passwords are in the environment."""
    # The standard library and installed packages come first: a user's random.py must not take their place.
    installed_in = [Path(path).resolve() for path in dict.fromkeys(sysconfig.get_paths().values())]
    folders = [Path(each).resolve() for each in sys.path]
    folders.sort(key=lambda folder: not any(folder.is_relative_to(place) for place in installed_in))
    path = os.pathsep.join(map(str, folders))
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, **_ONE_THREAD, "PYTHONPATH": path, "PYTHONUTF8": "1"}


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


def why_ended(code: int, late: bool, stderr: str, limits: Limits, memory: int) -> str:
    """Why a subprocess did not finish. ``code`` is its exit code, negative for a signal; ``memory`` is in bytes."""
    if late:
        return f"not done within {limits.wall:g} s, and was stopped: an endless loop, or a limit that is too low"
    if code == -signal.SIGXCPU:
        return f"took more than {limits.cpu:g} s of processor time, and was stopped"
    if out_of_memory(stderr):
        return over_memory(_mb(memory))
    if code == -signal.SIGKILL:
        return "was killed from outside: most likely the machine has no memory left"
    if code < 0:
        return f"crashed natively ({signal.Signals(-code).name})"
    last = (stderr.strip().splitlines() or ["no message"])[-1]
    return f"the vetting's process ended with {code}: {last}"


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


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def main(arguments: Sequence[str]) -> None:
    """Runs in the subprocess: PATH SHA256 CARD MEMORY CPU WALL PARENT. Writes a line of JSON per step and an end
    line.
    """
    path, sha256, card, memory, cpu, wall, parent = arguments
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # foreign code may print to stdout: drop it
    ender(int(parent))()  # works on Linux only; elsewhere the time limits end this process
    signal.alarm(math.ceil(float(wall)) + _LATE)
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_CPU, math.ceil(float(cpu)))
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
    for step in run_checks(artifact, card, _mb(memory), time.perf_counter):
        yield {"begins": step} if isinstance(step, str) else _as_json(step)


def _as_json(check: Check) -> dict[str, str]:
    """A finished check as the line's JSON object."""
    return {"name": check.name, "result": check.result.value, "message": check.message}


def lower(resource_id: int, limit: int) -> None:
    """Lowers a limit of this process; never raises it above its hard limit."""
    hard = resource.getrlimit(resource_id)[1]
    resource.setrlimit(resource_id, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def bound_memory(memory: int) -> None:
    """Limits memory by RLIMIT_DATA, to what is in use now plus ``memory`` bytes.

    On Linux RLIMIT_DATA counts allocated memory, not reserved memory or files mapped as code, so the limit applies to
    what the model allocates. Other systems count differently, so there only the time limits apply.
    """
    if sys.platform.startswith("linux"):
        status = Path("/proc/self/status").read_text()
        taken = int(status.partition("VmData:")[2].split()[0]) * 1024
        lower(resource.RLIMIT_DATA, taken + memory)


if __name__ == "__main__":
    main(sys.argv[1:])
